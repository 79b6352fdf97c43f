//! Every test, one after the other, and their sum.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rookery_tests::server::fdb::Cluster;

use crate::fdb;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.ancestors().nth(2).unwrap_or(xtask).to_owned()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// What is checked without running anything.
#[rustfmt::skip] // a command, a line
const CHECKS: &[(&str, &[&str])] = &[
    ("format", &["fmt", "--all", "--check"]),
    ("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ("lints of the FoundationDB engine", &["clippy", "-p", "rookery-fdb", "-p", "rookery-cluster", "--all-targets",
        "--features", "rookery-cluster/fdb", "--quiet", "--", "-D", "warnings"]),
    ("types with the FoundationDB engine", &["check", "-p", "rookery", "--quiet", "--features", "fdb"]),
];

/// Runs simulated worlds; a process for each.
pub(crate) fn simulate(seeds: u64, from: u64, jobs: usize) -> ExitCode {
    let (seeds, from, jobs) = (seeds.to_string(), from.to_string(), jobs.to_string());
    let run = ["run", "--quiet", "--profile", "sim", "-p", "rookery-sim", "--"];
    let worlds = ["--seeds", &seeds, "--seed", &from, "--jobs", &jobs];
    match cargo(&[&run[..], &worlds[..]].concat()).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// What has run.
#[derive(Default)]
struct Done {
    sum: Sum,
    /// The names of what failed.
    broken: Vec<String>,
}

impl Done {
    fn fail(&mut self, name: &str) {
        self.sum.failed += 1;
        self.broken.push(name.to_owned());
    }

    /// Runs tests; `place` is added to the names of those that fail.
    fn test(&mut self, command: Command, place: &str) {
        let (tests, failures, success) = tests(command);
        self.broken.extend(failures.into_iter().map(|name| name + place));
        self.sum.passed += tests.passed;
        self.sum.failed += tests.failed;
        self.sum.skipped += tests.skipped;
        // A crate that does not compile, or a runner that died, fails no test: it must count all the same.
        if !success && tests.failed == 0 {
            self.fail(&format!("cargo test itself{place}"));
        }
    }
}

/// Runs all and prints `N passed, N failed, N skipped` at the end.
pub(crate) fn run() -> ExitCode {
    let mut done = Done::default();
    for &(name, arguments) in CHECKS {
        if arguments.iter().any(|argument| argument.ends_with("fdb")) && !fdb::libclang() {
            println!("== {name}\nskipped: no libclang (Debian: libclang-dev)");
            done.sum.skipped += 1;
            continue;
        }
        println!("== {name}: cargo {}", arguments.join(" "));
        match cargo(arguments).status().is_ok_and(|s| s.success()) {
            true => done.sum.passed += 1,
            false => done.fail(name),
        }
    }
    done.test(cargo(&["test", "--workspace", "--no-fail-fast"]), "");
    on_fdb(&mut done);
    let Done { sum, broken } = done;
    if !broken.is_empty() {
        println!("\nfailed:\n  {}", broken.join("\n  "));
    }
    println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The engine, a node that plays the dialogues, and three that are killed under load: each on a new FoundationDB server.
fn on_fdb(done: &mut Done) {
    const ENGINE: &[&str] = &["test", "-p", "rookery-cluster", "--features", "fdb", "--test", "fdb"];
    // Of the whole workspace, so that nothing but the node is built again.
    const DIALOGUES: &[&str] = &["test", "--workspace", "--test", "dialogues"];
    const CHAOS: &[&str] = &["test", "--workspace", "--test", "chaos"];
    let client = fdb::ready();
    for (name, arguments, starts_its_own) in [
        ("the FoundationDB engine on a server", ENGINE, true),
        ("dialogues with a node on FoundationDB", DIALOGUES, false),
        ("nodes on FoundationDB, killed under load", CHAOS, false),
    ] {
        println!("== {name}");
        let client = match &client {
            Ok(client) => client,
            Err(missing) if fdb::is_named() => {
                println!("failed: {missing}, though FDB_BIN_DIR or FDB_CLIENT_LIB_PATH is set");
                done.fail(name);
                continue;
            }
            Err(missing) => {
                println!("skipped: {missing}");
                done.sum.skipped += 1;
                continue;
            }
        };
        let mut command = cargo(arguments);
        fdb::with_client(&mut command, client);
        if starts_its_own {
            done.test(command, " on FoundationDB");
            continue;
        }
        match Cluster::start() {
            Ok(Some(server)) => {
                let url = format!("fdb:{}", server.file().display());
                command.env("ROOKERY_TEST_STORE", &url).env("ROOKERY_CHAOS_STORE", &url);
                command.env("ROOKERY_CHAOS_CLIENTS", "20").env("ROOKERY_CHAOS_SECONDS", "30");
                done.test(command, " on FoundationDB");
            }
            Ok(None) => done.fail(name),
            Err(said) => {
                println!("{said}");
                done.fail(name);
            }
        }
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Builds this program with optimisation and runs it with the same arguments; it can build and run nodes for that store.
pub(crate) fn again_in_release(store: &str) -> ExitCode {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "xtask", "--"]);
    command.args(std::env::args_os().skip(1));
    if store.starts_with("fdb:")
        && let Some(client) = fdb::client()
    {
        fdb::with_client(&mut command, &client);
    }
    match command.status().is_ok_and(|s| s.success()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn tests(mut command: Command) -> (Sum, Vec<String>, bool) {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    println!("== tests: cargo {}", arguments.join(" "));
    let (mut sum, mut failures) = (Sum::default(), Vec::new());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("cargo, since cargo runs us");
    let output = child.stdout.take().expect("it is piped");
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        if let Some(one) = result(&line) {
            sum.passed += one.passed;
            sum.failed += one.failed;
            sum.skipped += one.skipped;
        } else if let Some(name) = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED")) {
            failures.push(name.to_owned());
        }
    }
    (sum, failures, child.wait().is_ok_and(|s| s.success()))
}

/// Reads `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
fn result(line: &str) -> Option<Sum> {
    let rest = line.strip_prefix("test result: ")?;
    let count = |word: &str| {
        let before = rest.split_once(&format!(" {word}"))?.0;
        before.rsplit([' ', '.']).next()?.parse().ok()
    };
    Some(Sum { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_closing_line_of_libtest() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 5 filtered out; finished in 0.1s";
        assert_eq!(result(line), Some(Sum { passed: 12, failed: 3, skipped: 1 }));
        assert_eq!(result("test a ... ok"), None);
    }
}
