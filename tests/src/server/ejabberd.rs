//! ejabberd as Debian ships it, configured like Rookery.

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::postgres::Postgres;
use super::{Error, Listening, Process, certificate, free_port, need_program};
use crate::client::scram::{Hash, stored};

/// An ejabberd process and its folder.
pub struct Ejabberd {
    pub listening: Listening,
    pub process: Process,
    _temp: TempDir,
}

const MODULES: &str = "
  mod_blocking: {}
  mod_carboncopy: {}
  mod_client_state: {}
  mod_disco: {}
  mod_last: {}
  mod_offline:
    access_max_user_messages: 5000
  mod_ping: {}
  mod_privacy: {}
  mod_private: {}
  mod_register:
    ip_access: all
  mod_roster:
    versioning: true
  mod_stream_mgmt:
    resend_on_timeout: if_offline
  mod_time: {}
  mod_vcard: {}
  mod_version: {}
";

impl Ejabberd {
    /// Starts it for `localhost` with these accounts. With a PostgreSQL, XEP-0313 is on and kept there.
    pub async fn start<'a>(
        postgres: Option<&Postgres>,
        users: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Ejabberd, Error> {
        // ejabberdctl insists on a user of its own and on Erlang's distribution; a test needs neither.
        need_program("ejabberdctl")?;
        let program = need_program("erl")?;
        let temp = tempfile::Builder::new().prefix("ejabberd-").tempdir()?;
        let dir = temp.path();
        let (_, _, pem) = certificate(dir, "localhost")?;
        let (c2s, c2s_tls) = (free_port(), free_port());
        std::fs::write(dir.join("ejabberd.yml"), config(&pem, c2s.port(), c2s_tls.port(), postgres))?;
        std::fs::write(dir.join("users.eterm"), accounts(users))?;
        let load = format!(
            "{{ok, Users}} = file:consult(\"{}\"), \
             [mnesia:dirty_write(passwd, {{passwd, {{U, <<\"localhost\">>}}, {{scram, K, V, S, sha, I}}}}) \
             || {{U, K, V, S, I}} <- Users], file:write_file(\"{}\", <<>>).",
            dir.join("users.eterm").display(),
            dir.join("ready").display()
        );
        let command = erlang(&program, dir, &load);
        let mut process = Process::start("ejabberd", command, &dir.join("ejabberd.log"))?;
        let ready = dir.join("ready");
        process.until(async || ready.is_file() && TcpStream::connect(c2s_tls).await.is_ok()).await?;
        let listening = Listening { domain: "localhost".into(), c2s, c2s_tls, http: None };
        Ok(Ejabberd { listening, process, _temp: temp })
    }
}

/// The command that runs ejabberd from its folder, and `load` in it.
pub(crate) fn erlang(program: &Path, dir: &Path, load: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-noinput", "+K", "true", "+P", "250000", "+Q", "65536", "-mnesia", "dir"])
        .arg(format!("\"{}\"", dir.join("mnesia").display()))
        .args(["-s", "ejabberd", "-eval", load])
        .env("EJABBERD_CONFIG_PATH", dir.join("ejabberd.yml"))
        .env("EJABBERD_LOG_PATH", dir.join("ejabberd-own.log"))
        .env("ERL_LIBS", "/usr/lib/x86_64-linux-gnu")
        .env("HOME", dir)
        .current_dir(dir);
    command
}

fn config(pem: &Path, c2s: u16, c2s_tls: u16, postgres: Option<&Postgres>) -> String {
    let mut text = format!(
        "hosts:\n  - localhost\nloglevel: warning\ncertfiles:\n  - {}\nauth_password_format: scram\n\
         listen:\n  -\n    port: {c2s}\n    ip: 127.0.0.1\n    module: ejabberd_c2s\n    max_stanza_size: 262144\n    starttls_required: true\n\
         \x20 -\n    port: {c2s_tls}\n    ip: 127.0.0.1\n    module: ejabberd_c2s\n    max_stanza_size: 262144\n    tls: true\n",
        pem.display()
    );
    text.push_str("modules:");
    text.push_str(MODULES);
    if let Some(postgres) = postgres {
        let _ = write!(
            text,
            "  mod_mam:\n    default: always\n    db_type: sql\nsql_type: pgsql\nsql_server: 127.0.0.1\n\
             sql_port: {}\nsql_database: ejabberd\nsql_username: bench\nsql_password: bench\n",
            postgres.port()
        );
    }
    text
}

fn accounts<'a>(users: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let salt = b"salt-of-everyone";
    let mut known: Option<(&str, String, String)> = None;
    let mut text = String::new();
    for (jid, password) in users {
        let user = jid.split('@').next().unwrap_or(jid);
        if known.as_ref().is_none_or(|(p, ..)| *p != password) {
            let keys = stored(Hash::Sha1, password, salt, 4096);
            known = Some((password, B64.encode(keys.stored_key), B64.encode(keys.server_key)));
        }
        if let Some((_, stored_key, server_key)) = &known {
            let salt = B64.encode(salt);
            let _ = writeln!(
                text,
                "{{<<\"{user}\">>, <<\"{stored_key}\">>, <<\"{server_key}\">>, <<\"{salt}\">>, 4096}}."
            );
        }
    }
    text
}
