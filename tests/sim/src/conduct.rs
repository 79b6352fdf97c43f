//! What goes wrong, when: from the seed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::faults::Chances;
use turmoil::Sim;

use crate::chance::Chance;
use crate::client::Client;
use crate::world::{Phase, World, jid};

mod strike;

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Kind {
    /// A node dies and is started again after a while.
    Crash,
    /// A node dies and is started again at once.
    Restart,
    /// Two at a time.
    Crashes,
    /// A node leaves in order and comes back.
    Leave,
    /// Two nodes do not hear each other.
    Apart,
    /// One does not hear the other.
    OneWay,
    /// A node and the store do not hear each other.
    NoStore,
    /// One of both directions between node and store is cut.
    HalfStore,
    /// Nobody hears a node.
    Alone,
    /// A node is cut off from all: the others, the store and its clients, for long.
    Severed,
    /// Packets between two wait, and arrive later.
    Stalled,
    /// The store refuses and forgets a node's commits.
    Refusals,
    /// The store is slow.
    Slow,
    /// The store can't be reached, at once.
    Unreachable,
    /// Nobody reaches it, for longer than a write waits.
    Stopped,
    /// Clients lose their connections.
    Cuts,
}

/// Those of every world; [`Kind::Severed`] and [`Kind::Stopped`] are drawn beside them.
pub(crate) const ALL: &[Kind] = &[
    Kind::Crash,
    Kind::Restart,
    Kind::Crashes,
    Kind::Leave,
    Kind::Apart,
    Kind::OneWay,
    Kind::NoStore,
    Kind::HalfStore,
    Kind::Alone,
    Kind::Stalled,
    Kind::Refusals,
    Kind::Slow,
    Kind::Unreachable,
    Kind::Cuts,
];

/// What ends a fault.
enum Cure {
    Start(usize),
    Repair(String, String),
    Release(String, String),
    Chances(usize),
    Reach(usize),
    Join(usize),
}

pub(crate) struct Conductor {
    world: Arc<World>,
    chance: Chance,
    stage: Stage,
    next: Duration,
    cures: Vec<(Duration, Cure)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Until this time the world must be whole.
    Assembling(Duration),
    Trouble(Duration),
    Calming(Duration),
    Draining(Duration),
    Over,
}

/// How long a world without faults may take to come to rest.
const CALM: Duration = Duration::from_secs(150);
/// For so long nothing happens in a world that is at rest.
const REST: Duration = Duration::from_secs(6);

impl Conductor {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let chance = Chance::new(world.plan.seed, 1);
        let stage = Stage::Assembling(Duration::from_secs(60));
        Self { world, chance, stage, next: Duration::ZERO, cures: Vec::new() }
    }

    /// After each step of the world; whether it is over.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>, now: Duration) -> bool {
        self.connect(now);
        self.revive(sim, now);
        crate::foreign::step(&self.world, now);
        match self.stage {
            Stage::Assembling(limit) => {
                if self.is_whole() && self.all_live() {
                    self.world.set_phase(Phase::Talking);
                    self.stage = Stage::Trouble(now + self.world.plan.trouble);
                    self.next = now + Duration::from_secs(2);
                } else if now > limit {
                    self.world.log.wrong("the world does not come up");
                    self.stage = Stage::Over;
                }
            }
            Stage::Trouble(end) if now >= end => {
                self.heal(sim);
                self.world.set_phase(Phase::Quiet);
                self.stage = Stage::Calming(now + CALM);
                *self.world.stirred.lock() = now;
            }
            Stage::Trouble(_) => {
                self.cure(sim, now);
                if now >= self.next {
                    self.next = now + self.chance.millis(200, 4_000);
                    if self.cures.len() < self.world.plan.at_once {
                        self.strike(sim, now);
                    }
                }
            }
            Stage::Calming(limit) => {
                let calm = *self.world.stirred.lock() + REST < now;
                if calm && self.is_at_rest() {
                    self.world.log.note("world", "is at rest");
                    self.world.look();
                    self.stage = match self.world.plan.habits {
                        true => {
                            self.world.set_phase(Phase::Draining);
                            *self.world.stirred.lock() = now;
                            Stage::Draining(now + CALM)
                        }
                        false => Stage::Over,
                    };
                } else if now > limit {
                    self.restless();
                    self.stage = Stage::Over;
                }
            }
            Stage::Draining(limit) => {
                let calm = *self.world.stirred.lock() + REST < now;
                if calm && self.is_at_rest() {
                    self.stage = Stage::Over;
                } else if now > limit {
                    self.restless();
                    self.stage = Stage::Over;
                }
            }
            Stage::Over => {}
        }
        self.stage == Stage::Over
    }

    fn name(&self, n: usize) -> String {
        self.world.places.get(n).map(|place| place.name.clone()).unwrap_or_default()
    }

    fn is_up(&self, n: usize) -> bool {
        self.world.places.get(n).is_some_and(|place| place.up.load(Ordering::Relaxed))
    }

    fn is_whole(&self) -> bool {
        let up = |name: &str| {
            self.world.places.iter().any(|place| place.name == name && place.up.load(Ordering::Relaxed))
        };
        self.world.places.iter().all(|place| place.up.load(Ordering::Relaxed))
            && self.world.witness.is_whole(up)
    }

    fn all_live(&self) -> bool {
        let draining = self.world.draining();
        let there = |client: &Client| client.live || (client.out && !draining && self.stays_out(client));
        self.world.clients.iter().all(|client| there(&client.lock()))
    }

    /// Whether it does not log in before the last.
    fn stays_out(&self, client: &Client) -> bool {
        client.traits.last || (client.traits.stays_out && self.world.quiet())
    }

    /// Everything is acknowledged, and everybody has been told its roster.
    fn all_told(&self) -> bool {
        let told = |client: &Client| client.unacked.is_empty() && (client.answered || !client.asks());
        self.world.clients.iter().all(|client| {
            let client = client.lock();
            client.out || (told(&client) && !client.leaving)
        })
    }

    /// Nothing is under way, as far as one can see from outside.
    fn is_at_rest(&self) -> bool {
        self.is_whole() && self.all_live() && self.all_told() && crate::foreign::is_at_rest(&self.world)
    }

    fn restless(&self) {
        let log = &self.world.log;
        log.wrong(format_args!("[rest] no rest: whole {}", self.is_whole()));
        for client in &self.world.clients {
            let client = client.lock();
            let out = client.out && self.stays_out(&client) && !self.world.draining();
            if !out && (!client.live || !client.unacked.is_empty() || (client.asks() && !client.answered)) {
                let first = client.unacked.front().map(|(xml, _, _)| xml.clone());
                log.wrong(format_args!(
                    "[rest] {} of {} at {:?}: live {}, {} unacked, the first {first:?}",
                    client.name(),
                    client.full(),
                    client.at,
                    client.live,
                    client.unacked.len()
                ));
            }
        }
    }

    /// Clients without a connection look for a node.
    fn connect(&mut self, now: Duration) {
        let reached = |n: &usize| {
            let place = self.world.places.get(*n);
            self.is_up(*n) && place.is_some_and(|place| !place.severed.load(Ordering::Relaxed))
        };
        let up: Vec<usize> = (0..self.world.places.len()).filter(reached).collect();
        let (quiet, draining) = (self.world.quiet(), self.world.draining());
        for client in &self.world.clients {
            let mut client = client.lock();
            if client.at.is_some() || now < client.retry || now < client.loose + Duration::from_millis(50) {
                continue;
            }
            let waits = client.out && self.stays_out(&client) && !draining;
            if waits || (now < client.sleeps && !quiet) {
                continue;
            }
            let Some(any) = up.get(client.chance.below(up.len())).copied() else { continue };
            // Half of them where their user lives: sockets and homes die together, and sessions move to their sockets.
            let home = self.world.witness.owner(Entity::new(jid(client.user)).shard().0);
            let home = home.and_then(|home| up.iter().copied().find(|n| self.name(*n) == home));
            let node = home.filter(|_| client.chance.hits(500)).unwrap_or(any);
            client.at = Some(node);
            client.out = false;
            client.connection += 1;
            client.cut = None;
            client.retry = now + client.chance.millis(100, 2_000);
            if let Some(place) = self.world.places.get(node) {
                place.visitors.lock().push_back(client.n);
                place.call.notify_one();
            }
        }
    }

    /// Nodes that ended by themselves are started again.
    fn revive(&mut self, sim: &mut Sim<'_>, now: Duration) {
        for n in 0..self.world.places.len() {
            let name = self.name(n);
            let starting = self.cures.iter().any(|(_, cure)| matches!(cure, Cure::Start(m) if *m == n));
            if !starting && !sim.is_host_running(name.as_str()) {
                self.forget(n, true);
                self.cures.push((now + self.chance.millis(200, 2_000), Cure::Start(n)));
            }
        }
        if !matches!(self.stage, Stage::Trouble(_)) {
            self.cure(sim, now);
        }
    }

    /// A node is no more: its clients look for another.
    fn forget(&self, n: usize, in_order: bool) {
        let Some(place) = self.world.places.get(n) else { return };
        place.up.store(false, Ordering::Relaxed);
        place.visitors.lock().clear();
        place.order.lock().take();
        for client in &self.world.clients {
            let mut client = client.lock();
            if client.at == Some(n) {
                client.at = None;
                client.live = false;
            }
            if client.at.is_none() && !client.live {
                client.was_drained |= in_order;
                client.lost_node |= !in_order;
            }
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, n: usize, back: Duration) {
        if !self.is_up(n) {
            return;
        }
        let name = self.name(n);
        self.world.log.note("world", format_args!("{name} crashes"));
        for client in &self.world.clients {
            let mut client = client.lock();
            client.lost_node |= client.at == Some(n);
        }
        sim.crash(name.as_str());
        self.forget(n, false);
        self.world.log.count("crash");
        self.cures.push((back, Cure::Start(n)));
    }

    fn cure(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (due, rest) = std::mem::take(&mut self.cures).into_iter().partition(|(when, _)| *when <= now);
        self.cures = rest;
        for (_, cure) in due {
            self.undo(sim, cure);
        }
    }

    fn undo(&self, sim: &mut Sim<'_>, cure: Cure) {
        match cure {
            Cure::Start(n) => {
                let name = self.name(n);
                self.world.log.note("world", format_args!("{name} is started"));
                sim.bounce(name.as_str());
            }
            Cure::Repair(a, b) => {
                self.world.log.note("world", format_args!("{a} and {b} hear each other"));
                sim.repair(a.as_str(), b.as_str());
            }
            Cure::Release(a, b) => {
                self.world.log.note("world", format_args!("what {a} and {b} sent arrives"));
                sim.release(a.as_str(), b.as_str());
            }
            Cure::Chances(n) => self.set_chances(n, Chances::default(), 0),
            Cure::Join(n) => self.sever(n, false),
            Cure::Reach(n) => {
                if let Some(place) = self.world.places.get(n) {
                    place.faults.set_reachable(true);
                }
            }
        }
    }

    fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, cure) in std::mem::take(&mut self.cures) {
            self.undo(sim, cure);
        }
        let mut names: Vec<String> = self.world.places.iter().map(|place| place.name.clone()).collect();
        names.push("store".into());
        for (n, a) in names.iter().enumerate() {
            for b in names.iter().skip(n + 1) {
                sim.release(a.as_str(), b.as_str());
                sim.repair(a.as_str(), b.as_str());
            }
        }
        for n in 0..self.world.places.len() {
            self.set_chances(n, Chances::default(), 0);
        }
        self.world.places.iter().for_each(|place| place.faults.set_reachable(true));
    }
}
