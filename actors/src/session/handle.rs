//! What a connection holds of its session.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rookery_proto::xmpp::jid::{BareJid, FullJid};
use rookery_proto::xmpp::stanza::Stanza;

use crate::connection::ledger::Ledger;
use crate::host::Host;
use crate::runtime::actor::Handle;
use crate::session::remote::{Item, SessionProxy};
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

/// The way from a connection to its session. It changes when the session moves to another node, or comes from one.
pub(crate) struct Route(Mutex<To>);

enum To {
    /// The session is here. The generation tells which of its connections this is; a stale one's end means nothing.
    Here { handle: Handle<Session>, ledger: Arc<Ledger>, generation: u32, unsettled: Unsettled },
    /// The session is about to move: what is sent waits.
    Held { ledger: Arc<Ledger>, unsettled: Unsettled, waiting: VecDeque<Item>, rest: Rest },
    /// The session is on another node.
    Away(Arc<SessionProxy>),
    /// The connection has ended.
    Over(Arc<Ledger>),
}

/// What the connection sent and the session has not settled: should the session move, its next home gets it. A node alone
/// keeps nothing.
enum Unsettled {
    None,
    Kept { settled: u32, stanzas: VecDeque<Option<Stanza>> },
}

impl Unsettled {
    fn new(keeps: bool, ledger: &Ledger) -> Self {
        if keeps { Self::Kept { settled: ledger.processed(), stanzas: VecDeque::new() } } else { Self::None }
    }

    fn keep(&mut self, ledger: &Ledger, stanza: impl FnOnce() -> Option<Stanza>) {
        self.trim(ledger);
        if let Self::Kept { stanzas, .. } = self {
            stanzas.push_back(stanza());
        }
    }

    fn trim(&mut self, ledger: &Ledger) {
        let Self::Kept { settled, stanzas } = self else { return };
        let now = ledger.processed();
        let more = (now.wrapping_sub(*settled) as usize).min(stanzas.len());
        stanzas.drain(..more);
        *settled = now;
        if stanzas.is_empty() && stanzas.capacity() > 8 {
            *stanzas = VecDeque::new();
        }
    }

    fn take(&mut self) -> (u32, VecDeque<Item>) {
        let Self::Kept { settled, stanzas } = self else { return (0, VecDeque::new()) };
        let item = |stanza: Option<Stanza>| {
            stanza.map_or_else(|| Item::Answer(bytes::Bytes::new()), |stanza| Item::of_stanza(&stanza))
        };
        (*settled, stanzas.drain(..).map(item).collect())
    }
}

/// A session's hold of its connection's way. While it is about to move the way must not go, even if the connection does.
#[derive(Default)]
pub(crate) struct RouteHold {
    route: Weak<Route>,
    held: Option<Arc<Route>>,
}

impl RouteHold {
    pub(crate) fn of(route: Weak<Route>) -> Self {
        Self { route, held: None }
    }

    /// See [`Route::hold`].
    pub(crate) fn hold(&mut self) {
        self.held = self.route.upgrade();
        if let Some(route) = &self.held {
            route.hold();
        }
    }

    /// See [`Route::cut`].
    pub(crate) fn cut(&mut self) {
        if let Some(route) = self.take() {
            route.cut();
        }
    }

    /// The way, if its connection is there, or was when it was held.
    pub(crate) fn take(&mut self) -> Option<Arc<Route>> {
        self.held.take().or_else(|| self.route.upgrade())
    }
}

/// What came while the session was about to move, other than stanzas.
#[derive(Default)]
pub(crate) struct Rest {
    pub(crate) confirmed: Option<u32>,
    pub(crate) active: Option<bool>,
    pub(crate) closed: Option<bool>,
}

impl Route {
    fn new(to: To) -> Arc<Self> {
        Arc::new(Self(Mutex::new(to)))
    }

    fn ledger(&self) -> Arc<Ledger> {
        match &*self.0.lock() {
            To::Here { ledger, .. } | To::Held { ledger, .. } | To::Over(ledger) => ledger.clone(),
            To::Away(proxy) => proxy.ledger(),
        }
    }

    /// From now on what the connection sends waits; what it sent before is on its way already.
    pub(crate) fn hold(&self) {
        let mut to = self.0.lock();
        if let To::Here { ledger, unsettled, .. } = &mut *to {
            unsettled.trim(ledger);
            let (ledger, unsettled) = (ledger.clone(), std::mem::replace(unsettled, Unsettled::None));
            *to = To::Held { ledger, unsettled, waiting: VecDeque::new(), rest: Rest::default() };
        }
    }

    /// The session has another connection, or has ended: whatever this one still sends, it says to nobody. Its client counts
    /// from what the other was told.
    pub(crate) fn cut(&self) {
        let mut to = self.0.lock();
        if let To::Here { ledger, .. } | To::Held { ledger, .. } = &*to {
            *to = To::Over(ledger.clone());
        }
    }

    /// The session has moved: `make` makes what stands for it here of how many stanzas are settled, and of those recorded, and of
    /// what is not and what has waited. It may fail.
    pub(crate) fn away(
        &self,
        make: impl FnOnce((u32, u32), VecDeque<Item>, Rest) -> Option<Arc<SessionProxy>>,
    ) {
        self.hold(); // if it is new
        let mut to = self.0.lock();
        if let To::Held { ledger, unsettled, waiting, rest } = &mut *to {
            // How many are settled, and those that are not, by one look.
            let recorded = ledger.settled();
            if waiting.iter().all(Item::is_counted) {
                unsettled.trim(ledger);
            }
            let (settled, mut all) = unsettled.take();
            all.append(waiting);
            let (ledger, waiting, rest) = (ledger.clone(), all, std::mem::take(rest));
            *to = match make((settled, recorded), waiting, rest) {
                Some(proxy) => To::Away(proxy),
                None => To::Over(ledger),
            };
        }
    }

    /// The session has come to this node: what `take` gives, which was sent and not settled, is sent again, and what else was
    /// said meanwhile. If that is nothing, or the connection has ended, the link is of no use, and comes back.
    pub(crate) fn back_here(
        &self,
        mut link: SessionHandle,
        take: impl FnOnce() -> Option<(VecDeque<Item>, Rest)>,
    ) -> Result<(), SessionHandle> {
        let mut to = self.0.lock();
        if !matches!(&*to, To::Away(_)) {
            return Err(link);
        }
        let Some((ups, said)) = take() else { return Err(link) };
        let Some(route) = link.route.take() else { return Ok(()) };
        *to = std::mem::replace(&mut *route.0.lock(), To::Over(Ledger::new(0)));
        for item in ups {
            to.send(item);
        }
        if let Some(h) = said.confirmed {
            to.cast(Msg::DownAck(h));
        }
        if let Some(active) = said.active {
            to.cast(Msg::Csi(active));
        }
        Ok(())
    }
}

impl To {
    fn cast(&self, msg: Msg) {
        // A session that is gone has closed the pipe already.
        if let Self::Here { handle, .. } = self {
            let _ = handle.cast_always(msg);
        }
    }

    fn send(&mut self, item: Item) {
        match self {
            Self::Here { handle, ledger, unsettled, .. } => match item {
                Item::Stanza(bytes) => {
                    let stanza = crate::routing::stored::stanza(&bytes);
                    unsettled.keep(ledger, || stanza.clone());
                    let receipt = ledger.enter();
                    let msg = match stanza {
                        Some(stanza) => Msg::Up { stanza: Box::new(stanza), receipt },
                        None => Msg::Answer { reply: None, receipt },
                    };
                    let _ = handle.cast_always(msg);
                }
                Item::Answer(bytes) => {
                    unsettled.keep(ledger, || None);
                    let receipt = ledger.enter();
                    let reply = crate::routing::stored::stanza(&bytes).map(Box::new);
                    let _ = handle.cast_always(Msg::Answer { reply, receipt });
                }
                Item::Enable { resume, max } => {
                    *ledger = Ledger::new(0);
                    *unsettled = Unsettled::new(matches!(unsettled, Unsettled::Kept { .. }), ledger);
                    let _ = handle.cast_always(Msg::Enable { resume, max, ledger: ledger.clone() });
                }
            },
            Self::Held { ledger, unsettled, waiting, .. } => {
                match item {
                    Item::Enable { .. } => {
                        unsettled.trim(ledger); // for the last time by this one
                        *ledger = Ledger::new(0);
                    }
                    _ => ledger.enter_only(),
                }
                waiting.push_back(item);
            }
            Self::Away(proxy) => match item {
                Item::Enable { resume, max } => proxy.enable(resume, max),
                item => proxy.up(item),
            },
            Self::Over(_) => {}
        }
    }
}

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
                to.cast(Msg::Up { stanza: Box::new(stanza), receipt });
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
