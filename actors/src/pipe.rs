//! The numbered pipe between a connection (a socket somewhere) and its session (at the user's home).
//!
//! Up: the connection hands stanzas to [`crate::Link::up`]; the session's [`Ledger`] says which of them are settled,
//! that is durable or answered. Down: the session pushes [`Down`] items; the connection drains them in batches and
//! writes each batch at once. On one node the pipe is this piece of shared memory; between nodes it will be a stream of
//! the mesh with the same verbs.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::Notify;

use crate::resident::WeakHandle;
use crate::session::{self, Session};

/// A stanza on its way to one recipient. The stanza is shared by all recipients; only the start tag's `to` and what
/// is appended differ.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What is sent.
    pub stanza: Arc<Stanza>,
    /// The `to` to write instead of the stanza's own.
    pub to: Option<Jid>,
    /// Complete child elements to append after the payload (`<stanza-id/>`, `<delay/>`); mostly empty.
    pub extra: Bytes,
}

impl Outgoing {
    /// The stanza as it is.
    pub fn new(stanza: impl Into<Arc<Stanza>>) -> Self {
        Self { stanza: stanza.into(), to: None, extra: Bytes::new() }
    }

    /// Appends the stanza's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.stanza.write_with(out, self.to.as_ref().or(self.stanza.to.as_ref()), &self.extra);
    }
}

/// Why a session ends a connection.
#[derive(Clone, Debug)]
pub enum Close {
    /// With `</stream:stream>` only.
    Clean,
    /// The client confirmed more than it was sent (XEP-0198 section 4): `<handled-count-too-high/>` with both counts.
    HandledTooHigh {
        /// What it confirmed.
        h: u32,
        /// What it was sent.
        sent: u32,
    },
    /// With a stream error (RFC 6120 section 4.9) and a text for people.
    Error(StreamCondition, Cow<'static, str>),
    /// At once and silently: the session went on elsewhere (XEP-0198 resumption) and the socket is stale.
    Abandon,
}

/// One item from a session to its connection, in order.
#[derive(Clone, Debug)]
pub enum Down {
    /// A stanza; each counts one (XEP-0198 section 4).
    Stanza(Outgoing),
    /// A complete top-level element that does not count (`<enabled/>`, `<resumed/>`, `<r/>`).
    Nonza(Bytes),
    /// `<enabled/>`, already written out: from here on both sides count from 0 (XEP-0198 section 3).
    Enabled(Bytes),
    /// Not for the wire: once everything before it is written, the connection calls [`crate::Link::marked`].
    Mark,
    /// The end of the stream.
    Close(Close),
}

/// How many items may wait in a pipe before its client counts as too slow.
pub const PIPE_ITEMS: usize = 1_024;

#[derive(Default)]
struct Queue {
    items: VecDeque<Down>,
    closed: bool,
}

/// The pipe of one connection.
pub struct Pipe {
    queue: Mutex<Queue>,
    wake: Notify,
    ticked: AtomicBool,
}

/// The pipe is full or its connection has gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The client reads too slowly.
    #[error("the client does not take what it is sent")]
    Full,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
}

impl Pipe {
    /// A new pipe.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue::default()),
            wake: Notify::new(),
            ticked: AtomicBool::new(false),
        })
    }

    /// Session side: queues one item.
    pub fn push(&self, down: Down) -> Result<(), Refused> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        // Nonzas and the end are few and must get through.
        if queue.items.len() >= PIPE_ITEMS && matches!(down, Down::Stanza(_)) {
            return Err(Refused::Full);
        }
        let was_empty = queue.items.is_empty();
        queue.items.push_back(down);
        drop(queue);
        if was_empty {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Session side: queues what a resumed client has not confirmed. The limits of what may be unconfirmed bound it, not
    /// the pipe's: to leave any of it out would be to lose it.
    pub(crate) fn refill(&self, items: impl Iterator<Item = Down>) {
        let mut queue = self.queue.lock();
        if !queue.closed {
            queue.items.extend(items);
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// Session side: how many more stanzas fit now.
    pub fn room(&self) -> usize {
        let queue = self.queue.lock();
        if queue.closed { 0 } else { PIPE_ITEMS.saturating_sub(queue.items.len()) }
    }

    /// Wakes the connection so that it looks at its ledger and its deadlines.
    pub fn nudge(&self) {
        self.ticked.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Connection side: waits until there may be something to do. Cancel safe.
    pub async fn ready(&self) {
        self.wake.notified().await;
    }

    /// Connection side: whether [`Pipe::nudge`] was called since the last look.
    pub fn nudged(&self) -> bool {
        self.ticked.swap(false, Ordering::AcqRel)
    }

    /// Connection side: moves at most `max` items to `into`, in order; returns whether more wait.
    pub fn drain(&self, into: &mut Vec<Down>, max: usize) -> bool {
        let mut queue = self.queue.lock();
        let take = queue.items.len().min(max);
        into.extend(queue.items.drain(..take));
        if queue.items.is_empty() && queue.items.capacity() > 4 {
            queue.items = VecDeque::new(); // an idle connection keeps no buffer
        }
        !queue.items.is_empty()
    }

    /// Connection side: the socket is gone; nothing more is taken.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.items = VecDeque::new();
    }
}

/// Which of a session's Up stanzas are settled: durable, or answered. Shared by the session, the connection and every
/// [`Receipt`] under way.
#[derive(Default)]
pub struct Ledger {
    inner: Mutex<Entries>,
    /// Whose record must say how far it is before anybody is told: the session's, if it can be resumed.
    session: OnceLock<WeakHandle<Session>>,
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
        Arc::new(Self { inner: Mutex::new(entries), session: OnceLock::new() })
    }

    /// From now on nobody is told a number that the session's record does not have.
    pub(crate) fn keep(&self, session: WeakHandle<Session>) {
        let _ = self.session.set(session);
    }

    fn ask(&self) {
        if let Some(session) = self.session.get().and_then(WeakHandle::upgrade) {
            let _ = session.cast_always(session::Msg::Settle);
        }
    }

    /// Everything up to this number is settled, whatever the record says.
    pub(crate) fn processed(&self) -> u32 {
        self.inner.lock().settled
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

    /// Enters the next stanza; its number is one more than that of the last.
    pub fn enter(self: &Arc<Self>) -> Receipt {
        let mut inner = self.inner.lock();
        inner.open.push_back(1);
        let n = inner.settled.wrapping_add(u32::try_from(inner.open.len()).unwrap_or(u32::MAX));
        Receipt { ledger: Some(self.clone()), n }
    }

    /// Everything up to this number is settled for good: the `h` of `<a/>`. Where the session can be resumed, its
    /// record says the same.
    pub fn settled(&self) -> u32 {
        let inner = self.inner.lock();
        if self.session.get().is_some() { inner.recorded } else { inner.settled }
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
        if inner.recorded != inner.settled && !inner.asked && self.session.get().is_some() {
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

/// The obligation to settle one Up stanza. [`Receipt::done`] says it is met; dropping it without says that the stanza
/// was lost inside the server, and the stream will be ended so that the client sends it again.
pub struct Receipt {
    ledger: Option<Arc<Ledger>>,
    n: u32,
}

impl Receipt {
    /// A receipt nobody waits for.
    pub fn none() -> Self {
        Self { ledger: None, n: 0 }
    }

    /// The number of the stanza in its session.
    pub fn number(&self) -> u32 {
        self.n
    }

    /// A second obligation for the same stanza: it is settled when both are done.
    pub fn split(&self) -> Self {
        if let Some(ledger) = &self.ledger {
            ledger.change(self.n, 1, false);
        }
        Self { ledger: self.ledger.clone(), n: self.n }
    }

    /// Whether anybody waits for it.
    pub fn is_open(&self) -> bool {
        self.ledger.is_some()
    }

    /// The stanza is durable, or answered.
    pub fn done(mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.change(self.n, -1, false);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            ledger.change(self.n, 0, true);
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

    #[test]
    fn a_full_pipe_refuses_stanzas_but_not_the_end() {
        use rookery_proto::xmpp::stanza::{MessageType, Type};
        let pipe = Pipe::new();
        let stanza = Arc::new(Stanza::new(Type::Message(MessageType::Chat)));
        for _ in 0..PIPE_ITEMS {
            pipe.push(Down::Stanza(Outgoing::new(stanza.clone()))).unwrap();
        }
        assert_eq!(pipe.push(Down::Stanza(Outgoing::new(stanza))), Err(Refused::Full));
        pipe.push(Down::Close(Close::Clean)).unwrap();
        let mut items = Vec::new();
        while pipe.drain(&mut items, 100) {}
        assert_eq!(items.len(), PIPE_ITEMS + 1);
        pipe.close();
        assert_eq!(pipe.push(Down::Close(Close::Clean)), Err(Refused::Closed));
    }
}
