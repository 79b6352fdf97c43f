//! A test runner for cases that are found at run time; it speaks like libtest, so that one reader reads both.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed(String),
    /// The case could not run here; the text says what is missing.
    Skipped(String),
}

/// A case that has not run yet.
pub struct Case {
    pub name: String,
    pub body: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

impl Case {
    /// A case from its name and what it does.
    pub fn new(name: impl Into<String>, body: impl Future<Output = Outcome> + Send + 'static) -> Case {
        Case { name: name.into(), body: Box::pin(body) }
    }
}

/// Runs the cases whose name contains a word of the command line, `parallel` at a time, and prints as libtest does.
pub async fn run(cases: Vec<Case>, parallel: usize) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let list = std::env::args().any(|a| a == "--list");
    let wanted = |case: &Case| words.is_empty() || words.iter().any(|w| case.name.contains(w.as_str()));
    let all = cases.len();
    let cases: Vec<Case> = cases.into_iter().filter(wanted).collect();
    if list {
        for case in &cases {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", cases.len());
    let filtered = all - cases.len();
    let gate = Arc::new(Semaphore::new(parallel));
    let mut running = JoinSet::new();
    for case in cases {
        let gate = gate.clone();
        running.spawn(async move {
            let _pass = gate.acquire().await;
            // In a task of its own: a panic is a failed case, not the end of the run.
            let outcome = match tokio::spawn(case.body).await {
                Ok(outcome) => outcome,
                Err(e) => Outcome::Failed(e.to_string()),
            };
            (case.name, outcome)
        });
    }
    let (mut passed, mut skipped, mut failures) = (0, 0, Vec::new());
    while let Some(ended) = running.join_next().await {
        let Ok((name, outcome)) = ended else { continue };
        match outcome {
            Outcome::Passed => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Outcome::Skipped(why) => {
                skipped += 1;
                println!("test {name} ... ignored, {why}");
                println!("skipped: {name}: {why}");
            }
            Outcome::Failed(why) => {
                println!("test {name} ... FAILED");
                failures.push((name, why));
            }
        }
    }
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (name, why) in &failures {
            println!("---- {name} ----\n{why}\n");
        }
    }
    let word = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {filtered} filtered out\n",
        failures.len()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
