//! What other nodes understand, as they say in their rows: during an upgrade nodes of two versions work together.

use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::tables::nodes::Knows;

use crate::host::Host;
use crate::host::kind::{KindId, USER};

impl Host {
    /// Whether `node` says that `is` holds of what it knows. A node of a version before nodes said so knows no more than that version.
    pub(crate) fn node_knows(&self, node: &NodeId, is: impl Fn(&Knows) -> bool) -> bool {
        let Some(placement) = self.placement() else { return true };
        let mesh = placement.cluster.mesh();
        mesh.node() == node || mesh.map().member(node).is_some_and(|member| member.status.says(is))
    }

    /// Whether actors of a kind can live on `node`. Every node knows users.
    pub(crate) fn node_knows_kind(&self, node: &NodeId, kind: KindId) -> bool {
        let name = (kind != USER).then(|| self.kind_name(kind));
        name.is_none_or(|name| self.node_knows(node, |knows| knows.kind(&name)))
    }
}
