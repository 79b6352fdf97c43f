//! Connections whose session has lost its home find the next one, and go on there as if nothing had happened.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_cluster::mesh::{Epoch, Home};
use rookery_proto::xmpp::error::StreamCondition;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::session_proxy::{At, SessionProxy};
use crate::connection::pipe::Close;
use crate::host::Host;
use crate::routing::wire::{self, What};
use crate::session::handle::{Rest as Said, Route, SessionHandle};
use crate::session::{Attach, recent};

/// How long a connection looks for its session.
const PATIENCE: Duration = Duration::from_secs(60);
/// A living home that gives a shard up says so itself, unless that takes longer.
const DOUBT: Duration = Duration::from_secs(6);

impl Host {
    /// Something waits to be looked at.
    pub(crate) fn look_soon(&self) {
        if let Some(placement) = self.placement() {
            placement.wake.notify_one();
        }
    }

    /// Looks at all connections whose session is elsewhere; whether any waits.
    pub(crate) fn look_all(&self) -> bool {
        let Some(placement) = self.placement() else { return false };
        let map = placement.cluster.mesh().map();
        self.bury_connections(|node, generation| {
            map.member(node).is_none_or(|member| !member.status.lives(generation))
        });
        let session_proxies: Vec<Arc<SessionProxy>> =
            self.remote().session_proxies.lock().values().cloned().collect();
        let mut waiting = false;
        for proxy in session_proxies {
            waiting |= self.look_at(&proxy);
        }
        waiting
    }

    /// Looks whether a session is still where its connection believes it to be, and asks the next home where it is not; returns
    /// whether that is to be looked at again soon.
    pub(crate) fn look_at(&self, proxy: &Arc<SessionProxy>) -> bool {
        let Some(placement) = self.placement() else { return false };
        let home = placement.home(proxy.shard);
        let mut state = proxy.state.lock();
        match state.at().clone() {
            At::Home(node, generation) => {
                let still = match &home {
                    Home::There { node: now, generation: then, .. } => (now, *then) == (&node, generation),
                    Home::Here { .. } => node == *placement.cluster.mesh().node(),
                    Home::Nobody => false,
                };
                if still && !state.refused {
                    state.doubt = None;
                    return false;
                }
                let map = placement.cluster.mesh().map();
                let lives = map.member(&node).is_some_and(|member| member.status.lives(generation));
                let since = *state.doubt.get_or_insert_with(Instant::now);
                if lives && since.elapsed() < DOUBT {
                    return true;
                }
                state.look(false);
                drop(state);
                self.look_at(proxy)
            }
            At::Looking { asked: true, .. } => true,
            At::Looking { since, asked: false } => {
                if since.elapsed() > PATIENCE {
                    drop(state);
                    tracing::warn!(user = %proxy.user, "no node took over a session in time; the client must log in again");
                    proxy.give_up(Close::Error(
                        StreamCondition::ResourceConstraint,
                        "please come back later".into(),
                    ));
                    return false;
                }
                if home == Home::Nobody {
                    return true;
                }
                tracing::trace!(user = %proxy.user, ?home, "a connection asks for its session");
                state.ask();
                let attach = state.attach(proxy);
                drop(state);
                match attach {
                    None => {
                        // The session never said what it takes to bring it back: it had just begun.
                        let text = "the session was lost with its node; please log in again";
                        proxy.give_up(Close::Error(StreamCondition::InternalServerError, text.into()));
                    }
                    Some(attach) => match home {
                        Home::There { node, generation, epoch } => {
                            self.attach_there(proxy, (node, generation, epoch), attach);
                        }
                        _ => self.attach_here(proxy, attach),
                    },
                }
                true
            }
            At::Asking | At::Over => false,
        }
    }

    fn attach_there(
        &self,
        proxy: &Arc<SessionProxy>,
        (node, generation, epoch): (NodeId, u64, Epoch),
        attach: wire::Attach,
    ) {
        let Some(placement) = self.placement() else { return };
        let attempt = wire::attempt(&attach);
        let body = wire::encode(What::Attach(attach));
        let envelope = Envelope::new(proxy.shard, epoch.0.into(), Bytes::new(), body);
        let (host, told) = (self.clone(), proxy.clone());
        let to = node.clone();
        let sent = placement.cluster.peers().peer(&node).send(envelope, move |outcome| {
            // Not here, where the connection of the two nodes is read.
            let work = host.clone();
            host.spawn(async move {
                match outcome {
                    Outcome::Taken(reply) => {
                        let bound = wire::Bound::decode(reply).unwrap_or_default();
                        work.attached(&told, attempt, to, generation, &bound);
                    }
                    _ => told.not_found(attempt),
                }
            });
        });
        if sent.is_err() {
            proxy.not_found(attempt);
        }
    }

    /// The next home has answered.
    fn attached(
        &self,
        proxy: &Arc<SessionProxy>,
        attempt: u32,
        node: NodeId,
        generation: u64,
        bound: &wire::Bound,
    ) {
        let mut state = proxy.state.lock();
        if !state.is_looking(attempt) {
            return;
        }
        if SessionProxy::jid(bound).is_none() {
            drop(state);
            tracing::info!(user = %proxy.user, "a session continued on another node or ended; its connection here is closed");
            return proxy.give_up(Close::Abandon);
        }
        tracing::debug!(user = %proxy.user, %node, "a session has a new home");
        metrics::counter!("rookery_sessions_attached_total").increment(1);
        state.found(node, generation);
        let closed = state.closed;
        // A home that has had the session all along has some of it; by the ledger that it was told of.
        let base = if state.is_enabling() { state.before } else { state.ledger.processed() };
        let mut entered = bound.entered.wrapping_sub(base) as usize;
        if entered > state.ups.len() {
            entered = 0;
        }
        for item in &state.ups {
            if entered > 0 && item.is_counted() {
                entered -= 1;
                continue;
            }
            proxy.pass(&state, item.clone().up());
        }
        // What the client said while the answer was on its way.
        if state.carried.managed {
            proxy.pass(&state, wire::up::What::Confirmed(state.carried.h));
        }
        proxy.pass(&state, wire::up::What::Active(!state.carried.inactive));
        if let Some(clean) = closed {
            return proxy.pass(&state, wire::up::What::Closed(clean));
        }
        proxy.catch_up(&mut state);
        proxy.pass(&state, wire::up::What::Ask(true));
    }

    /// The next home is this node.
    fn attach_here(&self, proxy: &Arc<SessionProxy>, attach: wire::Attach) {
        let attempt = wire::attempt(&attach);
        let (reply, answer) = oneshot::channel();
        let Some(placement) = self.placement() else { return };
        let peer = (placement.cluster.mesh().node().clone(), proxy.id);
        let here = Some(proxy.clone());
        let attach = Attach { attach, peer, pipe: proxy.pipe.clone(), here, reply };
        if !self.attach_session(&proxy.user, attach) {
            return proxy.not_found(attempt);
        }
        let proxy = proxy.clone();
        self.spawn(async move {
            match answer.await {
                Ok(_) => {
                    proxy.give_up(Close::Abandon);
                }
                Err(_) => proxy.not_found(attempt),
            }
        });
    }

    /// The connection goes on with a session on its own node. Returns its way, which the session changes when it moves again:
    /// it must be told at once.
    pub(crate) fn attached_here(
        &self,
        proxy: &SessionProxy,
        attempt: u32,
        link: SessionHandle,
    ) -> Weak<Route> {
        let route = proxy.route.lock().clone();
        // With both locks held: what the connection sends next comes behind what it sent before.
        let take = || {
            let mut state = proxy.state.lock();
            let looking = state.is_looking(attempt) && state.closed.is_none();
            looking.then(|| {
                state.end();
                let said = Said {
                    confirmed: state.carried.managed.then_some(state.carried.h),
                    active: Some(!state.carried.inactive),
                    ..Said::default()
                };
                (std::mem::take(&mut state.ups), said)
            })
        };
        let back = match route.upgrade() {
            Some(route) => route.back_here(link, take),
            None => Err(link),
        };
        match back {
            Ok(()) => metrics::counter!("rookery_sessions_attached_total").increment(1),
            Err(link) => link.closed(proxy.state.lock().closed.unwrap_or(false)),
        }
        proxy.forget();
        proxy.pipe.nudge();
        route
    }
}

impl SessionProxy {
    /// There is a home: it hears what happened to the items that it had sent before its answer came. They come on a stream of
    /// their own, and may be faster.
    pub(crate) fn catch_up(self: &Arc<Self>, state: &mut super::session_proxy::State) {
        if let Some(number) = state.marked.take() {
            self.pass(state, wire::up::What::Marked(number));
        }
        let credit = std::mem::take(&mut state.taken);
        if credit > 0 {
            self.pass(state, wire::up::What::Credit(credit));
        }
    }

    /// Nobody has taken the session: it is looked at again.
    fn not_found(&self, attempt: u32) {
        tracing::trace!(user = %self.user, attempt, "nobody took a session");
        self.state.lock().not_found(attempt);
    }
}

impl super::session_proxy::State {
    /// What the next home must know; nothing if the last one never said.
    fn attach(&self, proxy: &SessionProxy) -> Option<wire::Attach> {
        let capsule = self.carried.capsule.clone()?;
        Some(wire::Attach {
            user: proxy.user.as_str().to_owned(),
            conn: Some(wire::Conn {
                id: proxy.id,
                attempt: self.attempt,
                address: proxy.address.to_string(),
            }),
            capsule: Some(capsule),
            managed: self.carried.managed,
            inactive: self.carried.inactive,
            settled: if self.is_enabling() { self.before } else { self.ledger.processed() },
            h: self.carried.h,
            acked: wire::id_bytes(self.carried.acked),
            tail: self.carried.tail.iter().map(|(sent, _)| sent.clone()).collect(),
            last: wire::id_bytes(self.carried.last),
            drained: wire::id_bytes(self.carried.drained),
            moved: self.moved,
            recent: recent::to_wire(&self.carried.recent),
            rooms: self.carried.recent.rooms.write(),
            sent: Some(self.ledger.received()).filter(|_| !self.is_enabling()),
            unqueue: self.unqueue.iter().cloned().collect(),
            left_behind: self.carried.left_behind.ids().map(|id| wire::id_bytes(Some(id))).collect(),
        })
    }
}
