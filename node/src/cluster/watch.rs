//! What happens to the node in its cluster, and what its health and its clients' sockets make of it.

use std::sync::Arc;
use std::time::Duration;

use rookery_actors::ELSEWHERE;
use rookery_cluster::entity::{SHARDS, Shard};
use rookery_cluster::mesh::{Event, Mesh, Standing};
use rookery_cluster::tables::nodes::State;
use rookery_ops::health::{Health, Reason};

use tokio::time::{Instant, sleep_until, timeout};

use crate::streams::c2s::Shared;
use crate::streams::s2s::Federation;

/// What clients are told whose node cannot prove that it belongs to the cluster.
pub const PARKED: &str = "this server cannot reach its store; your session goes on at another one";

/// How long it takes to find out whether the node is dead, when its lease has ended: there is to be one line about that.
const VERDICT: Duration = Duration::from_secs(2);

/// How long the streams of a dead node's clients may take to end.
const GOODBYE: Duration = Duration::from_secs(1);

/// Keeps readiness and sockets in step with the node's standing and lease. Returns when the node was declared dead, and its
/// clients were told: then the process is to end at once, for nothing that it writes is taken any more.
pub async fn follow(
    mesh: Arc<Mesh>,
    health: Health,
    shared: Arc<Shared>,
    federation: Option<Arc<Federation>>,
) {
    let mut events = mesh.events();
    let mut map = mesh.watch_map();
    let mut joining = true;
    // Clients that were sent away, and since when; not said yet.
    let mut parked: Option<(usize, Instant)> = None;
    loop {
        map.mark_unchanged();
        if joining && has_settled(&mesh) {
            joining = false;
            health.clear(Reason::Joining);
            tracing::info!(node = %mesh.node(), shards = mesh.map().held().count(), "this node is active in the cluster");
        }
        let event = tokio::select! {
            event = events.next() => event,
            _ = map.changed(), if joining => continue,
            () = sleep_until(parked.map_or_else(Instant::now, |(_, since)| since + VERDICT)), if parked.is_some() => {
                say_parked(&mut parked);
                continue;
            }
        };
        match event {
            // The host moves and stops its actors by itself.
            Event::Gained(_) | Event::Lost(_) => {}
            Event::Lease(true) => {
                say_parked(&mut parked);
                if let Some(federation) = &federation {
                    federation.gate.open();
                }
                if shared.gate.open() {
                    tracing::info!("the store is reachable again: clients are accepted again");
                }
                health.clear(Reason::Parked);
            }
            // For good: what follows says why.
            Event::Lease(false) if mesh.lease().is_over() => {}
            Event::Lease(false) => {
                health.raise(Reason::Parked);
                shared.gate.shut();
                if let Some(federation) = &federation {
                    federation.park();
                }
                let closed = shared.clients.close(Duration::ZERO, PARKED).await;
                parked = Some((closed, Instant::now()));
            }
            Event::Standing(Standing::Draining) => {
                health.raise(Reason::Draining);
                tracing::info!("this node is draining: its shards move to other nodes");
            }
            Event::Standing(Standing::Active) => {
                // Not if the process is about to end.
                if !*shared.stop.borrow() {
                    health.clear(Reason::Draining);
                }
            }
            Event::Standing(Standing::Fenced) => {
                shared.gate.shut();
                if let Some(federation) = &federation {
                    federation.park();
                }
                shared.clients.close(Duration::ZERO, ELSEWHERE).await;
                let _ = timeout(GOODBYE, shared.gate.emptied()).await;
                return;
            }
            Event::Standing(Standing::Joining) => {}
            // By its own will: the process ends.
            Event::Standing(Standing::Left) => std::future::pending().await,
        }
    }
}

fn say_parked(parked: &mut Option<(usize, Instant)>) {
    if let Some((closed, _)) = parked.take() {
        tracing::warn!(
            closed,
            "the store cannot be reached: clients were disconnected and can resume on another node"
        );
    }
}

/// Whether the node takes part: it is active, and has shards, or there are none for it.
fn has_settled(mesh: &Mesh) -> bool {
    let (map, node) = (mesh.map(), mesh.node());
    let active = map.member(node).is_some_and(|member| member.status.state() == State::Active);
    let nothing = || (0..SHARDS).all(|shard| map.desired(Shard(shard)) != Some(node));
    active && (map.held().next().is_some() || nothing())
}
