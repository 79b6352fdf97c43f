//! Components that no one here wrote, on a server of their own: biboumi with ngircd, and slidge. Each script in `interop/components/` is a
//! test; it starts the component itself.
//!
//! `cargo xtask test` installs what they need; without it they are skipped, visibly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::server::rookery::{Config, Rookery};
use tokio::process::Command;

/// What a script may take in all.
const PATIENCE: Duration = Duration::from_secs(180);
const SECRET: &str = "correct horse battery";

/// The interpreters with slixmpp and with slidge: made by `cargo xtask test`.
fn python(folder: &str, given: &str) -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(folder).join("bin/python");
    std::env::var_os(given).map(PathBuf::from).or_else(|| made.is_file().then_some(made))
}

fn configuration() -> Config {
    let more = format!(
        r#"[[component]]
name = "irc.localhost"
secret = "{SECRET}"
[[component]]
name = "slidge.localhost"
secret = "{SECRET}"
privileges = ["roster both", "message outgoing", "iq both http://jabber.org/protocol/pubsub", "iq set http://jabber.org/protocol/pubsub#owner", "iq get urn:xmpp:http:upload:0"]
"#
    );
    Config { more, component: Some(0), ..Config::default() }
}

async fn play(script: PathBuf, slixmpp: PathBuf, server: Arc<Rookery>, at: SocketAddr) -> Outcome {
    let listening = &server.listening;
    let mut command = Command::new(slixmpp);
    command
        .arg(&script)
        .arg(listening.c2s.ip().to_string())
        .arg(listening.c2s.port().to_string())
        .arg(listening.c2s_tls.port().to_string())
        .arg(&listening.domain)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("COMPONENT_PORT", at.port().to_string())
        .env("COMPONENT_SECRET", SECRET)
        .kill_on_drop(true);
    if let Some(slidge) = python("interop-slidge", "ROOKERY_INTEROP_SLIDGE") {
        command.env("SLIDGE", slidge);
    }
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
        code => Outcome::Failed(format!("exit code {code:?}\n{text}\n{}", server.log())),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/components");
    let scripts = ["biboumi_irc", "slidge_gateway"];
    let Some(slixmpp) = python("interop-venv", "ROOKERY_INTEROP_PYTHON") else {
        let why = "needs slixmpp: run `cargo xtask test` as root, or python3-venv";
        let skipped = |name: &str| Case::new(name, async move { Outcome::Skipped(why.into()) });
        return harness::run(scripts.map(skipped).into(), 1).await;
    };
    let server = match Rookery::start(&configuration()).await {
        Ok(server) => Arc::new(server),
        Err(e) => {
            let why = e.to_string();
            return harness::run(vec![Case::new("server starts", async { Outcome::Failed(why) })], 1).await;
        }
    };
    let at = server.component().unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
    let case = |name: &str| {
        let script = folder.join(format!("{name}.py"));
        Case::new(name, play(script, slixmpp.clone(), server.clone(), at))
    };
    harness::run(scripts.map(case).into(), 2).await
}
