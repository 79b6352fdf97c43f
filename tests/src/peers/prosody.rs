//! Prosody as Debian ships it, for federation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tokio::process::Command;

use super::server::{Plan, Proof, accounts, log_level, password};
use crate::client::scram::{Hash, stored};
use crate::server::prosody::encoded;
use crate::server::{Error, need_program};

pub(super) fn prepare(plan: &Plan) -> Result<(), Error> {
    let (_, first) = plan.domains.first().ok_or_else(|| Error::Failed("no domain".into()))?;
    let dir = plan.dir.display();
    let (enabled, disabled, proof) = match plan.proof {
        Proof::Certificate => ("", "", "s2s_require_encryption = true s2s_secure_auth = true"),
        Proof::Dane => ("", "", "s2s_require_encryption = true s2s_secure_auth = true use_dane = true"),
        Proof::Dialback => ("\"dialback\"", "", "s2s_require_encryption = true s2s_secure_auth = false"),
        // Clients need TLS; `s2s_allow_encryption` is for servers.
        Proof::Clear => (
            "\"dialback\"",
            "",
            "s2s_require_encryption = false s2s_secure_auth = false s2s_allow_encryption = false",
        ),
    };
    let anchor = plan.anchor.as_ref().map(|file| format!("trustfile = \"{}\";", file.display()));
    let values: BTreeMap<&str, String> = BTreeMap::from([
        ("dir", dir.to_string()),
        ("c2s", plan.ports.c2s.port().to_string()),
        ("c2s_tls", plan.ports.c2s_tls.port().to_string()),
        ("s2s", plan.ports.s2s.port().to_string()),
        ("s2s_tls", plan.ports.s2s_tls.port().to_string()),
        ("dns", plan.dns.port().to_string()),
        ("level", log_level(plan).replace("warning", "warn")),
        ("enabled", enabled.into()),
        ("disabled", disabled.into()),
        ("proof", proof.into()),
        ("anchor", anchor.unwrap_or_default()),
        ("cert", first.cert.display().to_string()),
        ("key", first.key.display().to_string()),
        ("ca", plan.authority.display().to_string()),
    ]);
    let mut config = super::filled(include_str!("prosody.cfg.lua"), &values);
    for (domain, files) in &plan.domains {
        let (cert, key, ca) = (files.cert.display(), files.key.display(), plan.authority.display());
        let ssl = format!("{{ certificate = \"{cert}\", key = \"{key}\", cafile = \"{ca}\" }}");
        // The port with TLS from the first byte has a name of its own for that option.
        let _ = writeln!(config, "VirtualHost \"{domain}\"\n\tssl = {ssl}\n\ts2s_direct_tls_ssl = {ssl}");
    }
    std::fs::write(plan.dir.join("prosody.cfg.lua"), config)?;
    let keys = stored(Hash::Sha1, password(), b"salt-of-everyone", 4096);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let account = format!(
        "return {{\n\t[\"iteration_count\"] = 4096;\n\t[\"salt\"] = \"salt-of-everyone\";\n\
         \t[\"stored_key\"] = \"{}\";\n\t[\"server_key\"] = \"{}\";\n}};\n",
        hex(&keys.stored_key),
        hex(&keys.server_key)
    );
    for (user, domain) in accounts(plan) {
        let folder = plan.dir.join("data").join(encoded(&domain)).join("accounts");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{}.dat", encoded(&user))), &account)?;
    }
    Ok(())
}

pub(super) fn command(plan: &Plan) -> Result<Command, Error> {
    let mut command = Command::new(need_program("prosody")?);
    command.arg("-F").arg("--config").arg(plan.dir.join("prosody.cfg.lua")).current_dir(&plan.dir);
    Ok(command)
}
