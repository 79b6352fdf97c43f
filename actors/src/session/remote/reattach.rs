//! Connections whose session has lost its home find the next one, and go on there as if nothing had happened.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_cluster::mesh::{Epoch, Home};
use rookery_proto::xmpp::error::{Condition, StanzaError, StreamCondition};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::session_proxy::{At, SessionProxy};
use crate::connection::pipe::{Close, Pipe};
use crate::host::{Host, NotResumed};
use crate::routing::wire::{self, What};
use crate::session::SessionId;
use crate::session::handle::{Authenticated, ConnInfo, Rest as Said, Route, SessionHandle};
use crate::user;

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

    pub(crate) fn look_at(&self, proxy: &Arc<SessionProxy>) -> bool {
        let Some(placement) = self.placement() else { return false };
        let home = placement.home(proxy.shard);
        let mut state = proxy.state.lock();
        match state.at.clone() {
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
                state.at = At::Looking { since, asked: true };
                let attach = state.attach(proxy);
                drop(state);
                match attach {
                    None => {
                        // It never said what it takes to bring it back: it had just begun.
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
        if state.attempt != attempt || !matches!(state.at, At::Looking { .. }) {
            return;
        }
        if SessionProxy::jid(bound).is_none() {
            drop(state);
            tracing::info!(user = %proxy.user, "a session continued on another node or ended; its connection here is closed");
            return proxy.give_up(Close::Abandon);
        }
        tracing::debug!(user = %proxy.user, %node, "a session has a new home");
        metrics::counter!("rookery_sessions_attached_total").increment(1);
        state.at = At::Home(node, generation);
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
        if state.managed {
            proxy.pass(&state, wire::up::What::Confirmed(state.h));
        }
        proxy.pass(&state, wire::up::What::Active(!state.inactive));
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
        let msg = user::Attach { attach, peer, pipe: proxy.pipe.clone(), here, reply };
        if self.cast_user(&proxy.user, user::Msg::Attach(Box::new(msg))).is_err() {
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
            let looking =
                state.attempt == attempt && matches!(state.at, At::Looking { .. }) && state.closed.is_none();
            looking.then(|| {
                state.at = At::Over;
                let said = Said {
                    confirmed: state.managed.then_some(state.h),
                    active: Some(!state.inactive),
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

    /// Opens a session whose home is another node.
    pub(crate) async fn bind_away(
        &self,
        who: &Authenticated,
        resource: Option<&str>,
        conn: &ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, StanzaError> {
        let unable = || StanzaError::new(Condition::InternalServerError);
        let proxy = SessionProxy::new(self, who.jid(), &conn.address, pipe).ok_or_else(unable)?;
        let bind = wire::Bind {
            user: who.jid().as_str().to_owned(),
            resource: resource.map(str::to_owned),
            conn: Some(proxy.conn()),
        };
        let bound = self.ask(proxy.clone(), What::Bind(bind)).await.ok_or_else(unable)?;
        match SessionProxy::jid(&bound) {
            Some(jid) => Ok(SessionHandle::away(proxy, jid)),
            None => Err(StanzaError::new(
                Condition::from_name(&bound.condition).unwrap_or(Condition::InternalServerError),
            )),
        }
    }

    /// Goes on with a session whose home is another node.
    pub(crate) async fn resume_away(
        &self,
        who: &Authenticated,
        (sid, key): (SessionId, [u8; 16]),
        h: u32,
        conn: &ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, NotResumed> {
        let proxy = SessionProxy::new(self, who.jid(), &conn.address, pipe).ok_or(NotResumed::Unable)?;
        proxy.resuming(h);
        let resume = wire::Resume {
            user: who.jid().as_str().to_owned(),
            sid: Bytes::copy_from_slice(&sid.0),
            key: Bytes::copy_from_slice(&key),
            h,
            conn: Some(proxy.conn()),
        };
        let bound = self.ask(proxy.clone(), What::Resume(resume)).await.ok_or(NotResumed::Unable)?;
        match SessionProxy::jid(&bound) {
            Some(jid) => Ok(SessionHandle::away(proxy, jid)),
            None if bound.condition.is_empty() => Err(NotResumed::NotFound),
            None => Err(NotResumed::Unable),
        }
    }

    /// Asks for a session. If nobody waits for the answer any more, the session is told that its connection is gone.
    async fn ask(&self, proxy: Arc<SessionProxy>, what: What) -> Option<wire::Bound> {
        struct Waits(Arc<SessionProxy>, bool);
        impl Drop for Waits {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.forget();
                }
            }
        }
        let mut waits = Waits(proxy.clone(), false);
        let (reply, answer) = oneshot::channel();
        self.send(&proxy.user.clone(), what, move |_, answer| {
            let bound = answer.ok().and_then(|bytes| wire::Bound::decode(bytes).ok());
            if let Some(bound) = bound.as_ref().filter(|bound| !bound.jid.is_empty())
                && let Ok(node) = NodeId::new(&bound.node)
            {
                proxy.settle(node, bound.generation, bound.settled);
            }
            let _ = reply.send(bound);
        });
        let bound = answer.await.ok().flatten()?;
        waits.1 = !bound.jid.is_empty();
        Some(bound)
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
        let mut state = self.state.lock();
        if let At::Looking { since, asked: true } = state.at
            && state.attempt == attempt
        {
            tracing::trace!(user = %self.user, "nobody took a session");
            state.at = At::Looking { since, asked: false };
            state.attempt = state.attempt.wrapping_add(1); // should somebody have taken it after all, it says nothing here
        }
    }
}

impl super::session_proxy::State {
    /// What the next home must know; nothing if the last one never said.
    fn attach(&self, proxy: &SessionProxy) -> Option<wire::Attach> {
        let capsule = self.capsule.clone()?;
        Some(wire::Attach {
            user: proxy.user.as_str().to_owned(),
            conn: Some(wire::Conn {
                id: proxy.id,
                attempt: self.attempt,
                address: proxy.address.to_string(),
            }),
            capsule: Some(capsule),
            managed: self.managed,
            inactive: self.inactive,
            settled: if self.is_enabling() { self.before } else { self.ledger.processed() },
            h: self.h,
            acked: wire::id_bytes(self.acked),
            tail: self.tail.iter().map(|(sent, _)| sent.clone()).collect(),
            last: wire::id_bytes(self.last),
            drained: wire::id_bytes(self.drained),
            moved: self.moved,
            recent: self.recent.wire(),
            unqueue: self.unqueue.iter().cloned().collect(),
        })
    }
}
