//! The world of these tests: a store, nodes, and what can be done to them.
//!
//! Length: the nodes, the network and the store between them: all that a test can break.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::*;
use crate::seams::{Clock, Random};
use crate::store::faults::Faults;
use crate::store::memory::Memory;
use crate::store::{Committed, Isolation, Page, Result, Select, Transaction};

/// A node's way to the store: can be frozen (then nothing goes on, as in a process that stands still), and counts.
pub(super) struct Gate {
    inner: Arc<dyn Database>,
    frozen: watch::Sender<bool>,
    /// What a read costs; a commit costs three times as much.
    pub(super) latency: Mutex<Duration>,
    pub(super) reads: AtomicU64,
    pub(super) commits: AtomicU64,
}

impl Gate {
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    pub(super) fn is_frozen(&self) -> bool {
        *self.frozen.borrow()
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.reads.load(Ordering::Relaxed), self.commits.load(Ordering::Relaxed))
    }

    async fn read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.pass(1).await;
    }

    async fn pass(&self, times: u32) {
        let latency = *self.latency.lock() * times;
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }
}

pub(super) struct Gated(pub(super) Arc<Gate>);

struct Passing {
    gate: Arc<Gate>,
    inner: Box<dyn Transaction>,
}

impl Database for Gated {
    fn begin(&self) -> Box<dyn Transaction> {
        Box::new(Passing { gate: Arc::clone(&self.0), inner: self.0.inner.begin() })
    }

    fn engine(&self) -> &'static str {
        "gated"
    }

    fn close(&self) -> Fut<'_, Result<()>> {
        self.0.inner.close()
    }
}

impl Transaction for Passing {
    fn get<'a>(&'a mut self, key: &'a [u8], isolation: Isolation) -> Fut<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            self.gate.read().await;
            self.inner.get(key, isolation).await
        })
    }

    fn range(&mut self, select: Select, isolation: Isolation) -> Fut<'_, Result<Page>> {
        Box::pin(async move {
            self.gate.read().await;
            self.inner.range(select, isolation).await
        })
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.inner.set(key, value);
    }

    fn clear(&mut self, key: &[u8]) {
        self.inner.clear(key);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.clear_range(begin, end);
    }

    fn add(&mut self, key: &[u8], delta: i64) {
        self.inner.add(key, delta);
    }

    fn set_versionstamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]) {
        self.inner.set_versionstamped_key(key, offset, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: usize) {
        self.inner.set_versionstamped_value(key, value, offset);
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.add_read_conflict(begin, end);
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.add_write_conflict(begin, end);
    }

    fn set_read_version(&mut self, version: Version, judged: Version) {
        self.inner.set_read_version(version, judged);
    }

    fn read_version(&mut self) -> Fut<'_, Result<Version>> {
        self.inner.read_version()
    }

    fn watch(&mut self, key: &[u8]) -> Fut<'static, Result<()>> {
        self.inner.watch(key)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn commit(self: Box<Self>) -> Fut<'static, Result<Committed>> {
        if self.inner.size() > 0 {
            self.gate.commits.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move {
            self.gate.pass(3).await;
            self.inner.commit().await
        })
    }
}

/// Chance from a seed, and a clock that stands.
pub(super) struct Seeded(pub(super) Mutex<u64>);

impl Seeded {
    pub(super) fn roll(&self, bound: u64) -> u64 {
        let mut die = self.0.lock();
        *die = die.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *die;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

impl Random for Seeded {
    fn fill(&self, buf: &mut [u8]) {
        buf.fill_with(|| self.roll(256).to_le_bytes()[0]);
    }
}

impl Clock for Seeded {
    fn now_micros(&self) -> u64 {
        1_700_000_000_000_000
    }
}

pub(super) fn seams(seed: u64) -> Seams {
    let seeded = Arc::new(Seeded(Mutex::new(seed)));
    Seams { clock: seeded.clone(), random: seeded }
}

/// What others see of a process: whether it answers, and whether its lease holds.
type Peer = (Arc<Gate>, Arc<Lease>);

/// The nodes that can be reached.
#[derive(Default)]
pub(super) struct Network {
    peers: Mutex<HashMap<NodeId, Peer>>,
    /// Everyone says that it is well.
    pub(super) liars: AtomicBool,
}

impl Probe for Network {
    fn reaches<'a>(&'a self, node: &'a NodeId) -> Fut<'a, bool> {
        Box::pin(async move {
            if self.liars.load(Ordering::Relaxed) {
                return true;
            }
            let peer = self.peers.lock().get(node).cloned();
            match peer {
                // A node that stands still does not refuse: it does not answer.
                Some((gate, _)) if gate.is_frozen() => std::future::pending().await,
                Some((_, lease)) => lease.holds(),
                None => false,
            }
        })
    }
}

/// A shard that was given up, since when it was held, and its next owner.
type Handed = (Shard, Epoch, Option<NodeId>);

/// Which handoffs there were.
#[derive(Default)]
pub(super) struct Handoffs {
    pub(super) done: Mutex<Vec<Handed>>,
    /// They never end.
    pub(super) stuck: AtomicBool,
}

impl Handoff for Handoffs {
    fn release<'a>(&'a self, shard: Shard, epoch: Epoch, to: Option<&'a NodeId>) -> Fut<'a, ()> {
        Box::pin(async move {
            if self.stuck.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            self.done.lock().push((shard, epoch, to.cloned()));
        })
    }
}

/// Which node got which shard in which epoch; and what must not be.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) owners: HashMap<(Shard, Epoch), (NodeId, u64)>,
    pub(super) violations: Vec<String>,
}

impl Witness {
    /// Notes that a generation of a node acts as the owner of a shard in an epoch.
    pub(super) fn owner(&mut self, shard: Shard, epoch: Epoch, node: &NodeId, generation: u64) {
        let owner = (node.clone(), generation);
        let first = self.owners.entry((shard, epoch)).or_insert_with(|| owner.clone());
        if *first != owner {
            self.violations.push(format!("{shard:?} in {epoch:?} is both of {first:?} and of {owner:?}"));
        }
    }
}

/// A node and its way to the store.
pub(super) struct Node {
    pub(super) mesh: Mesh,
    pub(super) gate: Arc<Gate>,
    pub(super) faults: Arc<Faults>,
    pub(super) handoffs: Arc<Handoffs>,
}

pub(super) struct World {
    pub(super) memory: Arc<Memory>,
    pub(super) network: Arc<Network>,
    pub(super) witness: Arc<Mutex<Witness>>,
    pub(super) timing: Timing,
    seed: u64,
    nodes: BTreeMap<&'static str, Node>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            memory: Arc::new(Memory::new()),
            network: Arc::default(),
            witness: Arc::default(),
            timing: Timing::default(),
            seed,
            nodes: BTreeMap::new(),
        }
    }

    /// A world in which these nodes have shared all shards.
    pub(super) async fn of(names: &[&'static str]) -> Self {
        let mut world = Self::new(7);
        for name in names {
            world.start(name).await;
        }
        world.settled().await;
        world
    }

    /// A node that has joined and not been activated.
    pub(super) async fn join(&mut self, name: &'static str) -> Node {
        self.seed += 1;
        let faults = Arc::new(Faults::new(self.memory.clone()));
        let gate = Arc::new(Gate {
            inner: faults.clone(),
            frozen: watch::Sender::new(false),
            latency: Mutex::default(),
            reads: AtomicU64::new(0),
            commits: AtomicU64::new(0),
        });
        let handoffs = Arc::new(Handoffs::default());
        let config = Config {
            node: id(name),
            address: format!("{name}:1"),
            public: String::new(),
            zone: String::new(),
            weight: 100,
            version: "test".into(),
            knows: Knows { payloads: vec!["x".into()], kinds: Vec::new() },
            timing: self.timing.clone(),
        };
        let (db, seams) = (Arc::new(Gated(gate.clone())), seams(self.seed));
        let mesh = Mesh::join(db, seams, config, self.network.clone(), handoffs.clone()).await.unwrap();
        self.network.peers.lock().insert(id(name), (gate.clone(), mesh.lease()));
        let (mut events, witness) = (mesh.events(), self.witness.clone());
        let generation = mesh.generation();
        tokio::spawn(async move {
            loop {
                match events.next().await {
                    Event::Gained(shards) => {
                        let mut witness = witness.lock();
                        shards.iter().for_each(|(s, e)| witness.owner(*s, *e, &id(name), generation));
                    }
                    Event::Standing(Standing::Fenced | Standing::Left) => return,
                    _ => {}
                }
            }
        });
        Node { mesh, gate, faults, handoffs }
    }

    /// Starts a node, in the place of one of the same name.
    pub(super) async fn start(&mut self, name: &'static str) {
        let node = self.join(name).await;
        node.mesh.activate().await.unwrap();
        self.nodes.insert(name, node);
    }

    /// Kills a node: everything that it did ends at once.
    pub(super) fn kill(&mut self, name: &str) -> Option<Node> {
        self.network.peers.lock().remove(name);
        self.nodes.remove(name)
    }

    pub(super) fn node(&self, name: &str) -> &Node {
        &self.nodes[name]
    }

    pub(super) fn mesh(&self, name: &str) -> &Mesh {
        &self.nodes[name].mesh
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&'static str, &Node)> {
        self.nodes.iter().map(|(name, node)| (*name, node))
    }

    /// How many shards each node holds, as it says itself.
    pub(super) fn shares(&self) -> Vec<usize> {
        self.nodes.values().map(|node| node.mesh.map().held().count()).collect()
    }

    /// Waits until nothing is to be claimed or moved, as all nodes see it.
    pub(super) async fn settled(&self) {
        // By then all have read what happened last.
        pass(self.timing.pace * 3).await;
        let calm = || {
            self.nodes.values().filter(|node| !node.mesh.lease().is_over()).all(|node| {
                let table = node.mesh.status();
                table.free == 0 && table.moving == 0
            }) && self.shares().iter().sum::<usize>() == 1024
        };
        self.until("settled", Duration::from_secs(60), calm).await;
    }

    /// Waits until something is so; the time it took.
    pub(super) async fn until(&self, what: &str, limit: Duration, so: impl Fn() -> bool) -> Duration {
        let begun = Instant::now();
        while !so() {
            let tables: Vec<String> =
                self.nodes.values().map(|node| node.mesh.status().to_string()).collect();
            assert!(begun.elapsed() < limit, "not {what} in {limit:?}:\n{}", tables.join("\n"));
            pass(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }

    pub(super) fn check(&self) {
        assert_eq!(self.witness.lock().violations, [""; 0]);
    }
}

/// Lets time pass, which stands still otherwise: nothing is waited for in earnest.
pub(super) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(super) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

/// Some shard that the node holds.
pub(super) fn held_by(mesh: &Mesh) -> Shard {
    mesh.map().held().next().unwrap().0
}

/// The key that these tests write for a shard.
pub(super) fn row(shard: Shard) -> Bytes {
    format!("row{}", shard.0).into()
}

/// Writes for a shard, as its owner.
pub(super) async fn write(store: &Store, shard: Shard, value: &[u8]) -> Result<()> {
    let options = Options { shards: vec![shard], ..Options::default() };
    let written = store.write(options, |tx| {
        tx.set(&row(shard), value);
        Box::pin(std::future::ready(Ok(())))
    });
    written.await
}

/// Writes what needs no shard.
pub(super) async fn write_plain(store: &Store) -> Result<()> {
    let written = store.write(Options::default(), |tx| {
        tx.set(b"plain", b"x");
        Box::pin(std::future::ready(Ok(())))
    });
    written.await
}

/// What is stored for a shard.
pub(super) async fn stored(world: &World, shard: Shard) -> Option<Bytes> {
    world.memory.begin().get(&row(shard), Isolation::Snapshot).await.unwrap()
}
