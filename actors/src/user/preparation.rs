//! What hooks add to the commit that stores a message ([`Prepare`]), and what waits for that.
//!
//! A preparation reads the store, and must see everything that came before: it runs when its step is the first of those that wait.
//! Commits of later steps are held until it is done, so archives stay in order. Most messages have no hook that wants anything:
//! nothing is held, and a commit goes to the batcher at once.

use std::collections::VecDeque;

use rookery_cluster::store::{self, Class, Edit, Error, Ops};
use rookery_cluster::tables::archive::Collection;
use tokio::sync::oneshot;

use super::deliver::Outcome;
use super::{Msg, User};
use crate::features::contract::{Place, Prepare, Then};

/// What is committed with a step.
pub(super) struct Commit {
    pub(super) ops: Ops,
    /// What hooks add to it.
    pub(super) prepare: Vec<Prepare>,
    /// Where the step's message is stored.
    pub(super) place: Collection,
}

impl From<Ops> for Commit {
    fn from(ops: Ops) -> Self {
        Self { ops, prepare: Vec::new(), place: Collection::Archive }
    }
}

impl Commit {
    /// Writes, and what hooks add to them.
    pub(super) fn new(ops: Ops, prepare: Vec<Prepare>, place: Collection) -> Self {
        Self { ops, prepare, place }
    }
}

enum Item {
    /// The writes of a step.
    Commit(Commit),
    /// Somebody waits until everything before is with the batcher.
    Read(oneshot::Sender<()>),
}

/// What waits for a preparation, each with the number of its step. No more than the steps that wait, and the reads under way.
#[derive(Default)]
pub(super) struct Held {
    items: VecDeque<(u64, Item)>,
    /// The first of them is being prepared.
    under_way: bool,
    /// The steps have got other numbers than their held writes say.
    renumbered: bool,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All steps have got other numbers.
    pub(super) fn renumber(&mut self) {
        self.renumbered |= !self.is_empty();
    }

    fn holds(&self, seq: u64) -> bool {
        self.items.front().is_some_and(|(first, _)| *first < seq)
    }

    fn push(&mut self, seq: u64, item: Item) {
        let at = self.items.partition_point(|(other, _)| *other <= seq);
        self.items.insert(at, (seq, item));
    }
}

impl User {
    /// Commits what belongs to the step `seq`, which waits for that.
    pub(super) fn commit_step(&mut self, seq: u64, commit: Commit) {
        if commit.prepare.is_empty() && !self.pending.held.holds(seq) {
            if !self.submit_step(seq, commit.ops, Vec::new()) {
                self.committed(seq, Outcome::Later);
            }
            return;
        }
        self.pending.held.push(seq, Item::Commit(commit));
        self.go_on_committing();
    }

    /// What a read must wait for that is to see everything that came before, beside a flush of the batcher; `None` for nothing.
    pub(super) fn all_submitted(&mut self) -> Option<oneshot::Receiver<()>> {
        if self.pending.held.is_empty() {
            return None;
        }
        let (submitted, wait) = oneshot::channel();
        let next = self.pending.first + self.pending.waiting.len() as u64;
        self.pending.held.push(next, Item::Read(submitted));
        Some(wait)
    }

    /// Commits what is held, up to the next that must be prepared.
    pub(super) fn go_on_committing(&mut self) {
        while let Some((seq, item)) = self.pending.held.items.front() {
            let seq = *seq;
            if let Item::Commit(commit) = item
                && !commit.prepare.is_empty()
                && !self.is_nobody()
            {
                let place = Place { owner: self.entity.clone(), collection: commit.place };
                let prepare = commit.prepare.clone();
                return self.prepare(seq, place, prepare);
            }
            match self.pending.held.items.pop_front() {
                Some((_, Item::Commit(commit))) => self.submit_held(seq, commit.ops, Vec::new()),
                Some((_, Item::Read(submitted))) => drop(submitted.send(())),
                None => return,
            }
        }
        self.pending.held = Held::default();
    }

    fn prepare(&mut self, seq: u64, place: Place, prepare: Vec<Prepare>) {
        if seq != self.pending.first || std::mem::replace(&mut self.pending.held.under_way, true) {
            return;
        }
        let store = self.host.store().clone();
        self.spawn(async move {
            let work = async move {
                let mut edits = Vec::new();
                for prepare in prepare {
                    edits.extend(prepare.run(store.clone(), place.clone()).await?);
                }
                Ok(edits)
            };
            // A panic in a hook is the end of its message, and not of all that come behind.
            let failed = |_| Err(Error::new(Class::Misuse, "a hook failed"));
            let edits = tokio::spawn(work).await.unwrap_or_else(failed);
            let then: Then = Box::new(move |user: &mut User| user.prepared(seq, edits));
            then
        });
    }

    fn prepared(&mut self, seq: u64, edits: store::Result<Vec<Edit>>) {
        self.pending.held.under_way = false;
        if self.pending.held.items.front().is_none_or(|(first, _)| *first != seq) {
            return; // the user lives elsewhere
        }
        let Some((_, Item::Commit(commit))) = self.pending.held.items.pop_front() else { return };
        match edits {
            Ok(edits) => self.submit_held(seq, commit.ops, edits),
            Err(error) => {
                tracing::debug!(user = %self.jid, %error, "a message is not stored: what belongs to it could not be read");
                self.tell_outcome(seq, Outcome::of(Err(error.class)));
            }
        }
        self.go_on_committing();
    }

    fn submit_held(&mut self, seq: u64, ops: Ops, edits: Vec<Edit>) {
        if self.is_nobody() {
            return self.tell_outcome(seq, Outcome::Never); // nothing is written for an account that was removed
        }
        self.pending.stale |= self.pending.held.renumbered;
        if !self.submit_step(seq, ops, edits) {
            self.tell_outcome(seq, Outcome::Later);
        }
    }

    /// A commit has not come as far as the batcher. Its step hears so in a message of its own: there may be many.
    fn tell_outcome(&self, seq: u64, outcome: Outcome) {
        if let Some(me) = &self.me {
            let _ = me.cast_always(Msg::Then(Box::new(move |user| user.committed(seq, outcome))));
        }
    }
}
