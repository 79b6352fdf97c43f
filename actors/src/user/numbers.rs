//! Which number an archived message has in each session that can be resumed (XEP-0198): told before it is sent, and
//! committed with it. A client that comes back after a crash of the whole server brings a count; these numbers say what
//! of the archive it has, so that nothing comes twice.
//!
//! A session numbers what it is handed in the order in which it is handed it, and only this actor hands it stanzas. So
//! the number of a message is known when it is archived, and until it is sent, nothing else may take it: what comes for
//! the session meanwhile (the answer to an IQ, presence) goes behind it. Where a message turns out to go elsewhere than
//! was foreseen, all that waits gets other numbers, committed before anything is sent. A number too high is harmless: the
//! message may come again. One too low would lose it. So a message of which nobody knows whether it was committed keeps its
//! number until the store says: the batcher answers no sooner, and neither does what rewrites numbers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Class, Options};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection, Sent};
use rookery_cluster::tables::sessions;
use smallvec::SmallVec;
use tokio::time::sleep;

use super::steps::Step;
use super::{Msg, User, UserSession};
use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::runtime::actor::{Handle, Refused};
use crate::runtime::commit_queue::Outcome;
use crate::session::{self, ClientState, Delivery, Numbering, SessionId};

/// What was handed to a session, and what is going to be.
#[derive(Default)]
pub(crate) struct Sequence {
    handed: AtomicU32,
    /// How many stanzas of steps that wait for their commit will be handed to it.
    reserved: u32,
    /// The last such step.
    last: u64,
    /// What goes behind a step, and behind which.
    behind: Mutex<VecDeque<(u64, Behind)>>,
    pub(crate) numbering: Option<Numbering>,
}

enum Behind {
    Stanza(Delivery),
    /// A stanza of its client is settled by what goes before.
    Done(Receipt),
    /// What its record is to say once it has handled what goes before: which pushes its client was sent.
    Remember(Box<ClientState>),
}

/// The number of a step's stanza in one session, or of its first if there are more.
#[derive(Clone, Copy)]
pub(super) struct Number {
    sid: SessionId,
    sent: Sent,
    count: u32,
    /// The stanza does not go there after all; but until that is written, nothing else may have this number.
    void: bool,
}

/// Its numbers in all sessions that it goes to and that can be resumed.
pub(super) type Numbers = SmallVec<[Number; 1]>;

/// After so many corrections a message goes without numbers: it may come again after a crash.
const TRIES: u8 = 3;

/// How much may wait behind messages that are being committed, per session.
const BEHIND: usize = 4_096;

impl UserSession {
    /// Hands a stanza to the session, behind the messages for it that wait for their commit.
    pub(super) fn hand(&self, mut delivery: Delivery) {
        if self.sequence.reserved == 0 {
            return self.hand_now(delivery);
        }
        self.charge(&mut delivery);
        let mut behind = self.sequence.behind.lock();
        if behind.len() >= BEHIND {
            let _ = self.handle.cast_always(session::Msg::TooSlow);
        }
        behind.push_back((self.sequence.last, Behind::Stanza(delivery)));
    }

    /// A stanza of its client is settled once it has handled what it was handed before.
    pub(super) fn settle(&self, receipt: Receipt) {
        let mut behind = self.sequence.behind.lock();
        if behind.is_empty() {
            let _ = self.handle.cast_always(session::Msg::Done(receipt));
        } else {
            behind.push_back((self.sequence.last, Behind::Done(receipt)));
        }
    }

    /// Tells the session what its record is to say of its client.
    pub(super) fn tell_client_state(&self) {
        let state = Box::new(self.client.clone());
        let mut behind = self.sequence.behind.lock();
        if behind.is_empty() {
            let _ = self.handle.cast_always(session::Msg::Remember(state));
        } else {
            behind.push_back((self.sequence.last, Behind::Remember(state)));
        }
    }

    /// The same in its turn: what it must go behind is handed over.
    pub(super) fn hand_now(&self, delivery: Delivery) {
        self.sequence.handed.fetch_add(1, Ordering::Relaxed);
        let mut delivery = Box::new(delivery);
        self.charge(&mut delivery);
        let msg = session::Msg::Deliver(delivery);
        if let Err(Refused::Full(msg)) = self.handle.cast(msg) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "session_queue").increment(1);
            // The session does not keep up with its own queue. What is in there, and this, the session reports as unconfirmed.
            let _ = self.handle.cast_always(msg);
            let _ = self.handle.cast_always(session::Msg::TooSlow);
        }
        // A session that has just ended has reported what it had; what comes after it finds no session at the next look.
    }

    /// Hands over what waited behind the step `seq`, or behind nothing any more.
    pub(super) fn hand_behind(&self, seq: u64) {
        loop {
            let mut behind = self.sequence.behind.lock();
            let due = behind.front().is_some_and(|(after, _)| *after <= seq || self.sequence.reserved == 0);
            let Some((_, next)) = due.then(|| behind.pop_front()).flatten() else { return };
            drop(behind);
            match next {
                Behind::Stanza(delivery) => self.hand_now(delivery),
                Behind::Done(receipt) => drop(self.handle.cast_always(session::Msg::Done(receipt))),
                Behind::Remember(state) => drop(self.handle.cast_always(session::Msg::Remember(state))),
            }
        }
    }

    /// The number of the stanza that is handed over after `ahead` others; never less than what it will be.
    fn number_after(&self, ahead: u32) -> Option<Sent> {
        let numbering = self.sequence.numbering?;
        let handed = self.sequence.handed.load(Ordering::Relaxed).wrapping_add(ahead).wrapping_add(1);
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        Some(Sent { numbering: numbering.name, n: handed.wrapping_sub(numbering.base).wrapping_sub(dropped) })
    }

    /// Whether a stanza that is handed over now gets at most this number.
    fn keeps_to(&self, told: Sent) -> bool {
        // Another numbering: the old numbers mean nothing any more.
        self.number_after(0).is_none_or(|now| now.numbering != told.numbering || now.covered_by(told.n))
    }

    /// Whether no step that waits for its commit has a number of this session.
    pub(super) fn nothing_reserved(&self) -> bool {
        self.sequence.reserved == 0
    }

    /// How many stanzas wait behind the steps before `seq`.
    fn behind(&self, seq: u64) -> u32 {
        let behind = self.sequence.behind.lock();
        u32::try_from(
            behind.iter().filter(|(after, next)| *after < seq && matches!(next, Behind::Stanza(_))).count(),
        )
        .unwrap_or(u32::MAX)
    }
}

/// What goes into an entry.
pub(super) fn sent(numbers: &Numbers) -> Vec<Sent> {
    numbers.iter().filter(|number| !number.void).map(|number| number.sent).collect()
}

impl User {
    /// The numbers that the stanzas of a step will have that is about to join the others that wait.
    pub(super) fn reserve(&mut self, step: &Step) -> Numbers {
        let seq = self.pending.commits.next_seq();
        let sids: SmallVec<[SessionId; 4]> = self.targets(step).map(|session| session.sid).collect();
        let count = step.stanzas();
        let mut numbers = Numbers::new();
        for session in self.sessions.iter_mut().filter(|session| sids.contains(&session.sid)) {
            let ahead = session.sequence.reserved.wrapping_add(session.behind(seq));
            if let Some(sent) = session.number_after(ahead) {
                session.sequence.reserved += count;
                session.sequence.last = seq;
                numbers.push(Number { sid: session.sid, sent, count, void: false });
            }
        }
        numbers
    }

    /// The step `seq` is taken, or never will be.
    pub(super) fn release(&mut self, numbers: &Numbers, seq: u64) {
        for number in numbers {
            if let Some(session) = self.session_mut(number.sid) {
                session.sequence.reserved = session.sequence.reserved.saturating_sub(number.count);
                session.hand_behind(seq);
            }
        }
    }

    /// Whether the step's stanzas, sent now, get the numbers that were written, or lower ones, in all sessions that they
    /// go to, and no others were told.
    pub(super) fn holds(&self, step: &Step, numbers: &Numbers) -> bool {
        let told = |sid| numbers.iter().find(|number| number.sid == sid && !number.void);
        let mut targets = self.targets(step).filter(|target| target.sequence.numbering.is_some());
        self.pending.tries > TRIES
            || targets.all(|target| told(target.sid).is_some_and(|number| target.keeps_to(number.sent)))
                && numbers.iter().filter(|number| !number.void).all(|number| {
                    // A session that is gone counts no more.
                    self.session(number.sid).is_none()
                        || self.targets(step).any(|target| target.sid == number.sid)
                })
    }

    /// Writes other numbers for all that waits; the front waits for that.
    pub(super) fn renumber(&mut self) {
        metrics::counter!("rookery_sm_renumbered_total").increment(1);
        self.pending.tries += 1;
        let give_up = self.pending.tries > TRIES;
        let first = self.pending.commits.hold_front();
        self.sessions.iter_mut().for_each(|session| session.sequence.reserved = 0);
        let mut rewrites: Vec<Rewrite> = Vec::new();
        let held = self.pending.commits.first_held();
        for seq in first..self.pending.commits.next_seq() {
            let Some(waiting) = self.pending.commits.get(seq) else { break };
            let sids: SmallVec<[SessionId; 4]> =
                self.targets(&waiting.step).map(|target| target.sid).collect();
            let Some(waiting) = self.pending.commits.get_mut(seq) else { break };
            let before = std::mem::take(&mut waiting.numbers);
            let count = waiting.step.stanzas();
            for session in &mut self.sessions {
                let void = give_up || !sids.contains(&session.sid);
                if void && !before.iter().any(|number| number.sid == session.sid) {
                    continue;
                }
                let ahead = session.sequence.reserved.wrapping_add(session.behind(seq));
                let Some(sent) = session.number_after(ahead) else { continue };
                session.sequence.reserved += count;
                session.sequence.last = session.sequence.last.max(seq);
                waiting.numbers.push(Number { sid: session.sid, sent, count, void });
            }
            // What is held has no row yet; its own turn sees to it.
            waiting.outdated = held.is_some_and(|held| held <= seq);
            if !waiting.outdated {
                rewrites.extend(waiting.step.rewrite(&waiting.numbers));
            }
        }
        self.rewrite(first, rewrites);
    }

    fn rewrite(&mut self, seq: u64, rewrites: Vec<Rewrite>) {
        self.pending.stale = true; // until it is written
        let (host, entity) = (self.host.clone(), self.entity.clone());
        let Some(me) = self.me.as_ref().map(Handle::downgrade) else { return };
        let epoch = host.store().epoch(entity.shard());
        self.host.spawn(async move {
            let written = loop {
                // Some of it is still on its way to the store.
                host.batcher().flush().await.ok();
                if host.store().epoch(entity.shard()) != epoch {
                    return; // the user is at home elsewhere, or was meanwhile
                }
                match write(&host, &entity, &rewrites).await {
                    Err(error) if error.class.repeats() && me.upgrade().is_some() => sleep(PAUSE).await,
                    written => break written,
                }
            };
            if let Err(error) = &written {
                if error.class == Class::Fenced {
                    return; // the same
                }
                tracing::warn!(%error, "a message could not be renumbered; the sender gets an error");
            }
            let outcome = Outcome::of(written.map_err(|error| error.class));
            let then = move |user: &mut User| {
                user.pending.stale &= outcome != Outcome::Stored;
                user.settle_step(seq, outcome);
            };
            if let Some(me) = me.upgrade() {
                let _ = me.cast_always(Msg::Then(Box::new(then)));
            }
        });
    }
}

/// New numbers for what a step has written.
enum Rewrite {
    Entry { id: ArchiveId, sent: Vec<Sent>, size: usize },
    Page { sid: SessionId, page: sessions::Sending },
}

/// The pause before new numbers are written again. Until they are, nobody is told anything.
const PAUSE: Duration = Duration::from_millis(200);

/// Entries that are read and written again in one transaction: each is a round trip to the store.
const ENTRIES: usize = 50;

/// Bytes of entries that are read and written again in one transaction.
const PORTION: usize = 250_000;

/// In portions that a transaction holds. Nothing is sent meanwhile, so it does not matter which come first.
async fn write(host: &Host, entity: &Entity, rewrites: &[Rewrite]) -> store::Result<()> {
    let mut rest = rewrites;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |rewrite: &&Rewrite| {
            bytes += match rewrite {
                Rewrite::Entry { size, .. } => size + 500,
                Rewrite::Page { .. } => 5_000,
            };
            bytes <= PORTION
        };
        let count = rest.iter().take(ENTRIES).take_while(fits).count().max(1);
        let (portion, more) = rest.split_at(count);
        rest = more;
        host.store()
            .write(Options::owner(entity), |tx| {
                Box::pin(async move {
                    for rewrite in portion {
                        match rewrite {
                            Rewrite::Entry { id, sent, .. } => {
                                let sent = sent.clone();
                                archive::renumber(&mut **tx, Collection::Archive, entity, *id, sent).await?;
                            }
                            Rewrite::Page { sid, page } => {
                                sessions::put_sending(&mut **tx, entity, &sid.0, page)?;
                            }
                        }
                    }
                    Ok(())
                })
            })
            .await?;
    }
    Ok(())
}

impl Step {
    /// What is written of a page, if it is one.
    pub(super) fn page(&self, numbers: &Numbers) -> Option<(SessionId, sessions::Sending)> {
        let Self::Page(page) = self else { return None };
        let number = numbers.first()?;
        let ids = if number.void { &[] } else { page.ids.as_slice() };
        let Sent { numbering, n } = number.sent;
        let mut sending = sessions::Sending::new(numbering, n, ids, page.confirmed);
        (sending.queue, sending.offline) = (page.place == Collection::Queue, page.offline);
        Some((page.sid, sending))
    }

    fn rewrite(&self, numbers: &Numbers) -> Option<Rewrite> {
        match self {
            Self::In { stanza, id: Some(id), .. } | Self::Sent { stanza, id: Some(id), .. } => {
                Some(Rewrite::Entry { id: *id, sent: sent(numbers), size: stanza.size() })
            }
            _ => self.page(numbers).map(|(sid, page)| Rewrite::Page { sid, page }),
        }
    }
}
