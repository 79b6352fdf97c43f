//! A node among others: how it joins, when it may serve, and how it leaves so that nobody notices.
//!
//! What it joins is `rookery_cluster::mesh`; here are the parts of the program that depend on it: [`watch`] ties health
//! and sockets to the lease, [`security`] is the nodes' certificates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::mesh::peer::{Receiver, net};
use rookery_cluster::mesh::{self, Mesh, Setup, Timing};
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_cluster::tables::nodes::State;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::start::Error;

pub mod security;
pub mod watch;

/// How long the last shards may take to be given up when everything else has ended.
const LAST: Duration = Duration::from_secs(2);
/// How often it is said how far the handing over is.
const NEWS: Duration = Duration::from_secs(5);

/// This node's membership. Cheap to clone.
#[derive(Clone)]
pub struct Member {
    /// Membership and channel.
    pub cluster: mesh::Cluster,
    drain: Duration,
}

/// The times of the mesh by the configuration.
fn timing(section: &config::Cluster) -> Timing {
    Timing {
        beat: section.lease / 4,
        lease: section.lease,
        death: section.death,
        probe: Duration::from_secs(1).min(section.death / 2),
        patience: (section.death * 3).max(Timing::default().patience),
        handoff: section.handoff,
        drain: section.drain,
        ..Timing::default()
    }
}

impl Member {
    /// Joins the cluster of `config`. Other nodes reach this one at `at`, where it listens, or as the configuration says. It
    /// owns nothing and serves nobody yet.
    ///
    /// # Errors
    /// [`Error::Peers`] if the certificates are no good, [`Error::Cluster`] if the store does not let it join.
    pub async fn join(
        config: &config::Config,
        section: &config::Cluster,
        at: SocketAddr,
        store: &Store,
    ) -> Result<Self, Error> {
        let setup = Setup {
            name: section.name.clone(),
            config: mesh::Config {
                node: section.node.clone(),
                address: section.advertise.clone().unwrap_or_else(|| at.to_string()),
                public: config.listen.public.clone().unwrap_or_default(),
                zone: section.zone.clone(),
                weight: section.weight,
                version: rookery_ops::VERSION.to_owned(),
                knows: rookery_actors::knows(),
                timing: timing(section),
            },
            security: security::read(section)?,
            options: mesh::peer::Options::default(),
            network: Arc::new(net::Tcp),
        };
        let address = setup.config.address.clone();
        let denied = security::denied(section);
        let (database, seams) = (Arc::clone(store.database()), store.seams().clone());
        let cluster = mesh::Cluster::join(database, seams, setup).await?;
        cluster.peers().deny(denied);
        let (node, generation) = (cluster.mesh().node().clone(), cluster.mesh().generation());
        tracing::info!(%node, generation, address, cluster = section.name, "joined the cluster");
        Ok(Self { cluster, drain: section.drain })
    }

    /// The membership.
    pub fn mesh(&self) -> &Arc<Mesh> {
        self.cluster.mesh()
    }

    /// Takes what other nodes send, until `stop` completes.
    pub fn serve(
        &self,
        listener: TcpListener,
        receiver: Arc<dyn Receiver>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            if let Err(error) = cluster.serve(listener, receiver, stop).await {
                tracing::error!(%error, "the listener for other nodes failed; restart this node");
            }
        })
    }

    /// Whether another node would take this one's shards.
    pub fn has_takers(&self) -> bool {
        let map = self.mesh().map();
        map.members().iter().any(|m| m.status.state() == State::Active && m.node != *self.mesh().node())
    }

    /// Gives all shards to the others, with the users on them, as long as the configuration allows. Whether somebody was
    /// there to take them; a node that is alone has nothing to hand over.
    pub async fn hand_over(&self) -> bool {
        let mesh = self.mesh();
        if mesh.lease().is_over() || !self.has_takers() {
            return false;
        }
        let (begun, before) = (Instant::now(), mesh.map().held().count());
        if let Err(error) = mesh.drain(mesh.node()).await {
            tracing::warn!(%error, "this node could not announce that it leaves; the other nodes will detect it");
            return false;
        }
        let mut changes = mesh.watch_map();
        let deadline = begun + self.drain;
        let mut news = begun + NEWS;
        loop {
            changes.mark_unchanged();
            let held = mesh.map().held().count();
            if held == 0 || !self.has_takers() || mesh.lease().is_over() {
                tracing::info!(
                    shards = before - held.min(before),
                    seconds = begun.elapsed().as_secs_f32(),
                    "shards handed over"
                );
                return true;
            }
            if Instant::now() >= deadline {
                tracing::warn!(
                    held,
                    of = before,
                    "not all shards were handed over in time (cluster.drain_seconds)"
                );
                return true;
            }
            if Instant::now() >= news {
                tracing::info!(held, of = before, "handing over shards");
                news = Instant::now() + NEWS;
            }
            let _ = timeout_at(news.min(deadline), changes.changed()).await;
        }
    }

    /// Says that this node is gone, so that nobody waits for it. Nothing can be written afterwards.
    pub async fn leave(&self) {
        match self.mesh().leave_within(LAST).await {
            Ok(()) => tracing::info!("left the cluster"),
            Err(error) => {
                tracing::warn!(%error, "this node could not announce that it has left; the other nodes will detect it")
            }
        }
        self.cluster.peers().close();
    }
}

/// The clock's seconds since 1970.
pub fn seconds(seams: &Seams) -> i64 {
    i64::try_from(seams.clock.now_micros() / 1_000_000).unwrap_or(i64::MAX)
}
