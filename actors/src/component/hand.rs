//! From the home of a component to a connection, on this node or another.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::{Envelope, Outcome};
use rookery_proto::xmpp::stanza::Stanza;

use super::connection::Conn;
use super::messages::ConnId;
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::routing::stored;
use crate::routing::wire::{self, What};
use crate::runtime::origin::{Origin, OriginName};

/// The connections of components on this node.
#[derive(Default)]
pub(super) struct Conns(pub(super) Mutex<HashMap<u64, Arc<Conn>>>);

impl Host {
    /// The connections of components on this node.
    pub(super) fn component_conns(&self) -> Arc<Conns> {
        self.state()
    }

    /// Hands a stanza to a connection, on this node or another; `false`: too much waits for that node, and `told` hears nothing.
    pub(super) fn hand_to_connection(
        &self,
        id: &ConnId,
        stanza: Arc<Stanza>,
        origin: Option<Origin>,
        told: impl FnOnce(Outcome) + Send + 'static,
    ) -> bool {
        let Some(((node, _), placement)) = id.node.as_ref().zip(self.placement()) else {
            let conn = self.component_conns().0.lock().get(&id.number).cloned();
            match conn {
                Some(conn) => conn.take(stanza, origin, Reply::here(told)),
                None => told(Outcome::Lost),
            }
            return true;
        };
        let payload = wire::ToComponent {
            conn: id.number,
            stanza: stanza.to_bytes().into(),
            sid: origin.map(|origin| Bytes::copy_from_slice(&origin.name.0)).unwrap_or_default(),
            n: origin.map_or(0, |origin| origin.number),
        };
        let shard = Shard(0);
        let body = wire::encode(What::ToComponent(payload));
        let envelope = Envelope::new(shard, 0, Bytes::new(), body);
        match placement.cluster.peers().peer(node).send(envelope, told) {
            Ok(()) => true,
            Err(refused) if !self.has_node_of(id) => {
                (refused.on_outcome)(Outcome::Lost);
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the node of a connection lives.
    pub(super) fn has_node_of(&self, id: &ConnId) -> bool {
        let Some(((node, generation), placement)) = id.node.as_ref().zip(self.placement()) else {
            return true;
        };
        let map = placement.cluster.mesh().map();
        map.member(node).is_some_and(|member| member.status.lives(*generation))
    }

    /// A stanza from the home of a component, for a connection of this node.
    pub(crate) fn take_to_component(&self, payload: &wire::ToComponent, reply: Reply) {
        let conn = self.component_conns().0.lock().get(&payload.conn).cloned();
        let origin = OriginName::from_slice(&payload.sid).map(|name| Origin::new(name, payload.n));
        match (conn, stored::stanza(&payload.stanza)) {
            (Some(conn), Some(stanza)) => conn.take(Arc::new(stanza), origin, reply),
            (Some(_), None) => reply.taken(), // nobody could read it
            (None, _) => reply.not_here(0, None),
        }
    }
}
