//! Which stanzas of a client are settled: durable, or answered.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rookery_cluster::invariant;

use crate::connection::pipe::Pipe;
pub use crate::connection::receipt::Receipt;

/// Which of a session's Up stanzas are settled: durable, or answered. Shared by the session, the connection and every
/// [`Receipt`] under way.
#[derive(Default)]
pub struct Ledger {
    inner: Mutex<Entries>,
    keeper: OnceLock<(Kind, Box<dyn Keeper>)>,
}

/// While so many stanzas of a stream wait to be settled, each further one is pressing ([`Receipt::is_pressing`]). A stream is not read on with 256,
/// and a sender that has few under way is to cost no more than before.
const PRESSING: usize = 64;
/// So many stanzas behind the last of those are pressing as well. What is settled leaves the ledger in order: where a stream is busy, a few that
/// could wait would stand in front of those that cannot.
const STAYS: u32 = 256;

/// Has the last word on what is settled: no client is told a number before its keeper has said so.
pub(crate) trait Keeper: Send + Sync {
    /// Somebody waits to hear what is settled. The keeper calls [`Ledger::recorded`] or [`Ledger::told`] later; if it is gone, nothing
    /// happens. Called without the ledger's lock.
    fn ask(&self);
}

/// Where a ledger's keeper is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Here: the session, which writes its record.
    Record,
    /// On the session's node; this is the ledger of a connection elsewhere.
    Remote,
}

#[derive(Default)]
struct Entries {
    /// Everything up to this number is settled.
    settled: u32,
    /// For each number after `settled`: how many obligations are open.
    open: VecDeque<u16>,
    /// How many of the next stanzas are pressing, however few are open.
    presses: u32,
    /// A stanza's processing died without an answer: nothing after it may be acked.
    broken: bool,
    /// The pipe that waits for progress.
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
    pub(crate) fn keep(&self, record: impl Keeper + 'static) {
        let _ = self.keeper.set((Kind::Record, Box::new(record)));
    }

    /// A ledger whose entries the session's node settles.
    pub(crate) fn remote(settled: u32, recorded: u32, proxy: impl Keeper + 'static) -> Arc<Self> {
        let ledger = Self::behind(settled, recorded);
        let _ = ledger.keeper.set((Kind::Remote, Box::new(proxy)));
        ledger
    }

    fn ask(&self) {
        if let Some((_, keeper)) = self.keeper.get() {
            keeper.ask();
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

    /// The record says so now; or it could not be written, and a waiter must ask again.
    pub(crate) fn recorded(&self, number: Option<u32>) {
        let mut inner = self.inner.lock();
        inner.asked = false;
        let (before, now) = (inner.recorded, number.unwrap_or(inner.recorded));
        // A client that was told a number must not find a smaller one after a crash.
        invariant!("recorded_grows", now.wrapping_sub(before) < u32::MAX / 2, "{now} after {before}");
        inner.recorded = now;
        let waiter = inner.waiter.take();
        drop(inner);
        if let Some(pipe) = waiter {
            pipe.nudge();
        }
    }

    /// Whether nothing is open, and the record says so. If not, the keeper is asked.
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
        let pressing = inner.presses > 0 || inner.open.len() >= PRESSING;
        inner.presses = if inner.open.len() >= PRESSING { STAYS } else { inner.presses.saturating_sub(1) };
        Receipt::of(self.clone(), n, pressing)
    }

    /// Whether so much is open by now that all of it is pressing.
    pub(super) fn is_pressed(&self) -> bool {
        self.inner.lock().open.len() >= PRESSING
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
        let remote = self.keeper.get().is_some_and(|(kind, _)| *kind == Kind::Remote);
        let behind = inner.recorded != inner.settled || (remote && !inner.open.is_empty());
        if behind && !inner.asked && self.keeper.get().is_some() {
            inner.asked = true;
            drop(inner);
            self.ask();
        }
    }

    pub(super) fn change(&self, n: u32, by: i32, broken: bool) {
        let mut inner = self.inner.lock();
        inner.broken |= broken;
        let at = n.wrapping_sub(inner.settled).wrapping_sub(1) as usize;
        let open = inner.open.get(at).copied().unwrap_or(0);
        invariant!(
            "receipt_settled_once",
            open > 0,
            "{n} is settled; {} are open behind {}",
            inner.open.len(),
            inner.settled
        );
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

    /// Bursts of a busy stream: the first stanzas of the next one press, too.
    #[test]
    fn what_follows_what_was_pressing_is_pressing() {
        let ledger = Ledger::new(0);
        let burst = |stanzas: usize| (0..stanzas).map(|_| ledger.enter()).collect::<Vec<_>>();
        let pressing = |burst: &[Receipt]| burst.iter().filter(|receipt| receipt.pressing()).count();
        let settle = |burst: Vec<Receipt>| burst.into_iter().for_each(Receipt::done);
        let first = burst(PRESSING);
        assert_eq!((pressing(&first), first.iter().all(Receipt::is_pressing)), (1, true));
        settle(first);
        for _ in 0..20 {
            let next = burst(200);
            assert_eq!(pressing(&next), 200);
            settle(next);
        }
        // Few at a time do not press for long.
        let few: usize = (0..30).map(|_| burst(10)).map(|few| (pressing(&few), settle(few)).0).sum();
        assert_eq!(few, STAYS as usize);
        let last = ledger.enter();
        assert!(!last.is_pressing());
        last.done();
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
