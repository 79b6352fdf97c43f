//! A connection of this node whose session lives on another. The session proxy keeps what either side has not confirmed, so that when the
//! session's home dies, the next one gets it: nothing is lost, nothing comes twice.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::NodeId;
use rookery_proto::xmpp::jid::{BareJid, FullJid};

use crate::connection::budget::Waits;
use crate::connection::ledger::{Keeper, Ledger};
use crate::connection::pipe::{Close, Down, Feeder, PIPE_ITEMS, Pipe};
use crate::host::Host;
use crate::routing::wire::{self, up};
use crate::session::handle::Route;

mod answered;
mod home;
mod moved;
mod state;

pub(crate) use state::{At, Carried, Item, State};

/// See the module.
pub(crate) struct SessionProxy {
    pub(crate) id: u64,
    pub(crate) user: BareJid,
    pub(crate) shard: Shard,
    pub(crate) address: Arc<str>,
    pub(crate) pipe: Arc<Pipe>,
    /// What waits here; its home sees to the limits.
    waits: Waits,
    host: Host,
    pub(crate) route: Mutex<Weak<Route>>,
    pub(crate) state: Mutex<State>,
}

/// Items in the pipe after which their room is given back.
const CREDIT: u32 = 64;
/// The same in bytes.
const CREDIT_BYTES: usize = 64 * 1024;

impl SessionProxy {
    /// A connection that is about to ask for its session.
    pub(crate) fn new(host: &Host, user: &BareJid, address: &Arc<str>, pipe: Arc<Pipe>) -> Option<Arc<Self>> {
        host.placement()?;
        let id = host.remote().next_connection();
        let proxy = Arc::new_cyclic(|me: &Weak<Self>| {
            pipe.feed(me.clone());
            Self {
                id,
                user: user.clone(),
                shard: Shard::of(user.as_str()),
                address: address.clone(),
                pipe,
                waits: host.budget().account().session(),
                host: host.clone(),
                route: Mutex::default(),
                state: Mutex::new(State::new(Ledger::remote(0, 0, me.clone()))),
            }
        });
        host.remote().session_proxies.lock().insert(id, proxy.clone());
        Some(proxy)
    }

    pub(crate) fn conn(&self) -> wire::Conn {
        wire::Conn { id: self.id, attempt: self.state.lock().attempt, address: self.address.to_string() }
    }

    /// The client wants to go on with a session, of which it has `h` stanzas.
    pub(crate) fn resuming(&self, h: u32) {
        let mut state = self.state.lock();
        state.counted = true;
        (state.carried.managed, state.carried.h) = (true, h);
    }

    /// The session is there: the connection may begin.
    pub(crate) fn settle(self: &Arc<Self>, node: NodeId, generation: u64, settled: u32) {
        let mut state = self.state.lock();
        if *state.at() == At::Over {
            // The client has gone meanwhile.
            return self.send(&node, state.attempt, up::What::Closed(false));
        }
        state.ledger = Ledger::remote(settled, settled, Arc::downgrade(self));
        state.found(node.clone(), generation);
        for (from, down) in std::mem::take(&mut state.early) {
            if from == node {
                self.take(&mut state, down);
            }
        }
        self.catch_up(&mut state);
        drop(state);
        // The session may have moved while the answer was on its way.
        self.host.look_at(self);
    }

    /// The route of the connection that sends through this proxy.
    pub(crate) fn leads(&self, route: Weak<Route>) {
        *self.route.lock() = route;
    }

    /// Nobody needs it any more.
    pub(crate) fn forget(&self) {
        self.state.lock().end();
        self.host.remote().session_proxies.lock().remove(&self.id);
    }

    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        self.state.lock().ledger.clone()
    }

    /// A stanza of the client, or an answer in place of one.
    pub(crate) fn up(self: &Arc<Self>, item: Item) {
        let mut state = self.state.lock();
        state.ledger.enter_only();
        let n = state.ledger.received();
        state.note_request(&item, n);
        state.ups.push_back(item.clone());
        self.pass(&state, item.up());
    }

    pub(crate) fn enable(self: &Arc<Self>, resume: bool, max: Option<u32>) {
        let mut state = self.state.lock();
        let item = Item::Enable { resume, max };
        state.ups.push_back(item.clone());
        state.before = state.ledger.processed();
        state.ledger = Ledger::remote(0, 0, Arc::downgrade(self));
        state.counted = true;
        state.carried.recent.count_anew();
        self.pass(&state, item.up());
    }

    /// The client has confirmed `h` stanzas.
    pub(crate) fn confirmed(self: &Arc<Self>, h: u32) {
        let mut state = self.state.lock();
        let behind = h.wrapping_sub(state.carried.h) as usize;
        if behind == 0 && state.carried.managed {
            return; // nothing new
        }
        if behind <= state.carried.tail.len() {
            state.confirm(h);
        } // else its session will say what is wrong with that
        self.pass(&state, up::What::Confirmed(h));
    }

    pub(crate) fn csi(self: &Arc<Self>, active: bool) {
        let mut state = self.state.lock();
        state.carried.inactive = !active;
        self.pass(&state, up::What::Active(active));
    }

    pub(crate) fn marked(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        match state.at() {
            At::Home(..) if !state.refused => self.pass(&state, up::What::Marked(number)),
            _ => state.marked = Some(number),
        }
    }

    /// The client has gone; `clean` if it said so.
    pub(crate) fn closed(self: &Arc<Self>, clean: bool) {
        let mut state = self.state.lock();
        state.closed = Some(clean);
        match state.at() {
            At::Home(..) if !state.refused => {
                self.pass(&state, up::What::Closed(clean));
            }
            At::Asking | At::Over => {
                drop(state);
                self.forget();
            }
            // The home that takes the session over must know.
            At::Home(..) | At::Looking { .. } => {}
        }
    }

    /// There is nothing to go on with: the client is to log in anew.
    pub(crate) fn give_up(&self, close: Close) {
        let _ = self.pipe.push(Down::Close(close));
        self.forget();
    }

    pub(crate) fn jid(bound: &wire::Bound) -> Option<FullJid> {
        FullJid::parse(&bound.jid).ok()
    }
}

impl Keeper for Weak<SessionProxy> {
    fn ask(&self) {
        // The ledger asks from within the connection, which holds no lock of the proxy.
        if let Some(proxy) = self.upgrade() {
            proxy.pass(&proxy.state.lock(), up::What::Ask(true));
        }
    }
}

impl Feeder for SessionProxy {
    fn drained(self: Arc<Self>, items: usize, all: bool) {
        let mut state = self.state.lock();
        state.taken = state.taken.saturating_add(u32::try_from(items).unwrap_or(u32::MAX));
        // More may have come between the look at the pipe and the lock. That is counted, and still to be given back.
        let all = all && self.pipe.room() == PIPE_ITEMS;
        let due = state.taken >= CREDIT || (all && state.bytes >= CREDIT_BYTES);
        if !due || !matches!(state.at(), At::Home(..)) {
            return; // the next home is told when it is known
        }
        let credit = std::mem::take(&mut state.taken);
        state.bytes = if all { 0 } else { state.bytes };
        self.pass(&state, up::What::Credit(credit));
    }
}
