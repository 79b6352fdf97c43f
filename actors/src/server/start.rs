//! The start of a server, and what runs as long as it does.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::entity::{SHARDS, Shard};
use rookery_cluster::mesh::Cluster;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_cluster::tables::nodes::Knows;

use crate::auth::spread;
use crate::component::Component;
#[cfg(feature = "toys")]
use crate::host::entity::Entity;
use crate::host::kind::{Actors, Kind, Kinds};
use crate::host::{Entered, Error, Host, WeakHost, options::Options};
use crate::link::Link;
use crate::link::stream::Dialing;
use crate::maintenance::quota::Quotas;
use crate::placement::Placement;
use crate::routing::early::Early;
use crate::routing::shard_queue::ShardQueues;
use crate::routing::wire;
use crate::runtime::directory::SWEEPS;
use crate::session::Sessions;
use crate::session::remote::Remote;
use crate::user::User;
use crate::{features, maintenance};

impl Host {
    /// Starts the server on `store` and brings back the sessions that outlived the last process.
    ///
    /// # Errors
    /// [`Error::Store`] if the store can't be read.
    pub async fn start(options: Options, store: Store, seams: Seams) -> Result<Self, Error> {
        let host = Self::make(options, store, seams, None, kinds()).await?;
        host.enter(entered());
        host.begin().await;
        host.restore().await?;
        Ok(host)
    }

    /// The same for a node among others, whose actors write through `store`, that of the cluster's mesh. What lives on a shard
    /// comes with the shard.
    ///
    /// # Errors
    /// Those of [`Host::start`].
    pub async fn start_in(
        options: Options,
        store: Store,
        seams: Seams,
        cluster: Cluster,
    ) -> Result<Self, Error> {
        let events = cluster.mesh().events();
        let first = u64::from_le_bytes(seams.bytes());
        let host = Self::make(options, store, seams, Some(Placement::new(cluster.clone())), kinds()).await?;
        host.enter(entered());
        host.remote().count_from(first);
        host.begin().await;
        cluster.set_handoff(host.handoff());
        host.join(events);
        Ok(host)
    }

    /// Starts the background jobs; they end when the server stops.
    async fn begin(&self) {
        tokio::spawn(housekeeping(self.downgrade()));
        let host = self.downgrade();
        let options = move || {
            let host = host.upgrade().filter(|host| !host.is_stopping())?;
            Some(host.options())
        };
        tokio::spawn(maintenance::run(self.store().clone(), self.seams().clone(), self.quotas(), options));
        // Answers for nobody must not be different for a moment after each start; but nothing depends on it.
        let _ = tokio::time::timeout(spread::PATIENCE, self.look_at_counts()).await;
        tokio::spawn(spread::run(self.downgrade()));
    }

    /// Looks how many rounds the passwords of real accounts have.
    pub(crate) async fn look_at_counts(&self) {
        let domains: Vec<String> = self.options().domains.iter().map(|domain| domain.name.clone()).collect();
        match spread::sample(self.store(), &domains).await {
            Ok(sample) => self.change_fakes(|fakes| fakes.with_sample(sample)),
            Err(error) => tracing::debug!(%error, "the counts of iterations were not read"),
        }
    }

    /// Wakes everything that must be there without being asked for, so that its presence is there and its time runs.
    async fn restore(&self) -> Result<(), Error> {
        let mut restored = 0u64;
        for shard in 0..SHARDS {
            restored += self.restore_shard(Shard(shard), &|| true).await?;
        }
        if restored > 0 {
            tracing::info!(sessions = restored, "sessions of the last process wait for resumption");
        }
        Ok(())
    }
}

/// What messages need of what parts of the server remember.
fn entered() -> Entered {
    Entered::default()
        .with::<ShardQueues>()
        .with::<Early>()
        .with::<Remote>()
        .with::<Quotas>()
        .with::<Sessions>()
        .with::<Dialing>()
}

/// The kinds of actors of this server.
fn kinds() -> Kinds {
    let kinds: Vec<Arc<dyn Kind>> = vec![
        Arc::new(Actors::<User>::new()),
        Arc::new(Actors::<Component>::new()),
        Arc::new(Actors::<Link>::new()),
        #[cfg(feature = "toys")]
        Arc::new(Actors::<Entity<crate::toys::EchoRoom>>::new()),
        #[cfg(feature = "toys")]
        Arc::new(Actors::<crate::toys::EchoComponent>::new()),
        #[cfg(feature = "toys")]
        Arc::new(Actors::<crate::toys::FarServer>::new()),
    ];
    Kinds::new(kinds, features::host_requests::answer)
}

/// What a server of this version understands of what other nodes may send: each node of a cluster says so in its row.
pub fn knows() -> Knows {
    let kinds = kinds().iter().map(|kind| kind.name().to_owned()).collect();
    Knows { payloads: wire::ANNOUNCED.iter().map(|name| (*name).to_owned()).collect(), kinds }
}

/// Once a second: turns the wheel, and lets those become passive that have nothing to do.
async fn housekeeping(host: WeakHost) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = 0usize;
    loop {
        ticks.tick().await;
        let Some(host) = host.upgrade() else { return };
        host.wheel().tick();
        turn = (turn + 1) % SWEEPS;
        let actors: u32 = host.kinds().iter().map(|kind| kind.sweep(turn)).sum();
        metrics::gauge!("rookery_queue_length", "queue" => "users").set(actors);
        metrics::gauge!("rookery_queue_length", "queue" => "sessions").set(host.sessions().sweep(turn));
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("rookery_waiting_bytes").set(host.budget().waiting() as f64);
        if turn == 0 {
            #[allow(clippy::cast_precision_loss)] // a gauge
            metrics::gauge!("rookery_users").set(host.users().map_or(0, Kind::len) as f64);
        }
    }
}
