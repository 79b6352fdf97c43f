//! Rookery, for federation.

use std::fmt::Write as _;

use tokio::process::Command;

use super::server::{Plan, Proof, accounts, password};
use crate::server::rookery::{GENEROUS, binary};
use crate::server::{Error, run};

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
durability = "buffered"
[listen]
c2s = ["{c2s}"]
c2s_tls = ["{c2s_tls}"]
s2s = ["{s2s}"]
s2s_tls = ["{s2s_tls}"]
http = ["{http}"]
admin = "unix:{dir}/admin.sock"
[archive]
default = "always"
[limits]
{GENEROUS}
[federation]
policy = "{policy}"
queue_seconds = {queue_seconds}
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
    );
    for (domain, files) in &plan.domains {
        let (cert, key) = (files.cert.display(), files.key.display());
        let _ =
            write!(config, "[[domain]]\nname = \"{domain}\"\ncertificate = \"{cert}\"\nkey = \"{key}\"\n");
    }
    config.push_str(&plan.more);
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
