//! A connection of a component finds the home of the component, stays known there, and finds the next home when that changes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prost::Message as _;
use rookery_cluster::mesh::peer::NodeId;
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::announce::announce;
use super::connection::{ComponentLink, Conn, End, Patience, pause};
use super::home::Component;
use super::messages::{ConnId, Msg, Offer};
use crate::connection::reply::Reply;
use crate::features::xep_0355_delegation as delegation;
use crate::host::Host;
use crate::host::kind::Actors;
use crate::routing::wire::{self, What};

/// How often a connection says that it is there.
pub(super) const KEEP: Duration = Duration::from_secs(5);
/// A home that could not be asked is asked again after this.
const AGAIN: Duration = Duration::from_millis(250);

/// A connected component, for the operator.
#[derive(Clone, Debug)]
pub struct ConnectedComponent {
    /// The component's name.
    pub name: String,
    /// The address of the program.
    pub address: String,
    /// When the connection was authenticated, microseconds since 1970.
    pub since: u64,
    /// Whether TLS protects the connection.
    pub tls: bool,
}

impl Host {
    /// A connection for a component that has just proved its secret. The caller has verified the proof.
    pub fn serve_component(
        &self,
        name: &BareJid,
        address: Arc<str>,
        secured: bool,
        patience: Patience,
    ) -> ComponentLink {
        let number = u64::from_le_bytes(self.seams().bytes());
        let conn = Conn::new(self, name, number, address, secured, patience);
        self.component_conns().0.lock().insert(number, conn.clone());
        metrics::gauge!("rookery_component_connections", "component" => name.as_str().to_owned())
            .increment(1.0);
        delegation::forget(self, name.as_str());
        announce(&conn, &self.options(), None);
        tokio::spawn(keep(self.clone(), Arc::downgrade(&conn)));
        ComponentLink(conn)
    }

    /// The components that are connected to this node, by name.
    pub fn connected_components(&self) -> Vec<ConnectedComponent> {
        let conns: Vec<Arc<Conn>> = self.component_conns().0.lock().values().cloned().collect();
        let info = |conn: &Arc<Conn>| ConnectedComponent {
            name: conn.component.as_str().to_owned(),
            address: conn.address.to_string(),
            since: conn.since,
            tls: conn.secured,
        };
        let mut all: Vec<ConnectedComponent> = conns.iter().map(info).collect();
        all.sort_by(|a, b| (&a.name, a.since).cmp(&(&b.name, b.since)));
        all
    }

    pub(super) fn forget_component_connection(&self, conn: &Arc<Conn>) {
        self.component_conns().0.lock().remove(&conn.number);
        metrics::gauge!("rookery_component_connections", "component" => conn.component.as_str().to_owned())
            .decrement(1.0);
        let (host, conn) = (self.clone(), conn.clone());
        self.spawn(async move {
            let _ = host.offer(&conn, false, true).await;
        });
    }

    /// Tells the home of a connection; which home it is. `None`: there is none now.
    async fn offer(&self, conn: &Conn, users: bool, gone: bool) -> Option<u64> {
        let serve = wire::Serve {
            component: conn.component.as_str().to_owned(),
            conn: conn.number,
            address: conn.address.to_string(),
            serving: *conn.serving.lock(),
            users: if users { conn.users() } else { Vec::new() },
            gone,
        };
        let (reply, answer) = oneshot::channel();
        if self.placement().is_none() {
            self.offer_here(None, serve, reply);
            return answer.await.ok();
        }
        self.send(&conn.component, What::Serve(serve), move |_, answer| {
            let served = answer.ok().filter(|bytes| !bytes.is_empty());
            let served = served.and_then(|bytes| wire::Served::decode(bytes).ok());
            if let Some(served) = served {
                let _ = reply.send(served.serving); // the connection may have ended
            }
        });
        answer.await.ok()
    }

    fn offer_here(&self, node: Option<(NodeId, u64)>, serve: wire::Serve, reply: oneshot::Sender<u64>) {
        let Ok(name) = BareJid::parse(&serve.component) else { return };
        let conn = ConnId { node, number: serve.conn };
        let wire::Serve { serving, users, gone, .. } = serve;
        let msg = Msg::Offer(Box::new(Offer { conn, serving, users, gone, reply }));
        if let Some(components) = self.kinds().of::<Component>() {
            let components: &Actors<Component> = components;
            let _ = components.cast(self, &name, msg); // refused, nothing is answered, and it is asked again
        }
    }

    /// A connection of a node, for a component whose home this is.
    pub(crate) fn take_serve(&self, from: &NodeId, generation: u64, serve: wire::Serve, reply: Reply) {
        let here = self.placement().is_some_and(|placement| placement.cluster.mesh().node() == from);
        let (answer, answered) = oneshot::channel();
        self.offer_here((!here).then(|| (from.clone(), generation)), serve, answer);
        self.spawn(async move {
            match answered.await {
                Ok(serving) => reply.answer(wire::Served { serving }.encode_to_vec().into()),
                Err(_) => drop(reply), // the actor has gone: again
            }
        });
    }
}

/// Keeps a connection known to the home of its component, until the connection ends.
async fn keep(host: Host, conn: Weak<Conn>) {
    let mut changes = host.placement().map(|placement| placement.cluster.mesh().watch_map());
    loop {
        let wait = {
            let Some(conn) = conn.upgrade().filter(|conn| !conn.over.load(Ordering::Acquire)) else { return };
            let known = *conn.serving.lock();
            match host.offer(&conn, false, false).await {
                Some(0) => {
                    conn.end(End::NotAuthorized);
                    return;
                }
                Some(now) if now != known => {
                    // Another home: it is told which users this connection serves, and only then gives it anything.
                    *conn.serving.lock() = now;
                    let _ = host.offer(&conn, true, false).await;
                    KEEP
                }
                Some(_) => KEEP,
                None => AGAIN,
            }
        };
        let until = Instant::now() + wait;
        match &mut changes {
            Some(changes) => tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = pause(&conn, until) => {}
            },
            None => pause(&conn, until).await,
        }
    }
}
