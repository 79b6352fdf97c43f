//! What a user does once a commit is there: a message reaches the user's sessions after its commit, and in the order of the
//! archive. On top of [`CommitQueue`] lies what only a user needs: each step reserves the numbers that its stanzas get in
//! the user's sessions (see [`super::numbers`]), an entry of a sent message is written until it is stored (see [`super::sent`]),
//! and messages that were refused are remembered.

use std::collections::VecDeque;
use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::invariant;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::stanza::Stanza;

use super::deliver::BUSY;
use super::foreign::is_bounce;
use super::numbers::Numbers;
use super::offline::Ready;
use super::share::Owed;
use super::worth::worth_keeping;
use super::{Msg, User, UserSession};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Kept;
use crate::host::Host;
use crate::runtime::commit_queue::{Commit, CommitQueue, Committed, Limit, Outcome, Preparation, Settled};
use crate::runtime::origin::Origin;
use crate::session::SessionId;

/// What is to be done once a commit is there.
pub(super) enum Step {
    /// Deliver a message to the user's sessions. `kept` says how one is known that is archived nowhere.
    In { stanza: Arc<Stanza>, id: Option<ArchiveId>, owed: Owed, copies: bool, kept: Kept, receipt: Receipt },
    /// Copy a message that one of the user's sessions sent to the others.
    Sent { stanza: Arc<Stanza>, id: Option<ArchiveId>, copies: bool, sid: SessionId, receipt: Receipt },
    /// A stanza is safe in the offline queue; there is nobody to deliver it to.
    Kept { stanza: Arc<Stanza>, receipt: Receipt },
    /// A stanza has come before, and what became of it then is not known yet.
    Again { stanza: Arc<Stanza>, origin: Option<Origin>, receipt: Receipt },
    /// A stanza is safe in the offline queue; a session has it, with this number, for its client to confirm.
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

    /// The user lives on another node. What its own sessions sent comes again by their connections, which end for that; another sender
    /// hears that its stanza is lost.
    pub(super) fn leave(self) {
        if let Self::Sent { receipt, .. } = self {
            receipt.leave();
        }
    }
}

/// A step that waits for its commit, or behind one that does.
pub(super) struct Waiting {
    pub(super) step: Step,
    /// What was committed with it.
    pub(super) numbers: Numbers,
    /// The sender's name and number for the stanza.
    pub(super) origin: Option<Origin>,
    /// What is read before it is committed, should that be tried again.
    pub(super) prepare: Vec<Preparation>,
    /// The step has got other numbers while its writes were held: the store has the old ones.
    pub(super) outdated: bool,
}

/// The messages that wait for their commit, or behind one that does.
pub(super) struct Pending {
    pub(super) commits: CommitQueue<Waiting>,
    /// How often the front was renumbered.
    pub(super) tries: u8,
    /// The store has other numbers than the steps.
    pub(super) stale: bool,
    /// What one of the user's sessions has sent and was refused: it leaves the archive when it has come there.
    pub(super) taken_back: Vec<(ArchiveId, Option<Origin>)>,
    /// What others have sent and the store did not take: should it come again, it is refused again.
    pub(super) refused: VecDeque<(Origin, Condition)>,
}

/// How many messages of one user may wait for the store.
static LIMIT: Limit = Limit { name: "user_pending", steps: 2_048 };

impl Pending {
    /// Nothing waits.
    pub(super) fn new(host: &Host, entity: &Entity) -> Self {
        let (batcher, wheel) = (host.batcher().clone(), host.wheel().clone());
        Self {
            commits: CommitQueue::new(entity.clone(), batcher, wheel, &LIMIT),
            tries: 0,
            stale: false,
            taken_back: Vec::new(),
            refused: VecDeque::new(),
        }
    }

    /// The steps that wait, in order.
    pub(super) fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.commits.steps().map(|waiting| &waiting.step)
    }
}

impl From<Committed> for Msg {
    fn from(committed: Committed) -> Self {
        Self::Committed(committed)
    }
}

/// Steps whose writes are being prepared, or wait for that, until no more is prepared: all that comes behind waits too.
const HELD: usize = 4;

impl User {
    /// Whether a hook may have something read before a message is committed. Not while the user moves, which waits for that.
    pub(crate) fn may_prepare(&self) -> bool {
        self.leaving.is_none() && self.pending.commits.prepares() < HELD
    }

    /// Commits `commit`, then takes `step`, after everything that came before it.
    pub(super) fn after_commit(
        &mut self,
        commit: impl Into<Commit>,
        step: Step,
        numbers: Numbers,
        origin: Option<Origin>,
    ) {
        let Some(me) = &self.me else { return };
        let commit = commit.into();
        let waiting = Waiting { step, numbers, origin, prepare: commit.prepare.clone(), outdated: false };
        if let Err(waiting) = self.pending.commits.commit(me, commit, waiting) {
            self.no_room_to_wait(waiting);
        }
    }

    /// Commits what belongs to the step `seq`, which waits for that.
    pub(super) fn commit_again(&mut self, seq: u64, commit: Commit) {
        if let Some(me) = &self.me {
            self.pending.commits.submit(me, seq, commit);
        }
    }

    /// Takes `step` at once, or after those that wait for their commit.
    pub(super) fn in_order(&mut self, step: Step) {
        if self.pending.commits.is_empty() {
            return self.take_step(step);
        }
        let numbers = self.reserve(&step); // those behind it count on that
        let waiting = Waiting { step, numbers, origin: None, prepare: Vec::new(), outdated: false };
        if let Err(waiting) = self.pending.commits.follow(waiting) {
            self.no_room_to_wait(waiting);
        }
    }

    fn no_room_to_wait(&mut self, Waiting { step, numbers, origin, .. }: Waiting) {
        self.fail(step, origin, StanzaError::new(Condition::ResourceConstraint));
        self.release(&numbers, 0); // what waits behind others goes on waiting
    }

    /// The store has answered.
    pub(super) fn committed(&mut self, committed: Committed) {
        if let Some((waiting, outcome)) = self.pending.commits.answered(committed) {
            let origin = waiting.origin;
            self.settled(origin, outcome);
        }
    }

    /// What becomes of the step `seq` is known, if that waits.
    pub(super) fn settle_step(&mut self, seq: u64, outcome: Outcome) {
        if let Some(waiting) = self.pending.commits.settle(seq, outcome) {
            let origin = waiting.origin;
            self.settled(origin, outcome);
        }
    }

    /// The outcome of a step is known. Takes the steps from the front, up to the first that waits.
    fn settled(&mut self, origin: Option<Origin>, outcome: Outcome) {
        if let Some(origin) = origin.filter(|_| outcome != Outcome::Stored) {
            self.not_kept(origin);
            // Its turn to be refused comes when those before are through, and what is sent later may be stored by then.
            self.refused_for_good(origin);
        }
        while let Some((Waiting { step, numbers, outdated, .. }, outcome)) = self.pending.commits.front() {
            if matches!(outcome, Outcome::Later | Outcome::Elsewhere) && self.is_wanted(step) {
                return self.write_sent_later();
            }
            if outcome == Outcome::Stored && (self.pending.stale || *outdated || !self.holds(step, numbers)) {
                return self.renumber();
            }
            let Some(Settled { seq, step, outcome }) = self.pending.commits.next() else { return };
            let Waiting { step, numbers, origin, .. } = step;
            self.pending.tries = 0;
            match outcome {
                Outcome::Stored => self.take_step(step),
                Outcome::Never => self.fail(step, origin, Condition::InternalServerError.into()),
                // Should the user live elsewhere, nobody has said so for long.
                Outcome::Later | Outcome::Elsewhere => {
                    self.fail(step, origin, StanzaError::new(Condition::ResourceConstraint).text(BUSY));
                }
            }
            self.release(&numbers, seq);
        }
        let counted = || self.sessions.iter().all(UserSession::nothing_reserved);
        invariant!("numbers_given_back", !self.pending.commits.is_empty() || counted());
    }

    /// The store refused: the sender is told, nothing is delivered.
    fn fail(&mut self, step: Step, origin: Option<Origin>, error: StanzaError) {
        match step {
            Step::In { stanza, receipt, .. } | Step::Kept { stanza, receipt } => {
                self.refuse_from(origin, &stanza, receipt, &error);
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
                    None if worth_keeping(&stanza) || is_bounce(&self.host, &stanza) => {
                        self.keep_for_later(stanza, receipt);
                    }
                    None => self.refuse(&stanza, receipt, &error),
                }
            }
        }
    }

    fn take_step(&mut self, step: Step) {
        self.stored = self.stored.max(step.id());
        match step {
            Step::In { stanza, id: Some(id), owed, copies, receipt, .. } => {
                self.deliver(&stanza, id, (owed, copies), receipt);
                self.relieve(Some(id));
            }
            Step::In { stanza, id: None, owed, copies, kept, receipt } => {
                self.pass_on(&stanza, (owed, copies), kept, receipt);
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
}
