//! What a connection holds of its session.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rookery_proto::xmpp::jid::{BareJid, FullJid};
use rookery_proto::xmpp::stanza::Stanza;

use crate::pipe::Ledger;
use crate::resident::Handle;
use crate::session::{Msg, Session};

/// Somebody who has proved who they are. Only made from the outcome of SASL.
#[derive(Clone, Debug)]
pub struct Authenticated(BareJid);

impl Authenticated {
    /// To be called by whoever has just verified the proof of this user, and nobody else.
    pub fn by_sasl(user: BareJid) -> Self {
        Self(user)
    }

    /// Who.
    pub fn jid(&self) -> &BareJid {
        &self.0
    }
}

/// What people want to know about a connection.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The client's address.
    pub address: Arc<str>,
    /// The listener it came to: `c2s` (STARTTLS) or `c2s_tls` (direct TLS).
    pub via: &'static str,
    /// The version of TLS, as in `1.3`.
    pub tls: &'static str,
    /// The cipher suite, as IANA names it without the prefix, as in `AES_256_GCM_SHA384`.
    pub suite: &'static str,
}

/// Which session has which connection, for the operator. The session itself lives on without one.
#[derive(Clone, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<String, Arc<ConnInfo>>>>);

impl Connections {
    /// That of a full JID.
    pub(crate) fn find(&self, jid: &str) -> Option<ConnInfo> {
        self.0.lock().get(jid).map(|conn| ConnInfo::clone(conn))
    }
}

/// An entry of [`Connections`], until it is dropped.
struct Known(Connections, Arc<ConnInfo>);

/// A connection's end of its session. Dropping it without [`Link::closed`] counts as a lost connection.
pub struct Link {
    handle: Option<Handle<Session>>,
    jid: FullJid,
    ledger: Arc<Ledger>,
    /// Which of the session's connections this is; a stale one's end means nothing.
    generation: u32,
    known: Option<Known>,
}

impl Link {
    pub(crate) fn new(handle: Handle<Session>, jid: FullJid, ledger: Arc<Ledger>, generation: u32) -> Self {
        Self { handle: Some(handle), jid, ledger, generation, known: None }
    }

    /// Enters the connection into the list, for as long as it lasts.
    pub(crate) fn known(mut self, connections: &Connections, conn: ConnInfo) -> Self {
        let conn = Arc::new(conn);
        connections.0.lock().insert(self.jid.as_str().to_owned(), conn.clone());
        self.known = Some(Known(connections.clone(), conn));
        self
    }

    /// The session's full JID.
    pub fn jid(&self) -> &FullJid {
        &self.jid
    }

    /// What is settled of the stanzas handed up.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    fn cast(&self, msg: Msg) {
        // A session that is gone has closed the pipe already.
        if let Some(handle) = &self.handle {
            let _ = handle.cast_always(msg);
        }
    }

    /// Hands a stanza to the session. The caller keeps to a window of unsettled stanzas ([`Ledger::open`]).
    pub fn up(&self, stanza: Stanza) {
        let receipt = self.ledger.enter();
        self.cast(Msg::Up { stanza: Box::new(stanza), receipt });
    }

    /// Takes the place of [`Link::up`] for a stanza that was refused before it became one: it counts, and the session
    /// sends the answer, if there is one, so that it counts as well (XEP-0198 section 4).
    pub fn answer(&self, answer: Option<Stanza>) {
        let receipt = self.ledger.enter();
        self.cast(Msg::Answer { reply: answer.map(Box::new), receipt });
    }

    /// The client's `<a h=''/>` (XEP-0198 section 4).
    pub fn down_ack(&self, h: u32) {
        self.cast(Msg::DownAck(h));
    }

    /// The client's `<enable/>` (XEP-0198 section 3). From here on the stanzas count from 1 again: [`Link::ledger`] is a
    /// new one. The answer comes through the pipe. `max` is what the client asked for, seconds.
    pub fn enable(&mut self, resume: bool, max: Option<u32>) {
        self.ledger = Ledger::new(0);
        self.cast(Msg::Enable { resume, max, ledger: self.ledger.clone() });
    }

    /// The client is looked at, or not (XEP-0352).
    pub fn csi(&self, active: bool) {
        self.cast(Msg::Csi(active));
    }

    /// Everything before a [`crate::Down::Mark`] is written to the socket.
    pub fn marked(&self) {
        self.cast(Msg::Written);
    }

    /// The connection has ended: `clean` if the client closed its stream, else it was lost and the session may be
    /// resumed.
    pub fn closed(mut self, clean: bool) {
        self.cast(Msg::Closed { clean, generation: self.generation });
        self.handle = None;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(Known(connections, conn)) = self.known.take() {
            let mut all = connections.0.lock();
            // A newer connection of the same session may have taken the place.
            if all.get(self.jid.as_str()).is_some_and(|now| Arc::ptr_eq(now, &conn)) {
                all.remove(self.jid.as_str());
            }
        }
        self.cast(Msg::Closed { clean: false, generation: self.generation });
    }
}
