//! Rookery, for federation.

use std::fmt::Write as _;

use tokio::process::Command;

use super::server::{Plan, Proof, accounts, password};
use crate::server::rookery::{GENEROUS, binary};
use crate::server::{Error, run};

/// What one address and one domain may do when all others are there too.
const FREE: &str = "streams_per_address = 100000
streams_unproved_per_address = 100000
streams_unproved = 100000
streams_per_domain = 100000
new_streams_per_minute = 1000000
bytes_per_second = 1000000000
bytes_burst = 1000000000
stanzas_per_second = 10000000
stanzas_burst = 10000000";

pub(super) fn prepare(plan: &Plan) -> Result<(), Error> {
    let dir = plan.dir.display();
    let policy = match plan.proof {
        Proof::Certificate => "certificate",
        Proof::Dane => "dane",
        Proof::Dialback | Proof::Clear => "dialback",
    };
    let ports = plan.ports;
    let anchor = plan.anchor.as_ref().map(|file| format!("trust_anchor = \"{}\"", file.display()));
    let mut config = format!(
        r#"data_dir = "{dir}/data"
[store]
url = "embedded:"
durability = "{durability}"
[listen]
c2s = ["{c2s}"]
c2s_tls = ["{c2s_tls}"]
s2s = ["{s2s}"]
s2s_tls = ["{s2s_tls}"]
http = ["{http}"]
admin = "unix:{dir}/admin.sock"
[archive]
default = "{archive}"
[limits]
{GENEROUS}
[federation]
policy = "{policy}"
queue_seconds = {queue_seconds}
{limits}
[authorities]
system = false
file = "{authority}"
[dns]
refuse_networks = []
servers = ["{dns}"]
{anchor}
"#,
        c2s = ports.c2s,
        c2s_tls = ports.c2s_tls,
        s2s = ports.s2s,
        s2s_tls = ports.s2s_tls,
        http = ports.http,
        dns = plan.dns,
        authority = plan.authority.display(),
        queue_seconds = plan.queue_seconds,
        anchor = anchor.unwrap_or_default(),
        limits = if plan.generous { FREE } else { "" },
        // What is measured promises what it promises to people, and keeps no more than the others.
        durability = if plan.generous { "sync" } else { "buffered" },
        archive = if plan.generous { "never" } else { "always" },
    );
    for (domain, files) in &plan.domains {
        let (cert, key) = (files.cert.display(), files.key.display());
        let _ =
            write!(config, "[[domain]]\nname = \"{domain}\"\ncertificate = \"{cert}\"\nkey = \"{key}\"\n");
    }
    // What is confirmed is in the log: whoever loses a message is found by it.
    let level = if plan.generous { "warn" } else { "info,rookery_actors::link=trace" };
    let _ = write!(config, "[log]\nlevel = \"{level}\"\n");
    Ok(std::fs::write(plan.dir.join("rookery.toml"), config)?)
}

pub(super) fn command(plan: &Plan) -> Result<Command, Error> {
    let mut command = Command::new(binary()?);
    command.arg("serve").arg("--config").arg(plan.dir.join("rookery.toml")).current_dir(&plan.dir);
    Ok(command)
}

pub(super) fn add_users(plan: &Plan) -> Result<(), Error> {
    let mut text = String::new();
    for (user, domain) in accounts(plan) {
        let _ = writeln!(text, "{user}@{domain}\t{}", password());
    }
    let file = plan.dir.join("accounts.tsv");
    std::fs::write(&file, text)?;
    let mut command = std::process::Command::new(binary()?);
    command.args(["user", "import"]).arg(&file).arg("--config").arg(plan.dir.join("rookery.toml"));
    run(command.current_dir(&plan.dir)).map(drop)
}
