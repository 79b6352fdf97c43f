//! The order of things: a message reaches the user's sessions after its commit, and in the order of the archive.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store::{Class, Edit, Line, Writes};
use rookery_cluster::tables::archive::{ArchiveId, Collection};
use rookery_cluster::tables::{archive, seen};
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;

use super::numbers::{self, Numbers};
use super::offline::Ready;
use super::preparation::{Commit, Held};
use super::session_queue::Origin;
use super::share::{About, Owed, Share};
use super::worth::worth_keeping;
use super::{Msg, User, UserSession};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::{Kept, Outgoing};
use crate::features::contract::{Direction, Prepare};
use crate::features::{xep_0280_carbons as carbons, xep_0359_stanza_ids as stanza_ids};
use crate::session::{Delivery, SessionId};

/// What is to be done once a commit is there.
pub(super) enum Step {
    /// Deliver a message to the user's sessions.
    In { stanza: Arc<Stanza>, id: Option<ArchiveId>, owed: Owed, copies: bool, receipt: Receipt },
    /// Copy a message that one of the user's sessions sent to the others.
    Sent { stanza: Arc<Stanza>, id: Option<ArchiveId>, copies: bool, sid: SessionId, receipt: Receipt },
    /// It is safe in the offline queue; there is nobody to deliver it to.
    Kept { stanza: Arc<Stanza>, receipt: Receipt },
    /// It has come before, and what became of it then is not known yet.
    Again { stanza: Arc<Stanza>, origin: Origin, receipt: Receipt },
    /// It is safe in the offline queue; a session has it, with this number, for its client to confirm.
    Held { sid: SessionId, number: u32, id: ArchiveId, stanza: Arc<Stanza>, receipt: Receipt },
    /// Send a session what was read for it.
    Page(Box<Ready>),
}

impl Step {
    /// How many stanzas each session gets by it.
    pub(super) fn stanzas(&self) -> u32 {
        match self {
            Self::Page(page) => u32::try_from(page.items.len()).unwrap_or(u32::MAX),
            _ => 1,
        }
    }

    /// The user lives on another node. What its own sessions sent comes again by their connections, which end for that; who else
    /// has sent something hears that it is lost.
    pub(super) fn leave(self) {
        if let Self::Sent { receipt, .. } = self {
            receipt.leave();
        }
    }
}

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Stored,
    /// The store did not take it now.
    Later,
    /// Nor will it ever.
    Never,
    /// The user lives on another node.
    Elsewhere,
}

impl Outcome {
    pub(super) fn of(result: Result<(), Class>) -> Self {
        match result {
            Ok(()) => Self::Stored,
            Err(class) if class.repeats() || class == Class::Full => Self::Later,
            Err(_) => Self::Never,
        }
    }
}

pub(super) struct Waiting {
    pub(super) step: Step,
    /// `None` while the commit is under way.
    pub(super) outcome: Option<Outcome>,
    /// What was committed with it.
    pub(super) numbers: Numbers,
    /// Whose stanza it is.
    pub(super) origin: Origin,
    /// What hooks add to its commit, should that be tried again.
    pub(super) prepare: Vec<Prepare>,
}

/// The messages that wait for their commit, or behind one that does.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) waiting: VecDeque<Waiting>,
    /// The sequence number of the front.
    pub(super) first: u64,
    /// How often the front was renumbered.
    pub(super) tries: u8,
    /// The store has other numbers than the steps.
    pub(super) stale: bool,
    /// What one of the user's sessions has sent and was refused: it leaves the archive when it has come there.
    pub(super) taken_back: Vec<(ArchiveId, Origin)>,
    /// What others have sent and the store did not take: should it come again, it is refused again.
    pub(super) refused: VecDeque<(SessionId, u32, Condition)>,
    /// What is committed says what came before: that must be stored then.
    pub(super) line: Option<Line>,
    /// The commits that wait for what hooks add to one of them.
    pub(super) held: Held,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= PENDING
    }
}

/// How many messages of one user may wait for the store.
const PENDING: usize = 2_048;

/// How long a message that the fence has refused waits until the user hears that it lives on another node: what is told of that
/// has read the same rows.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// What a sender is told whose message the store did not take.
pub(super) const BUSY: &str = "the store is busy, try again";

/// The writes of one message.
pub(super) use rookery_cluster::store::Ops;

impl User {
    /// Writes in the background what may as well be lost in a crash.
    pub(super) fn submit(&self, ops: Ops) {
        if ops.is_empty() {
            return;
        }
        let _ = self.host.batcher().submit(Writes::new(&self.entity, ops), |_| {});
    }

    /// The next archive id.
    pub(super) fn next_id(&mut self) -> ArchiveId {
        self.ids.next(self.host.seams().clock.now_micros(), self.epoch)
    }

    /// What is kept of a message.
    pub(super) fn entry(&self, direction: Direction, stanza: &Stanza, with: &BareJid) -> archive::Entry {
        let mut bytes = Vec::with_capacity(256);
        stanza.write(&mut bytes);
        let other = match direction {
            Direction::In => stanza.from.as_ref(),
            Direction::Out => stanza.to.as_ref(),
        };
        archive::Entry {
            with: with.as_str().to_owned(),
            with_full: other
                .filter(|jid| jid.resource().is_some())
                .map(|jid| jid.as_str().to_owned())
                .unwrap_or_default(),
            direction: match direction {
                Direction::In => archive::Direction::In.into(),
                Direction::Out => archive::Direction::Out.into(),
            },
            stanza: bytes.into(),
            stored_at: self.host.seams().clock.now_micros(),
            flags: 0,
            sent: Vec::new(),
        }
    }

    /// The writes that keep a message, at `place`, under a new id.
    pub(super) fn keep(
        &mut self,
        place: Collection,
        id: ArchiveId,
        entry: &archive::Entry,
        origin: Option<(SessionId, u32)>,
    ) -> Ops {
        let mut ops = Ops::new();
        let last_day = if place == Collection::Archive { self.day } else { self.queue_day };
        // Only a stanza over every limit of a stream could be too large.
        let day = archive::append(&mut ops, place, &self.entity, id, entry, last_day).ok();
        match place {
            Collection::Archive => self.day = day,
            Collection::Queue => self.queue_day = day,
        }
        if let Some((sid, n)) = origin {
            // In the same transaction: when the stanza comes again, it is known to be here.
            let row = self.remember_kept(sid, n, entry.stored_at);
            seen::put(&mut ops, &self.entity, &sid.0, row);
        }
        ops
    }

    /// Archives a message of `entry` and then takes its step, after everything that came before it.
    pub(super) fn archive(
        &mut self,
        id: ArchiveId,
        mut entry: archive::Entry,
        origin: Option<(SessionId, u32)>,
        more: Commit,
        step: Step,
    ) {
        let numbers = self.reserve(&step);
        entry.sent = numbers::sent(&numbers);
        let mut ops = self.keep(Collection::Archive, id, &entry, origin);
        ops.extend(more.ops);
        metrics::counter!("rookery_archive_appends_total").increment(1);
        self.after_commit(Commit { ops, ..more }, step, numbers, origin);
    }

    /// Commits `commit`, then takes `step`, after everything that came before it.
    pub(super) fn after_commit(
        &mut self,
        commit: impl Into<Commit>,
        step: Step,
        numbers: Numbers,
        origin: Origin,
    ) {
        let commit = commit.into();
        if self.pending.waiting.len() >= PENDING {
            metrics::counter!("rookery_limits_hit_total", "limit" => "user_pending").increment(1);
            self.fail(step, origin, StanzaError::new(Condition::ResourceConstraint));
            self.release(&numbers, 0); // what waits behind others goes on waiting
            return;
        }
        let seq = self.pending.first + self.pending.waiting.len() as u64;
        let prepare = commit.prepare.clone();
        self.pending.waiting.push_back(Waiting { step, outcome: None, numbers, origin, prepare });
        self.commit_step(seq, commit);
    }

    /// Hands what belongs to the step `seq` to the batcher. Returns whether it has room.
    pub(super) fn submit_step(&mut self, seq: u64, ops: Ops, edits: Vec<Edit>) -> bool {
        let Some(me) = self.me.clone() else { return true };
        let host = self.host.downgrade();
        let line = self.pending.line.get_or_insert_default();
        let writes = Writes::new(&self.entity, ops).with_edits(edits).in_line(line);
        let submitted = self.host.batcher().submit(writes, move |result| {
            let result = result.map_err(|error| error.class);
            if result == Err(Class::Fenced) {
                // No failure: the user lives elsewhere, and is about to hear of it. The message comes to it there.
                metrics::counter!("rookery_stanzas_elsewhere_total").increment(1);
                let (Some(host), me) = (host.upgrade(), me.downgrade()) else { return };
                host.wheel().after(ELSEWHERE, move || {
                    if let Some(me) = me.upgrade() {
                        let _ = me.cast_always(Msg::Committed { seq, outcome: Outcome::Elsewhere });
                    }
                });
                return;
            }
            let _ = me.cast_always(Msg::Committed { seq, outcome: Outcome::of(result) });
        });
        submitted.is_ok()
    }

    /// Takes `step` at once, or after those that wait for their commit.
    pub(super) fn in_order(&mut self, step: Step) {
        if self.pending.is_empty() {
            self.take_step(step);
        } else if self.pending.waiting.len() >= PENDING {
            self.fail(step, None, StanzaError::new(Condition::ResourceConstraint));
        } else {
            let numbers = self.reserve(&step); // those behind it count on that
            self.pending.waiting.push_back(Waiting {
                step,
                outcome: Some(Outcome::Stored),
                numbers,
                origin: None,
                prepare: Vec::new(),
            });
        }
    }

    /// The store has answered.
    pub(super) fn stored_or_not(&mut self, seq: u64, outcome: Outcome) {
        if let (Outcome::Later | Outcome::Never, Some(line)) = (outcome, &mut self.pending.line) {
            line.heard();
        }
        let outcome = if outcome == Outcome::Elsewhere { Outcome::Later } else { outcome };
        self.committed(seq, outcome);
    }

    pub(super) fn committed(&mut self, seq: u64, outcome: Outcome) {
        let at = usize::try_from(seq.wrapping_sub(self.pending.first)).unwrap_or(usize::MAX);
        let Some(waiting) = self.pending.waiting.get_mut(at) else { return };
        waiting.outcome = Some(outcome);
        if let Some(origin) = waiting.origin.filter(|_| outcome != Outcome::Stored) {
            self.not_kept(origin);
        }
        while let Some(Waiting { outcome: Some(outcome), step, numbers, .. }) = self.pending.waiting.front() {
            if *outcome == Outcome::Later && self.is_wanted(step) {
                return self.write_sent_later();
            }
            if *outcome == Outcome::Stored && (self.pending.stale || !self.holds(step, numbers)) {
                return self.renumber();
            }
            let Some(Waiting { step, outcome, numbers, origin, .. }) = self.pending.waiting.pop_front()
            else {
                return;
            };
            let seq = self.pending.first;
            self.pending.first += 1;
            self.pending.tries = 0;
            match outcome {
                Some(Outcome::Stored) => self.take_step(step),
                Some(Outcome::Never) => self.fail(step, origin, Condition::InternalServerError.into()),
                _ => self.fail(step, origin, StanzaError::new(Condition::ResourceConstraint).text(BUSY)),
            }
            self.release(&numbers, seq);
        }
        if self.pending.is_empty() && self.pending.waiting.capacity() > 32 {
            self.pending.waiting = VecDeque::new();
        }
        if !self.pending.held.is_empty() {
            self.go_on_committing();
        }
    }

    /// The store refused: the sender is told, nothing is delivered.
    fn fail(&mut self, step: Step, origin: Origin, error: StanzaError) {
        match step {
            Step::In { stanza, receipt, .. } | Step::Kept { stanza, receipt } => {
                self.refuse_from(origin, &stanza, receipt, &error);
                self.remember_refused(origin, error.condition);
            }
            Step::Again { stanza, receipt, .. } => self.refuse(&stanza, receipt, &error),
            Step::Sent { id, receipt, .. } => self.sent_is_lost(id, receipt),
            Step::Page(page) => self.drain_failed(page.sid, &error.condition.name()),
            Step::Held { sid, number, id, stanza, receipt } => {
                self.kept.retain(|kept| *kept != (sid, id));
                self.queued = self.queued.saturating_sub(1);
                // Its client may have it: no error may be said of it.
                match self.session(sid) {
                    Some(session) => {
                        let _ = session.handle.cast_always(crate::session::Msg::NotKept { number, receipt });
                    }
                    None if worth_keeping(&stanza) => self.keep_for_later(stanza, receipt),
                    None => self.refuse(&stanza, receipt, &error),
                }
            }
        }
    }

    fn take_step(&mut self, step: Step) {
        self.stored = self.stored.max(step.id());
        match step {
            Step::In { stanza, id: Some(id), owed, copies, receipt } => {
                self.deliver(&stanza, id, (owed, copies), receipt);
                self.relieve(Some(id));
            }
            Step::In { stanza, id: None, owed, copies, receipt } => {
                self.pass_on(&stanza, (owed, copies), receipt);
            }
            Step::Sent { stanza, id, copies, sid, receipt } => {
                let stays = !self.is_taken_back(id);
                if copies && stays {
                    self.copy_sent(&stanza, id, sid);
                    self.relieve(id);
                }
                receipt.done();
            }
            Step::Kept { receipt, .. } | Step::Held { receipt, .. } => receipt.done(),
            Step::Again { stanza, origin, receipt } => self.answer_again(origin, &stanza, receipt),
            Step::Page(page) => self.send_page(*page),
        }
    }

    /// The element that names a message's place in this user's archive (XEP-0359).
    pub(super) fn stanza_id(&self, id: ArchiveId) -> Vec<u8> {
        stanza_ids::stanza_id(&self.jid, &self.host.ids().seal(id))
    }

    /// RFC 6121 section 8.5: an archived message to the sessions that it is for, copies to the others.
    fn deliver(
        &mut self,
        stanza: &Arc<Stanza>,
        id: ArchiveId,
        (owed, copies): (Owed, bool),
        receipt: Receipt,
    ) {
        let message = About { id, owed, to: stanza.to.as_ref(), copies };
        let shares = |session: &UserSession| session.share(message);
        if !self.sessions.iter().any(|session| shares(session).is_some()) {
            // Whoever it was for has ended since. A copy for another device is as good as when they end later.
            return self.leave_behind_one(id, receipt);
        }
        let extra: Arc<[u8]> = self.stanza_id(id).into();
        for session in &self.sessions {
            let Some(share) = shares(session) else { continue };
            if session.draining {
                self.drains.skip(session.sid, id); // it reads the archive, and will come to this one
                continue;
            }
            let outgoing = match share {
                Share::Message => Outgoing::with(stanza.clone(), None, Some(extra.clone())),
                Share::Copy => self.received(stanza, &extra, session),
            };
            session.hand_now(Delivery { outgoing, kept: Kept::archived(Some(id)), receipt: Receipt::none() });
        }
        receipt.done(); // it is in the archive
    }

    /// XEP-0280: the copy of what another of the user's sessions has got.
    pub(super) fn received(&self, stanza: &Stanza, extra: &[u8], session: &UserSession) -> Outgoing {
        let kind = carbons::Kind::Received;
        Outgoing::new(carbons::carbon(kind, &self.jid, stanza, extra, &session.jid))
    }

    /// XEP-0280: the copy of what another of the user's sessions has sent.
    pub(super) fn sent(&self, stanza: &Stanza, extra: &[u8], session: &UserSession) -> Outgoing {
        let kind = carbons::Kind::Sent;
        Outgoing::new(carbons::carbon(kind, &self.jid, stanza, extra, &session.jid))
    }

    /// XEP-0280: copies of what one of the user's sessions has sent.
    fn copy_sent(&mut self, stanza: &Arc<Stanza>, id: Option<ArchiveId>, sender: SessionId) {
        let extra = id.map(|id| self.stanza_id(id)).unwrap_or_default();
        for session in self.sessions.iter().filter(|session| session.sid != sender) {
            match id {
                Some(id) if !session.reader.copy_sent(id) => continue,
                Some(id) if session.draining => {
                    self.drains.skip(session.sid, id);
                    continue;
                }
                None if !session.carbons => continue,
                _ => {}
            }
            session.hand_now(Delivery {
                outgoing: self.sent(stanza, &extra, session),
                kept: Kept::archived(id),
                receipt: Receipt::none(),
            });
        }
    }
}
