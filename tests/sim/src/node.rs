//! A node of the simulation, and the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rookery_actors::options::{Archive, Domain};
use rookery_actors::{Host, Options};
use rookery_cluster::mesh::peer::{self, NodeId, Security};
use rookery_cluster::mesh::{Cluster, Config, Event, Setup, Standing};
use rookery_cluster::store;

use crate::chance::{Chance, seams};
use crate::client;
use crate::net::{Listener, PEERS, Simulated, incoming};
use crate::world::{Order, World, timing};

type Failure = Box<dyn std::error::Error>;

/// Serves every node's way to the store.
pub(crate) async fn store(world: Arc<World>) -> Result<(), Failure> {
    let mut ways = Vec::new();
    for (n, place) in world.places.iter().enumerate() {
        let (faults, connections) = (place.faults.clone(), incoming(n).await?);
        ways.push(tokio::spawn(async move {
            store::dev::serve(faults, connections, std::future::pending()).await
        }));
        let (late, log, mut chance) =
            (place.faults.clone(), world.log.clone(), Chance::new(world.plan.seed, 200 + n as u64));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(chance.millis(100, 2_500)).await;
                for outcome in late.release().await {
                    log.count(if outcome.is_ok() { "late commit done" } else { "late commit refused" });
                }
            }
        });
    }
    for way in ways {
        way.await??;
    }
    Ok(())
}

/// A node from its start to its end. Everything of it runs in tasks, which end with it.
pub(crate) async fn node(world: Arc<World>, n: usize) -> Result<(), Failure> {
    tokio::spawn(async move { live(world, n).await.map_err(|error| error.to_string()) }).await??;
    Ok(())
}

async fn live(world: Arc<World>, n: usize) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(place) = world.places.get(n) else { return Ok(()) };
    let boot = u64::from(place.boots.fetch_add(1, Ordering::Relaxed));
    world.log.note(&place.name, format_args!("starts ({boot})"));
    let mut chance = Chance::new(world.plan.seed, 10_000 + 100 * boot + n as u64);
    let skew = (chance.next() % 10_000_000) as i64 - 5_000_000;
    let seams = seams(chance, skew);
    // The node is started again until it comes up, as systemd would.
    let (cluster, host) = loop {
        match join(&world, n, &place.name, &seams).await {
            Ok(joined) => break joined,
            Err(error) => {
                world.log.note(&place.name, format_args!("can't join: {error}"));
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    };
    let listener = Listener(turmoil::net::TcpListener::bind(("0.0.0.0", PEERS)).await?);
    let (serving, receiver) = (cluster.clone(), host.receiver());
    tokio::spawn(async move { serving.serve(listener, receiver, std::future::pending()).await });
    crate::foreign::serve(&world, &host, n);
    watch(&world, n, &cluster);
    while let Err(error) = cluster.mesh().activate().await {
        world.log.note(&place.name, format_args!("can't be activated: {error}"));
        if cluster.mesh().standing() == Standing::Fenced {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    *place.mesh.lock() = Arc::downgrade(cluster.mesh());
    place.up.store(true, Ordering::Relaxed);
    world.log.note(&place.name, "is up");
    loop {
        let visitor = place.visitors.lock().pop_front();
        if let Some(visitor) = visitor {
            tokio::spawn(client::visit(world.clone(), visitor, host.clone(), n));
            continue;
        }
        let order = place.order.lock().take();
        if order == Some(Order::Leave) {
            break;
        }
        if cluster.mesh().standing() == Standing::Fenced {
            // As the program does: it ends, and is started again.
            place.up.store(false, Ordering::Relaxed);
            world.log.note(&place.name, "was declared dead");
            world.log.count("node declared dead while it ran");
            return Ok(());
        }
        tokio::select! {
            biased;
            () = place.call.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
    place.up.store(false, Ordering::Relaxed);
    world.log.note(&place.name, "leaves");
    let all = cluster.mesh().hand_over().await;
    world.log.count(if all { "drained" } else { "drained in part" });
    host.shutdown().await;
    let left = cluster.mesh().leave().await;
    world.log.note(&place.name, format_args!("has left: {all} {}", left.is_ok()));
    Ok(())
}

async fn join(
    world: &World,
    n: usize,
    name: &str,
    seams: &rookery_cluster::seams::Seams,
) -> Result<(Cluster, Host), Box<dyn std::error::Error + Send + Sync>> {
    let setup = Setup {
        name: "sim".into(),
        config: Config {
            node: NodeId::new(name)?,
            address: format!("{name}:{PEERS}"),
            public: String::new(),
            zone: String::new(),
            weight: 100,
            version: "sim".into(),
            knows: rookery_actors::knows(),
            timing: timing(),
        },
        security: Security::PlainText,
        options: peer::Options::default(),
        network: Arc::new(Simulated),
    };
    let cluster = Cluster::join(Arc::new(crate::net::store(n)?), seams.clone(), setup).await?;
    let domain = Domain { name: "localhost".into(), open_registration: false, contact: vec![] };
    let mut options = Options::new(vec![domain]);
    options.archive = Archive::Always;
    options.federation = world.plan.foreign.then(|| world.far.nature.federation());
    options.services = if world.plan.toys { crate::toys::services() } else { Vec::new() };
    let store = cluster.mesh().store();
    let host = Host::start_in(options, store, seams.clone(), cluster.clone()).await?;
    Ok((cluster, host))
}

/// Notes what happens to the node.
fn watch(world: &Arc<World>, n: usize, cluster: &Cluster) {
    let (mut events, world) = (cluster.mesh().events(), world.clone());
    tokio::spawn(async move {
        let Some(place) = world.places.get(n) else { return };
        loop {
            match events.next().await {
                Event::Gained(shards) => {
                    let sum: u64 =
                        shards.iter().map(|(shard, epoch)| u64::from(shard.0) * u64::from(epoch.0)).sum();
                    world.log.note(&place.name, format_args!("gains {} {sum}", shards.len()));
                }
                Event::Lost(shards) => world.log.note(&place.name, format_args!("loses {}", shards.len())),
                Event::Lease(holds) => {
                    world.log.note(&place.name, format_args!("lease {holds:?}"));
                }
                Event::Standing(standing) => {
                    world.log.note(&place.name, format_args!("is {standing:?}"));
                    if matches!(standing, Standing::Fenced | Standing::Left) {
                        return;
                    }
                }
            }
        }
    });
}
