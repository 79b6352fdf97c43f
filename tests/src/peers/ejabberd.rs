//! ejabberd as Debian ships it, for federation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use tokio::process::Command;

use super::server::{Plan, Proof, accounts, log_level, password};
use crate::client::scram::{Hash, stored};
use crate::server::ejabberd::erlang;
use crate::server::{Error, need_program};

pub(super) fn prepare(plan: &Plan) -> Result<(), Error> {
    let (starttls, dialback) = match plan.proof {
        Proof::Certificate | Proof::Dane => ("required", ""),
        Proof::Dialback => ("required", "  mod_s2s_dialback: {}"),
        Proof::Clear => ("false", "  mod_s2s_dialback: {}"),
    };
    let direct = match plan.proof {
        Proof::Clear => String::new(),
        _ => format!(
            "  -\n    port: {}\n    ip: 127.0.0.1\n    module: ejabberd_s2s_in\n    max_stanza_size: 524288\n    tls: true\n",
            plan.ports.s2s_tls.port()
        ),
    };
    let values: BTreeMap<&str, String> = BTreeMap::from([
        ("c2s", plan.ports.c2s.port().to_string()),
        ("c2s_tls", plan.ports.c2s_tls.port().to_string()),
        ("s2s", plan.ports.s2s.port().to_string()),
        ("level", log_level(plan)),
        ("starttls", starttls.into()),
        ("dialback", dialback.into()),
        ("direct", direct),
        ("ca", plan.authority.display().to_string()),
    ]);
    let mut config = super::filled(include_str!("ejabberd.yml"), &values);
    config.push_str("hosts:\n");
    for (domain, _) in &plan.domains {
        let _ = writeln!(config, "  - {domain}");
    }
    config.push_str("certfiles:\n");
    let mut files: Vec<_> = plan.domains.iter().map(|(_, files)| &files.both).collect();
    files.dedup();
    for file in files {
        let _ = writeln!(config, "  - {}", file.display());
    }
    std::fs::write(plan.dir.join("ejabberd.yml"), config)?;
    // Erlang's own resolver asks the test's DNS server, and nobody else.
    let resolver = format!(
        "{{lookup, [dns]}}.\n{{resolv_conf, \"\"}}.\n{{hosts_file, \"\"}}.\n{{nameserver, {{127,0,0,1}}, {}}}.\n\
         {{cache_size, 0}}.\n{{timeout, 1000}}.\n{{retry, 2}}.\n",
        plan.dns.port()
    );
    std::fs::write(plan.dir.join("inetrc"), resolver)?;
    // Addresses it takes from the C library, past Erlang's resolver. There every host of the test is 127.0.0.1.
    std::fs::write(plan.dir.join("hosts"), format!("127.0.0.1 localhost {}\n", plan.hosts.join(" ")))?;
    let keys = stored(Hash::Sha1, password(), b"salt-of-everyone", 4096);
    let (stored_key, server_key) = (B64.encode(keys.stored_key), B64.encode(keys.server_key));
    let salt = B64.encode(b"salt-of-everyone");
    let mut users = String::new();
    for (user, domain) in accounts(plan) {
        let _ = writeln!(
            users,
            "{{<<\"{user}\">>, <<\"{domain}\"/utf8>>, <<\"{stored_key}\">>, <<\"{server_key}\">>, <<\"{salt}\">>, 4096}}."
        );
    }
    Ok(std::fs::write(plan.dir.join("users.eterm"), users)?)
}

/// The file that exists as soon as the accounts do.
pub(super) fn ready_file(plan: &Plan) -> PathBuf {
    plan.dir.join("ready")
}

pub(super) fn command(plan: &Plan) -> Result<Command, Error> {
    need_program("ejabberdctl")?;
    let dir = &plan.dir;
    let _ = std::fs::remove_file(ready_file(plan));
    let load = format!(
        "{{ok, Users}} = file:consult(\"{}\"), \
         [mnesia:dirty_write(passwd, {{passwd, {{U, D}}, {{scram, K, V, S, sha, I}}}}) \
         || {{U, D, K, V, S, I}} <- Users], file:write_file(\"{}\", <<>>).",
        dir.join("users.eterm").display(),
        ready_file(plan).display()
    );
    let mut command = erlang(&need_program("erl")?, dir, &load);
    command
        .env("ERL_INETRC", dir.join("inetrc"))
        .env("LD_PRELOAD", need_file("libnss_wrapper.so")?)
        .env("NSS_WRAPPER_HOSTS", dir.join("hosts"));
    Ok(command)
}

/// Where Debian's libnss-wrapper lies.
fn need_file(name: &str) -> Result<PathBuf, Error> {
    let folder = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let file = PathBuf::from(folder).join(name);
    if file.is_file() { Ok(file) } else { Err(Error::Missing(name.to_owned())) }
}
