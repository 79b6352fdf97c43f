//! Components that no one here wrote, on a server of their own: biboumi with ngircd, and slidge. Each script in `interop/components/` is a
//! test; it starts the component itself.
//!
//! `cargo xtask test` installs what they need; without it they are skipped, visibly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rookery_tests::harness::{self, Case, Outcome};
use rookery_tests::script;
use rookery_tests::server::rookery::{Config, Rookery};

const SECRET: &str = "correct horse battery";

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

async fn play(file: PathBuf, slixmpp: PathBuf, server: Arc<Rookery>, at: SocketAddr) -> Outcome {
    let mut command = script::command(&slixmpp, &file, &server.listening);
    command.env("COMPONENT_PORT", at.port().to_string()).env("COMPONENT_SECRET", SECRET);
    if let Some(slidge) = script::python("interop-slidge", "ROOKERY_INTEROP_SLIDGE") {
        command.env("SLIDGE", slidge);
    }
    script::play(command, || server.log()).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/components");
    let scripts = ["biboumi_irc", "slidge_gateway"];
    let Some(slixmpp) = script::python("interop-venv", "ROOKERY_INTEROP_PYTHON") else {
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
        let file = folder.join(format!("{name}.py"));
        Case::new(name, play(file, slixmpp.clone(), server.clone(), at))
    };
    harness::run(scripts.map(case).into(), 2).await
}
