//! Prosody as Debian ships it, configured like Rookery.

use std::fmt::Write as _;
use std::path::PathBuf;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::postgres::Postgres;
use super::{Error, Listening, Process, certificate, free_port, need_program};
use crate::client::scram::{Hash, stored};

/// A Prosody process and its folder.
pub struct Prosody {
    pub listening: Listening,
    pub process: Process,
    data: PathBuf,
    _temp: TempDir,
}

const MODULES: &[&str] = &[
    "roster",
    "saslauth",
    "tls",
    "disco",
    "carbons",
    "private",
    "blocklist",
    "vcard",
    "version",
    "uptime",
    "time",
    "ping",
    "register",
    "csi_simple",
    "offline",
    "smacks",
    "lastactivity",
];

impl Prosody {
    /// Starts it for `localhost`. With `archive`, XEP-0313 is on, in PostgreSQL if one is given.
    pub async fn start(archive: bool, postgres: Option<&Postgres>) -> Result<Prosody, Error> {
        let program = need_program("prosody")?;
        let temp = tempfile::Builder::new().prefix("prosody-").tempdir()?;
        let dir = temp.path();
        let (cert, key, _) = certificate(dir, "localhost")?;
        let data = dir.join("data");
        std::fs::create_dir_all(data.join("localhost/accounts"))?;
        let (c2s, c2s_tls) = (free_port(), free_port());
        let mut config = String::new();
        let _ = write!(
            config,
            "pidfile = '{dir}/prosody.pid'\nrun_as_root = true\ndata_path = '{dir}/data'\n\
             interfaces = {{ '127.0.0.1' }}\nc2s_ports = {{ {} }}\nc2s_direct_tls_ports = {{ {} }}\n\
             http_ports = {{}}\nhttps_ports = {{}}\ns2s_ports = {{}}\nmodules_disabled = {{ 's2s', 's2s_auth_certs' }}\n\
             modules_enabled = {{ {}{} }}\nallow_registration = true\nauthentication = 'internal_hashed'\n\
             c2s_require_encryption = true\nunlimited_jids = {{}}\n\
             ssl = {{ certificate = '{}', key = '{}', protocol = 'tlsv1_2+' }}\n\
             log = {{ warn = '*console' }}\nstorage = 'internal'\ndefault_archive_policy = true\n",
            c2s.port(),
            c2s_tls.port(),
            MODULES.iter().map(|m| format!("'{m}'; ")).collect::<String>(),
            if archive { "'mam'; " } else { "" },
            cert.display(),
            key.display(),
            dir = dir.display(),
        );
        if let Some(postgres) = postgres {
            let _ = write!(
                config,
                "storage = {{ archive = 'sql' }}\nsql = {{ driver = 'PostgreSQL', database = 'prosody', \
                 username = 'bench', password = 'bench', host = '127.0.0.1', port = {} }}\n",
                postgres.port()
            );
        }
        config.push_str("VirtualHost 'localhost'\n");
        let file = dir.join("prosody.cfg.lua");
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("-F").arg("--config").arg(&file).current_dir(dir);
        let mut process = Process::start("prosody", command, &dir.join("prosody.log"))?;
        process.until(async || TcpStream::connect(c2s_tls).await.is_ok()).await?;
        let listening = Listening { domain: "localhost".into(), c2s, c2s_tls, http: None };
        Ok(Prosody { listening, process, data, _temp: temp })
    }

    /// Writes account files; the running server finds them at the next login.
    pub fn add_users<'a>(&self, users: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), Error> {
        // One salt for all: making 20,000 keys is not what is measured.
        let salt = "salt-of-everyone";
        let mut known: Option<(&str, String)> = None;
        for (jid, password) in users {
            let user = jid.split('@').next().unwrap_or(jid);
            if known.as_ref().is_none_or(|(p, _)| *p != password) {
                let keys = stored(Hash::Sha1, password, salt.as_bytes(), 10_000);
                let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
                let text = format!(
                    "return {{\n\t[\"iteration_count\"] = 10000;\n\t[\"salt\"] = \"{salt}\";\n\
                     \t[\"stored_key\"] = \"{}\";\n\t[\"server_key\"] = \"{}\";\n}};\n",
                    hex(&keys.stored_key),
                    hex(&keys.server_key)
                );
                known = Some((password, text));
            }
            if let Some((_, text)) = &known {
                std::fs::write(self.data.join(format!("localhost/accounts/{}.dat", encoded(user))), text)?;
            }
        }
        Ok(())
    }
}

/// How Prosody names a user's file, or a domain's folder.
pub(crate) fn encoded(user: &str) -> String {
    user.bytes()
        .map(|b| match b.is_ascii_alphanumeric() {
            true => char::from(b).to_string(),
            false => format!("%{b:02x}"),
        })
        .collect()
}
