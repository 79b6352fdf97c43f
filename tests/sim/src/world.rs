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
use crate::client::{Came, Client, Traits};
use crate::foreign::Far;
use crate::log::Log;
use crate::toys::{Line, Toys};
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
    /// Clients have habits: they write to resources that are there, sleep or are gone, log out, hide, bind anew. Without, each keeps
    /// its one session, and all are for bare JIDs.
    pub(crate) habits: bool,
    /// They sleep much.
    pub(crate) sleepy: bool,
    /// There are echo rooms and an echo component, which clients use.
    pub(crate) toys: bool,
    /// There is a far server, with which they talk.
    pub(crate) foreign: bool,
    /// What they say to rooms are groupchats, which no archive keeps; else chats.
    pub(crate) groupchat: bool,
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
    /// The node serves clients.
    pub(crate) up: AtomicBool,
    /// Nobody reaches it: not its clients either.
    pub(crate) severed: AtomicBool,
    pub(crate) mesh: Mutex<Weak<Mesh>>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) boots: AtomicU8,
}

/// What a message was for, when it was sent, as far as clients know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Bare,
    /// A resource that nobody ever bound.
    NeverWas,
    /// One whose client has logged out, or whose session it knows to be lost.
    LoggedOut,
    /// A session that waits to be resumed.
    Hibernates,
    There,
}

impl Target {
    pub(crate) fn counter(self) -> Option<&'static str> {
        match self {
            Self::Bare => None,
            Self::NeverWas => Some("message to a resource that never was"),
            Self::LoggedOut => Some("message to a resource that has logged out"),
            Self::Hibernates => Some("message to a resource that hibernates"),
            Self::There => Some("message to a resource that is there"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::NeverWas => "full-never-was",
            Self::LoggedOut => "full-logged-out",
            Self::Hibernates => "full-hibernates",
            Self::There => "full-there",
        }
    }
}

/// A message that a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: usize,
    /// The user it is for.
    pub(crate) to: usize,
    /// The client that it is for, if it is for a full JID of one.
    pub(crate) device: Option<usize>,
    pub(crate) target: Target,
    pub(crate) acked: bool,
    /// How many errors came back.
    pub(crate) errors: u32,
    /// The sender's session was lost before it knew.
    pub(crate) doubtful: bool,
    pub(crate) sent_at: Duration,
    pub(crate) acked_at: Option<Duration>,
}

/// A request that a client sent to a resource.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) from: usize,
    /// In which of its lives, from 1.
    pub(crate) life: usize,
    pub(crate) target: Target,
    pub(crate) acked: bool,
    /// Results and errors.
    pub(crate) answers: Vec<Came>,
    /// Clients that got it, and in which life.
    pub(crate) seen_by: Vec<(usize, usize)>,
}

/// What a client sees when all is quiet, and what others may see of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The client is logged in and available.
    pub(crate) shown: bool,
    pub(crate) status: String,
    pub(crate) seen: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nobody says anything but hello.
    Starting,
    Talking,
    /// Nobody starts anything; what was begun is ended.
    Quiet,
    /// Every client without a session logs in, and gets what waits.
    Draining,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) log: Log,
    pub(crate) memory: Arc<Memory>,
    pub(crate) witness: Arc<Witness>,
    pub(crate) places: Vec<Place>,
    pub(crate) clients: Vec<Mutex<Client>>,
    /// The clients of each user.
    pub(crate) devices: Vec<Vec<usize>>,
    pub(crate) messages: Mutex<Vec<Sent>>,
    pub(crate) asked: Mutex<Vec<Asked>>,
    /// What clients said to rooms and to the component.
    pub(crate) lines: Mutex<Vec<Line>>,
    pub(crate) far: Far,
    /// What clients saw when all was quiet, before the last logged in.
    pub(crate) views: Mutex<Vec<View>>,
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
                severed: AtomicBool::new(false),
                mesh: Mutex::default(),
                faults: Arc::new(Faults::new(Arc::new(watched))),
                boots: AtomicU8::new(0),
            }
        };
        let places = (0..plan.nodes).map(place).collect();
        let clients: Vec<_> = devices(&plan)
            .into_iter()
            .enumerate()
            .map(|(n, (user, resource, traits))| {
                let part = u64::try_from(n).unwrap_or(0);
                let (chance, habit) =
                    (Chance::new(plan.seed, 1_000 + part), Chance::new(plan.seed, 3_000 + part));
                let toys = Toys::new(Chance::new(plan.seed, 5_000 + part));
                Mutex::new(Client::new(n, (user, resource), traits, (chance, habit), toys))
            })
            .collect();
        let devices = (0..plan.users)
            .map(|user| {
                let mine = clients.iter().map(|client| client.lock());
                mine.filter(|client| client.user == user && !client.traits.last)
                    .map(|client| client.n)
                    .collect()
            })
            .collect();
        let far = Far::new(plan.seed, plan.nodes, plan.users, clients.len());
        Arc::new(Self {
            far,
            plan,
            log,
            memory,
            witness,
            places,
            clients,
            devices,
            messages: Mutex::default(),
            asked: Mutex::default(),
            lines: Mutex::default(),
            views: Mutex::default(),
            stirred: Mutex::default(),
            phase: AtomicU8::new(Phase::Starting as u8),
        })
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.log.note("world", format_args!("{phase:?}"));
    }

    /// Nobody begins anything any more.
    pub(crate) fn quiet(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= Phase::Quiet as u8
    }

    /// All clients without a session log in.
    pub(crate) fn draining(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Draining as u8
    }

    /// Whether something may come to a client a second time that lies nowhere but with its session and its connection: both were lost
    /// since, and the session's home could not write down that it was sent.
    pub(crate) fn may_repeat(&self, user: usize, first: Came, second: Came) -> bool {
        let shard = rookery_cluster::entity::Entity::new(jid(user)).shard().0;
        let forgotten =
            first.connection != second.connection && self.witness.forgets(shard, first, second.at);
        if forgotten {
            self.log.count("came twice: its home could not write that it came");
        }
        forgotten
    }

    /// Keeps what everybody sees now.
    pub(crate) fn look(&self) {
        let view = |client: &Mutex<Client>| {
            let client = client.lock();
            let (shown, status) = (client.live && client.is_shown(), client.status.clone());
            View { shown, status, seen: client.seen.clone() }
        };
        *self.views.lock() = self.clients.iter().map(view).collect();
        self.far.look();
    }

    pub(crate) fn talking(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == Phase::Talking as u8
    }
}

/// The clients of a world: user, resource, and what each is like.
fn devices(plan: &Plan) -> Vec<(usize, &'static str, Traits)> {
    let mut chance = Chance::new(plan.seed, 5);
    let mut all = Vec::new();
    for user in 0..plan.users {
        // Every third user has two clients, or more.
        let count = match plan.habits {
            true => 1 + chance.below(3),
            false => 1 + usize::from(user % 3 == 0),
        };
        for (n, resource) in ["a", "b", "c"].into_iter().take(count).enumerate() {
            let traits =
                if plan.habits { Traits::of(&mut chance, n == 0, plan.sleepy) } else { Traits::default() };
            all.push((user, resource, traits));
        }
    }
    if plan.habits {
        all.extend((0..plan.users).map(|user| (user, "z", Traits::last())));
    }
    all
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
