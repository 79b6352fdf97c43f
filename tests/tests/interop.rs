//! Clients that no one here wrote, on a server of their own: each script in `interop/` is a test.
//!
//! `cargo xtask test` installs what they need; without it they are skipped, visibly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::script;
use rookery_tests::server::prosody::Prosody;
use rookery_tests::server::rookery::{Config, Rookery};
use rookery_tests::server::{Listening, find_program};

async fn play(file: PathBuf, python: PathBuf, listening: Listening) -> Outcome {
    script::play(script::command(&python, &file, &listening), String::new).await
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop");
    let all = std::fs::read_dir(folder).expect("the folder of scripts").flatten().map(|e| e.path());
    let mut scripts: Vec<PathBuf> = all
        // Those without an underscore are what they share.
        .filter(|p| p.extension().is_some_and(|e| e == "py"))
        .filter(|p| p.file_stem().is_some_and(|s| s.to_string_lossy().contains('_')))
        .collect();
    scripts.sort();
    scripts
}

enum Server {
    Rookery(Rookery),
    Prosody(Prosody),
}

#[tokio::main]
async fn main() -> ExitCode {
    let slixmpp = script::python("interop-venv", "ROOKERY_INTEROP_PYTHON");
    let mut cases = Vec::new();
    let mut runnable = Vec::new();
    for file in scripts() {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let python = match name.starts_with("slixmpp") {
            true => slixmpp.clone().ok_or("needs slixmpp: run `cargo xtask test` as root, or python3-venv"),
            false => find_program("python3").ok_or("needs python3"),
        };
        match python {
            Ok(python) => runnable.push((name, file, python)),
            Err(why) => cases.push(Case::new(name, async move { Outcome::Skipped(why.into()) })),
        }
    }
    if runnable.is_empty() {
        return harness::run(cases, 1).await;
    }
    let started = match std::env::var("ROOKERY_TEST_SERVER").as_deref() {
        Ok("prosody") => Prosody::start(true, None).await.map(Server::Prosody),
        _ => Rookery::start(&Config::default()).await.map(Server::Rookery),
    };
    let server = match started {
        Ok(server) => Arc::new(server),
        Err(e) => {
            let why = e.to_string();
            return harness::run(vec![Case::new("server starts", async { Outcome::Failed(why) })], 1).await;
        }
    };
    let listening = match &*server {
        Server::Rookery(s) => s.listening.clone(),
        Server::Prosody(s) => s.listening.clone(),
    };
    for (name, file, python) in runnable {
        cases.push(Case::new(name, play(file, python, listening.clone())));
    }
    let code = harness::run(cases, 4).await;
    if code != ExitCode::SUCCESS
        && let Server::Rookery(s) = &*server
    {
        println!("{}", s.log());
    }
    code
}
