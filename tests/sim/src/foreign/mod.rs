//! Another server, `far.example`, and the people there. The far server outlives all nodes and has no host in the simulated network: links reach
//! the far server by a [`Dialer`](rookery_actors::link::stream::Dialer) (`outward`), its own streams come to any node (`inward`). What its people do is
//! in `people`, what goes wrong is in `trouble`, what clients do with it is in `clients`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_actors::options::Federation;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::Store;
use rookery_cluster::tables::links;
use tokio::sync::{Notify, watch};

use crate::chance::{Chance, now, seams};
use crate::world::World;

pub(crate) mod clients;
mod inward;
mod outward;
mod people;
mod trouble;

pub(crate) use inward::serve;
pub(crate) use people::Person;

/// The name of the far server.
pub(crate) const DOMAIN: &str = "far.example";
/// How many people it has.
pub(crate) const PEOPLE: usize = 3;

/// The bare address of one of its people.
pub(crate) fn person(n: usize) -> String {
    format!("p{n}@{DOMAIN}")
}

/// The name of the link to the far server.
pub(crate) fn link() -> Entity {
    Entity::new(format!("localhost@{DOMAIN}"))
}

/// The number of a user or of a person in an address.
pub(crate) fn number(jid: &str, letters: &str) -> Option<usize> {
    jid.strip_prefix(letters)?.split('@').next()?.parse().ok()
}

/// What the far server is like in this world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nature {
    /// The far server has XEP-0198, in both directions.
    pub(crate) managed: bool,
    /// The far server keeps lost streams of links.
    pub(crate) keeps: bool,
    /// How long the nodes keep what waits for it.
    pub(crate) queue: Duration,
    /// After how long the nodes close a stream without use.
    pub(crate) idle: Duration,
    /// Its name vanishes from time to time, so that nothing waits for it.
    pub(crate) vanishes: bool,
    /// How many bytes a link holds in memory.
    memory: usize,
}

impl Nature {
    fn of(chance: &mut Chance) -> Self {
        let managed = !chance.hits(250);
        let keeps = !chance.hits(150);
        let queue = Duration::from_secs(if chance.hits(300) { 6 } else { 300 });
        let idle = Duration::from_secs(if chance.hits(500) { 3 } else { 600 });
        let memory = if chance.hits(300) { 16 << 10 } else { 1 << 20 };
        let vanishes = chance.hits(250);
        Self { managed, keeps, queue, idle, vanishes, memory }
    }

    /// Whether links give up what waits: then what both sides know of each other may differ.
    pub(crate) fn gives_up(self) -> bool {
        self.vanishes || self.queue < Duration::from_secs(60)
    }

    /// The options of nodes.
    pub(crate) fn federation(self) -> Federation {
        let (queue, idle, memory_bytes) = (self.queue, self.idle, self.memory);
        Federation { queue, idle, memory_bytes, ..Federation::default() }
    }
}

/// What the far server does at the moment.
#[derive(Clone, Copy, Default, Debug)]
struct Ways {
    /// Nobody reaches it; whether its name does not even exist.
    away: Option<bool>,
    /// The far server does not read.
    pauses: bool,
    /// Grows when all streams of links are cut, and when they are closed in order.
    cuts: u64,
    closes: u64,
}

/// How a stream of a link ended for good, if it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// The stream is there, or may be resumed.
    Open,
    /// The link has closed it in order.
    Closed,
    /// The far server does not know what it got on the stream, and has told nobody.
    Forgotten,
    /// The stream could not be resumed, but the link was told what had come on it.
    Told,
}

/// A stream of a link, as the far server knows it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    h: u32,
    /// Which of its connections holds; none after it was lost.
    connection: u64,
    pub(crate) fate: Fate,
    /// When it was lost, and when it was resumed.
    pub(crate) lost: Vec<Duration>,
    pub(crate) resumed: Vec<Duration>,
}

/// A message of a client to one of the people.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    pub(crate) from: usize,
    /// In which of its lives, from 1.
    pub(crate) life: usize,
    pub(crate) to: usize,
    pub(crate) acked: bool,
    pub(crate) doubtful: bool,
    /// When errors came, and their conditions.
    pub(crate) errors: Vec<(Duration, String)>,
    /// Another device of the sender got a copy of an error.
    pub(crate) copied: bool,
    /// On which streams it came, and when.
    pub(crate) came: Vec<(u64, Duration)>,
}

impl Out {
    /// Whether somebody has heard that it came back: its sender, or where that session is no more, another device of the user.
    pub(crate) fn came_back(&self, world: &World) -> bool {
        let ended = || {
            let client = world.clients.get(self.from)?.lock();
            Some(client.lives.get(self.life.checked_sub(1)?)?.ended.is_some())
        };
        !self.errors.is_empty() || self.copied && ended() == Some(true)
    }
}

/// A message of one of the people to a user.
#[derive(Clone, Debug)]
pub(crate) struct In {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The client that it is for, if it is for a full JID.
    pub(crate) device: Option<usize>,
    /// The far server was told that it is safe.
    pub(crate) confirmed: bool,
    /// The message was sent again on another stream.
    pub(crate) again: bool,
    pub(crate) errors: u32,
    /// Clients that got it directly, in which life, and when.
    pub(crate) got: Vec<(usize, usize, Duration)>,
    /// Copies of it that other clients got.
    pub(crate) copies: u32,
}

/// A request from one side to the other.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The client that asked, in which of its lives; or the one that was asked.
    pub(crate) client: usize,
    pub(crate) life: usize,
    /// The request was acknowledged, or confirmed.
    pub(crate) acked: bool,
    pub(crate) answers: u32,
    /// The one that was asked got the request.
    pub(crate) seen: u32,
}

/// What waits to be sent to the nodes.
struct Item {
    xml: String,
    /// The message or the request that it is.
    what: Sent,
    /// The stanza was on some stream already.
    sent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sent {
    Message(usize),
    Request(usize),
    Other,
}

/// The far server's own stream to some node.
struct Going {
    node: usize,
    /// Tells connections apart.
    connection: u64,
    /// The stream, and the name of its numbers.
    stream: u64,
    name: [u8; 16],
    /// The stream was lost, and the node may still know it.
    resumes: bool,
    /// A node's task has it.
    held: bool,
    /// The stream waits for such a task since then.
    since: Duration,
    /// How many of those that wait are sent on it.
    sent: usize,
    /// How many of its stanzas are confirmed.
    confirmed: u32,
    /// The stream is to be closed in order.
    closes: bool,
    used: Duration,
}

/// Everything that the far server knows, and that is known of it.
pub(crate) struct State {
    chance: Chance,
    trouble: Chance,
    pub(crate) sides: Vec<Chance>,
    pub(crate) people: Vec<Person>,
    pub(crate) outs: Vec<Out>,
    pub(crate) ins: Vec<In>,
    /// Messages in the order in which they came, for each person.
    pub(crate) came: Vec<Vec<usize>>,
    /// Requests of clients, and of people.
    pub(crate) asks: Vec<Request>,
    pub(crate) asked: Vec<Request>,
    pub(crate) streams: BTreeMap<u64, Kept>,
    names: u64,
    queue: VecDeque<Item>,
    going: Option<Going>,
    next: Duration,
    cures: Vec<(Duration, trouble::Cure)>,
    healed: bool,
    /// Users and people between whom the nodes have refused presence, and said so.
    pub(crate) refused: BTreeSet<(usize, usize)>,
    /// Those of whose subscription something was said again on another stream: what came in between is not the other side's last word.
    pub(crate) muddled: BTreeSet<(usize, usize)>,
    /// What people saw, and were, when all was quiet.
    pub(crate) views: Vec<Person>,
    looked: Duration,
}

/// The far server.
pub(crate) struct Far {
    pub(crate) nature: Nature,
    pub(crate) state: Mutex<State>,
    ways: watch::Sender<Ways>,
    /// Tells a node's task that there is something to do.
    knocks: Vec<Notify>,
}

impl Far {
    pub(crate) fn new(seed: u64, nodes: usize, users: usize, clients: usize) -> Self {
        let mut chance = Chance::new(seed, 8);
        let nature = Nature::of(&mut chance);
        let part = |n: usize| 7_000 + u64::try_from(n).unwrap_or(0);
        let state = State {
            chance,
            trouble: Chance::new(seed, 9),
            sides: (0..clients).map(|n| Chance::new(seed, part(n))).collect(),
            people: (0..PEOPLE).map(|n| Person::new(users, Chance::new(seed, part(1_000 + n)))).collect(),
            outs: Vec::new(),
            ins: Vec::new(),
            came: vec![Vec::new(); PEOPLE],
            asks: Vec::new(),
            asked: Vec::new(),
            streams: BTreeMap::new(),
            names: 0,
            queue: VecDeque::new(),
            going: None,
            next: Duration::ZERO,
            cures: Vec::new(),
            healed: false,
            refused: BTreeSet::new(),
            muddled: BTreeSet::new(),
            views: Vec::new(),
            looked: Duration::ZERO,
        };
        let knocks = (0..nodes).map(|_| Notify::new()).collect();
        Self { nature, state: Mutex::new(state), ways: watch::Sender::default(), knocks }
    }

    /// Some milliseconds.
    fn delay(&self, least: u64, most: u64) -> Duration {
        self.state.lock().chance.millis(least, most)
    }

    /// Keeps what people see now.
    pub(crate) fn look(&self) {
        let mut state = self.state.lock();
        state.views = state.people.clone();
    }
}

/// After each step of the world.
pub(crate) fn step(world: &World, now: Duration) {
    if !world.plan.foreign {
        return;
    }
    people::step(world, now);
    trouble::step(world, now);
    inward::step(world, now);
}

/// Whether nothing is under way between the far server and the nodes.
pub(crate) fn is_at_rest(world: &World) -> bool {
    if !world.plan.foreign {
        return true;
    }
    {
        let mut state = world.far.state.lock();
        let owed = |out: &Out| out.acked && !out.came_back(world) && out.came.is_empty();
        let busy = !state.queue.is_empty() || state.outs.iter().any(owed);
        if busy || now() < state.looked + Duration::from_secs(1) {
            return false;
        }
        state.looked = now();
    }
    let (rows, record) = rows(world);
    // A link that closes idle streams is given time to.
    rows == 0 && (!record || world.far.nature.idle > Duration::from_secs(60))
}

/// How many stanzas wait in the store for the far server, and whether the link has a record.
fn rows(world: &World) -> (usize, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return (0, false) };
    let store = Store::new(world.memory.clone(), seams(Chance::new(world.plan.seed, 2), 0));
    runtime.block_on(left(world, &store))
}

/// The same, where something runs already.
pub(crate) async fn left(world: &World, store: &Store) -> (usize, bool) {
    let link = link();
    let read = store.read(|tx| {
        let link = &link;
        Box::pin(async move {
            let rows = links::waiting(&mut **tx, link, None, 10_000, usize::MAX).await?;
            Ok((rows.rows.len(), links::get(&mut **tx, link).await?.is_some()))
        })
    });
    match read.await {
        Ok(found) => found,
        Err(error) => {
            world.log.wrong(format_args!("the link's rows: {error}"));
            (0, false)
        }
    }
}
