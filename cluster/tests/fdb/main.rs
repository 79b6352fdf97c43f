//! The conformance suite on FoundationDB, and what only a real cluster can do: end in the middle. A server of its own runs on
//! loopback for as long as this does.
//!
//! `fdbserver` and `fdbcli` are looked for in `FDB_BIN_DIR` and in PATH. This is a program and not a list of tests, because the
//! client library runs once in a process and must be stopped before it ends.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)] // a test

#[allow(unreachable_pub)] // another crate includes this file, and uses it from outside
mod cluster;
mod more;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Cluster;
use rookery_cluster::store::conformance::{self, Subject};
use rookery_cluster::store::fdb::Fdb;
use rookery_cluster::store::{Database as _, FdbSettings};

type Case<T> = fn(T) -> Pin<Box<dyn Future<Output = ()>>>;

macro_rules! cases {
    ($($case:ident,)*) => {
        vec![$((stringify!($case), (|subject| Box::pin(conformance::$case(subject))) as Case<Subject>)),*]
    };
}

/// Time passes for FoundationDB only in truth, and with room for its own idea of five seconds.
const ROOM: Duration = Duration::from_secs(3);
/// How long a server that was just started may refuse commits.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Sum {
    passed: usize,
    failed: Vec<String>,
}

impl Sum {
    fn run(&mut self, name: &str, case: impl FnOnce()) {
        let passed = catch_unwind(AssertUnwindSafe(case)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        match passed {
            true => self.passed += 1,
            false => self.failed.push(name.to_owned()),
        }
    }
}

/// Removes everything.
async fn empty(db: &Fdb) {
    let began = Instant::now();
    loop {
        let mut tx = db.begin();
        tx.clear_range(b"", &[0xff]);
        match tx.commit().await {
            Ok(_) => return,
            // A server that has just been started takes its time.
            Err(error) if began.elapsed() > PATIENCE => panic!("{error} {:?}", error.detail),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn main() -> ExitCode {
    let mut server = match Cluster::start() {
        Ok(Some(server)) => server,
        Ok(None) => {
            println!("skipped: no fdbserver");
            println!("test result: ok. 0 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
            return ExitCode::SUCCESS;
        }
        Err(said) => {
            println!("{said}");
            return ExitCode::FAILURE;
        }
    };
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| name.contains(only));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut sum, mut left_out) = (Sum::default(), 0);
    let db = runtime.block_on(async { Fdb::open(&server.file(), &FdbSettings::default()) }).unwrap();
    let db = Arc::new(db);
    for (name, case) in rookery_cluster::for_every_conformance_case!(cases) {
        let name = format!("fdb::{name}");
        if !wanted(&name) {
            left_out += 1;
            continue;
        }
        let client = db.clone();
        let truly = name.ends_with("old_transactions_are_refused");
        let pass = move |time| if truly { std::thread::sleep(time + ROOM) } else { client.pass(time) };
        let subject = Subject { db: db.clone(), pass: Arc::new(pass) };
        sum.run(&name, || {
            runtime.block_on(async {
                empty(&db).await;
                case(subject).await;
            });
        });
    }
    for (name, case) in more::CASES {
        let name = format!("fdb::{name}");
        if !wanted(&name) {
            left_out += 1;
            continue;
        }
        sum.run(&name, || {
            runtime.block_on(empty(&db));
            case(&runtime, &mut server, &db);
        });
    }
    sum.run("fdb::the_end_is_orderly", || runtime.block_on(more::the_end_is_orderly(&db)));
    drop(db);
    let outcome = if sum.failed.is_empty() { "ok" } else { "FAILED" };
    if !sum.failed.is_empty() {
        println!("\nfailures:\n    {}", sum.failed.join("\n    "));
    }
    println!(
        "\ntest result: {outcome}. {} passed; {} failed; 0 ignored; 0 measured; {left_out} filtered out",
        sum.passed,
        sum.failed.len()
    );
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
