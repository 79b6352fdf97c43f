//! Many worlds: a process for each, some at a time; what came to pass in all of them together.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What must come to pass in a campaign, or it shows nothing.
const WANTED: &[&str] = &[
    "count crash",
    "count drained",
    "count conflict",
    "count too old",
    "count unknown result that was done",
    "count unknown result that was not done",
    "count unknown result that came late",
    "count late commit refused",
    "count unreachable",
    "count latency",
    "count takeover during append",
    "count node declared dead while it ran",
    "count resumed after the loss of the node",
    "count resumed after double loss",
    "count resumed after drain",
    "meter sessions_attached",
    "meter parcels_again",
    "meter users_moved",
    "meter sm_renumbered",
    "meter mesh_deaths",
    "meter mesh_fenced",
    "meter mesh_leases_lost",
    "meter mesh_resent_envelopes",
    "meter store_unknown_results",
];
/// From so many worlds on all of it must.
const ENOUGH: u64 = 50;

#[derive(Default)]
struct Sum {
    counts: BTreeMap<String, u64>,
    failed: Vec<u64>,
    done: u64,
    messages: u64,
    seconds: f64,
}

/// Runs the worlds of `seeds` seeds from `from` on.
pub(crate) fn run(from: u64, seeds: u64, jobs: usize, small: bool) -> ExitCode {
    let (next, sum) = (AtomicU64::new(from), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    one(seed, seeds, small, &sum);
                }
            });
        }
    });
    let sum = sum.into_inner();
    for (name, count) in &sum.counts {
        println!("{count:>9} {name}");
    }
    println!("{} worlds, {} messages, {:.0} simulated seconds", sum.done, sum.messages, sum.seconds);
    let missing: Vec<_> = WANTED.iter().filter(|name| !sum.counts.contains_key(**name)).collect();
    if seeds >= ENOUGH && !missing.is_empty() {
        println!("never came to pass: {missing:?}");
        return ExitCode::FAILURE;
    }
    if sum.failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {:?}", sum.failed);
    ExitCode::FAILURE
}

fn one(seed: u64, seeds: u64, small: bool, sum: &Mutex<Sum>) {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args(["--seed", &seed.to_string()]);
    if small {
        command.arg("--small");
    }
    let (text, well) = match command.output() {
        Ok(output) => (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success()),
        Err(error) => (error.to_string(), false),
    };
    let mut sum = sum.lock();
    sum.done += 1;
    let mut last = "no world";
    for line in text.lines() {
        if line.starts_with("world ") {
            last = line;
            sum.messages += after(line, "messages");
            sum.seconds += line
                .split_once("lived ")
                .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
                .unwrap_or(0.0);
        } else if let Some((name, count)) = line.rsplit_once(' ').filter(|_| !line.starts_with("wrong ")) {
            *sum.counts.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
        }
    }
    println!("{:>5}/{seeds} {last}", sum.done);
    if !well {
        sum.failed.push(seed);
        text.lines()
            .filter(|line| line.starts_with("wrong "))
            .take(8)
            .for_each(|line| println!("      {line}"));
        let small = if small { " --small" } else { "" };
        println!(
            "      alone: cargo run -p rookery-sim --profile sim -- --seed {seed}{small} --trace /tmp/trace"
        );
    }
}

fn after(line: &str, word: &str) -> u64 {
    line.split_once(&format!("{word} "))
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}
