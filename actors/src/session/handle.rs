//! What a connection holds of its session.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rookery_proto::xmpp::jid::{BareJid, FullJid};
use rookery_proto::xmpp::stanza::Stanza;

use crate::connection::ledger::Ledger;
use crate::host::Host;
use crate::runtime::actor::Handle;
use crate::session::remote::{Item, SessionProxy};
pub(crate) use crate::session::route::{LeftBehind, Rest, Route, RouteHold};
use crate::session::route::{To, Unsettled};
use crate::session::{Msg, Session};

/// A user that has authenticated. Only made from the outcome of SASL.
#[derive(Clone, Debug)]
pub struct Authenticated(BareJid);

impl Authenticated {
    /// To be called only by the code that has just verified this user's proof.
    pub fn by_sasl(user: BareJid) -> Self {
        Self(user)
    }

    /// The user.
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

impl ConnInfo {
    /// A connection of another node, which knows the rest.
    pub(crate) fn elsewhere(address: &str) -> Self {
        Self { address: address.into(), via: "", tls: "", suite: "" }
    }
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

/// A connection's end of its session. Dropping it without [`SessionHandle::closed`] counts as a lost connection.
pub struct SessionHandle {
    route: Option<Arc<Route>>,
    jid: FullJid,
    known: Option<Known>,
}

impl SessionHandle {
    /// `keeps`: the session may move to another node.
    pub(crate) fn new(
        handle: Handle<Session>,
        jid: FullJid,
        ledger: Arc<Ledger>,
        generation: u32,
        keeps: bool,
    ) -> Self {
        let unsettled = Unsettled::new(keeps, &ledger);
        Self { route: Some(Route::new(To::Here { handle, ledger, generation, unsettled })), jid, known: None }
    }

    /// To a session on another node.
    pub(crate) fn away(proxy: Arc<SessionProxy>, jid: FullJid) -> Self {
        let route = Route::new(To::Away(proxy.clone()));
        proxy.leads(Arc::downgrade(&route));
        Self { route: Some(route), jid, known: None }
    }

    /// The way, for the session, which changes it when it moves.
    pub(crate) fn route(&self) -> Weak<Route> {
        self.route.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    /// The way, which is taken over; this leads nowhere then.
    pub(super) fn take_route(&mut self) -> Option<Arc<Route>> {
        self.route.take()
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
    pub fn ledger(&self) -> Arc<Ledger> {
        self.route.as_ref().map_or_else(|| Ledger::new(0), |route| route.ledger())
    }

    fn with(&self, step: impl FnOnce(&mut To)) {
        if let Some(route) = &self.route {
            step(&mut route.0.lock());
        }
    }

    /// Hands a stanza to the session. The caller keeps to a window of unsettled stanzas ([`Ledger::open`]).
    pub fn up(&self, stanza: Stanza) {
        self.with(|to| match to {
            To::Here { ledger, unsettled, .. } => {
                unsettled.keep(ledger, || Some(stanza.clone()));
                let receipt = ledger.enter();
                to.cast(Msg::Up { stanza: Arc::new(stanza), receipt });
            }
            To::Over(_) => {}
            to => to.send(Item::of_stanza(&stanza)),
        });
    }

    /// Takes the place of [`SessionHandle::up`] for a stanza that was refused before it became one: it counts, and the session
    /// sends the answer, if there is one, so that it counts as well (XEP-0198 section 4).
    pub fn answer(&self, answer: Option<Stanza>) {
        self.with(|to| match to {
            To::Here { ledger, unsettled, .. } => {
                unsettled.keep(ledger, || None);
                let receipt = ledger.enter();
                to.cast(Msg::Answer { reply: answer.map(Box::new), receipt });
            }
            To::Over(_) => {}
            to => to.send(Item::Answer(answer.map(|answer| answer.to_bytes().into()).unwrap_or_default())),
        });
    }

    /// The client's `<a h=''/>` (XEP-0198 section 4).
    pub fn down_ack(&self, h: u32) {
        self.with(|to| match to {
            To::Held { rest, .. } => rest.confirmed = Some(h),
            To::Away(proxy) => proxy.confirmed(h),
            to => to.cast(Msg::DownAck(h)),
        });
    }

    /// The client's `<enable/>` (XEP-0198 section 3). From here on the stanzas count from 1 again: [`SessionHandle::ledger`] is a
    /// new one. The answer comes through the pipe. `max` is what the client asked for, seconds.
    pub fn enable(&mut self, resume: bool, max: Option<u32>) {
        self.with(|to| to.send(Item::Enable { resume, max }));
    }

    /// The client is looked at, or not (XEP-0352).
    pub fn csi(&self, active: bool) {
        self.with(|to| match to {
            To::Held { rest, .. } => rest.active = Some(active),
            To::Away(proxy) => proxy.csi(active),
            to => to.cast(Msg::Csi(active)),
        });
    }

    /// Everything before a [`crate::Down::Mark`] is written to the socket.
    pub fn marked(&self, number: u64) {
        self.with(|to| match to {
            To::Held { .. } => {} // the next home sets marks of its own
            To::Away(proxy) => proxy.marked(number),
            to => to.cast(Msg::Written(number)),
        });
    }

    /// The client sends nothing more, and what it sent is settled. The session closes the pipe behind the last answer; false:
    /// nobody does.
    pub fn finish(&self) -> bool {
        let Some(route) = &self.route else { return false };
        let to = route.0.lock();
        match &*to {
            To::Here { generation, .. } => {
                to.cast(Msg::Finish { generation: *generation });
                true
            }
            To::Held { .. } | To::Away(_) | To::Over(_) => false,
        }
    }

    /// The connection has ended: `clean` if the client closed its stream, else it was lost and the session may be
    /// resumed.
    pub fn closed(mut self, clean: bool) {
        self.end(clean);
    }

    fn end(&mut self, ended: bool) {
        let Some(route) = self.route.take() else { return };
        let mut to = route.0.lock();
        match &mut *to {
            To::Here { handle, generation, .. } => {
                let _ = handle.cast_always(Msg::Closed { clean: ended, generation: *generation });
            }
            To::Held { rest, .. } => {
                rest.closed = Some(ended);
                return;
            }
            To::Away(proxy) => proxy.closed(ended),
            To::Over(_) => {}
        }
        *to = To::Over(Ledger::new(0));
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        if let Some(Known(connections, conn)) = self.known.take() {
            let mut all = connections.0.lock();
            // A newer connection of the same session may have taken the place.
            if all.get(self.jid.as_str()).is_some_and(|now| Arc::ptr_eq(now, &conn)) {
                all.remove(self.jid.as_str());
            }
        }
        self.end(false);
    }
}

impl Host {
    /// The connections of this node that have a session.
    pub(crate) fn connections(&self) -> Arc<Connections> {
        self.state()
    }
}
