//! A connection of this node whose session lives on another. It keeps what either side has not confirmed, so that when the
//! session's home dies, the next one gets it: nothing is lost, nothing comes twice.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::jid::{BareJid, FullJid};
use rookery_proto::xmpp::stanza::Stanza;
use tokio::time::Instant;

use crate::connection::budget::{Charged, Waits};
use crate::connection::ledger::Ledger;
use crate::connection::pipe::{Close, Down, Pipe};
use crate::connection::recent::Recent;
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::routing::wire::{self, What, item, up};
use crate::session::handle::Route;

mod answered;
mod moved;
mod state;

pub(crate) use moved::Tail;

/// What the client sent, until it is settled.
#[derive(Clone)]
pub(crate) enum Item {
    Stanza(Bytes),
    Answer(Bytes),
    Enable { resume: bool, max: Option<u32> },
}

impl Item {
    pub(crate) fn of_stanza(stanza: &Stanza) -> Self {
        Self::Stanza(stanza.to_bytes().into())
    }

    pub(crate) fn is_counted(&self) -> bool {
        !matches!(self, Self::Enable { .. })
    }

    pub(crate) fn up(self) -> up::What {
        match self {
            Self::Stanza(bytes) => up::What::Stanza(bytes),
            Self::Answer(bytes) => up::What::Answer(bytes),
            Self::Enable { resume, max } => up::What::Enable(wire::Enable { resume, max }),
        }
    }
}

/// Where the session is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum At {
    /// Asked for, for the first time.
    Asking,
    /// There, in that generation of the node.
    Home(NodeId, u64),
    /// Between two homes, since then; an answer may be on its way.
    Looking { since: Instant, asked: bool },
    /// The session, or the connection, has ended.
    Over,
}

pub(crate) struct State {
    pub(crate) at: At,
    pub(crate) attempt: u32,
    pub(crate) ledger: Arc<Ledger>,
    /// Which ledger that is: the one after `<enable/>`.
    pub(crate) counted: bool,
    /// How many were settled in the one before.
    pub(crate) before: u32,
    pub(crate) ups: VecDeque<Item>,
    pub(crate) inactive: bool,
    /// The client manages its stream.
    pub(crate) managed: bool,
    /// What the client was sent and has not confirmed, and how much it has confirmed.
    pub(crate) tail: VecDeque<(wire::Stanza, Charged)>,
    pub(crate) h: u32,
    pub(crate) acked: Option<ArchiveId>,
    /// The newest of the archive that it was sent.
    pub(crate) last: Option<ArchiveId>,
    /// The newest of what was offline for all devices that it was sent.
    pub(crate) drained: Option<ArchiveId>,
    pub(crate) capsule: Option<wire::Capsule>,
    /// The requests and answers that the client was sent last.
    pub(crate) recent: Recent,
    /// What of the offline queue it has confirmed last.
    pub(crate) unqueue: VecDeque<Bytes>,
    /// The client is gone; whether it said so.
    pub(crate) closed: Option<bool>,
    /// Since when the map has named another home, while the old one lives.
    pub(crate) doubt: Option<Instant>,
    /// The home takes nothing more from the client.
    pub(crate) refused: bool,
    /// The last home gave the session up in order.
    pub(crate) moved: bool,
    /// The session has closed the connection.
    ending: bool,
    /// Items and bytes that are in the pipe and not yet given back.
    pub(crate) taken: u32,
    bytes: usize,
    /// The last mark that was written out while there was no home to hear it.
    pub(crate) marked: Option<u64>,
    /// What came before it was known who has taken the session. A home that gave it up meanwhile may have said something, too.
    early: Vec<(NodeId, wire::Down)>,
}

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
                state: Mutex::new(State {
                    at: At::Asking,
                    attempt: 0,
                    ledger: Ledger::of_proxy(0, 0, me.clone()),
                    counted: false,
                    before: 0,
                    ups: VecDeque::new(),
                    inactive: false,
                    managed: false,
                    tail: VecDeque::new(),
                    h: 0,
                    acked: None,
                    last: None,
                    drained: None,
                    capsule: None,
                    recent: Recent::default(),
                    unqueue: VecDeque::new(),
                    closed: None,
                    doubt: None,
                    refused: false,
                    moved: false,
                    ending: false,
                    taken: 0,
                    bytes: 0,
                    marked: None,
                    early: Vec::new(),
                }),
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
        (state.managed, state.counted, state.h) = (true, true, h);
    }

    /// The session is there: the connection may begin.
    pub(crate) fn settle(self: &Arc<Self>, node: NodeId, generation: u64, settled: u32) {
        let mut state = self.state.lock();
        if state.at == At::Over {
            // The client has gone meanwhile.
            state.at = At::Home(node, generation);
            self.pass(&state, up::What::Closed(false));
            state.at = At::Over;
            return;
        }
        state.ledger = Ledger::of_proxy(settled, settled, Arc::downgrade(self));
        state.at = At::Home(node.clone(), generation);
        for (from, down) in std::mem::take(&mut state.early) {
            if from == node {
                self.take(&mut state, down);
            }
        }
        self.catch_up(&mut state);
        drop(state);
        // It may have moved while the answer was on its way.
        self.host.look_at(self);
    }

    /// Who sends through it.
    pub(crate) fn leads(&self, route: Weak<Route>) {
        *self.route.lock() = route;
    }

    /// Nobody needs it any more.
    pub(crate) fn forget(&self) {
        self.state.lock().at = At::Over;
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
        state.ledger = Ledger::of_proxy(0, 0, Arc::downgrade(self));
        state.counted = true;
        state.recent = Recent::default(); // numbers begin anew
        self.pass(&state, item.up());
    }

    /// The client has confirmed `h` stanzas.
    pub(crate) fn confirmed(self: &Arc<Self>, h: u32) {
        let mut state = self.state.lock();
        let behind = h.wrapping_sub(state.h) as usize;
        if behind == 0 && state.managed {
            return; // nothing new
        }
        if behind <= state.tail.len() {
            state.confirm(h);
        } // else its session will say what is wrong with that
        self.pass(&state, up::What::Confirmed(h));
    }

    pub(crate) fn csi(self: &Arc<Self>, active: bool) {
        let mut state = self.state.lock();
        state.inactive = !active;
        self.pass(&state, up::What::Active(active));
    }

    pub(crate) fn marked(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        match state.at {
            At::Home(..) if !state.refused => self.pass(&state, up::What::Marked(number)),
            _ => state.marked = Some(number),
        }
    }

    /// Somebody waits to hear what is settled.
    pub(crate) fn ask(self: &Arc<Self>) {
        // The ledger asks from within the connection, which holds no lock of ours.
        self.pass(&self.state.lock(), up::What::Ask(true));
    }

    /// The connection took so many items out of the pipe, and whether that was all.
    pub(crate) fn drained(self: &Arc<Self>, items: usize, all: bool) {
        let mut state = self.state.lock();
        state.taken = state.taken.saturating_add(u32::try_from(items).unwrap_or(u32::MAX));
        let due = state.taken >= CREDIT || (all && state.bytes >= CREDIT_BYTES);
        if !due || !matches!(state.at, At::Home(..)) {
            return; // the next home is told when it is known
        }
        let credit = std::mem::take(&mut state.taken);
        state.bytes = if all { 0 } else { state.bytes };
        self.pass(&state, up::What::Credit(credit));
    }

    /// The client has gone; `clean` if it said so.
    pub(crate) fn closed(self: &Arc<Self>, clean: bool) {
        let mut state = self.state.lock();
        state.closed = Some(clean);
        match state.at {
            At::Home(..) if !state.refused => {
                self.pass(&state, up::What::Closed(clean));
            }
            At::Asking | At::Over => {
                drop(state);
                self.forget();
            }
            // Whoever takes the session over must know.
            At::Home(..) | At::Looking { .. } => {}
        }
    }

    /// Sends to the session's home; between two homes, what matters is kept and goes to the next. With the lock held: what
    /// the connection sends must not be overtaken.
    pub(crate) fn pass(self: &Arc<Self>, state: &State, what: up::What) {
        let At::Home(node, _) = &state.at else { return };
        // A home that takes nothing more goes on sending what it has, for which it needs room.
        if state.refused && !matches!(what, up::What::Credit(_)) {
            return;
        }
        let attempt = state.attempt;
        let last = matches!(what, up::What::Closed(_));
        let Some(placement) = self.host.placement() else { return };
        let user = self.user.as_str().to_owned();
        let payload = wire::Up { user, conn: self.id, attempt, what: Some(what) };
        let envelope = Envelope::new(self.shard, 0, Bytes::new(), wire::encode(What::Up(payload)));
        let proxy = self.clone();
        if *node == *placement.cluster.mesh().node() {
            let reply = Reply::here(move |outcome| proxy.told(attempt, &outcome, last));
            let generation = placement.cluster.mesh().generation();
            return self.host.receive(node, generation, self.shard, &envelope.body, reply);
        }
        let sent = placement
            .cluster
            .peers()
            .peer(node)
            .send(envelope, move |outcome| proxy.told(attempt, &outcome, last));
        if let Err(refused) = sent {
            tracing::debug!(%node, why = %refused.why, "a connection looks for its session anew");
            self.clone().told(attempt, &Outcome::Lost, last);
        }
    }

    /// What became of something that was sent. May be called with the lock held.
    fn told(self: Arc<Self>, attempt: u32, outcome: &Outcome, last: bool) {
        let host = self.host.clone();
        match outcome {
            // The home has heard that the client is gone: nobody needs this any more.
            Outcome::Taken(_) if last => host.spawn(async move {
                self.forget();
            }),
            Outcome::Taken(_) => {}
            Outcome::NotOwner { .. } => host.spawn(async move { self.refused(attempt) }),
            Outcome::Lost => host.spawn(async move { self.lost(attempt) }),
        }
    }

    /// The home takes nothing more: it gives the shard up, and says when what it still has for the client is through.
    fn refused(&self, attempt: u32) {
        let mut state = self.state.lock();
        if state.attempt == attempt && matches!(state.at, At::Home(..)) {
            state.refused = true;
            state.doubt.get_or_insert_with(Instant::now);
        }
        drop(state);
        self.host.look_soon();
    }

    /// The home did not take something.
    pub(crate) fn lost(&self, attempt: u32) {
        let mut state = self.state.lock();
        if state.attempt != attempt || !matches!(state.at, At::Home(..)) {
            return;
        }
        state.look(false);
        drop(state);
        self.host.look_soon();
    }

    /// Something from a session, at that node.
    pub(crate) fn down(self: &Arc<Self>, from: &NodeId, down: wire::Down) {
        let mut state = self.state.lock();
        tracing::trace!(user = %self.user, attempt = state.attempt, at = ?state.at, %from, sent = down.attempt, items = down.items.len(), "down");
        if state.attempt != down.attempt {
            return;
        }
        match &state.at {
            At::Asking => state.early.push((from.clone(), down)),
            // A home that had taken it, and gave it up before its answer came.
            At::Home(node, _) if node != from => {}
            At::Home(..) | At::Looking { .. } => {
                if self.take(&mut state, down) {
                    drop(state);
                    self.host.look_soon();
                }
            }
            At::Over => {}
        }
    }

    /// Takes it; returns whether the session looks for its next home from now on.
    fn take(self: &Arc<Self>, state: &mut State, down: wire::Down) -> bool {
        let mut out = Vec::with_capacity(down.items.len());
        let mut moved = false;
        for item in down.items {
            match item.what {
                Some(item::What::Stanza(stanza)) => {
                    // It came in a larger message: what is kept must not keep that.
                    let bytes = Bytes::copy_from_slice(&stanza.stanza);
                    state.bytes += bytes.len();
                    state.note_answer(&bytes);
                    let id = wire::id_of(&stanza.id);
                    state.last = state.last.max(id);
                    state.drained = state.drained.max(id.filter(|_| stanza.offline));
                    let mut charged = self.waits.bytes(bytes.len());
                    if state.managed {
                        let sent = wire::Stanza {
                            stanza: bytes.clone(),
                            id: Bytes::copy_from_slice(&stanza.id),
                            queued: Bytes::copy_from_slice(&stanza.queued),
                            offline: stanza.offline,
                            key: stanza.key,
                        };
                        // The client confirms it after it was written.
                        state.tail.push_back((sent, std::mem::take(&mut charged)));
                    }
                    state.note_had(stanza.key);
                    out.push(Down::Written(bytes, charged));
                }
                Some(item::What::Nonza(bytes)) => out.push(Down::Nonza(Bytes::copy_from_slice(&bytes))),
                Some(item::What::Enabled(bytes)) => {
                    state.managed = true;
                    let marker = state.ups.iter().position(|item| !item.is_counted());
                    if let Some(marker) = marker {
                        state.ups.drain(..=marker);
                    }
                    out.push(Down::Enabled(Bytes::copy_from_slice(&bytes)));
                }
                Some(item::What::Mark(number)) => out.push(Down::Mark(number)),
                Some(item::What::Close(close)) => {
                    state.ending = true;
                    out.push(Down::Close(wire::close_of(close)));
                }
                Some(item::What::Capsule(capsule)) => {
                    state.acked = state.acked.max(wire::id_of(&capsule.acked));
                    state.last = state.last.max(state.acked);
                    state.capsule =
                        Some(wire::Capsule::decode(&*capsule.encode_to_vec()).unwrap_or_default());
                }
                Some(item::What::Moved(_)) => moved = true,
                None => {}
            }
        }
        if down.counted == state.counted {
            state.trim(down.settled);
            // What a home that is leaving has lost goes to the next.
            let broken = down.broken && !state.refused && !moved;
            state.ledger.told(down.settled, down.recorded, broken);
        }
        if moved && matches!(state.at, At::Home(..)) {
            state.look(true);
        }
        // In order with what comes next, so under the lock; the connection drains it without.
        self.pipe.refill(out.into_iter());
        moved
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

impl Host {
    /// Something for a connection, from that node; false if it is not here.
    pub(crate) fn take_down(&self, from: &NodeId, down: wire::Down) -> bool {
        let proxy = self.remote().session_proxies.lock().get(&down.conn).cloned();
        let found = proxy.is_some();
        if let Some(proxy) = proxy {
            proxy.down(from, down);
        }
        found
    }
}
