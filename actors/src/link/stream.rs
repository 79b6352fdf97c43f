//! The seam between links and the program: a link decides what is sent to another server, a [`Dialer`] opens the stream.
//!
//! ```text
//!  link ── dial(pair, resume, end) ──► Dialer: finds the server, connects, proves this side and checks the other
//!       ◄── end.ready(…) ────────────  the stream is open; or end.failed(…)
//!       ◄── end.next(out) ───────────  the bytes that are to be written, until the link wants the stream closed
//!       ◄── end.confirmed(h) ────────  <a h='…'/> of the peer (XEP-0198 version 1.6.3)
//! ```
//!
//! The link writes stanzas and, on a managed stream, `<r xmlns='urn:xmpp:sm:3'/>`; all else is the program's: stream headers,
//! features, `<enable/>`, `<resume/>`, answers to the peer's own `<r/>`.
//!
//! **Counts are those of one link.** Where a stream serves several pairs, the program gives each link what is its own, or says
//! [`Managed::No`].

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rookery_proto::xmpp::error::Condition;
use tokio::sync::Notify;

use crate::host::Host;
pub use crate::host::pair::Pair;

/// More than this much is not handed to a stream at once, but for one whole stanza.
pub(crate) const CHUNK: usize = 64 << 10;

/// Opens streams to other servers.
pub trait Dialer: Send + Sync + 'static {
    /// Opens a stream for a pair. Returns at once; what becomes of the stream is said to `end`. Where `resume` is given, the stream of
    /// that id is to be resumed, and if the peer refuses, a new one is opened.
    fn dial(&self, pair: &Pair, resume: Option<Resumable>, end: LinkEnd);
}

/// A stream that the peer can resume (XEP-0198 section 5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resumable {
    /// The peer's id for it: `previd`.
    pub id: String,
    /// How many of the peer's stanzas were handled on it, as [`LinkEnd::handled`] has said; 0 on a stream that goes one way.
    pub h: u32,
    /// Where the peer wants to be called, as it said.
    pub location: Option<String>,
}

/// A stream that is open and proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ready {
    /// Whether the peer confirms what it has.
    pub managed: Managed,
    /// How the peer has proved its domain: `certificate`, `dane`, `posh` or `dialback`.
    pub proof: &'static str,
    /// Where the peer was reached, for the operator.
    pub address: String,
    /// The version of TLS, for the operator; empty without.
    pub tls: &'static str,
    /// The largest stanza that the peer takes, bytes (XEP-0478 version 0.2), if it has said so. Larger ones are refused.
    pub max_bytes: Option<usize>,
}

/// What a stream has of XEP-0198.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Managed {
    /// Nothing. The link asks by pings (XEP-0199) what has arrived.
    No,
    /// A new stream on which the peer confirms. Nothing was counted on it yet.
    Enabled {
        /// The peer's id for resumption, if it offers that.
        id: Option<String>,
        /// For how many seconds the peer keeps a lost stream, if it says so.
        max: Option<u32>,
        /// Where the peer wants to be called for that, if it says so.
        location: Option<String>,
        /// If another stream was to be resumed, and the peer refused with `<failed h='…'/>`: that number.
        last: Option<u32>,
    },
    /// The stream that was to be resumed, on which the peer has got `h` stanzas.
    Resumed {
        /// `h` of `<resumed/>`.
        h: u32,
    },
}

/// Why there is no stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What senders are told when their stanzas go back: [`Condition::RemoteServerNotFound`] or
    /// [`Condition::RemoteServerTimeout`].
    pub condition: Condition,
    /// Trying again is of no use now: the name does not exist, or policy forbids. Everything that waits goes back at once.
    pub permanent: bool,
    /// The other server was reached, and did not prove its domain. What waits goes back sooner, and its senders are told so.
    pub unproved: bool,
    /// For the operator: what failed, without secrets. Senders are not told.
    pub text: String,
}

impl Failure {
    /// One that may pass soon: [`Condition::RemoteServerTimeout`].
    pub fn passing(text: impl Into<String>) -> Self {
        let condition = Condition::RemoteServerTimeout;
        Self { condition, permanent: false, unproved: false, text: text.into() }
    }

    /// One that stays for now: [`Condition::RemoteServerNotFound`].
    pub fn permanent(text: impl Into<String>) -> Self {
        let condition = Condition::RemoteServerNotFound;
        Self { condition, permanent: true, unproved: false, text: text.into() }
    }
}

/// What [`LinkEnd::next`] wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Next {
    /// Write what was appended.
    Write,
    /// Nothing more comes. Close the stream in order (RFC 6120 section 4.4): write what was appended before, then `</stream:stream>`.
    Close,
    /// The link goes on elsewhere, and may resume this very stream: drop the connection without closing the stream.
    Abandon,
}

/// What a stream says to its link.
pub(crate) enum Word {
    /// See [`LinkEnd::ready`].
    Ready(Ready),
    /// See [`LinkEnd::confirmed`]; the number is in [`Outbox`].
    Confirmed,
    /// There is room in the outbox again.
    Room,
    /// The peer sends on this stream too.
    Handled,
    /// See [`LinkEnd::failed`].
    Failed(Failure),
    /// The stream was lost.
    Lost,
}

#[derive(Default)]
struct Inner {
    /// Whole elements.
    waiting: Vec<u8>,
    /// What was put in, and taken out, and written to the socket: bytes in all.
    put: u64,
    taken: u64,
    written: u64,
    ended: Option<Next>,
    /// The link waits for room.
    full: bool,
    /// The peer's last count, and whether the link knows of it.
    confirmed: Option<u32>,
    told: bool,
    handled: Option<u32>,
}

/// What a link and its stream share.
#[derive(Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Outbox {
    /// Whether a stanza may be put in. If not, [`Word::Room`] comes when one may.
    pub(crate) fn has_room(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.full = inner.waiting.len() >= CHUNK;
        !inner.full
    }

    /// Puts a whole element in; returns its place, for [`Outbox::written`].
    pub(crate) fn put(&self, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let mut inner = self.inner.lock();
        let before = inner.waiting.len();
        write(&mut inner.waiting);
        inner.put += (inner.waiting.len() - before) as u64;
        let place = inner.put;
        drop(inner);
        self.wake.notify_one();
        place
    }

    /// Everything up to this place was written to the socket.
    pub(crate) fn written(&self) -> u64 {
        self.inner.lock().written
    }

    /// Nothing more comes.
    pub(crate) fn end(&self, how: Next) {
        let mut inner = self.inner.lock();
        // What is to be abandoned is not closed in order after all.
        if inner.ended != Some(Next::Abandon) {
            inner.ended = Some(how);
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// The peer's last count, since this was last asked.
    pub(crate) fn confirmed(&self) -> Option<u32> {
        let mut inner = self.inner.lock();
        inner.told = false;
        inner.confirmed.take()
    }

    /// How many of the peer's stanzas were handled.
    pub(crate) fn handled(&self) -> u32 {
        self.inner.lock().handled.unwrap_or(0)
    }

    /// What is to be done now; `None`: wait.
    fn take(&self, out: &mut Vec<u8>, asked: &mut bool) -> Option<Next> {
        let mut inner = self.inner.lock();
        match inner.ended {
            Some(Next::Abandon) => return Some(Next::Abandon),
            how if inner.waiting.is_empty() => return how,
            _ => {}
        }
        out.append(&mut inner.waiting);
        if inner.waiting.capacity() > 2 * CHUNK {
            inner.waiting = Vec::new(); // one large stanza
        }
        inner.taken = inner.put;
        *asked = std::mem::take(&mut inner.full);
        Some(Next::Write)
    }
}

/// The stream's end of a link. Dropped without a word, it says that the stream was lost.
pub struct LinkEnd {
    outbox: Arc<Outbox>,
    tell: Box<dyn Fn(Word) + Send + Sync>,
    over: bool,
}

impl LinkEnd {
    /// A link's end that says its words to `tell`.
    pub(crate) fn new(outbox: Arc<Outbox>, tell: impl Fn(Word) + Send + Sync + 'static) -> Self {
        Self { outbox, tell: Box::new(tell), over: false }
    }

    /// The stream is open, and both sides have proved themselves: from now on what the link has is written.
    pub fn ready(&self, ready: Ready) {
        (self.tell)(Word::Ready(ready));
    }

    /// Waits for something to do, and appends what is to be written: whole elements, about 64 KiB of them or one larger stanza. To be
    /// called again when that is written to the socket: what a call has returned counts as written with the next one. May be dropped while it
    /// waits; nothing is lost. Before [`LinkEnd::ready`] only the end comes: the link does not want the stream any more.
    pub async fn next(&self, out: &mut Vec<u8>) -> Next {
        {
            let mut inner = self.outbox.inner.lock();
            inner.written = inner.taken;
        }
        loop {
            let mut asked = false;
            if let Some(next) = self.outbox.take(out, &mut asked) {
                if asked {
                    (self.tell)(Word::Room);
                }
                return next;
            }
            self.outbox.wake.notified().await;
        }
    }

    /// The peer's `<a h='…'/>`.
    pub fn confirmed(&self, h: u32) {
        let mut inner = self.outbox.inner.lock();
        inner.confirmed = Some(h);
        let told = std::mem::replace(&mut inner.told, true);
        drop(inner);
        if !told {
            (self.tell)(Word::Confirmed);
        }
    }

    /// On a stream on which the peer sends too (XEP-0288): how many of its stanzas the peer was told are handled. Such a stream is resumed only
    /// by the process that has counted.
    pub fn handled(&self, h: u32) {
        let first = self.outbox.inner.lock().handled.replace(h).is_none();
        if first {
            (self.tell)(Word::Handled);
        }
    }

    /// There is no stream, or none any more, and this is why. Instead of, or after, [`LinkEnd::ready`].
    pub fn failed(mut self, why: Failure) {
        self.over = true;
        (self.tell)(Word::Failed(why));
    }
}

impl Drop for LinkEnd {
    fn drop(&mut self) {
        if !self.over {
            (self.tell)(Word::Lost);
        }
    }
}

impl std::fmt::Debug for LinkEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkEnd")
    }
}

/// The program's dialer.
#[derive(Default)]
pub(crate) struct Dialing(RwLock<Option<Arc<dyn Dialer>>>);

impl Host {
    /// From now on links open their streams by `dialer`. To be called before anything is served; without one, nothing reaches other
    /// servers.
    pub fn set_dialer(&self, dialer: Arc<dyn Dialer>) {
        *self.state::<Dialing>().0.write() = Some(dialer);
    }

    /// The dialer, which opens streams; `None` before [`Host::set_dialer`].
    pub(crate) fn dialer(&self) -> Option<Arc<dyn Dialer>> {
        self.state::<Dialing>().0.read().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> (LinkEnd, Arc<Outbox>, Arc<Mutex<Vec<&'static str>>>) {
        let (outbox, words) = (Arc::new(Outbox::default()), Arc::new(Mutex::new(Vec::new())));
        let heard = words.clone();
        let end = LinkEnd::new(outbox.clone(), move |word| {
            heard.lock().push(match word {
                Word::Ready(_) => "ready",
                Word::Confirmed => "confirmed",
                Word::Room => "room",
                Word::Handled => "handled",
                Word::Failed(_) => "failed",
                Word::Lost => "lost",
            });
        });
        (end, outbox, words)
    }

    #[tokio::test]
    async fn what_is_put_in_is_taken_and_then_written() {
        let (end, outbox, words) = end();
        let mut out = Vec::new();
        let first = outbox.put(|out| out.extend_from_slice(b"<a/>"));
        let second = outbox.put(|out| out.extend_from_slice(&[b'x'; CHUNK]));
        assert!(!outbox.has_room());
        assert_eq!(end.next(&mut out).await, Next::Write);
        assert_eq!((out.len(), outbox.written()), (CHUNK + 4, 0));
        assert!(outbox.has_room() && first < second);
        outbox.put(|out| out.extend_from_slice(b"<b/>"));
        outbox.end(Next::Close);
        out.clear();
        assert_eq!(end.next(&mut out).await, Next::Write);
        assert_eq!((&out[..], outbox.written()), (&b"<b/>"[..], second));
        assert_eq!(end.next(&mut out).await, Next::Close);
        outbox.end(Next::Abandon);
        outbox.end(Next::Close);
        assert_eq!(end.next(&mut out).await, Next::Abandon);
        end.confirmed(1);
        end.confirmed(2);
        assert_eq!((outbox.confirmed(), outbox.confirmed()), (Some(2), None));
        end.confirmed(3);
        end.handled(1);
        end.handled(2);
        assert_eq!(outbox.handled(), 2);
        drop(end);
        assert_eq!(*words.lock(), ["room", "confirmed", "confirmed", "handled", "lost"]);
    }
}
