//! The numbered pipe between a connection (a socket somewhere) and its session (at the user's home).
//!
//! Up: the connection hands stanzas to [`crate::SessionHandle::up`]; the session's [`crate::Ledger`] says which of them are settled,
//! that is durable or answered. Down: the session pushes [`Down`] items; the connection drains them in batches and
//! writes each batch at once. On one node the pipe is this piece of shared memory; between nodes there is one at either
//! end, and proxies carry the items over.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_cluster::mesh::peer::NodeId;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;
use rookery_rpc::payload::v1::Capsule;
use tokio::sync::Notify;

use crate::connection::budget::Charged;
pub use crate::connection::kept::Kept;
use crate::connection::shared_delivery::SharedDelivery;

/// A stanza on its way to one recipient. The stanza is shared by all recipients; only the start tag's `to` and what
/// is appended differ.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What is sent.
    pub stanza: Arc<Stanza>,
    /// The `to` to write instead of the stanza's own.
    pub to: Option<Jid>,
    /// Complete child elements to append after the payload (`<stanza-id/>`, `<delay/>`); mostly empty.
    pub extra: Option<Arc<[u8]>>,
    /// The account it is charged to while it waits.
    pub charged: Charged,
    /// Where else it is sent.
    pub among: SharedDelivery,
}

impl Outgoing {
    /// The stanza as it is.
    pub fn new(stanza: impl Into<Arc<Stanza>>) -> Self {
        Self {
            stanza: stanza.into(),
            to: None,
            extra: None,
            charged: Charged::default(),
            among: SharedDelivery::default(),
        }
    }

    /// The stanza, to `to` if that is another than its own, with `extra` behind its payload.
    pub fn with(stanza: Arc<Stanza>, to: Option<Jid>, extra: Option<Arc<[u8]>>) -> Self {
        Self { to, extra, ..Self::new(stanza) }
    }

    /// About how many bytes it has.
    pub fn size(&self) -> usize {
        self.stanza.size() + self.extra.as_ref().map_or(0, |extra| extra.len())
    }

    /// Appends the stanza's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.stanza.write_with(
            out,
            self.to.as_ref().or(self.stanza.to.as_ref()),
            self.extra.as_deref().unwrap_or_default(),
        );
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
    /// At once and silently: the session is elsewhere, and this connection has nothing to do with it any more.
    Abandon,
}

/// One item from a session to its connection, in order.
#[derive(Clone, Debug)]
pub enum Down {
    /// A stanza; each counts one (XEP-0198 section 4). And where it lies until the client has it.
    Stanza(Outgoing, Kept),
    /// A stanza, already written out, from the session's node.
    Written(Bytes, Charged),
    /// A complete top-level element that does not count (`<enabled/>`, `<resumed/>`, `<r/>`).
    Nonza(Bytes),
    /// `<enabled/>`, already written out: from here on both sides count from 0 (XEP-0198 section 3).
    Enabled(Bytes),
    /// Not for the wire: once everything before it is written, the connection calls [`crate::SessionHandle::marked`] with its number.
    /// The last one stands for those before it.
    Mark(u64),
    /// The end of the stream.
    Close(Close),
    /// Not for the wire, nor for the connection: the session moves to another node.
    Moved,
}

impl Down {
    /// About how many bytes are written for it.
    fn size(&self) -> usize {
        match self {
            Self::Stanza(outgoing, _) => outgoing.size(),
            Self::Written(bytes, _) | Self::Nonza(bytes) | Self::Enabled(bytes) => bytes.len(),
            Self::Mark(_) | Self::Close(_) | Self::Moved => 0,
        }
    }
}

/// What a client is told whose session other nodes have taken.
pub const ELSEWHERE: &str = "your session lives on another server now; please come back";

/// How many items may wait in a pipe before its client counts as too slow.
pub const PIPE_ITEMS: usize = 1_024;

#[derive(Default)]
struct Queue {
    items: VecDeque<Down>,
    /// For the node of the connection: the newest takes the place of those before.
    capsule: Option<Box<Capsule>>,
    /// What fills the pipe from another node now, and wants to know when there is room.
    feeder: Option<Weak<dyn Feeder>>,
    closed: bool,
}

/// Fills a pipe from another node, and gives back the room that its items have taken.
pub(crate) trait Feeder: Send + Sync {
    /// The connection took `items` out of the pipe; `all`: no more is in it. Called without the pipe's lock.
    fn drained(self: Arc<Self>, items: usize, all: bool);
}

/// The pipe of one connection.
pub struct Pipe {
    queue: Mutex<Queue>,
    wake: Notify,
    ticked: AtomicBool,
    /// The other end, if that is on another node: which, and the name of the connection there.
    remote: Option<(NodeId, u64)>,
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
        Self::make(None)
    }

    /// The session's end of a pipe whose connection is on another node.
    pub(crate) fn remote(node: NodeId, conn: u64) -> Arc<Self> {
        Self::make(Some((node, conn)))
    }

    fn make(remote: Option<(NodeId, u64)>) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue::default()),
            wake: Notify::new(),
            ticked: AtomicBool::new(false),
            remote,
        })
    }

    /// The pipe is filled from another node, by this one from now on.
    pub(crate) fn feed(&self, feeder: Weak<dyn Feeder>) {
        self.queue.lock().feeder = Some(feeder);
    }

    /// Whether the connection is on another node.
    pub(crate) fn is_far(&self) -> bool {
        self.remote.is_some()
    }

    /// The other end on another node.
    pub(crate) fn peer(&self) -> Option<&(NodeId, u64)> {
        self.remote.as_ref()
    }

    /// Session side: queues one item.
    pub fn push(&self, down: Down) -> Result<(), Refused> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(Refused::Closed);
        }
        // Nonzas and the end are few and must get through.
        if queue.items.len() >= PIPE_ITEMS && matches!(down, Down::Stanza(..)) {
            return Err(Refused::Full);
        }
        // A connection that waits for its client to read learns of the end all the same.
        let wake = queue.items.is_empty() || matches!(down, Down::Close(_));
        queue.items.push_back(down);
        drop(queue);
        if wake {
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

    /// Session side: what it takes to bring the session back, for the node of the connection.
    pub(crate) fn set_capsule(&self, capsule: Capsule) {
        let mut queue = self.queue.lock();
        if !queue.closed {
            queue.capsule = Some(Box::new(capsule));
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// For the node of the connection: what was set since the last time.
    pub(crate) fn take_capsule(&self) -> Option<Box<Capsule>> {
        self.queue.lock().capsule.take()
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
        self.drain_bytes(into, max, usize::MAX)
    }

    /// The same, up to the item with which they come to `bytes`: what is taken is charged to nobody until it is written.
    pub fn drain_bytes(&self, into: &mut Vec<Down>, max: usize, bytes: usize) -> bool {
        let mut queue = self.queue.lock();
        let mut taken = 0;
        let fits = |item: &&Down| {
            let fits = taken < bytes;
            taken += item.size();
            fits
        };
        let take = queue.items.iter().take(max).take_while(fits).count();
        into.extend(queue.items.drain(..take));
        if queue.items.is_empty() && queue.items.capacity() > 4 {
            queue.items = VecDeque::new(); // an idle connection keeps no buffer
        }
        let more = !queue.items.is_empty();
        let feeder = if take > 0 { queue.feeder.as_ref().and_then(Weak::upgrade) } else { None };
        drop(queue);
        if let Some(feeder) = feeder {
            feeder.drained(take, !more);
        }
        more
    }

    /// Connection side: whether the end of the stream waits, behind what the client does not take.
    pub fn ends(&self) -> bool {
        matches!(self.queue.lock().items.back(), Some(Down::Close(_)))
    }

    /// Connection side: the socket is gone; nothing more is taken.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.items = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pipe_refuses_stanzas_but_not_the_end() {
        use rookery_proto::xmpp::stanza::{MessageType, Type};
        let pipe = Pipe::new();
        let stanza = Arc::new(Stanza::new(Type::Message(MessageType::Chat)));
        for _ in 0..PIPE_ITEMS {
            pipe.push(Down::Stanza(Outgoing::new(stanza.clone()), Kept::default())).unwrap();
        }
        assert_eq!(pipe.push(Down::Stanza(Outgoing::new(stanza), Kept::default())), Err(Refused::Full));
        pipe.push(Down::Close(Close::Clean)).unwrap();
        let mut items = Vec::new();
        while pipe.drain(&mut items, 100) {}
        assert_eq!(items.len(), PIPE_ITEMS + 1);
        pipe.close();
        assert_eq!(pipe.push(Down::Close(Close::Clean)), Err(Refused::Closed));
    }
}
