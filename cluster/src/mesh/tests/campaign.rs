//! Everything at once, from a seed: nodes stand still, are cut off, die, come back, drain; commits fail in every way. All the
//! while every node writes for what it owns.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::super::*;
use super::world::*;
use crate::store::faults::Chances;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Writers look at few shards, so that many meet on each.
const ROWS: u16 = 32;

/// What a writer leaves in a shard's row.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mark {
    epoch: Epoch,
    owner: String,
    count: u64,
}

impl Mark {
    fn read(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let parts: Vec<&str> = text.split(' ').collect();
        Self {
            epoch: Epoch(parts[0].parse().unwrap()),
            owner: parts[1].into(),
            count: parts[2].parse().unwrap(),
        }
    }

    fn write(&self) -> String {
        format!("{} {} {}", self.epoch.0, self.owner, self.count)
    }
}

/// What the writers were told, and what happened.
#[derive(Default)]
struct Seen {
    /// Writes acknowledged, by shard.
    acked: HashMap<u16, u64>,
    tally: BTreeMap<&'static str, u64>,
}

/// Writes for what the node owns, over and over.
async fn keep_writing(store: Store, map: impl Fn() -> Arc<Map> + Send + Sync, dice: Seeded, ours: Ours) {
    loop {
        pass(Duration::from_millis(20 + dice.roll(60))).await;
        let shard = Shard(u16::try_from(dice.roll(u64::from(ROWS))).unwrap());
        if map().epoch(shard).is_none() {
            continue;
        }
        let options = Options { shards: vec![shard], ..Options::default() }
            .operation(store.operation())
            .deadline(Duration::from_secs(2));
        let (map, ours, key) = (&map, &ours, &row(shard));
        let written = store.write(options, |tx| {
            Box::pin(async move {
                let before = tx.get(key).await?.map(|value| Mark::read(&value));
                let map = map();
                let Some(epoch) = map.epoch(shard) else {
                    return Err(crate::store::Error::new(Class::Fenced, "lost meanwhile"));
                };
                let owner = format!("{}/{}", map.node(), map.generation());
                let count = before.as_ref().map_or(0, |mark| mark.count) + 1;
                tx.set(key, Mark { epoch, owner: owner.clone(), count }.write().as_bytes());
                Ok((before, epoch, owner))
            })
        });
        let outcome = written.await;
        let mut seen = ours.seen.lock();
        match outcome {
            Ok((before, epoch, owner)) => {
                *seen.acked.entry(shard.0).or_default() += 1;
                *seen.tally.entry("written").or_default() += 1;
                if let Some(before) =
                    before.filter(|b| b.epoch > epoch || (b.epoch == epoch && b.owner != owner))
                {
                    let violation = format!("{shard:?}: {owner} wrote in {epoch:?} behind {before:?}");
                    ours.witness.lock().violations.push(violation);
                }
            }
            Err(error) => *seen.tally.entry(error.class.name()).or_default() += 1,
        }
    }
}

#[derive(Clone)]
struct Ours {
    seen: Arc<Mutex<Seen>>,
    witness: Arc<Mutex<Witness>>,
}

struct Campaign {
    world: World,
    ours: Ours,
    dice: Seeded,
    writers: HashMap<&'static str, AbortHandle>,
    seed: u64,
}

impl Campaign {
    async fn start(&mut self, name: &'static str) {
        self.world.start(name).await;
        let node = self.world.node(name);
        let chances = Chances {
            conflict: 30,
            too_old: 10,
            unknown_done: 20,
            unknown_lost: 20,
            unknown_late: 10,
            unreachable: 20,
            latency: 100,
            longest: Duration::from_millis(300),
        };
        node.faults.set_chances(chances, self.seed * 31 + self.dice.roll(1000));
        *node.gate.latency.lock() = Duration::from_millis(1);
        let core = Arc::clone(&node.mesh.core);
        let map = move || core.board.map();
        let writing = keep_writing(
            node.mesh.store(),
            map,
            Seeded(Mutex::new(self.dice.roll(u64::MAX))),
            self.ours.clone(),
        );
        if let Some(before) = self.writers.insert(name, tokio::spawn(writing).abort_handle()) {
            before.abort();
        }
    }

    fn note(&self, what: &'static str) {
        *self.ours.seen.lock().tally.entry(what).or_default() += 1;
    }

    fn here(&self, name: &str) -> bool {
        self.world.nodes().any(|(n, node)| n == name && !node.mesh.lease().is_over())
    }

    /// One thing happens to one node.
    async fn step(&mut self) {
        let name = NAMES[usize::try_from(self.dice.roll(4)).unwrap()];
        if !self.here(name) {
            self.note("restarts");
            self.world.kill(name);
            return self.start(name).await;
        }
        let mesh = self.world.mesh(name);
        match self.dice.roll(9) {
            0 => {
                self.note("kills");
                self.writers.remove(name).unwrap().abort();
                self.world.kill(name);
            }
            1 | 2 => {
                self.note("freezes");
                self.world.node(name).gate.freeze(true);
            }
            3 | 4 => {
                self.note("cuts");
                self.world.node(name).faults.set_reachable(false);
            }
            5 => drop(mesh.drain(&id(name)).await),
            6 => drop(mesh.undrain(&id(name)).await),
            7 => {
                self.note("late");
                for (_, node) in self.world.nodes() {
                    node.faults.release().await;
                }
            }
            _ => {
                self.note("heals");
                self.heal();
            }
        }
    }

    fn heal(&self) {
        for (_, node) in self.world.nodes() {
            node.gate.freeze(false);
            node.faults.set_reachable(true);
        }
    }

    async fn run(seed: u64, steps: u32) -> BTreeMap<&'static str, u64> {
        let mut world = World::new(seed * 1000);
        world.timing.drain = Duration::from_secs(10);
        let ours = Ours { seen: Arc::default(), witness: world.witness.clone() };
        let (dice, writers) = (Seeded(Mutex::new(seed)), HashMap::new());
        let mut this = Self { world, ours, dice, writers, seed };
        for name in NAMES {
            this.start(name).await;
        }
        for _ in 0..steps {
            pass(Duration::from_millis(200 + this.dice.roll(4000))).await;
            this.step().await;
        }
        // Quiet: everyone is well again, and everything comes to rest.
        this.heal();
        pass(Duration::from_secs(30)).await;
        for (_, node) in this.world.nodes() {
            node.faults.set_chances(Chances::default(), 0);
            node.faults.release().await;
        }
        for name in NAMES {
            if !this.here(name) {
                this.world.kill(name);
                this.start(name).await;
                this.world.node(name).faults.set_chances(Chances::default(), 0);
            }
            drop(this.world.mesh(name).undrain(&id(name)).await);
        }
        this.world.settled().await;
        this.writers.values().for_each(AbortHandle::abort);
        pass(Duration::from_secs(1)).await;
        assert_eq!(this.world.shares(), [256; 4], "seed {seed}");
        let (acked, mut tally) = {
            let seen = this.ours.seen.lock();
            (seen.acked.clone(), seen.tally.clone())
        };
        for (shard, acked) in acked {
            let stored = stored(&this.world, Shard(shard)).await.map_or(0, |value| Mark::read(&value).count);
            assert!(
                stored >= acked,
                "seed {seed}: of shard {shard} {acked} writes were acked, {stored} are stored"
            );
        }
        assert_eq!(this.world.witness.lock().violations, [""; 0], "seed {seed}");
        tally.insert("epochs", this.world.witness.lock().owners.len() as u64);
        tally
    }
}

#[test]
fn one_owner_for_each_shard_and_epoch_whatever_happens() {
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    // More of them for who has the time.
    let seeds = std::env::var("ROOKERY_MESH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(4);
    for seed in 1..=seeds {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        for (what, count) in runtime.block_on(Campaign::run(seed, 40)) {
            *total.entry(what).or_default() += count;
        }
    }
    println!("{total:?}");
    // What never happened was not tested.
    for what in [
        "written",
        "fenced",
        "unavailable",
        "maybe_committed",
        "restarts",
        "kills",
        "freezes",
        "cuts",
        "late",
    ] {
        assert!(total.get(what).is_some_and(|count| *count > 0), "{what}: {total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(Campaign::run(3, 12))
    };
    assert_eq!(run(), run());
}
