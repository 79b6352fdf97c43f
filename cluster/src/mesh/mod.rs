//! The nodes of a cluster: which live, which owns which shard, and how shards change hands. The store decides; there is no
//! gossip, and no clock is compared with another's.
//!
//! - [`Mesh`] is one node's membership. It beats, watches the others and votes, claims the shards it is to have
//!   and gives up those it is not.
//! - [`Mesh::store`] is the store for everything the node's actors write: every write proves in its own transaction that the
//!   node lives and owns the shard. The argument stands in `fence.rs`.
//! - [`Mesh::map`] says where an entity is at home; [`Mesh::events`] what this node gained and lost.
//! - [`Lease`] says whether effects that the store does not see are allowed.
//! - [`peer`] is the channel between nodes; [`Cluster`] is both together.
//!
//! A node that is alone on its store needs none of this.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::entity::Shard;
use crate::seams::Seams;
use crate::store::{Class, Database, Fut, Options, Store, Version, Versionstamp};
use crate::tables::nodes::{self, Knows, State, Status};

mod beat;
mod board;
mod claim;
mod cluster;
mod config;
mod drain;
mod error;
mod events;
mod fence;
mod lease;
mod map;
mod observe;
pub mod peer;
mod place;
mod release;
mod status;
#[cfg(test)]
mod tests;

pub use cluster::{Cluster, Setup};
pub use config::{Config, Timing};
pub use error::Error;
pub use events::{Event, Events, Standing};
pub use lease::Lease;
pub use map::{Home, Map, Member};
pub use peer::NodeId;
pub use place::{Candidate, desired};
pub use status::{Line, Table};

use board::Board;
use events::Position;
use fence::Guard;
use observe::Sight;

/// Grows each time a shard changes hands; of two owners of a shard the one with the greater epoch came later. From 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u32);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Epoch> for u64 {
    fn from(epoch: Epoch) -> Self {
        epoch.0.into()
    }
}

/// Asks another node whether it works. The channel between nodes does this.
pub trait Probe: Send + Sync + 'static {
    /// Whether the node answers, straight or through a third one, **and** says that its lease holds: one that is cut off from
    /// the store must say no, its shards are to be taken. The caller gives up after [`Timing::probe`].
    fn reaches<'a>(&'a self, node: &'a NodeId) -> Fut<'a, bool>;
}

/// Moves what lives on a shard to the next owner.
pub trait Handoff: Send + Sync + 'static {
    /// The shard is to be given up, to `to` if somebody is there to take it. The node still owns it and may write until this
    /// returns, and must not after: its actors have been moved, or stopped and their state stored, and no write is under
    /// way. After [`Timing::handoff`] the shard is given up whatever has been done.
    fn release<'a>(&'a self, shard: Shard, epoch: Epoch, to: Option<&'a NodeId>) -> Fut<'a, ()>;
}

/// Nothing lives on shards.
pub struct NoHandoff;

impl Handoff for NoHandoff {
    fn release<'a>(&'a self, _: Shard, _: Epoch, _: Option<&'a NodeId>) -> Fut<'a, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What the tasks of a node share.
struct Core {
    node: NodeId,
    generation: u64,
    knows: Knows,
    timing: Timing,
    seams: Seams,
    /// Without a fence: for the rows of the mesh itself.
    store: Store,
    lease: Arc<Lease>,
    guard: Arc<Guard>,
    board: Board,
    sight: Mutex<Sight>,
    position: watch::Sender<Position>,
    /// One round of releases at a time.
    releasing: tokio::sync::Mutex<()>,
    probe: Arc<dyn Probe>,
    handoff: Arc<dyn Handoff>,
}

impl Core {
    /// A time within a twentieth of `time`, so that the rounds of many nodes do not meet.
    fn jitter(&self, time: Duration) -> Duration {
        let chance = u32::from(u16::from_be_bytes(self.seams.bytes()));
        time - time / 20 + time / 10 * chance / u32::from(u16::MAX)
    }

    /// The store says that this generation of the node is dead.
    fn die(&self) {
        if !self.lease.is_over() {
            metrics::counter!("rookery_mesh_fenced_for_good_total").increment(1);
            // The program says what that means.
            tracing::info!(node = %self.node, generation = self.generation, "this node was declared dead: it stops");
        }
        self.end(Standing::Fenced);
    }

    fn end(&self, standing: Standing) {
        self.guard.end();
        self.position.send_if_modified(|position| position.end(standing));
        self.publish(None);
    }
}

/// The version of a commit, by its versionstamp. Zero if nothing was written.
fn version_of(stamp: &Versionstamp) -> Version {
    Version(stamp.first_chunk().map_or(0, |version| u64::from_be_bytes(*version)))
}

/// One node's membership. When it is dropped the node stops beating, and the others take it for dead after a while; see
/// [`Mesh::leave`] for the better way.
pub struct Mesh {
    core: Arc<Core>,
    store: Store,
    _tasks: JoinSet<()>,
}

impl Mesh {
    /// Joins the cluster: writes the node's row, with a generation of its own, and begins to beat. The node owns nothing before
    /// [`Mesh::activate`]. What a former generation of the node left behind is free from now on.
    ///
    /// # Errors
    /// [`Error::Timing`], and those of the store.
    pub async fn join(
        db: Arc<dyn Database>,
        seams: Seams,
        config: Config,
        probe: Arc<dyn Probe>,
        handoff: Arc<dyn Handoff>,
    ) -> Result<Self, Error> {
        config.timing.check()?;
        let store = Store::new(Arc::clone(&db), seams.clone());
        let generation = announce(&store, &config).await?;
        let Config { node, knows, timing, .. } = config;
        let lease = Arc::new(Lease::new());
        let guard = Arc::new(Guard::new(node.clone(), generation, Arc::clone(&lease)));
        let nothing = guard.held();
        let map = Map { node: node.clone(), generation, rows: Arc::new(map::Rows::none()), here: nothing };
        let fenced = Store::fenced(db, seams.clone(), Arc::clone(&guard) as Arc<_>);
        let core = Arc::new(Core {
            node,
            generation,
            knows,
            timing,
            seams,
            store,
            lease,
            guard,
            board: Board::new(map),
            sight: Mutex::default(),
            position: watch::Sender::new(Position::default()),
            releasing: tokio::sync::Mutex::new(()),
            probe,
            handoff,
        });
        core.beat(1).await?;
        core.read_map().await?;
        let mut tasks = JoinSet::new();
        let [a, b, c, d, e, f] = std::array::from_fn(|_| Arc::clone(&core));
        tasks.spawn(async move { a.keep_beating().await });
        tasks.spawn(async move { b.lease.keep().await });
        tasks.spawn(async move { c.keep_map().await });
        tasks.spawn(async move { d.keep_observing().await });
        tasks.spawn(async move { e.keep_claiming().await });
        tasks.spawn(async move { f.keep_releasing().await });
        Ok(Self { core, store: fenced, _tasks: tasks })
    }

    /// From now on the node takes shards: its listeners for other nodes must be open.
    ///
    /// # Errors
    /// [`Error::State`] unless it is joining; those of the store.
    pub async fn activate(&self) -> Result<(), Error> {
        let node = self.core.node.clone();
        self.core.change(&node, Some(self.core.generation), &[State::Joining], State::Active).await
    }

    /// The store for everything that the node's actors write.
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// Which nodes live, and which owns which shard.
    pub fn map(&self) -> Arc<Map> {
        self.core.board.map()
    }

    /// Ends a wait whenever the map is another: what it says is seen in [`Mesh::map`].
    pub fn watch_map(&self) -> watch::Receiver<u64> {
        self.core.board.watch()
    }

    /// Reads the map anew and waits for it, 2 s at most: for a caller that was told that another node is the owner. Calls at one time
    /// share a reading.
    pub async fn refresh_now(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.core.board.refreshed()).await;
    }

    /// Whether effects that the store does not see are allowed.
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.core.lease)
    }

    /// What happens to this node from now on; first all that it holds already.
    pub fn events(&self) -> Events {
        Events::new(Arc::clone(&self.core))
    }

    /// Where the node is in its life.
    pub fn standing(&self) -> Standing {
        self.core.position.borrow().standing
    }

    /// The name of this node.
    pub fn node(&self) -> &NodeId {
        &self.core.node
    }

    /// The generation of this node.
    pub fn generation(&self) -> u64 {
        self.core.generation
    }
}

/// Writes the row of a node that starts; its generation.
async fn announce(store: &Store, config: &Config) -> Result<u64, Error> {
    let nonce = u64::from_be_bytes(store.seams().bytes());
    let written = store.write(Options::default(), |tx| {
        Box::pin(async move {
            let before = nodes::status(&mut **tx, &config.node).await?;
            let generation = match before {
                // An attempt before, whose outcome was unknown.
                Some(status) if status.nonce == nonce => return Ok(status.generation),
                Some(status) => status.generation + 1,
                // Greater than those of a former node of this name, whose row was removed: each start made a version.
                None => tx.read_version().await?.0.max(1),
            };
            let status = Status {
                generation,
                state: State::Joining as i32,
                address: config.address.clone(),
                public: config.public.clone(),
                zone: config.zone.clone(),
                weight: config.weight,
                version: config.version.clone(),
                nonce,
                knows: Some(config.knows.clone()),
            };
            nodes::put_status(&mut **tx, &config.node, &status);
            nodes::bump(&mut **tx);
            Ok(generation)
        })
    });
    Ok(written.await?)
}

/// Whether an error of the store says that this node is dead.
fn is_dead(error: &crate::store::Error) -> bool {
    error.class == Class::Fenced
}
