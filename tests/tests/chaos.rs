//! kill -9 of nodes under load, with HAProxy before them: nobody who resumes misses, doubles or reorders anything.
//!
//! `cargo xtask chaos` runs the same for longer and with more clients, in the release profile.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use rookery_tests::chaos::{self, Plan};
use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::server::Error;

/// A different order of things, each within less than a minute.
const SEEDS: [u64; 1] = [1];

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let case = |seed| {
        Case::new(format!("nodes_die_and_nobody_notices_{seed}"), async move {
            let plan = Plan::from_environment(60, 45, seed);
            match chaos::run(&plan, &|line| println!("{line}")).await {
                Err(Error::Missing(what)) => {
                    Outcome::Skipped(format!("no {what} (Debian: apt-get install {what})"))
                }
                Err(e) => Outcome::Failed(e.to_string()),
                Ok(report) => {
                    println!("{report}");
                    // The times are those of a debug build on a machine that does other things as well: only told.
                    match report.verdict.is_good() && report.resumed_part() >= 0.99 {
                        true => Outcome::Passed,
                        false => Outcome::Failed(report.to_string()),
                    }
                }
            }
        })
    };
    harness::run(SEEDS.into_iter().map(case).collect(), 1).await
}
