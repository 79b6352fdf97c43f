//! What a user knows of each of its sessions.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::jid::FullJid;
use rookery_proto::xmpp::stanza::Stanza;

use super::{Msg, Sequence, User};
use crate::connection::ledger::Receipt;
use crate::connection::left_behind::LeftBehind;
use crate::connection::pipe::{Kept, Outgoing};
use crate::connection::recent;
use crate::runtime::actor::{Handle, Refused};
use crate::runtime::origin::Origin;
use crate::session::event::{Event, Owner};
use crate::session::{self, ClientState, Session, SessionId};

/// A session as its user sees it.
pub struct UserSession {
    /// Which.
    pub sid: SessionId,
    /// Its full JID.
    pub jid: FullJid,
    /// What its client has asked for. Call [`User::changed`](super::User::changed) after a change that must survive a restart.
    pub client: ClientState,
    /// When it was bound, microseconds since 1970.
    pub since: u64,
    /// Where from, for people.
    pub address: Arc<str>,
    /// The session can be resumed (XEP-0198), so duplicates are possible and remembered.
    pub(crate) resumable: bool,
    /// What its stanzas are counted by before it can be resumed: they may come again from another node.
    pub(super) counted: u8,
    /// The session is served from the store and must not get archived messages live.
    pub(crate) draining: bool,
    /// What of ended sessions its client was sent by the last home, which may have confirmed none of that.
    pub(super) left_behind: LeftBehind,
    /// What it is handed, counted.
    pub(crate) sequence: Sequence,
    /// What the session says of itself.
    pub(crate) shared: Arc<session::Shared>,
    pub(crate) handle: Handle<Session>,
}

/// What its client has asked for reads like the session's own.
impl Deref for UserSession {
    type Target = ClientState;

    fn deref(&self) -> &ClientState {
        &self.client
    }
}

impl DerefMut for UserSession {
    fn deref_mut(&mut self) -> &mut ClientState {
        &mut self.client
    }
}

impl UserSession {
    /// See [`ClientState::takes_messages`].
    pub(crate) fn takes_messages(&self) -> bool {
        self.client.takes_messages()
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

impl Owner for Handle<User> {
    fn tell(&self, sid: SessionId, event: Event) -> Result<(), Refused<Event>> {
        event_back(self.cast(Msg::Session { sid, event }))
    }

    fn tell_always(&self, sid: SessionId, event: Event) -> Result<(), Refused<Event>> {
        event_back(self.cast_always(Msg::Session { sid, event }))
    }
}

/// The event of a message that was not taken.
fn event_back(sent: Result<(), Refused<Msg>>) -> Result<(), Refused<Event>> {
    match sent {
        Err(Refused::Full(Msg::Session { event, .. })) => Err(Refused::Full(event)),
        Err(Refused::Gone(Msg::Session { event, .. })) => Err(Refused::Gone(event)),
        Ok(()) | Err(_) => Ok(()), // no other message was sent
    }
}
