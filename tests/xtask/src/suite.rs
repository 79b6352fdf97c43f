//! Every test, one after the other, and their sum.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

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

/// Runs all and prints `N passed, N failed, N skipped` at the end.
pub(crate) fn run() -> ExitCode {
    let mut sum = Sum::default();
    let mut broken = Vec::new();
    for &(name, arguments) in CHECKS {
        if arguments.iter().any(|argument| argument.ends_with("fdb")) && !fdb::libclang() {
            println!("== {name}\nskipped: no libclang (Debian: libclang-dev)");
            sum.skipped += 1;
            continue;
        }
        println!("== {name}: cargo {}", arguments.join(" "));
        match cargo(arguments).status().is_ok_and(|s| s.success()) {
            true => sum.passed += 1,
            false => {
                sum.failed += 1;
                broken.push(name.to_owned());
            }
        }
    }
    let mut all = vec![cargo(&["test", "--workspace", "--no-fail-fast"])];
    match fdb::ready() {
        Ok(client) => {
            let mut on_fdb = cargo(&["test", "-p", "rookery-cluster", "--features", "fdb", "--test", "fdb"]);
            fdb::with_client(&mut on_fdb, &client);
            all.push(on_fdb);
        }
        Err(missing) => {
            println!("== the FoundationDB engine on a server\nskipped: {missing}");
            sum.skipped += 1;
        }
    }
    for command in all {
        let (tests, failures, success) = tests(command);
        broken.extend(failures);
        sum.passed += tests.passed;
        sum.failed += tests.failed;
        sum.skipped += tests.skipped;
        // A crate that does not compile, or a runner that died, fails no test: it must count all the same.
        if !success && tests.failed == 0 {
            sum.failed += 1;
            broken.push("cargo test itself".to_owned());
        }
    }
    if !broken.is_empty() {
        println!("\nfailed:\n  {}", broken.join("\n  "));
    }
    println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// Builds this program with optimisation and runs it with the same arguments.
pub(crate) fn again_in_release() -> ExitCode {
    let mut command = cargo(&["run", "--quiet", "--release", "--package", "xtask", "--"]);
    command.args(std::env::args_os().skip(1));
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
