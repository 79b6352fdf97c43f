//! Every file in `dialogues/` is a test, all against one server, at the same time.
//!
//! `ROOKERY_TEST_SERVER=prosody` plays them to Prosody instead: that is how the runner itself is checked.
//! `ROOKERY_TEST_STORE` is another `store.url`, as in `fdb:/etc/foundationdb/fdb.cluster`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use rookery_tests::client::Options;
use rookery_tests::dialogue::{self, Script, password};
use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::server::prosody::Prosody;
use rookery_tests::server::rookery::{Config, Rookery};

enum Server {
    Rookery(Rookery),
    Prosody(Prosody),
}

impl Server {
    async fn start() -> Result<Server, rookery_tests::server::Error> {
        match std::env::var("ROOKERY_TEST_SERVER").as_deref() {
            Ok("prosody") => Ok(Server::Prosody(Prosody::start(true, None).await?)),
            _ => {
                let mut config = Config::default();
                if let Ok(store) = std::env::var("ROOKERY_TEST_STORE") {
                    config.store = store;
                }
                Ok(Server::Rookery(Rookery::start(&config).await?))
            }
        }
    }

    fn options(&self) -> Options {
        match self {
            Server::Rookery(s) => s.listening.options(),
            Server::Prosody(s) => s.listening.options(),
        }
    }

    fn add_users(&self, users: &[(String, String)]) -> Result<(), rookery_tests::server::Error> {
        let users = users.iter().map(|(j, p)| (j.as_str(), p.as_str()));
        match self {
            Server::Rookery(s) => s.add_users(users).map(drop),
            Server::Prosody(s) => s.add_users(users),
        }
    }

    fn log(&self) -> String {
        match self {
            Server::Rookery(s) => s.log(),
            Server::Prosody(s) => s.process.tail(),
        }
    }
}

fn scripts() -> Vec<(String, Result<Script, String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogues");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of scripts").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "dialogue") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).expect("a script");
            found.push((name.clone(), Script::parse(&name, &text)));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[tokio::main]
async fn main() -> ExitCode {
    let scripts = scripts();
    let server = match Server::start().await {
        Ok(server) => Arc::new(server),
        Err(e) => {
            let why = e.to_string();
            return harness::run(vec![Case::new("server starts", async { Outcome::Failed(why) })], 1).await;
        }
    };
    let accounts: Vec<(String, String)> = scripts
        .iter()
        .filter_map(|(_, s)| s.as_ref().ok())
        .flat_map(|s| &s.accounts)
        .map(|user| (format!("{user}@localhost"), password(user)))
        .collect();
    if let Err(e) = server.add_users(&accounts) {
        let why = format!("{e}\n{}", server.log());
        return harness::run(vec![Case::new("accounts", async { Outcome::Failed(why) })], 1).await;
    }
    let cases = scripts.into_iter().map(|(name, script)| {
        let options = server.options();
        Case::new(name.clone(), async move {
            let script = match script {
                Ok(script) => script,
                Err(e) => return Outcome::Failed(e),
            };
            match dialogue::run(&script, &options).await {
                Ok(()) => Outcome::Passed,
                Err(f) => Outcome::Failed(format!("tests/dialogues/{name}.dialogue:{}: {}", f.line, f.text)),
            }
        })
    });
    let code = harness::run(cases.collect(), 16).await;
    if code != ExitCode::SUCCESS {
        println!("{}", server.log());
    }
    code
}
