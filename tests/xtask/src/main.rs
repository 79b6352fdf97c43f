//! `cargo xtask test` runs every test there is, `cargo xtask sim` simulated clusters, `cargo xtask bench` compares with the peers,
//! `cargo xtask chaos` kills nodes under load, and `cargo xtask upgrade` upgrades a cluster of an older version under load.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a developer's tool: a panic is its error message, and it uses the real clock"
)]

mod fdb;
mod install;
mod suite;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rookery_tests::chaos::{Plan as Campaign, Report};
use rookery_tests::load::Plan;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tests and benchmarks of Rookery")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints, unit, property, dialogue and interop tests; installs what is missing when run as root.
    Test {
        /// Install nothing: what is missing is skipped, visibly.
        #[arg(long)]
        no_install: bool,
    },
    /// Simulated clusters from seeds, with faults: what must hold is checked in each.
    Sim {
        /// How many.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
    },
    /// Rookery, Prosody and ejabberd under the same load; writes tests/bench/RESULTS.md.
    Bench {
        /// A tenth of the load, and not so many connections: to see that it works.
        #[arg(long)]
        quick: bool,
        /// Only scenarios whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Which servers, separated by commas; or nodes, which compares one node with three.
        #[arg(long, default_value = "rookery,prosody,ejabberd", value_delimiter = ',')]
        servers: Vec<String>,
        /// Where the report goes; tests/bench/RESULTS.md (or NODES.md) unless --quick or --only or --servers say otherwise.
        #[arg(long)]
        output: Option<std::path::PathBuf>,
        /// Do not build and start the release profile first.
        #[arg(long, hide = true)]
        here: bool,
    },
    /// What a link between two servers costs: Rookery, Prosody and ejabberd, each with itself; writes tests/bench/FEDERATION.md.
    FederationBench {
        /// A tenth of the load: to see that it works.
        #[arg(long)]
        quick: bool,
        /// Which servers, separated by commas.
        #[arg(long, default_value = "rookery,prosody,ejabberd", value_delimiter = ',')]
        servers: Vec<String>,
        /// Do not build and start the release profile first.
        #[arg(long, hide = true)]
        here: bool,
    },
    /// Three nodes behind HAProxy, clients that talk all the time, and nodes that are killed, restarted and drained.
    Chaos {
        /// Clients; they talk in pairs.
        #[arg(long, default_value_t = 500)]
        clients: usize,
        /// How long things go wrong; a part of a minute as 0.5.
        #[arg(long, default_value_t = 3.0)]
        minutes: f64,
        /// What goes wrong, and when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Milliseconds from one message of a client to the next.
        #[arg(long, default_value_t = 1_000)]
        pace: u64,
        /// Seconds that the store stands still while the last node drains; 0: it does not.
        #[arg(long, default_value_t = 12)]
        still: u64,
        /// A store that is there already, as in fdb:/etc/foundationdb/fdb.cluster, instead of `rookery store`.
        #[arg(long)]
        store: Option<String>,
        /// Leave the folder with the logs where it is, also after a good end.
        #[arg(long)]
        keep: bool,
    },
    /// Three nodes of an older version behind HAProxy, and clients that talk all the time: one node after the other is drained and
    /// started with this version, and nodes of both versions are killed meanwhile.
    Upgrade {
        /// The program of the older version: `rookery`, as `cargo build -p rookery` made it there.
        #[arg(long)]
        before: std::path::PathBuf,
        /// Clients; they talk in pairs.
        #[arg(long, default_value_t = 60)]
        clients: usize,
        /// How long nodes are killed, in all; a part of a minute as 0.5.
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        /// What is killed, and when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Milliseconds from one message of a client to the next.
        #[arg(long, default_value_t = 500)]
        pace: u64,
        /// Leave the folder with the logs where it is, also after a good end.
        #[arg(long)]
        keep: bool,
    },
}

fn main() -> ExitCode {
    match Cli::parse().task {
        Task::Test { no_install } => {
            if !no_install {
                install::for_tests();
            }
            suite::run()
        }
        Task::Sim { seeds, from, jobs } => suite::simulate(seeds, from, jobs),
        // A generator without optimisation would measure itself.
        Task::Bench { here: false, .. } if cfg!(debug_assertions) => suite::again_in_release(""),
        Task::FederationBench { here: false, .. } if cfg!(debug_assertions) => suite::again_in_release(""),
        Task::FederationBench { quick, servers, here: _ } => {
            install::for_federation();
            federation_bench(quick, &servers)
        }
        Task::Chaos { store, .. } if cfg!(debug_assertions) => {
            suite::again_in_release(store.as_deref().unwrap_or_default())
        }
        Task::Chaos { clients, minutes, seed, pace, still, store, keep } => {
            install::for_chaos();
            chaos(&Campaign {
                clients: clients.next_multiple_of(2),
                length: Duration::from_secs_f64(minutes * 60.0),
                seed,
                pace: Duration::from_millis(pace.max(1)),
                still: Duration::from_secs(still),
                store,
                keep,
                before: None,
            })
        }
        Task::Upgrade { before, clients, minutes, seed, pace, keep } => {
            install::for_chaos();
            upgrade(&Campaign {
                clients: clients.next_multiple_of(2),
                length: Duration::from_secs_f64(minutes * 60.0),
                seed,
                pace: Duration::from_millis(pace.max(1)),
                still: Duration::ZERO,
                store: None,
                keep,
                before: Some(before),
            })
        }
        Task::Bench { quick, only, servers, output, here: _ } => {
            install::for_bench(&servers);
            let nodes = servers == ["nodes"];
            let whole = !quick && only.is_none() && (servers.len() == 3 || nodes);
            let results = if nodes { "tests/bench/NODES.md" } else { "tests/bench/RESULTS.md" };
            let results = suite::root().join(results);
            let output = output.or_else(|| whole.then_some(results));
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            match runtime.block_on(rookery_tests::load::bench(&Plan { quick, only, servers, output })) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => {
                    eprintln!("{e}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// Measures links; the report is kept if it is the whole one.
fn federation_bench(quick: bool, servers: &[String]) -> ExitCode {
    use rookery_tests::peers::{Software, bench};
    let servers: Vec<Software> =
        Software::ALL.into_iter().filter(|s| servers.iter().any(|name| *name == s.to_string())).collect();
    let whole = !quick && servers.len() == Software::ALL.len();
    let output = whole.then(|| suite::root().join("tests/bench/FEDERATION.md"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(bench::run(&bench::Plan { quick, servers, output })) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a campaign; it fails if a promise was not kept or a target not reached.
fn chaos(plan: &Campaign) -> ExitCode {
    campaign(plan, |report| report.verdict.is_good() && report.missed_targets().is_empty())
}

/// The same for an upgrade. Whether it is built with optimisation or not: the times are only told.
fn upgrade(plan: &Campaign) -> ExitCode {
    campaign(plan, |report| report.verdict.is_good() && report.resumed_part() >= 0.99)
}

fn campaign(plan: &Campaign, good: impl Fn(&Report) -> bool) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(rookery_tests::chaos::run(plan, &|line| println!("{line}"))) {
        Ok(report) => {
            print!("{report}");
            if good(&report) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
