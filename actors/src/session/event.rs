//! What a session tells its user.

use std::sync::Arc;

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::oneshot;

use super::{Claim, SessionId, Unacked};
use crate::connection::ledger::Receipt;
use crate::runtime::actor::Refused;
use crate::runtime::origin::Origin;

/// The user that a session belongs to, as far as the session knows it.
pub(crate) trait Owner: Send + Sync {
    /// Tells what has happened to the session `sid`, unless too much waits for the user.
    fn tell(&self, sid: SessionId, event: Event) -> Result<(), Refused<Event>>;

    /// The same however much waits: for what the user itself began, or what is bounded otherwise.
    fn tell_always(&self, sid: SessionId, event: Event) -> Result<(), Refused<Event>>;
}

/// What a session tells its user.
pub(crate) enum Event {
    /// Its client has sent a stanza.
    Sent { stanza: Arc<Stanza>, receipt: Receipt },
    /// The session itself answers a stanza of its client. The user counts what the session is handed, so the answer goes by way of
    /// the user.
    Answer { reply: Option<Box<Stanza>>, receipt: Receipt },
    /// The session is over.
    Ended(Box<Ended>),
    /// Its client has everything before the mark with this number (XEP-0198), or its connection has written it.
    Marked(u64),
    /// Its resumption was enabled.
    Enabled(Numbering),
    /// Its stanzas are counted anew, but it can't be resumed.
    Managed,
    /// The session was restored from the store, and is resumed now.
    Resumed(Box<Resumed>),
    /// The session was restored, and has its connection back.
    Reattached(Box<Reattached>),
    /// All that its connection sent before it was held has come.
    Held,
    /// A stanza for its client is durable nowhere: it must go into the offline queue.
    Unsafe(Box<Unsafe>),
    /// A stanza came again that lies in the offline queue, or is on its way there.
    QueuedAgain { stanza: Arc<Stanza>, receipt: Receipt },
    /// Its client has what lies in the offline queue under these ids.
    Unqueue(Vec<ArchiveId>),
    /// What was being read for it from the store is to be read again.
    DrainAnew,
    /// Its stream has ended because the process stops. What it told before this was taken when this is answered.
    Suspended(oneshot::Sender<()>),
}

/// A session is over.
pub(crate) struct Ended {
    /// Which.
    pub(crate) sid: SessionId,
    /// What its client has not confirmed.
    pub(crate) unacked: Vec<Unacked>,
    /// For a session that was restored and never resumed: the place in the archive its client has confirmed.
    pub(crate) replay_after: Option<ArchiveId>,
    /// The session has a record in the store.
    pub(crate) recorded: bool,
}

/// A session that was restored from the store is resumed.
pub(crate) struct Resumed {
    /// What its client has confirmed of the archive.
    pub(crate) acked: Option<ArchiveId>,
    /// How it counts from now on.
    pub(crate) numbering: Numbering,
    /// What its client's count has told.
    pub(crate) claim: Claim,
}

/// A session that was restored has its connection back.
pub(crate) struct Reattached {
    /// If it can be resumed.
    pub(crate) numbering: Option<Numbering>,
    /// The session was sent everything of the archive that it was to get up to here.
    pub(crate) last: Option<ArchiveId>,
    /// The session was sent everything that was offline for all devices up to here.
    pub(crate) drained: Option<ArchiveId>,
    /// So many stanzas of its numbering before.
    pub(crate) has: Option<(u64, u32)>,
    /// What it was sent of the offline queue.
    pub(crate) queued: Vec<ArchiveId>,
    /// Its last home gave it up in order.
    pub(crate) moved: bool,
}

/// A stanza for a client that is durable nowhere.
pub(crate) struct Unsafe {
    /// Its number among those that the client was sent.
    pub(crate) number: u32,
    /// The stanza.
    pub(crate) stanza: Arc<Stanza>,
    /// By which it is known if it comes again.
    pub(crate) origin: Option<Origin>,
    /// Done when it is in the offline queue.
    pub(crate) receipt: Receipt,
}

/// How a session counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbering {
    /// Its name in the store.
    pub(crate) name: u64,
    /// What to take from the count of what was handed to the session, to get the stanza's number.
    pub(crate) base: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each stanza of a client is moved by value through the user's queue: see `connection::kept`.
    #[test]
    fn what_a_session_tells_is_small() {
        assert!(size_of::<Event>() <= 56, "{}", size_of::<Event>());
        assert!(size_of::<crate::runtime::actor::Refused<Event>>() <= 64);
    }
}
