//! A session of this node whose connection is on another: its end of the pipe, carried over by one small task. What is on
//! its way is bounded by credit, which the other end gives back as its client's socket takes things.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome, Why};
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::Notify;

use crate::connection::pipe::{Down, Pipe};
use crate::host::Host;
use crate::routing::wire::{self, What};
use crate::session::handle::SessionHandle;

/// Items that may be on their way.
const ITEMS: usize = 256;
/// Bytes that may be on their way, give or take an item.
const BYTES: usize = 256 * 1024;
/// Items in one payload.
const BATCH: usize = 64;
/// How often a connection is called that something did not reach.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a shard that is given up waits for slow clients of its sessions.
const SEE_OFF: Duration = Duration::from_secs(2);
/// Bytes after which a payload is full.
const PARCEL: usize = 64 * 1024;

/// See the module.
pub(crate) struct ConnectionProxy {
    node: NodeId,
    generation: u64,
    conn: u64,
    pub(crate) attempt: u32,
    shard: Shard,
    pipe: Arc<Pipe>,
    link: Mutex<Option<SessionHandle>>,
    /// The weights of the items on their way.
    flying: Mutex<VecDeque<usize>>,
    /// The client has asked for stream management: the ledger is the new one.
    counted: AtomicBool,
    /// The connection has been told so, or is with what goes next: before that, what is settled by the new ledger means nothing there.
    enabled: AtomicBool,
    over: AtomicBool,
    /// Something did not reach the connection: it must attach again.
    lost: AtomicBool,
    /// The connection has nothing more to hear: it is told that the session moves, or is gone.
    told_all: Notify,
}

impl ConnectionProxy {
    /// Not entered yet. `counted`: its client manages its stream already.
    pub(crate) fn new(
        node: NodeId,
        generation: u64,
        conn: &wire::Conn,
        user: &BareJid,
        pipe: Arc<Pipe>,
        counted: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            generation,
            conn: conn.id,
            attempt: conn.attempt,
            shard: Shard::of(user.as_str()),
            pipe,
            link: Mutex::new(None),
            flying: Mutex::default(),
            counted: AtomicBool::new(counted),
            enabled: AtomicBool::new(counted),
            over: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            told_all: Notify::new(),
        })
    }

    /// How many items may be sent now.
    fn room(&self) -> usize {
        let flying = self.flying.lock();
        let bytes: usize = flying.iter().sum();
        if bytes >= BYTES { 0 } else { ITEMS.saturating_sub(flying.len()).min(BATCH) }
    }
}

impl Host {
    /// Enters a session's connection; from now on it is served.
    pub(crate) fn enter_connection(&self, proxy: &Arc<ConnectionProxy>, link: SessionHandle) {
        let remote = self.remote();
        *proxy.link.lock() = Some(link);
        let before = remote.connection_proxies.lock().insert((proxy.node.clone(), proxy.conn), proxy.clone());
        if let Some(before) = before {
            before.end();
        }
        let (host, proxy) = (self.clone(), proxy.clone());
        self.spawn(async move { host.carry(&proxy).await });
    }

    /// The connection is no more, or elsewhere.
    pub(crate) fn forget_connection(&self, proxy: &Arc<ConnectionProxy>) {
        let remote = self.remote();
        let mut connection_proxies = remote.connection_proxies.lock();
        let key = (proxy.node.clone(), proxy.conn);
        if connection_proxies.get(&key).is_some_and(|known| Arc::ptr_eq(known, proxy)) {
            connection_proxies.remove(&key);
        }
        drop(connection_proxies);
        proxy.end();
    }

    /// That generation of a node is dead, with all its sockets.
    pub(crate) fn bury_connections(&self, dead: impl Fn(&NodeId, u64) -> bool) {
        let remote = self.remote();
        let mut gone = Vec::new();
        remote.connection_proxies.lock().retain(|_, proxy| {
            let dead = dead(&proxy.node, proxy.generation);
            if dead {
                gone.push(proxy.clone());
            }
            !dead
        });
        if !gone.is_empty() {
            tracing::info!(
                connections = gone.len(),
                "connections were lost because their node died; their sessions are waiting for resumption"
            );
        }
        for proxy in gone {
            proxy.end();
        }
    }

    /// Waits until the connections of a shard elsewhere have heard all that their sessions said before they moved; those of slow
    /// clients not for long.
    pub(crate) async fn see_connections_off(&self, shard: Shard) {
        let remote = self.remote();
        let connection_proxies: Vec<Arc<ConnectionProxy>> =
            remote.connection_proxies.lock().values().filter(|proxy| proxy.shard == shard).cloned().collect();
        let all = async {
            for proxy in connection_proxies {
                proxy.told_all.notified().await; // remembered, if it was before
            }
        };
        let _ = tokio::time::timeout(SEE_OFF, all).await;
    }

    /// These shards are not this node's any more.
    pub(crate) fn drop_connections(&self, shards: &[Shard]) {
        let remote = self.remote();
        let mut gone = Vec::new();
        remote.connection_proxies.lock().retain(|_, proxy| {
            let lost = shards.contains(&proxy.shard);
            if lost {
                gone.push(proxy.clone());
            }
            !lost
        });
        for proxy in gone {
            proxy.end();
        }
    }

    /// Something from the connection. Returns whether it was the end.
    pub(crate) fn take_up_from(&self, proxy: &Arc<ConnectionProxy>, up: wire::Up) -> bool {
        let mut slot = proxy.link.lock();
        let Some(link) = &mut *slot else { return false };
        match up.what {
            Some(wire::up::What::Stanza(bytes)) => match crate::routing::stored::stanza(&bytes) {
                Some(stanza) => link.up(stanza),
                None => link.answer(None),
            },
            Some(wire::up::What::Answer(bytes)) => link.answer(crate::routing::stored::stanza(&bytes)),
            Some(wire::up::What::Confirmed(h)) => link.down_ack(h),
            Some(wire::up::What::Enable(enable)) => {
                link.enable(enable.resume, enable.max);
                proxy.counted.store(true, Ordering::Release);
                link.ledger().watch(&proxy.pipe);
            }
            Some(wire::up::What::Active(active)) => link.csi(active),
            Some(wire::up::What::Marked(number)) => link.marked(number),
            Some(wire::up::What::Credit(items)) => {
                let mut flying = proxy.flying.lock();
                let items = (items as usize).min(flying.len());
                flying.drain(..items);
                drop(flying);
                proxy.pipe.nudge();
            }
            Some(wire::up::What::Ask(_)) => {
                link.ledger().wait(&proxy.pipe);
                proxy.pipe.nudge();
            }
            Some(wire::up::What::Closed(clean)) => {
                if let Some(link) = slot.take() {
                    link.closed(clean);
                }
                return true;
            }
            None => {}
        }
        false
    }

    /// Carries over what the session has for its connection, until one of them is gone.
    async fn carry(&self, proxy: &Arc<ConnectionProxy>) {
        let Some(placement) = self.placement() else { return };
        let here = proxy.node == *placement.cluster.mesh().node();
        let peer = placement.cluster.peers().peer(&proxy.node);
        let (mut drained, mut items, mut told) = (Vec::new(), VecDeque::new(), (false, 0, 0, false));
        let (mut more, mut capsule) = (true, None);
        loop {
            if !more {
                proxy.pipe.ready().await;
            }
            if proxy.over.load(Ordering::Acquire) {
                return;
            }
            if proxy.lost.load(Ordering::Acquire) {
                return self.call_back(proxy).await;
            }
            proxy.pipe.nudged();
            let room = proxy.room();
            // Before the rest: the answers to what is settled by now are in the pipe.
            let Some(mut state) = proxy.state() else { return };
            capsule = proxy.pipe.take_capsule().or(capsule);
            more = room > 0 && (!items.is_empty() || proxy.pipe.drain_bytes(&mut drained, room, PARCEL));
            items.extend(drained.drain(..));
            if items.iter().any(|item| matches!(item, Down::Moved)) {
                capsule = proxy.pipe.take_capsule().or(capsule); // it was set before that, and nothing comes after
            }
            if items.iter().any(|item| matches!(item, Down::Enabled(_))) {
                proxy.enabled.store(true, Ordering::Relaxed);
            }
            let whole = room > 0 && !more;
            if !whole || state.0 && !proxy.enabled.load(Ordering::Relaxed) {
                state = told; // what is settled is told behind the answers to it
            }
            tracing::trace!(
                conn = proxy.conn,
                attempt = proxy.attempt,
                items = items.len(),
                room,
                ?state,
                "carry"
            );
            // One of a client that confirms nothing says what it was sent: that goes first.
            let first = proxy.counted.load(Ordering::Acquire);
            let due = capsule.is_some() && (whole || first);
            if items.is_empty() && !due && state == told {
                continue;
            }
            let ahead = if first { capsule.take() } else { None };
            let behind = if whole { capsule.take() } else { None };
            let mut payload = proxy.payload(&mut items, ahead, state);
            match behind {
                Some(behind) if items.is_empty() => payload.items.push(packed(*behind)),
                behind => capsule = behind.or(capsule),
            }
            if items.is_empty() {
                told = state;
            } else {
                // The rest goes next.
                (payload.counted, payload.settled, payload.recorded, payload.broken) = told;
                more = true;
            }
            let close = |item: &wire::Item| matches!(item.what, Some(wire::item::What::Close(_)));
            let last = payload.items.iter().any(close);
            if here {
                // The shard came here while the connection asked for its session.
                if !self.take_down(&proxy.node, payload) {
                    return self.forget_connection(proxy);
                }
                if last {
                    return;
                }
                continue;
            }
            let body = wire::encode(What::Down(payload));
            let size = body.len();
            let mut envelope = Envelope::new(proxy.shard, 0, Bytes::new(), body);
            loop {
                let (sent, host) = (proxy.clone(), self.clone());
                let told = move |outcome| match outcome {
                    Outcome::Taken(_) => {}
                    Outcome::Lost => {
                        sent.lost.store(true, Ordering::Release);
                        sent.told_all.notify_one();
                        sent.pipe.nudge();
                    }
                    // The connection is not there any more. Dropped elsewhere: this is where the connection of two nodes is read.
                    Outcome::NotOwner { .. } => {
                        let host = host.clone();
                        host.clone().spawn(async move { host.forget_connection(&sent) });
                    }
                };
                match peer.send(envelope, told) {
                    Ok(()) => break,
                    Err(refused) if refused.why == Why::Full => {
                        envelope = refused.envelope;
                        peer.room(size).await;
                    }
                    Err(refused) => {
                        tracing::warn!(node = %proxy.node, why = %refused.why, "a client connection on another node was lost");
                        return self.forget_connection(proxy);
                    }
                }
                if proxy.over.load(Ordering::Acquire) {
                    return;
                }
            }
            if last {
                return; // the connection says when it has ended
            }
        }
    }
}

impl Host {
    /// Has the connection attach again, which tells what it has got.
    async fn call_back(&self, proxy: &Arc<ConnectionProxy>) {
        let Some(placement) = self.placement() else { return };
        metrics::counter!("rookery_connections_called_back_total").increment(1);
        let peer = placement.cluster.peers().peer(&proxy.node);
        while !proxy.over.load(Ordering::Acquire) {
            let moved = wire::Item { what: Some(wire::item::What::Moved(true)) };
            let (conn, attempt, items) = (proxy.conn, proxy.attempt, vec![moved]);
            let down = wire::Down { conn, attempt, items, ..wire::Down::default() };
            let envelope = Envelope::new(proxy.shard, 0, Bytes::new(), wire::encode(What::Down(down)));
            let (told, outcome) = tokio::sync::oneshot::channel();
            let sent = peer.send(envelope, move |outcome| drop(told.send(outcome)));
            if sent.is_ok() {
                match outcome.await {
                    Ok(Outcome::Taken(_)) => return,
                    Ok(Outcome::NotOwner { .. }) => return self.forget_connection(proxy),
                    _ => {}
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn packed(capsule: wire::Capsule) -> wire::Item {
    wire::Item { what: Some(wire::item::What::Capsule(capsule)) }
}

/// What the connection knows of its stanzas: by which ledger, how many are settled, and of those recorded; broken.
type State = (bool, u32, u32, bool);

impl ConnectionProxy {
    /// What is settled now; `None` if the connection is gone.
    fn state(&self) -> Option<State> {
        let slot = self.link.lock();
        let ledger = slot.as_ref()?.ledger();
        ledger.watch(&self.pipe);
        let counted = self.counted.load(Ordering::Acquire);
        Some((counted, ledger.processed(), ledger.settled(), ledger.broken()))
    }

    /// As many of the items as make a payload; the rest stays.
    fn payload(
        &self,
        items: &mut VecDeque<Down>,
        capsule: Option<Box<wire::Capsule>>,
        state: State,
    ) -> wire::Down {
        let (counted, settled, recorded, broken) = state;
        let mut out = Vec::with_capacity(items.len() + 1);
        out.extend(capsule.map(|capsule| packed(*capsule)));
        let mut flying = self.flying.lock();
        let mut bytes = 0;
        while bytes < PARCEL {
            let Some(item) = items.pop_front() else { break };
            let what = wire::item(&item);
            bytes += wire::weight(&what);
            // This does not go into the other end's pipe, and so does not come back.
            if matches!(item, Down::Moved) {
                self.told_all.notify_one();
            } else {
                flying.push_back(wire::weight(&what));
            }
            out.push(wire::Item { what: Some(what) });
        }
        drop(flying);
        wire::Down { conn: self.conn, attempt: self.attempt, items: out, counted, settled, recorded, broken }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Release);
        self.told_all.notify_one();
        self.pipe.close();
        self.pipe.nudge();
        // Dropped, it says that the connection was lost.
        drop(self.link.lock().take());
    }
}
