//! The way from a connection to its session, which changes when the session moves.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rookery_proto::xmpp::stanza::Stanza;

use super::handle::SessionHandle;
use super::remote::{Item, SessionProxy};
use super::{Msg, Session};
use crate::connection::ledger::Ledger;
use crate::runtime::actor::Handle;

/// The way from a connection to its session, which changes when the session moves to another node, or comes from one.
pub(crate) struct Route(pub(super) Mutex<To>);

/// Where it leads.
pub(super) enum To {
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
pub(super) enum Unsettled {
    None,
    Kept { settled: u32, stanzas: VecDeque<Option<Stanza>> },
}

impl Unsettled {
    pub(super) fn new(keeps: bool, ledger: &Ledger) -> Self {
        if keeps { Self::Kept { settled: ledger.processed(), stanzas: VecDeque::new() } } else { Self::None }
    }

    pub(super) fn keep(&mut self, ledger: &Ledger, stanza: impl FnOnce() -> Option<Stanza>) {
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

/// What a connection has sent to a session that leaves: how many stanzas are settled, how many of those the record says, and what
/// is not settled or has waited.
pub(crate) struct LeftBehind {
    pub(crate) settled: u32,
    pub(crate) recorded: u32,
    pub(crate) items: VecDeque<Item>,
    pub(crate) rest: Rest,
}

impl Route {
    pub(super) fn new(to: To) -> Arc<Self> {
        Arc::new(Self(Mutex::new(to)))
    }

    pub(super) fn ledger(&self) -> Arc<Ledger> {
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

    /// The session has moved: `make` makes what stands for it here, and may fail.
    pub(crate) fn away(&self, make: impl FnOnce(LeftBehind) -> Option<Arc<SessionProxy>>) {
        self.hold(); // if it is new
        let mut to = self.0.lock();
        if let To::Held { ledger, unsettled, waiting, rest } = &mut *to {
            // How many are settled, and those that are not, by one look.
            let recorded = ledger.settled();
            if waiting.iter().all(Item::is_counted) {
                unsettled.trim(ledger);
            }
            let (settled, mut items) = unsettled.take();
            items.append(waiting);
            let ledger = ledger.clone();
            *to = match make(LeftBehind { settled, recorded, items, rest: std::mem::take(rest) }) {
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
        let Some(route) = link.take_route() else { return Ok(()) };
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
    pub(super) fn cast(&self, msg: Msg) {
        // A session that is gone has closed the pipe already.
        if let Self::Here { handle, .. } = self {
            let _ = handle.cast_always(msg);
        }
    }

    pub(super) fn send(&mut self, item: Item) {
        match self {
            Self::Here { handle, ledger, unsettled, .. } => match item {
                Item::Stanza(bytes) => {
                    let stanza = crate::routing::stored::stanza(&bytes);
                    unsettled.keep(ledger, || stanza.clone());
                    let receipt = ledger.enter();
                    let msg = match stanza {
                        Some(stanza) => Msg::Up { stanza: Arc::new(stanza), receipt },
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
