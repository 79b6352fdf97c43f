//! What an operator can ask about the cluster: between the admin socket and the mesh.

use std::collections::BTreeMap;

use rookery_cluster::entity::{SHARDS, Shard};
use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::mesh::{self, Home, Line, Mesh};
use rookery_cluster::tables::nodes::State;
use rookery_ops::admin::{ClusterNode, ClusterStatus, Error, ShardGroup, ShardRange};

use crate::cluster::Member;

/// The node is not in a cluster.
pub(super) fn alone() -> Error {
    Error::unavailable("this node is not in a cluster: its configuration has no [cluster]")
}

/// How the cluster is; `sessions` are those of this node.
pub(super) fn status(member: &Member, cluster: String, sessions: u64) -> ClusterStatus {
    let table = member.mesh().status();
    let standings = member.cluster.peers().standings();
    let by = table.by.to_string();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let node = |line: Line| {
        let here = line.node == table.by;
        let peer = standings.iter().find(|peer| peer.node == line.node && line.state != State::Dead);
        ClusterNode {
            trouble: peer.and_then(|peer| peer.trouble.clone()).unwrap_or_default(),
            node: line.node.to_string(),
            state: line.state.name().to_owned(),
            generation: line.generation,
            address: line.address,
            public: line.public,
            zone: line.zone,
            weight: line.weight,
            version: line.version,
            shards: count(line.shards),
            desired: count(line.desired),
            sessions: here.then_some(sessions),
            silent_ms: line.silent.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        }
    };
    ClusterStatus {
        cluster,
        leased: table.leased,
        free: count(table.free),
        moving: count(table.moving),
        nodes: table.nodes.into_iter().map(node).collect(),
        by,
    }
}

/// All shards, by the node that holds them and the node that is to.
pub(super) fn shards(mesh: &Mesh) -> Vec<ShardGroup> {
    let map = mesh.map();
    let mut groups: BTreeMap<(String, String), Vec<ShardRange>> = BTreeMap::new();
    for shard in (0..SHARDS).map(Shard) {
        let owner = match map.home(shard) {
            Home::Here { .. } => map.node().to_string(),
            Home::There { node, .. } => node.to_string(),
            Home::Nobody => String::new(),
        };
        let desired = map.desired(shard).map(ToString::to_string).unwrap_or_default();
        let (ranges, number) = (groups.entry((owner, desired)).or_default(), u32::from(shard.0));
        match ranges.last_mut() {
            Some(range) if range.last + 1 == number => range.last = number,
            _ => ranges.push(ShardRange { first: number, last: number }),
        }
    }
    groups.into_iter().map(|((owner, desired), ranges)| ShardGroup { owner, desired, ranges }).collect()
}

/// The node of that name, or this one.
fn named(member: &Member, name: &str) -> Result<NodeId, Error> {
    let mesh = member.mesh();
    if name == "self" {
        return Ok(mesh.node().clone());
    }
    let map = mesh.map();
    let found = map.members().iter().find(|member| member.node.as_str() == name);
    found.map(|member| member.node.clone()).ok_or_else(|| {
        let known: Vec<&str> = map.members().iter().map(|member| member.node.as_str()).collect();
        Error::not_found(format!("there is no node {name:?}; known nodes: {}", known.join(", ")))
    })
}

pub(super) async fn drain(member: &Member, name: &str) -> Result<String, Error> {
    let node = named(member, name)?;
    let map = member.mesh().map();
    if !map.members().iter().any(|m| m.status.state() == State::Active && m.node != node) {
        return Err(Error::unavailable(format!(
            "no other node is active to take the shards of {node}: start another node first, or stop {node} without a drain"
        )));
    }
    member.mesh().drain(&node).await.map_err(failed)?;
    Ok(node.to_string())
}

pub(super) async fn undrain(member: &Member, name: &str) -> Result<String, Error> {
    let node = named(member, name)?;
    member.mesh().undrain(&node).await.map_err(failed)?;
    Ok(node.to_string())
}

pub(super) async fn evict(member: &Member, name: &str, force: bool) -> Result<String, Error> {
    let node = named(member, name)?;
    if node == *member.mesh().node() {
        return Err(Error::invalid(
            "a node cannot evict itself: stop it, or run this command on another node",
        ));
    }
    member.mesh().evict(&node, force).await.map_err(failed)?;
    Ok(node.to_string())
}

fn failed(error: mesh::Error) -> Error {
    match error {
        mesh::Error::Store(error) => super::store(&error),
        mesh::Error::NoNode(_) => Error::not_found(error.to_string()),
        mesh::Error::Beats(node) => Error::invalid(format!(
            "{node} still sends heartbeats, or this node has not watched it for long enough: drain or stop {node}, or evict it \
             anyway with --force"
        )),
        mesh::Error::State(..) | mesh::Error::Timing => Error::invalid(error.to_string()),
    }
}
