//! Commits that must be prepared, and those that wait behind one.
//!
//! A preparation reads what its step's writes depend on, and must see all that came before: it runs when its step is the front, so
//! everything before is stored or refused. A preparation may take its time: other entities do not wait for it, as they would if it read
//! within the batcher's transaction. The commits of later steps are held until it is done, so the order of the writes is that of the
//! steps. Where no step asks for this, nothing is held and commits go to the batcher at once.

use std::collections::VecDeque;
use std::sync::Arc;

use rookery_cluster::store::{Class, Edit, Error, Fut, Ops, Result};
use tokio::sync::oneshot;

use super::{Answer, CommitQueue, Committed, Outcome};
use crate::runtime::actor::{Actor, Handle};

/// Reads what an entity's writes depend on. Returns what the transaction is to do beside the writes ([`Edit`]). A preparation may run more
/// than once. If a preparation fails, its step is not stored.
pub(crate) type Preparation = Arc<dyn Fn() -> Fut<'static, Result<Vec<Edit>>> + Send + Sync>;

/// What is committed with a step.
pub(crate) struct Commit {
    pub(crate) ops: Ops,
    /// What is read before; most have none.
    pub(crate) prepare: Vec<Preparation>,
}

impl From<Ops> for Commit {
    fn from(ops: Ops) -> Self {
        Self { ops, prepare: Vec::new() }
    }
}

/// The actor whose queue it is.
trait Owner<S>: Send {
    fn submit(&self, queue: &mut CommitQueue<S>, seq: u64, ops: Ops, edits: Vec<Edit>);
    fn tell(&self, committed: Committed);
    fn prepare(&self, seq: u64, prepare: Vec<Preparation>);
}

impl<S, R> Owner<S> for Handle<R>
where
    R: Actor,
    R::Msg: From<Committed>,
{
    fn submit(&self, queue: &mut CommitQueue<S>, seq: u64, ops: Ops, edits: Vec<Edit>) {
        queue.submit_now(self, seq, ops, edits);
    }

    fn tell(&self, committed: Committed) {
        let _ = self.cast_always(committed.into());
    }

    fn prepare(&self, seq: u64, prepare: Vec<Preparation>) {
        let me = self.clone();
        tokio::spawn(async move {
            let work = async move {
                let mut edits = Vec::new();
                for prepare in prepare {
                    edits.extend(prepare().await?);
                }
                Ok(edits)
            };
            // A panic is the end of this step, and not of all that come behind.
            let failed = |_| Err(Error::new(Class::Misuse, "the preparation of a commit failed"));
            let edits = tokio::spawn(work).await.unwrap_or_else(failed);
            let _ = me.cast_always(Committed { seq, answer: Answer::Prepared(edits) }.into());
        });
    }
}

enum Item<S> {
    /// The writes of a step.
    Commit(Box<Commit>, Box<dyn Owner<S>>),
    /// Somebody waits until everything before is with the batcher.
    Read(oneshot::Sender<()>),
}

/// What waits for a preparation, each with the number of its step. No more than the steps that wait, and the reads that its owner has
/// begun.
pub(super) struct Held<S> {
    items: VecDeque<(u64, Item<S>)>,
    /// The first of them is being prepared.
    under_way: bool,
}

impl<S> Default for Held<S> {
    fn default() -> Self {
        Self { items: VecDeque::new(), under_way: false }
    }
}

impl<S> Held<S> {
    fn push(&mut self, seq: u64, item: Item<S>) {
        let at = self.items.partition_point(|(other, _)| *other <= seq);
        self.items.insert(at, (seq, item));
    }
}

impl<S> CommitQueue<S> {
    /// Submits the writes of a step, or holds them if they must be prepared, or if those of an earlier step are held.
    pub(crate) fn submit<R>(&mut self, me: &Handle<R>, seq: u64, commit: impl Into<Commit>)
    where
        R: Actor,
        R::Msg: From<Committed>,
    {
        let commit = commit.into();
        let behind = self.held.items.front().is_some_and(|(first, _)| *first < seq);
        if commit.prepare.is_empty() && !behind {
            return self.submit_now(me, seq, commit.ops, Vec::new());
        }
        self.held.push(seq, Item::Commit(Box::new(commit), Box::new(me.clone())));
        self.go_on();
    }

    /// The first step whose writes are held; those of later steps are held as well.
    pub(crate) fn first_held(&self) -> Option<u64> {
        self.held.items.front().map(|(seq, _)| *seq)
    }

    /// How many steps that are held must be prepared.
    pub(crate) fn prepares(&self) -> usize {
        let prepared = |item: &Item<S>| matches!(item, Item::Commit(commit, _) if !commit.prepare.is_empty());
        self.held.items.iter().filter(|(_, item)| prepared(item)).count()
    }

    /// What a read must wait for that is to see the writes of all steps entered so far, before it flushes the batcher; `None` for
    /// nothing. An error means that the queue is no more.
    pub(crate) fn all_submitted(&mut self) -> Option<oneshot::Receiver<()>> {
        if self.held.items.is_empty() {
            return None;
        }
        let (submitted, wait) = oneshot::channel();
        self.held.push(self.next_seq(), Item::Read(submitted));
        Some(wait)
    }

    /// Submits what is held, up to the next step that must be prepared.
    pub(super) fn go_on(&mut self) {
        if self.held.items.is_empty() {
            return; // almost always
        }
        while let Some((seq, item)) = self.held.items.front() {
            let seq = *seq;
            if let Item::Commit(commit, me) = item
                && !commit.prepare.is_empty()
                && seq >= self.first
            {
                if seq == self.first && !std::mem::replace(&mut self.held.under_way, true) {
                    me.prepare(seq, commit.prepare.clone());
                }
                return;
            }
            match self.held.items.pop_front() {
                Some((_, Item::Commit(commit, me))) if seq >= self.first => {
                    me.submit(self, seq, commit.ops, Vec::new());
                }
                // Its step is over, and so is its preparation.
                Some((_, Item::Commit(commit, _))) => self.held.under_way &= commit.prepare.is_empty(),
                Some((_, Item::Read(submitted))) => drop(submitted.send(())),
                None => return,
            }
        }
        self.held = Held::default();
    }

    /// A step's writes are prepared. Returns the outcome if they are not to be had.
    pub(super) fn prepared(&mut self, seq: u64, edits: Result<Vec<Edit>>) -> Option<Outcome> {
        if !self.held.under_way || self.first_held() != Some(seq) {
            return None; // its step is over
        }
        self.held.under_way = false;
        let Some((_, Item::Commit(commit, me))) = self.held.items.pop_front() else { return None };
        let outcome = match edits {
            Ok(edits) => {
                me.submit(self, seq, commit.ops, edits);
                None
            }
            Err(error) => {
                tracing::debug!(entity = %self.entity, %error, "a step is not stored: what it depends on could not be read");
                Some(Outcome::of(Err(error.class)))
            }
        };
        self.go_on();
        outcome
    }

    /// The entity is no more: nothing that is held is written, and its steps fail.
    pub(crate) fn refuse_held(&mut self) {
        for (seq, item) in std::mem::take(&mut self.held).items {
            if let Item::Commit(_, me) = item {
                me.tell(Committed {
                    seq,
                    answer: Answer::Outcome { outcome: Outcome::Never, counted: false },
                });
            }
        }
    }
}
