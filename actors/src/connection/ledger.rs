//! Which stanzas of a client are settled: durable, or answered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::stanza::Stanza;

use crate::connection::pipe::Pipe;
use crate::connection::reply::Reply;
use crate::runtime::actor::WeakHandle;
use crate::session::remote::SessionProxy;
use crate::session::{self, Session};

/// Which of a session's Up stanzas are settled: durable, or answered. Shared by the session, the connection and every
/// [`Receipt`] under way.
#[derive(Default)]
pub struct Ledger {
    inner: Mutex<Entries>,
    keeper: OnceLock<Keeper>,
}

/// Who must say how far it is before anybody is told.
enum Keeper {
    /// The session, in its record, if it can be resumed.
    Session(WeakHandle<Session>),
    /// The session's node; this is the ledger of a connection elsewhere.
    Proxy(Weak<SessionProxy>),
}

#[derive(Default)]
struct Entries {
    /// Everything up to this number is settled.
    settled: u32,
    /// For each number after `settled`: how many obligations are open.
    open: VecDeque<u16>,
    /// A stanza's processing died without an answer: nothing after it may be acked.
    broken: bool,
    /// Who waits for progress.
    waiter: Option<Arc<Pipe>>,
    /// What the session's record says. A client that was told `h` must not find a smaller one after a crash: it has
    /// dropped what it needed to send again, and counts from there.
    recorded: u32,
    /// The session was asked to bring its record up to date.
    asked: bool,
    /// The session itself waits until nothing is open.
    session_waits: bool,
}

impl Ledger {
    /// A ledger that starts after `settled`.
    pub fn new(settled: u32) -> Arc<Self> {
        let entries = Entries { settled, recorded: settled, ..Entries::default() };
        Arc::new(Self { inner: Mutex::new(entries), keeper: OnceLock::new() })
    }

    /// The same, where the record says less than what is settled.
    pub(crate) fn behind(settled: u32, recorded: u32) -> Arc<Self> {
        let ledger = Self::new(settled);
        ledger.inner.lock().recorded = recorded;
        ledger
    }

    /// From now on nobody is told a number that the session's record does not have.
    pub(crate) fn keep(&self, session: WeakHandle<Session>) {
        let _ = self.keeper.set(Keeper::Session(session));
    }

    /// A ledger whose entries the session's node settles.
    pub(crate) fn of_proxy(settled: u32, recorded: u32, proxy: Weak<SessionProxy>) -> Arc<Self> {
        let ledger = Self::behind(settled, recorded);
        let _ = ledger.keeper.set(Keeper::Proxy(proxy));
        ledger
    }

    fn ask(&self) {
        match self.keeper.get() {
            Some(Keeper::Session(session)) => {
                if let Some(session) = session.upgrade() {
                    let _ = session.cast_always(session::Msg::Settle);
                }
            }
            Some(Keeper::Proxy(proxy)) => {
                if let Some(proxy) = proxy.upgrade() {
                    proxy.ask();
                }
            }
            None => {}
        }
    }

    /// What the session's node says: so much is settled, and its record has so much of that.
    pub(crate) fn told(&self, settled: u32, recorded: u32, broken: bool) {
        let mut inner = self.inner.lock();
        let more = settled.wrapping_sub(inner.settled);
        if more as usize > inner.open.len() {
            return; // of another time
        }
        for _ in 0..more {
            inner.open.pop_front();
        }
        let changed = more > 0 || inner.recorded != recorded || broken;
        (inner.settled, inner.recorded, inner.asked) = (settled, recorded, false);
        inner.broken |= broken;
        let waiter = if changed { inner.waiter.take() } else { None };
        drop(inner);
        if let Some(pipe) = waiter {
            pipe.nudge();
        }
    }

    /// Nudges `pipe` once when something is settled; nobody is asked to write that down.
    pub(crate) fn watch(&self, pipe: &Arc<Pipe>) {
        self.inner.lock().waiter = Some(pipe.clone());
    }

    /// Everything up to this number is settled, whatever the record says.
    pub(crate) fn processed(&self) -> u32 {
        self.inner.lock().settled
    }

    /// What the record says.
    pub(crate) fn is_recorded(&self) -> u32 {
        self.inner.lock().recorded
    }

    /// The same, or this number if that is more: a client that was told one must not find a smaller one.
    pub(crate) fn at_least_recorded(&self, number: u32) -> u32 {
        let recorded = self.is_recorded();
        if recorded.wrapping_sub(number) < u32::MAX / 2 { recorded } else { number }
    }

    /// The record says so now; or it could not be written, and who waits must ask again.
    pub(crate) fn recorded(&self, number: Option<u32>) {
        let mut inner = self.inner.lock();
        inner.asked = false;
        inner.recorded = number.unwrap_or(inner.recorded);
        let waiter = inner.waiter.take();
        drop(inner);
        if let Some(pipe) = waiter {
            pipe.nudge();
        }
    }

    /// Whether nothing is open, and the record says so. If not, the session will get [`session::Msg::Settle`].
    pub(crate) fn at_rest(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.session_waits = !inner.open.is_empty();
        let behind = inner.recorded != inner.settled;
        if inner.open.is_empty() && behind && !inner.asked {
            inner.asked = true;
            drop(inner);
            self.ask();
            return false;
        }
        inner.open.is_empty() && !behind
    }

    /// Enters the next stanza; another node will say when it is settled.
    pub(crate) fn enter_only(&self) {
        self.inner.lock().open.push_back(1);
    }

    /// Enters the next stanza; its number is one more than that of the last.
    pub fn enter(self: &Arc<Self>) -> Receipt {
        let mut inner = self.inner.lock();
        inner.open.push_back(1);
        let n = inner.settled.wrapping_add(u32::try_from(inner.open.len()).unwrap_or(u32::MAX));
        Receipt { duty: Some(Duty::Ledger(self.clone())), n, entry: NOWHERE }
    }

    /// Everything up to this number is settled for good: the `h` of `<a/>`. Where the session can be resumed, its
    /// record says the same.
    pub fn settled(&self) -> u32 {
        let inner = self.inner.lock();
        if self.keeper.get().is_some() { inner.recorded } else { inner.settled }
    }

    /// How many are entered in all: settled, or not yet.
    pub fn received(&self) -> u32 {
        let inner = self.inner.lock();
        inner.settled.wrapping_add(u32::try_from(inner.open.len()).unwrap_or(u32::MAX))
    }

    /// How many are entered and not settled.
    pub fn open(&self) -> usize {
        self.inner.lock().open.len()
    }

    /// Whether a stanza was lost inside the server; the stream must end so that the client sends it again.
    pub fn broken(&self) -> bool {
        self.inner.lock().broken
    }

    /// Nudges `pipe` once when something is settled.
    pub fn wait(&self, pipe: &Arc<Pipe>) {
        let mut inner = self.inner.lock();
        inner.waiter = Some(pipe.clone());
        let remote = matches!(self.keeper.get(), Some(Keeper::Proxy(_)));
        let behind = inner.recorded != inner.settled || (remote && !inner.open.is_empty());
        if behind && !inner.asked && self.keeper.get().is_some() {
            inner.asked = true;
            drop(inner);
            self.ask();
        }
    }

    fn change(&self, n: u32, by: i32, broken: bool) {
        let mut inner = self.inner.lock();
        inner.broken |= broken;
        let at = n.wrapping_sub(inner.settled).wrapping_sub(1) as usize;
        let Some(count) = inner.open.get_mut(at) else { return };
        *count = count.saturating_add_signed(i16::try_from(by).unwrap_or(0));
        let before = inner.settled;
        while !inner.broken && inner.open.front() == Some(&0) {
            inner.open.pop_front();
            inner.settled = inner.settled.wrapping_add(1);
        }
        if inner.open.is_empty() && inner.open.capacity() > 64 {
            inner.open = VecDeque::new();
        }
        let waiter = if inner.settled != before || broken { inner.waiter.take() } else { None };
        let ask = inner.session_waits && inner.open.is_empty();
        inner.session_waits &= !ask;
        inner.asked |= ask;
        drop(inner);
        if ask {
            self.ask();
        }
        if let Some(pipe) = waiter {
            pipe.nudge();
        }
    }
}

/// Whom a receipt is owed.
enum Duty {
    /// A session of this node.
    Ledger(Arc<Ledger>),
    /// A node that has sent the stanza.
    Remote(Arc<Owed>),
}

/// What is owed to a node that has sent a stanza: one answer, when all obligations are met.
struct Owed {
    reply: Mutex<Option<(Reply, bytes::Bytes)>>,
    open: AtomicU32,
    /// The answer may be an error.
    verdicts: bool,
}

impl Duty {
    fn change(&self, n: u32, by: i32, broken: bool) {
        match self {
            Self::Ledger(ledger) => ledger.change(n, by, broken),
            Self::Remote(owed) if broken => drop(owed.reply.lock().take()), // unsaid, it is taken for lost
            Self::Remote(owed) if by > 0 => drop(owed.open.fetch_add(1, Ordering::Relaxed)),
            Self::Remote(owed) => {
                if owed.open.fetch_sub(1, Ordering::AcqRel) == 1
                    && let Some((reply, error)) = owed.reply.lock().take()
                {
                    reply.answer(error);
                }
            }
        }
    }

    fn same(&self) -> Self {
        match self {
            Self::Ledger(ledger) => Self::Ledger(ledger.clone()),
            Self::Remote(owed) => Self::Remote(owed.clone()),
        }
    }
}

/// The obligation to settle one Up stanza. [`Receipt::done`] says it is met; dropping it without says that the stanza
/// was lost inside the server, and the stream will be ended so that the client sends it again.
pub struct Receipt {
    duty: Option<Duty>,
    n: u32,
    /// The stanza's entry in its sender's archive, or [`NOWHERE`]: it goes along with each message, and a word counts.
    entry: ArchiveId,
}

/// The place of no entry: in the year 586,524.
const NOWHERE: ArchiveId = ArchiveId { micros: u64::MAX, epoch: u32::MAX, counter: u32::MAX };

impl Receipt {
    /// A receipt nobody waits for.
    pub fn none() -> Self {
        Self { duty: None, n: 0, entry: NOWHERE }
    }

    /// One that another node waits for, which may take an error for an answer.
    pub(crate) fn owed(reply: Reply, verdicts: bool) -> Self {
        let owed =
            Owed { reply: Mutex::new(Some((reply, bytes::Bytes::new()))), open: AtomicU32::new(1), verdicts };
        Self { duty: Some(Duty::Remote(Arc::new(owed))), n: 0, entry: NOWHERE }
    }

    /// The same, with what the answer says when all is settled; errors find their own way.
    pub(crate) fn owed_with(reply: Reply, answer: bytes::Bytes) -> Self {
        let owed =
            Owed { reply: Mutex::new(Some((reply, answer))), open: AtomicU32::new(1), verdicts: false };
        Self { duty: Some(Duty::Remote(Arc::new(owed))), n: 0, entry: NOWHERE }
    }

    /// For a stanza that stands in its sender's archive. If it is refused, the error takes this along, and the entry is taken
    /// back: what was refused is archived nowhere.
    pub(crate) fn archived(mut self, entry: Option<ArchiveId>) -> Self {
        self.entry = entry.unwrap_or(NOWHERE);
        self
    }

    /// See [`Receipt::archived`].
    pub(crate) fn entry(&self) -> Option<ArchiveId> {
        Some(self.entry).filter(|entry| *entry != NOWHERE)
    }

    /// The number of the stanza in its session.
    pub fn number(&self) -> u32 {
        self.n
    }

    /// The stanza's number, if that is one of this ledger's.
    pub(crate) fn number_in(&self, ledger: &Arc<Ledger>) -> Option<u32> {
        matches!(&self.duty, Some(Duty::Ledger(of)) if Arc::ptr_eq(of, ledger)).then_some(self.n)
    }

    /// A second obligation for the same stanza: it is settled when both are done.
    pub fn split(&self) -> Self {
        if let Some(duty) = &self.duty {
            duty.change(self.n, 1, false);
        }
        Self { duty: self.duty.as_ref().map(Duty::same), n: self.n, entry: NOWHERE }
    }

    /// Whether anybody waits for it.
    pub fn is_open(&self) -> bool {
        self.duty.is_some()
    }

    /// Somebody else sees to the stanza, which comes again: a session of this node that moves with it.
    pub(crate) fn leave(mut self) {
        match self.duty.take() {
            Some(Duty::Ledger(_)) | None => {}
            Some(duty @ Duty::Remote(_)) => duty.change(self.n, 0, true),
        }
    }

    /// The stanza is refused. The node that has sent it is told so in one with the receipt: it can neither miss the error and
    /// send again, nor have both. Where nobody takes that, the error must find its own way; then this comes back.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(crate) fn refuse(self, error: &Stanza) -> Result<(), Self> {
        match &self.duty {
            Some(Duty::Remote(owed)) if owed.verdicts => {
                if let Some((_, answer)) = &mut *owed.reply.lock() {
                    *answer = error.to_bytes().into();
                }
                self.done();
                Ok(())
            }
            _ => Err(self),
        }
    }

    /// The stanza is durable, or answered.
    pub fn done(mut self) {
        if let Some(duty) = self.duty.take() {
            duty.change(self.n, -1, false);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(duty) = self.duty.take() {
            duty.change(self.n, 0, true);
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipt({})", self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_in_order_whatever_the_order_of_completion() {
        let ledger = Ledger::new(0);
        let (one, two, three) = (ledger.enter(), ledger.enter(), ledger.enter());
        assert_eq!((one.number(), two.number(), three.number()), (1, 2, 3));
        let second_half = one.split();
        three.done();
        two.done();
        one.done();
        assert_eq!(ledger.settled(), 0);
        second_half.done();
        assert_eq!((ledger.settled(), ledger.open()), (3, 0));
    }

    #[test]
    fn a_lost_stanza_stops_the_acks_before_it() {
        let ledger = Ledger::new(7);
        let (one, two) = (ledger.enter(), ledger.enter());
        one.done();
        drop(two);
        ledger.enter().done();
        assert_eq!((ledger.settled(), ledger.broken()), (8, true));
    }

    #[test]
    fn numbers_wrap_as_xep_0198_says() {
        let ledger = Ledger::new(u32::MAX);
        let receipt = ledger.enter();
        assert_eq!(receipt.number(), 0);
        receipt.done();
        assert_eq!(ledger.settled(), 0);
    }
}
