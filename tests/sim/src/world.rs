//! What outlives nodes: the store's rows, the clients, and what everybody saw.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_cluster::mesh::{Mesh, Timing};
use rookery_cluster::store::faults::Faults;
use rookery_cluster::store::memory::Memory;
use tokio::sync::Notify;

use crate::chance::Chance;
use crate::client::Client;
use crate::log::Log;
use crate::witness::{Watched, Witness};

/// How large a world is, and how hard.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) users: usize,
    /// How long things go wrong.
    pub(crate) trouble: Duration,
    /// Which faults there may be.
    pub(crate) faults: Vec<crate::conduct::Kind>,
    /// How many faults may last at a time.
    pub(crate) at_once: usize,
}

/// What a node is asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// To give its shards away and to end.
    Leave,
}

/// A node's place, whether one runs there or not.
pub(crate) struct Place {
    pub(crate) name: String,
    /// Clients that want to connect.
    pub(crate) visitors: Mutex<VecDeque<usize>>,
    pub(crate) order: Mutex<Option<Order>>,
    pub(crate) call: Notify,
    /// It serves clients.
    pub(crate) up: AtomicBool,
    pub(crate) mesh: Mutex<Weak<Mesh>>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) boots: AtomicU8,
}

/// A message that a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: usize,
    /// The user it is for.
    pub(crate) to: usize,
    pub(crate) acked: bool,
    /// An error came back.
    pub(crate) bounced: bool,
    /// The sender's session was lost before it knew.
    pub(crate) doubtful: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nobody says anything but hello.
    Starting,
    Talking,
    /// Nobody starts anything; what was begun is ended.
    Quiet,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) log: Log,
    pub(crate) memory: Arc<Memory>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) places: Vec<Place>,
    pub(crate) clients: Vec<Mutex<Client>>,
    pub(crate) messages: Mutex<Vec<Sent>>,
    /// When something last came to a client.
    pub(crate) stirred: Mutex<Duration>,
    phase: AtomicU8,
}

impl World {
    pub(crate) fn new(plan: Plan, log: Log) -> Arc<Self> {
        let memory = Arc::new(Memory::new());
        let witness = Witness::new(log.clone());
        let place = |n: usize| {
            let name = format!("n{n}");
            let watched = Watched { node: name.clone(), inner: memory.clone(), witness: witness.clone() };
            Place {
                name,
                visitors: Mutex::default(),
                order: Mutex::default(),
                call: Notify::new(),
                up: AtomicBool::new(false),
                mesh: Mutex::default(),
                faults: Arc::new(Faults::new(Arc::new(watched))),
                boots: AtomicU8::new(0),
            }
        };
        let places = (0..plan.nodes).map(place).collect();
        // Every third user has two clients.
        let clients = (0..plan.users)
            .flat_map(|user| if user % 3 == 0 { vec![(user, "a"), (user, "b")] } else { vec![(user, "a")] })
            .enumerate()
            .map(|(n, (user, resource))| {
                let chance = Chance::new(plan.seed, 1_000 + u64::try_from(n).unwrap_or(0));
                Mutex::new(Client::new(n, user, resource, chance))
            })
            .collect();
        Arc::new(Self {
            plan,
            log,
            memory,
            witness,
            places,
            clients,
            messages: Mutex::default(),
            stirred: Mutex::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
        })
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.log.note("world", format_args!("{phase:?}"));
    }

    pub(crate) fn quiet(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Quiet as u8
    }

    pub(crate) fn talking(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Talking as u8
    }
}

pub(crate) fn jid(user: usize) -> String {
    format!("user{user}@localhost")
}

/// A third of the usual times: more happens in a world's life.
pub(crate) fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        beat: ms(300),
        lease: ms(1_400),
        death: ms(1_800),
        probe: ms(400),
        patience: ms(5_000),
        refresh: ms(1_000),
        pace: ms(40),
        claim: 256,
        release: 64,
        handoff: ms(3_000),
        drain: ms(20_000),
        ..Timing::default()
    }
}
