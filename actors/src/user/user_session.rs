//! What a user knows of each of its sessions.

use std::sync::Arc;

use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::roster::RosterVersion;
use rookery_proto::xmpp::jid::{FullJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;

use super::{Reader, Sequence};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::{Kept, Outgoing};
use crate::connection::recent;
use crate::runtime::actor::Handle;
use crate::runtime::origin::Origin;
use crate::session::{self, Session, SessionId};

/// A presence that makes a session available.
#[derive(Clone, Debug)]
pub struct Available {
    /// The presence as it was sent, with `from`.
    pub stanza: Arc<Stanza>,
    /// RFC 6121 section 4.7.2.3
    pub priority: i8,
}

/// A session as its user sees it.
pub struct UserSession {
    /// Which.
    pub sid: SessionId,
    /// Its full JID.
    pub jid: FullJid,
    /// Its last available presence; `None` before the first and after unavailable.
    pub presence: Option<Available>,
    /// It asked for carbons (XEP-0280).
    pub carbons: bool,
    /// It asked for the roster and gets pushes (RFC 6121 section 2.1.6).
    pub interested: bool,
    /// What its client has of the roster then.
    pub(crate) roster: RosterVersion,
    /// It asked for the block list and gets pushes (XEP-0191).
    pub blocks_push: bool,
    /// When it was bound, microseconds since 1970.
    pub since: u64,
    /// Where from, for people.
    pub address: Arc<str>,
    /// It can be resumed (XEP-0198), so duplicates are possible and remembered.
    pub(crate) resumable: bool,
    /// What its stanzas are counted by before it can be resumed: they may come again from another node.
    pub(super) counted: u8,
    /// It is served from the store and must not get archived messages live.
    pub(crate) draining: bool,
    /// Which messages are for it.
    pub(crate) reader: Reader,
    /// What it is handed, counted.
    pub(crate) sequence: Sequence,
    /// Whom it sent directed presence to (RFC 6121 section 4.6).
    pub(crate) directed: Vec<Jid>,
    /// What the session says of itself.
    pub(crate) shared: Arc<session::Shared>,
    pub(crate) handle: Handle<Session>,
}

impl UserSession {
    /// Available, with a priority that takes messages to the bare JID (RFC 6121 section 8.5.2).
    pub(crate) fn takes_messages(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.priority >= 0)
    }

    /// Hands a stanza to the session. `id` is its place in the archive, if it is there; the receipt is done when the
    /// client has it, or it is safe elsewhere.
    pub(crate) fn deliver(&self, outgoing: Outgoing, id: Option<ArchiveId>, receipt: Receipt) {
        self.hand(session::Delivery { outgoing, kept: Kept::archived(id), receipt });
    }

    /// The same of a request or an answer of somebody else, which may come again.
    pub(super) fn deliver_iq(
        &self,
        stanza: Arc<Stanza>,
        receipt: Receipt,
        origin: Option<Origin>,
        again: bool,
    ) {
        let kept = Kept::default().from(origin, recent::key(&stanza, origin), again);
        self.hand(session::Delivery { outgoing: Outgoing::new(stanza), kept, receipt });
    }
}
