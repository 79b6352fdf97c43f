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

use super::receive::Reply;
use super::wire::{self, What, item, up};
use super::{Far, Host};
use crate::budget::{Charged, Waits};
use crate::had::Had;
use crate::ledger::Ledger;
use crate::link::Way;
use crate::pipe::{Close, Down, Pipe};

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

    pub(super) fn up(self) -> up::What {
        match self {
            Self::Stanza(bytes) => up::What::Stanza(bytes),
            Self::Answer(bytes) => up::What::Answer(bytes),
            Self::Enable { resume, max } => up::What::Enable(wire::Enable { resume, max }),
        }
    }
}

/// Where the session is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// Asked for, for the first time.
    Asking,
    /// There, in that generation of the node.
    Home(NodeId, u64),
    /// Between two homes, since then; an answer may be on its way.
    Looking { since: Instant, asked: bool },
    /// The session, or the connection, has ended.
    Over,
}

pub(super) struct State {
    pub(super) at: At,
    pub(super) era: u32,
    pub(super) ledger: Arc<Ledger>,
    /// Which ledger that is: the one after `<enable/>`.
    pub(super) counted: bool,
    /// How many were settled in the one before.
    pub(super) before: u32,
    pub(super) ups: VecDeque<Item>,
    pub(super) inactive: bool,
    /// The client manages its stream.
    pub(super) managed: bool,
    /// What the client was sent and has not confirmed, and how much it has confirmed.
    pub(super) tail: VecDeque<(wire::Stanza, Charged)>,
    pub(super) h: u32,
    pub(super) acked: Option<ArchiveId>,
    /// The newest of the archive that it was sent.
    pub(super) last: Option<ArchiveId>,
    /// The newest of what was offline for all devices that it was sent.
    pub(super) drained: Option<ArchiveId>,
    pub(super) capsule: Option<wire::Capsule>,
    /// The requests and answers that the client was sent last.
    pub(super) had: Had,
    /// What of the offline queue it has confirmed last.
    pub(super) unqueue: VecDeque<Bytes>,
    /// The client is gone; whether it said so.
    pub(super) closed: Option<bool>,
    /// Since when the map has named another home, while the old one lives.
    pub(super) doubt: Option<Instant>,
    /// The home takes nothing more from the client.
    pub(super) refused: bool,
    /// The last home gave the session up in order.
    pub(super) moved: bool,
    /// The session has closed the connection.
    ending: bool,
    /// Items and bytes that are in the pipe and not yet given back.
    pub(super) taken: u32,
    bytes: usize,
    /// The last mark that was written out while there was no home to hear it.
    pub(super) marked: Option<u64>,
    /// What came before it was known who has taken the session. A home that gave it up meanwhile may have said something, too.
    early: Vec<(NodeId, wire::Down)>,
}

/// See the module.
pub(crate) struct Stub {
    pub(super) id: u64,
    pub(super) user: BareJid,
    pub(super) shard: Shard,
    pub(super) address: Arc<str>,
    pub(super) pipe: Arc<Pipe>,
    /// What waits here; its home sees to the limits.
    waits: Waits,
    host: Host,
    pub(super) way: Mutex<Weak<Way>>,
    pub(super) state: Mutex<State>,
}

/// Items in the pipe after which their room is given back.
const CREDIT: u32 = 64;
/// The same in bytes.
const CREDIT_BYTES: usize = 64 * 1024;

impl Stub {
    /// A connection that is about to ask for its session.
    pub(super) fn new(host: &Host, user: &BareJid, address: &Arc<str>, pipe: Arc<Pipe>) -> Option<Arc<Self>> {
        let far = host.far()?;
        let id = far.next_stub.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let stub = Arc::new_cyclic(|me: &Weak<Self>| {
            pipe.feed(me.clone());
            Self {
                id,
                user: user.clone(),
                shard: Shard::of(user.as_str()),
                address: address.clone(),
                pipe,
                waits: host.budget().account().session(),
                host: host.clone(),
                way: Mutex::default(),
                state: Mutex::new(State {
                    at: At::Asking,
                    era: 0,
                    ledger: Ledger::of_stub(0, 0, me.clone()),
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
                    had: Had::default(),
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
        far.stubs.lock().insert(id, stub.clone());
        Some(stub)
    }

    pub(super) fn conn(&self) -> wire::Conn {
        wire::Conn { id: self.id, era: self.state.lock().era, address: self.address.to_string() }
    }

    /// The client wants to go on with a session, of which it has `h` stanzas.
    pub(super) fn resuming(&self, h: u32) {
        let mut state = self.state.lock();
        (state.managed, state.counted, state.h) = (true, true, h);
    }

    /// The session is there: the connection may begin.
    pub(super) fn settle(self: &Arc<Self>, node: NodeId, generation: u64, settled: u32) {
        let mut state = self.state.lock();
        if state.at == At::Over {
            // The client has gone meanwhile.
            state.at = At::Home(node, generation);
            self.pass(&state, up::What::Closed(false));
            state.at = At::Over;
            return;
        }
        state.ledger = Ledger::of_stub(settled, settled, Arc::downgrade(self));
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
    pub(crate) fn leads(&self, way: Weak<Way>) {
        *self.way.lock() = way;
    }

    /// Nobody needs it any more.
    pub(super) fn forget(&self, far: &Far) {
        self.state.lock().at = At::Over;
        far.stubs.lock().remove(&self.id);
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
        state.ledger = Ledger::of_stub(0, 0, Arc::downgrade(self));
        state.counted = true;
        state.had = Had::default(); // numbers begin anew
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
        let Some(far) = self.host.far() else { return };
        let mut state = self.state.lock();
        state.closed = Some(clean);
        match state.at {
            At::Home(..) if !state.refused => {
                self.pass(&state, up::What::Closed(clean));
            }
            At::Asking | At::Over => {
                drop(state);
                self.forget(far);
            }
            // Whoever takes the session over must know.
            At::Home(..) | At::Looking { .. } => {}
        }
    }

    /// Sends to the session's home; between two homes, what matters is kept and goes to the next. With the lock held: what
    /// the connection sends must not be overtaken.
    pub(super) fn pass(self: &Arc<Self>, state: &State, what: up::What) {
        let At::Home(node, _) = &state.at else { return };
        // A home that takes nothing more goes on sending what it has, for which it needs room.
        if state.refused && !matches!(what, up::What::Credit(_)) {
            return;
        }
        let era = state.era;
        let last = matches!(what, up::What::Closed(_));
        let Some(far) = self.host.far() else { return };
        let user = self.user.as_str().to_owned();
        let parcel = wire::Up { user, conn: self.id, era, what: Some(what) };
        let envelope = Envelope::new(self.shard, 0, Bytes::new(), wire::encode(What::Up(parcel)));
        let stub = self.clone();
        if *node == *far.cluster.mesh().node() {
            let reply = Reply::here(move |outcome| stub.told(era, &outcome, last));
            let generation = far.cluster.mesh().generation();
            return self.host.receive(node, generation, self.shard, &envelope.body, reply);
        }
        let sent =
            far.cluster.peers().peer(node).send(envelope, move |outcome| stub.told(era, &outcome, last));
        if let Err(refused) = sent {
            tracing::debug!(%node, why = %refused.why, "a connection looks for its session anew");
            self.clone().told(era, &Outcome::Lost, last);
        }
    }

    /// What became of something that was sent. May be called with the lock held.
    fn told(self: Arc<Self>, era: u32, outcome: &Outcome, last: bool) {
        let host = self.host.clone();
        match outcome {
            // The home has heard that the client is gone: nobody needs this any more.
            Outcome::Taken(_) if last => host.spawn(async move {
                if let Some(far) = self.host.far() {
                    self.forget(far);
                }
            }),
            Outcome::Taken(_) => {}
            Outcome::NotOwner { .. } => host.spawn(async move { self.refused(era) }),
            Outcome::Lost => host.spawn(async move { self.lost(era) }),
        }
    }

    /// The home takes nothing more: it gives the shard up, and says when what it still has for the client is through.
    fn refused(&self, era: u32) {
        let mut state = self.state.lock();
        if state.era == era && matches!(state.at, At::Home(..)) {
            state.refused = true;
            state.doubt.get_or_insert_with(Instant::now);
        }
        drop(state);
        self.host.look_soon();
    }

    /// The home did not take something.
    pub(super) fn lost(&self, era: u32) {
        let mut state = self.state.lock();
        if state.era != era || !matches!(state.at, At::Home(..)) {
            return;
        }
        state.look(false);
        drop(state);
        self.host.look_soon();
    }

    /// Something from a session, at that node.
    pub(super) fn down(self: &Arc<Self>, from: &NodeId, down: wire::Down) {
        let mut state = self.state.lock();
        tracing::trace!(user = %self.user, era = state.era, at = ?state.at, %from, sent = down.era, items = down.items.len(), "down");
        if state.era != down.era {
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
    pub(super) fn give_up(&self, far: &Far, close: Close) {
        let _ = self.pipe.push(Down::Close(close));
        self.forget(far);
    }

    pub(super) fn jid(bound: &wire::Bound) -> Option<FullJid> {
        FullJid::parse(&bound.jid).ok()
    }
}

impl Host {
    /// Something for a connection, from that node; false if it is not here.
    pub(super) fn take_down(&self, from: &NodeId, down: wire::Down) -> bool {
        let stub = self.far().and_then(|far| far.stubs.lock().get(&down.conn).cloned());
        let found = stub.is_some();
        if let Some(stub) = stub {
            stub.down(from, down);
        }
        found
    }
}
