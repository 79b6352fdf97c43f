//! Many worlds: a process for each, some at a time; what came to pass in all of them together.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum as _;
use parking_lot::Mutex;

use crate::Options;
use crate::conduct::Kind;

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
/// The same of what clients do by habit.
const HABITS: &[&str] = &[
    "count message to a resource that never was",
    "count message to a resource that has logged out",
    "count message to a resource that hibernates",
    "count message to a resource that is there",
    "count asked who hibernates",
    "count asked who is gone",
    "count bound anew instead of resumed",
    "count session expired",
    "count unavailable for a while",
    "count available again",
    "count logged out",
    "count sleeps",
    "count directed presence",
    "count copy of a message",
    "count node cut off from all",
    "count store out of reach for all",
    "count bounced",
];
/// From so many worlds on all of it must.
const ENOUGH: u64 = 50;
/// What is rare, and from how many worlds on it must.
const RARE: &[&str] = &["count takeover during append"];
const MANY: u64 = 200;

#[derive(Default)]
struct Sum {
    counts: BTreeMap<String, u64>,
    /// What was wrong, by its kind: how often, and in which worlds.
    wrong: BTreeMap<String, (u64, Vec<u64>)>,
    failed: Vec<u64>,
    done: u64,
    messages: u64,
    seconds: f64,
}

/// Runs the worlds of `seeds` seeds from `from` on.
pub(crate) fn run(options: &Options, seeds: u64) -> ExitCode {
    let (from, jobs) = (options.seed, options.jobs);
    let (next, sum) = (AtomicU64::new(from), Mutex::new(Sum::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    one(seed, seeds, options, &sum);
                }
            });
        }
    });
    let sum = sum.into_inner();
    for (name, count) in &sum.counts {
        println!("{count:>9} {name}");
    }
    for (kind, (times, seeds)) in &sum.wrong {
        println!("{times:>9} wrong {kind} in {} worlds: {seeds:?}", seeds.len());
    }
    println!("{} worlds, {} messages, {:.0} simulated seconds", sum.done, sum.messages, sum.seconds);
    let habits = if options.plain { &[] } else { HABITS };
    let rare = if seeds >= MANY { RARE } else { &[] };
    let wanted = WANTED.iter().chain(habits).chain(rare);
    let missing: Vec<_> = wanted.filter(|name| !sum.counts.contains_key(**name)).collect();
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

/// How a world of the campaign is asked for.
fn arguments(options: &Options) -> Vec<String> {
    let mut all = Vec::new();
    for (given, name) in [(options.small, "--small"), (options.calm, "--calm"), (options.plain, "--plain")] {
        all.extend(given.then(|| name.to_owned()));
    }
    let number = |name: &str, n: Option<String>| n.map(|n| [name.to_owned(), n]).into_iter().flatten();
    all.extend(number("--nodes", options.nodes.map(|n| n.to_string())));
    all.extend(number("--users", options.users.map(|n| n.to_string())));
    all.extend(number("--trouble", options.trouble.map(|n| n.to_string())));
    all.extend(number("--sleepy", options.sleepy.map(|sleepy| sleepy.to_string())));
    all.extend(number("--toys", options.toys.map(|toys| toys.to_string())));
    all.extend(number("--foreign", options.foreign.map(|foreign| foreign.to_string())));
    all.extend(number("--groupchat", options.groupchat.map(|groupchat| groupchat.to_string())));
    let name = |kind: &Kind| kind.to_possible_value().map(|value| value.get_name().to_owned());
    let faults = options.faults.as_ref().map(|faults| faults.iter().filter_map(name).collect::<Vec<_>>());
    all.extend(number("--faults", faults.map(|faults| faults.join(","))));
    all
}

/// The kind of what was wrong: in brackets, or the rest has none.
fn kind(line: &str) -> &str {
    line.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("other", |(kind, _)| kind)
}

fn one(seed: u64, seeds: u64, options: &Options, sum: &Mutex<Sum>) {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args(["--seed", &seed.to_string()]);
    let arguments = arguments(options);
    command.args(&arguments);
    let (text, well) = match command.output() {
        Ok(output) => (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success()),
        Err(error) => (error.to_string(), false),
    };
    let mut wrong = text.lines().filter_map(|line| line.strip_prefix("wrong ")).peekable();
    let here = |open: &String, kind: &str| match open.split_once('@') {
        Some((open, world)) => open == kind && world == seed.to_string(),
        None => open == kind,
    };
    let is_open = |wrong: &str| options.open.iter().any(|open| here(open, kind(wrong)));
    let well = well || (wrong.peek().is_some() && wrong.all(is_open));
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
        } else if let Some(wrong) = line.strip_prefix("wrong ") {
            let (times, seeds) = sum.wrong.entry(kind(wrong).to_owned()).or_default();
            *times += 1;
            if seeds.last() != Some(&seed) {
                seeds.push(seed);
            }
        } else if let Some((name, count)) = line.rsplit_once(' ') {
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
        let rest: String = arguments.iter().map(|argument| format!(" {argument}")).collect();
        println!(
            "      alone: cargo run -p rookery-sim --profile sim -- --seed {seed}{rest} --trace /tmp/trace"
        );
    }
}

fn after(line: &str, word: &str) -> u64 {
    line.split_once(&format!("{word} "))
        .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
        .unwrap_or(0)
}
