//! Clients that no one here wrote, on a server of their own: each script in `interop/` is a test.
//!
//! `cargo xtask test` installs what they need; without it they are skipped, visibly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::server::prosody::Prosody;
use rookery_tests::server::rookery::{Config, Rookery};
use rookery_tests::server::{Listening, find_program};
use tokio::process::Command;

/// What a script may take in all.
const PATIENCE: Duration = Duration::from_secs(180);

/// The interpreter with slixmpp: made by `cargo xtask test`.
fn python_with_slixmpp() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop-venv/bin/python");
    let given = std::env::var_os("ROOKERY_INTEROP_PYTHON").map(PathBuf::from);
    given.or_else(|| made.is_file().then_some(made))
}

async fn play(script: PathBuf, python: PathBuf, listening: Listening) -> Outcome {
    let mut command = Command::new(python);
    command
        .arg(&script)
        .arg(listening.c2s.ip().to_string())
        .arg(listening.c2s.port().to_string())
        .arg(listening.c2s_tls.port().to_string())
        .arg(&listening.domain)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Outcome::Failed(e.to_string()),
        Err(_) => return Outcome::Failed(format!("{} does not end", script.display())),
    };
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Outcome::Passed,
        Some(77) => Outcome::Skipped(text.trim().to_owned()),
        code => Outcome::Failed(format!("exit code {code:?}\n{text}")),
    }
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
    let slixmpp = python_with_slixmpp();
    let mut cases = Vec::new();
    let mut runnable = Vec::new();
    for script in scripts() {
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let python = match name.starts_with("slixmpp") {
            true => slixmpp.clone().ok_or("needs slixmpp: run `cargo xtask test` as root, or python3-venv"),
            false => find_program("python3").ok_or("needs python3"),
        };
        match python {
            Ok(python) => runnable.push((name, script, python)),
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
    for (name, script, python) in runnable {
        cases.push(Case::new(name, play(script, python, listening.clone())));
    }
    let code = harness::run(cases, 4).await;
    if code != ExitCode::SUCCESS
        && let Server::Rookery(s) = &*server
    {
        println!("{}", s.log());
    }
    code
}
