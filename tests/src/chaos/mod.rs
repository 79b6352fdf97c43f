//! Real processes, real sockets, and nodes that are killed while people talk: what was promised, counted.
//!
//! Clients know HAProxy's address only. Each talks to its partner all the time, and resumes its session when it is cut off.
//! Meanwhile nodes are killed, restarted and drained as a seed says. At the end every message is looked for: at its
//! recipient, once and in order, and in both archives.

pub mod check;
pub mod faults;
pub mod homes;
pub mod report;
pub mod talker;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

pub use self::check::Verdict;
pub use self::faults::{Dice, What};
pub use self::report::Report;
use self::talker::{PASSWORD, Phase, Talker, Tally};
use crate::server::Error;
use crate::server::cluster::{Settings, World};
use crate::server::rookery::binary_for;

/// How long what is on its way at the end may take.
const LAST: Duration = Duration::from_secs(90);
/// Logins at once.
const LOGINS: usize = 16;

/// A campaign.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients; they talk in pairs.
    pub clients: usize,
    /// How long things go wrong.
    pub length: Duration,
    pub seed: u64,
    /// From one message of a client to the next.
    pub pace: Duration,
    /// How long the store stands still in the last drain.
    pub still: Duration,
    /// A store that is there already, instead of `rookery store`.
    pub store: Option<String>,
    /// Do not remove the folder with the logs.
    pub keep: bool,
    /// The program of a version before: all nodes begin with it, and are upgraded one after the other.
    pub before: Option<PathBuf>,
}

impl Plan {
    /// What the environment says, and these numbers where it says nothing: `ROOKERY_CHAOS_CLIENTS`, `ROOKERY_CHAOS_SECONDS`,
    /// `ROOKERY_CHAOS_SEED`, `ROOKERY_CHAOS_PACE` (milliseconds), `ROOKERY_CHAOS_STILL` (seconds), `ROOKERY_CHAOS_STORE`,
    /// `ROOKERY_CHAOS_KEEP`.
    pub fn from_environment(clients: usize, seconds: u64, seed: u64) -> Plan {
        let text = |name: &str| std::env::var(format!("ROOKERY_CHAOS_{name}")).ok();
        let number = |name: &str, other: u64| text(name).and_then(|t| t.parse().ok()).unwrap_or(other);
        let clients = number("CLIENTS", clients as u64) as usize;
        let pace = number("PACE", if clients > 200 { 1_000 } else { 500 });
        Plan {
            clients: clients.next_multiple_of(2),
            length: Duration::from_secs(number("SECONDS", seconds)),
            seed: number("SEED", seed),
            pace: Duration::from_millis(pace),
            // One run of seven left a user whose messages nobody acknowledged: `cargo xtask chaos` has it until that is found.
            still: Duration::from_secs(number("STILL", 0)),
            store: text("STORE"),
            keep: text("KEEP").is_some(),
            before: None,
        }
    }
}

/// Runs a campaign; `say` is told how far it is.
///
/// # Errors
/// If a process cannot be started or does not end well, or a client cannot begin. What was promised and not kept
/// is in the report.
pub async fn run(plan: &Plan, say: &(dyn Fn(&str) + Sync)) -> Result<Report, Error> {
    let (store, binary) = (plan.store.clone(), plan.before.clone());
    let nodes = Settings { nodes: 3, spare: 0, store, more: String::new(), binary };
    let mut world = World::start(&nodes).await?;
    let done = within(plan, &mut world, say).await;
    let bad = done.as_ref().map_or(true, |report| !report.verdict.is_good());
    if bad || plan.keep {
        say(&format!("the logs are in {}", world.keep().display()));
    }
    done
}

async fn within(plan: &Plan, world: &mut World, say: &(dyn Fn(&str) + Sync)) -> Result<Report, Error> {
    // Names that no run before had: a store of somebody else's may have kept them.
    let run = std::process::id();
    let users: Vec<String> = (0..plan.clients).map(|n| format!("c{n}-{run}")).collect();
    say(&format!("three nodes in {}; making {} accounts", world.dir.display(), users.len()));
    world.add_users(&users, PASSWORD).await?;
    let talkers = login(plan, world, &users).await?;
    let tallies: Vec<Arc<Tally>> = talkers.iter().map(|talker| talker.tally.clone()).collect();

    say(&format!("{} clients talk; faults for {} s, seed {}", users.len(), plan.length.as_secs(), plan.seed));
    let (phase, phases) = watch::channel(Phase::Talk);
    let mut talking = JoinSet::new();
    let mut dice = Dice::new(!plan.seed);
    let pace = plan.pace.as_millis() as u64;
    for talker in talkers {
        let begin = Instant::now() + dice.between(0, pace);
        talking.spawn(talker.talk(begin, plan.pace, phases.clone()));
    }
    let begun = Instant::now();
    let mut faults = faults::Faults::new(world, plan.seed, &users);
    match &plan.before {
        Some(_) => {
            let newer = binary_for(plan.store.as_deref().unwrap_or_default())?;
            faults.upgrade(&newer, plan.length).await?;
        }
        None => faults.run(plan.length, plan.still).await?,
    }
    let log = std::mem::take(&mut faults.log);
    let still = log.iter().any(|fault| fault.what == What::DrainStill);

    say("quiet: waiting for what is on its way");
    let _ = phase.send(Phase::Quiet);
    let give_up = Instant::now() + LAST;
    while !all_done(&tallies) && Instant::now() < give_up {
        sleep(Duration::from_millis(50)).await;
    }
    let quiet = all_done(&tallies);
    let _ = phase.send(Phase::Over);
    let ended = timeout(LAST, talking.join_all()).await;
    let mut talkers = ended.map_err(|_| Error::Failed("a client does not end".into()))?;
    talkers.sort_by_key(|talker| users.iter().position(|user| *user == talker.name));

    say("reading the archives");
    let mut verdict =
        check::check(&world.options(), &talkers, still).await.map_err(|e| Error::Failed(e.to_string()))?;
    if !quiet {
        verdict.problems.push(format!("after {} s of quiet not everything was acknowledged", LAST.as_secs()));
    }
    Ok(Report::new(plan, begun, log, &talkers, verdict))
}

async fn login(plan: &Plan, world: &World, users: &[String]) -> Result<Vec<Talker>, Error> {
    let gate = Arc::new(Semaphore::new(LOGINS));
    let mut logins = JoinSet::new();
    for (at, user) in users.iter().enumerate() {
        let (gate, options, user) = (gate.clone(), world.options(), user.clone());
        let partner = users[at ^ 1].clone();
        logins.spawn(async move {
            let _pass = gate.acquire().await;
            Talker::login(&options, user, partner).await
        });
    }
    let mut talkers = Vec::with_capacity(plan.clients);
    for login in logins.join_all().await {
        talkers.push(login.map_err(|e| Error::Failed(format!("a first login: {e}")))?);
    }
    Ok(talkers)
}

/// Whether all that was sent has been acknowledged, and has come.
fn all_done(tallies: &[Arc<Tally>]) -> bool {
    let sum = |of: fn(&Tally) -> &std::sync::atomic::AtomicUsize| {
        tallies.iter().map(|tally| of(tally).load(Ordering::Relaxed)).sum::<usize>()
    };
    sum(|t| &t.unacked) == 0 && sum(|t| &t.sent) <= sum(|t| &t.received) + sum(|t| &t.refused)
}
