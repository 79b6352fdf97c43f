//! One world of a seed: nodes, store and clients in one thread and in simulated time. The same seed gives the same world, to
//! the last byte. `cargo xtask sim` runs many.
//!
//! The process has a clock and a source of randomness of its own (mad-turmoil takes the place of `clock_gettime` and
//! `getrandom`), and tokio counts its runtimes to seed them: so a world needs a process of its own.

mod chance;
mod check;
mod client;
mod conduct;
mod foreign;
mod log;
mod many;
mod net;
mod node;
mod reading;
mod toys;
mod witness;
mod world;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Parser;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::accounts;

use chance::Chance;
use conduct::{Conductor, Kind};
use log::{Log, Meters};
use world::{Plan, World};

/// A cluster in simulated time.
#[derive(Parser, Clone)]
struct Options {
    /// What everything comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Many worlds, each in a process of its own, from this seed on.
    #[arg(long)]
    seeds: Option<u64>,
    /// How many worlds at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Worlds that do not take long.
    #[arg(long)]
    small: bool,
    /// How many nodes; from the seed if it is not given.
    #[arg(long)]
    nodes: Option<usize>,
    #[arg(long)]
    users: Option<usize>,
    /// How many seconds of trouble.
    #[arg(long)]
    trouble: Option<u64>,
    /// Which faults, separated by commas; from the seed if not given.
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<Kind>>,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// Clients without habits: each keeps its one session and writes to bare JIDs.
    #[arg(long)]
    plain: bool,
    /// Kinds of faults that are known and not mended yet, separated by commas: a campaign counts them and does not fail by them. A
    /// kind with a seed behind it, as in twice/direct@6, is known in that world alone.
    #[arg(long, value_delimiter = ',')]
    open: Vec<String>,
    /// Whether clients sleep much; from the seed if not given.
    #[arg(long)]
    sleepy: Option<bool>,
    /// Whether there are echo rooms and an echo component, which clients use; from the seed if not given.
    #[arg(long)]
    toys: Option<bool>,
    /// Whether there is a far server, with which clients talk; from the seed if not given.
    #[arg(long)]
    foreign: Option<bool>,
    /// Whether what clients say to rooms are groupchats, which are archived nowhere; from the seed if not given.
    #[arg(long)]
    groupchat: Option<bool>,
    /// Every event goes to this file.
    #[arg(long)]
    trace: Option<std::path::PathBuf>,
    /// What nodes log goes to standard error; by the filter of RUST_LOG.
    #[arg(long)]
    verbose: bool,
}

fn plan(options: &Options) -> Plan {
    let mut chance = Chance::new(options.seed, 3);
    let nodes = 3 + chance.below(if options.small { 2 } else { 3 });
    let users = if options.small { 5 } else { 6 + chance.below(5) };
    let trouble = if options.small { 10 } else { 20 + chance.next() % 15 };
    // A world has a handful of faults, or all.
    let all = chance.hits(300);
    let faults: Vec<Kind> = conduct::ALL.iter().copied().filter(|_| all || chance.hits(400)).collect();
    let at_once = 1 + chance.below(3);
    let (sleepy, severed, stopped) = (chance.hits(250), all || chance.hits(300), all || chance.hits(150));
    let more = [(Kind::Severed, severed), (Kind::Stopped, stopped)];
    let more = more.into_iter().filter(|(_, drawn)| *drawn && !options.plain).map(|(kind, _)| kind);
    let faults = options.faults.clone().unwrap_or_else(|| faults.into_iter().chain(more).collect());
    Plan {
        seed: options.seed,
        nodes: options.nodes.unwrap_or(nodes),
        users: options.users.unwrap_or(users),
        trouble: Duration::from_secs(options.trouble.unwrap_or(trouble)),
        faults: if options.calm { Vec::new() } else { faults },
        at_once,
        habits: !options.plain,
        sleepy: options.sleepy.unwrap_or(sleepy),
        groupchat: options.groupchat.unwrap_or_else(|| Chance::new(options.seed, 7).hits(500)),
        // A die of its own: a world without toys is what it was before there were any.
        toys: options.toys.unwrap_or_else(|| Chance::new(options.seed, 6).hits(400)),
        // The same.
        foreign: options.foreign.unwrap_or_else(|| !options.plain && Chance::new(options.seed, 10).hits(200)),
    }
}

static PANICKED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(seeds) = options.seeds {
        return many::run(&options, seeds);
    }
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(options.seed));
    let meters: &'static Meters = Box::leak(Box::default());
    let _ = metrics::set_global_recorder(meters);
    if options.verbose {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .init();
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICKED.store(true, Ordering::Relaxed);
        hook(info);
    }));
    // A thread of its own: what was made in this one before does not matter.
    let run = options.clone();
    let well = std::thread::spawn(move || run_once(&run)).join().unwrap_or(false);
    for (name, count) in meters.take().iter().filter(|(_, count)| **count > 0) {
        println!("meter {name} {count}");
    }
    if well && !PANICKED.load(Ordering::Relaxed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the world; whether nothing was wrong.
fn run_once(options: &Options) -> bool {
    let plan = plan(options);
    let log = Log::default();
    if let Some(path) = &options.trace {
        match std::fs::File::create(path) {
            Ok(file) => log.write_to(file),
            Err(error) => println!("{}: {error}", path.display()),
        }
    }
    let world = World::new(plan.clone(), log.clone());
    if plan.foreign {
        log.note("far", format_args!("{:?}", world.far.nature));
    }
    accounts(&world);
    let lived = {
        let _clocks = mad_turmoil::time::SimClocksGuard::init();
        live(&world)
    };
    check::all(&world);
    for place in &world.places {
        place.faults.tally().into_iter().for_each(|(fault, times)| log.add(fault, times));
    }
    if PANICKED.load(Ordering::Relaxed) {
        log.wrong("something panicked");
    }
    let (wrong, hash, events, counts) = log.end();
    for wrong in &wrong {
        println!("wrong {wrong}");
    }
    for (name, count) in &counts {
        println!("count {name} {count}");
    }
    let messages = world.messages.lock().len();
    println!(
        "world seed {} nodes {} users {} faults {} lived {:.1} messages {messages} events {events} hash {hash:016x} wrong {}",
        plan.seed,
        plan.nodes,
        plan.users,
        plan.faults.len(),
        lived.as_secs_f64(),
        wrong.len()
    );
    wrong.is_empty()
}

/// The world from its beginning to its rest; how long it lived.
fn live(world: &std::sync::Arc<World>) -> Duration {
    let mut sim = turmoil::Builder::new()
        .rng_seed(world.plan.seed)
        .simulation_duration(Duration::from_secs(3_600))
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(10))
        .tcp_capacity(1 << 16)
        .build();
    let here = world.clone();
    sim.host("store", move || node::store(here.clone()));
    for (n, place) in world.places.iter().enumerate() {
        let here = world.clone();
        sim.host(place.name.as_str(), move || node::node(here.clone(), n));
    }
    let mut conductor = Conductor::new(world.clone());
    loop {
        if let Err(error) = sim.step() {
            world.log.wrong(format_args!("a host failed: {error}"));
            break;
        }
        let now = sim.elapsed();
        chance::set_now(now);
        if conductor.step(&mut sim, now) {
            break;
        }
    }
    sim.elapsed()
}

/// The users of the world.
fn accounts(world: &World) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let store =
        Store::new(world.memory.clone(), Seams { ..chance::seams(Chance::new(world.plan.seed, 4), 0) });
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        for user in 0..world.plan.users {
            let entity = Entity::new(world::jid(user));
            let made = store.write(store::Options::default(), |tx| {
                let entity = entity.clone();
                Box::pin(async move {
                    accounts::create(&mut **tx, &entity, &accounts::Account::default(), 0).await.map(|_| ())
                })
            });
            if let Err(error) = made.await {
                world.log.wrong(format_args!("no account: {error}"));
            }
        }
    });
}
