//! What goes wrong, and when: all from a seed. And what the nodes that live make of it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::server::Error;
use crate::server::cluster::{SHARDS, World, is_ready, view};

use super::homes::homes;

mod upgrade;

/// How often the nodes are asked how far they are.
const LOOK: Duration = Duration::from_millis(50);
/// How long a takeover is watched.
const WATCH: Duration = Duration::from_secs(30);
/// What there is before the first fault.
const WARM_UP: Duration = Duration::from_secs(3);

/// SplitMix64: the same numbers for the same seed, everywhere.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// Between two numbers of milliseconds.
    pub fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.roll() % (most - least + 1))
    }
}

/// What was done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Kill,
    Drain,
    /// A drain while the store stands still.
    DrainStill,
    /// A drain, and the next program in its place.
    Upgrade,
    /// Nobody did it.
    EndedByItself,
}

/// Something that happened.
#[derive(Debug)]
pub struct Fault {
    pub what: What,
    pub node: String,
    /// All nodes were ready then.
    pub well: bool,
    pub at: Instant,
    /// The process of a drained node has ended.
    pub until: Instant,
    /// Shards that it held.
    pub held: usize,
    /// Users who were at home there.
    pub homes: HashSet<String>,
    /// Until another node knew that it is dead.
    pub detected: Option<Duration>,
    /// Until every shard had a home again.
    pub whole: Option<Duration>,
}

type Watching = JoinHandle<(Option<Duration>, Option<Duration>)>;

/// Makes things go wrong.
pub struct Faults<'a> {
    pub world: &'a mut World,
    pub dice: Dice,
    pub users: &'a [String],
    pub log: Vec<Fault>,
    watching: Vec<(usize, Watching)>,
    /// Nodes to start again, and when.
    down: Vec<(usize, Instant)>,
}

impl<'a> Faults<'a> {
    pub fn new(world: &'a mut World, seed: u64, users: &'a [String]) -> Self {
        Faults {
            world,
            dice: Dice::new(seed),
            users,
            log: Vec::new(),
            watching: Vec::new(),
            down: Vec::new(),
        }
    }

    /// Kills for so long, drains one node in the middle and one in the end, while the store stands `still` for so long, and
    /// leaves all nodes running. A store of somebody else's is left alone.
    pub async fn run(&mut self, length: Duration, still: Duration) -> Result<(), Error> {
        let begin = Instant::now();
        let (middle, end) = (begin + length / 2, begin + length);
        let mut next = begin + WARM_UP;
        let mut drained = false;
        while Instant::now() < end {
            self.restart_who_is_due()?;
            self.look_for_the_fallen()?;
            if !drained && Instant::now() > middle {
                drained = true;
                self.drain(Duration::ZERO).await?;
                next = Instant::now() + self.dice.between(1_000, 3_000);
            }
            if Instant::now() >= next && self.kill().await? {
                let (least, most) = if self.rests() { (14_000, 18_000) } else { (5_000, 9_000) };
                next = Instant::now() + self.dice.between(least, most);
            }
            sleep(LOOK).await;
        }
        if !still.is_zero() && self.world.store.is_some() {
            self.drain(still).await?;
        }
        self.end().await
    }

    /// Leaves all nodes running, and waits for what is still being watched.
    async fn end(&mut self) -> Result<(), Error> {
        self.all_up().await?;
        for (at, watching) in self.watching.drain(..) {
            let (detected, whole) = watching.await.unwrap_or_default();
            (self.log[at].detected, self.log[at].whole) = (detected, whole);
        }
        Ok(())
    }

    /// Whether the last fault is followed by a pause. Some find the cluster at rest, others in the middle of what the one before
    /// has begun.
    fn rests(&self) -> bool {
        self.log.len() % 2 == 1
    }

    fn restart_who_is_due(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        let due: Vec<usize> = self.down.iter().filter(|(_, at)| *at <= now).map(|(node, _)| *node).collect();
        self.down.retain(|(_, at)| *at > now);
        due.into_iter().try_for_each(|node| self.world.launch(node))
    }

    /// A node that ended by itself (it was fenced, say) is started again, as systemd would.
    fn look_for_the_fallen(&mut self) -> Result<(), Error> {
        for node in 0..self.world.nodes.len() {
            if self.world.nodes[node].ended()?.is_some() {
                self.note(What::EndedByItself, node, false, 0, HashSet::new());
                self.down.push((node, Instant::now() + Duration::from_millis(500)));
            }
        }
        Ok(())
    }

    async fn all_up(&mut self) -> Result<(), Error> {
        for (node, _) in std::mem::take(&mut self.down) {
            self.world.launch(node)?;
        }
        for node in 0..self.world.nodes.len() {
            if self.world.nodes[node].is_up() {
                self.ready(node).await?;
            }
        }
        // And every shard has a home.
        let give_up = Instant::now() + WATCH;
        while held_by_all(&self.places()).await < SHARDS && Instant::now() < give_up {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits for a node, which may end by itself meanwhile.
    async fn ready(&mut self, node: usize) -> Result<(), Error> {
        for _ in 0..3 {
            match self.world.ready(node).await {
                Ok(()) => return Ok(()),
                Err(error) if self.world.nodes[node].ended()?.is_none() => return Err(error),
                Err(_) => self.note(What::EndedByItself, node, false, 0, HashSet::new()),
            }
            self.world.launch(node)?;
        }
        self.world.ready(node).await
    }

    fn places(&self) -> Vec<SocketAddr> {
        self.world.nodes.iter().map(|node| node.behind.http).collect()
    }

    fn note(&mut self, what: What, node: usize, well: bool, held: usize, homes: HashSet<String>) {
        let (node, now) = (self.world.nodes[node].behind.name.clone(), Instant::now());
        let (at, until) = (now, now);
        self.log.push(Fault { what, node, well, at, until, held, homes, detected: None, whole: None });
    }

    /// kill -9, unless that would leave no ready node.
    async fn kill(&mut self) -> Result<bool, Error> {
        let mut ready = Vec::new();
        for (at, node) in self.world.nodes.iter().enumerate() {
            if node.is_up() && is_ready(node.behind.http).await {
                let held = view(node.behind.http).await.unwrap_or_default().held;
                ready.push((at, held));
            }
        }
        if ready.len() < 2 {
            return Ok(false);
        }
        // Every other time it hits the one that holds most.
        let kills = self.log.iter().filter(|fault| fault.what == What::Kill).count();
        let (victim, held) = match kills % 2 {
            0 => ready.iter().copied().max_by_key(|(_, held)| *held).unwrap_or(ready[0]),
            _ => ready[self.dice.below(ready.len())],
        };
        let asked = ready.iter().find(|(at, _)| *at != victim).map_or(victim, |(at, _)| *at);
        let name = self.world.nodes[victim].behind.name.clone();
        let homes = homes(self.world, asked, &name, self.users).await?;
        let others: Vec<SocketAddr> = self
            .places()
            .into_iter()
            .enumerate()
            .filter(|(at, _)| *at != victim)
            .map(|(_, http)| http)
            .collect();
        let deaths = deaths(&others).await;
        let well = ready.len() == self.world.nodes.len();
        self.note(What::Kill, victim, well, held, homes);
        self.world.kill(victim).await?;
        let watching = tokio::spawn(watch(Instant::now(), self.places(), others, deaths));
        self.watching.push((self.log.len() - 1, watching));
        // Some are back before anybody has found them dead.
        let (least, most) = if self.rests() { (8_000, 11_000) } else { (2_000, 9_000) };
        self.down.push((victim, Instant::now() + self.dice.between(least, most)));
        Ok(true)
    }

    /// SIGTERM to a node, when all are there and have come to rest; the store stands `still` from then on for so long.
    async fn drain(&mut self, still: Duration) -> Result<(), Error> {
        self.all_up().await?;
        // No event says that the last session is back where it belongs.
        sleep(Duration::from_secs(5)).await;
        let victim = self.dice.below(self.world.nodes.iter().filter(|node| node.is_up()).count());
        self.drain_node(victim, if still.is_zero() { What::Drain } else { What::DrainStill }, still).await
    }

    /// The same to this node.
    async fn drain_node(&mut self, victim: usize, what: What, still: Duration) -> Result<(), Error> {
        let held = view(self.world.nodes[victim].behind.http).await.unwrap_or_default().held;
        let name = self.world.nodes[victim].behind.name.clone();
        let homes = homes(self.world, victim, &name, self.users).await?;
        self.note(what, victim, true, held, homes);
        let store = self.world.store.take();
        let stop = async {
            if let Some(store) = store.as_ref().filter(|_| !still.is_zero()) {
                store.signal("STOP").await?;
                sleep(still).await; // the fault itself
                store.signal("CONT").await?;
            }
            Ok::<(), Error>(())
        };
        let (status, stopped) = tokio::join!(self.world.stop(victim), stop);
        self.world.store = store;
        stopped?;
        let status = status?;
        if let Some(fault) = self.log.last_mut() {
            fault.until = Instant::now();
        }
        if !status.success() {
            return Err(Error::Failed(format!("{name} was drained and ended with {status}")));
        }
        // So that what the drain does is seen apart from what the restart does.
        sleep(Duration::from_secs(2)).await;
        self.world.launch(victim)?;
        self.all_up().await
    }
}

/// How many nodes each of these has declared dead.
async fn deaths(nodes: &[SocketAddr]) -> Vec<usize> {
    let mut all = Vec::with_capacity(nodes.len());
    for &node in nodes {
        all.push(view(node).await.unwrap_or_default().deaths);
    }
    all
}

async fn held_by_all(nodes: &[SocketAddr]) -> usize {
    let mut sum = 0;
    for &node in nodes {
        sum += view(node).await.unwrap_or_default().held;
    }
    sum
}

/// How long after `since` another node declared one more dead than `before`, and until every shard had a home.
async fn watch(
    since: Instant,
    all: Vec<SocketAddr>,
    others: Vec<SocketAddr>,
    before: Vec<usize>,
) -> (Option<Duration>, Option<Duration>) {
    let (mut detected, mut whole) = (None, None);
    while since.elapsed() < WATCH && (detected.is_none() || whole.is_none()) {
        if detected.is_none() && deaths(&others).await.iter().zip(&before).any(|(now, before)| now > before) {
            detected = Some(since.elapsed());
        }
        if whole.is_none() && held_by_all(&all).await >= SHARDS {
            whole = Some(since.elapsed());
        }
        sleep(LOOK).await;
    }
    (detected, whole)
}
