//! PostgreSQL as Debian ships it: a cluster of our own in a temporary folder, default settings.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::process::Command;

use super::{Error, Process, free_port, need_program, run};

/// A PostgreSQL cluster with the databases `prosody` and `ejabberd`, both owned by `bench`.
pub struct Postgres {
    pub process: Process,
    address: SocketAddr,
    _temp: TempDir,
}

impl Postgres {
    /// Makes and starts a cluster; as root it runs as user `postgres`, which it insists on.
    pub async fn start() -> Result<Postgres, Error> {
        let (initdb, postgres) = (need_program("initdb")?, need_program("postgres")?);
        let psql = need_program("psql")?;
        let temp = tempfile::Builder::new().prefix("pg-").tempdir()?;
        let data = temp.path().join("data");
        let root = Path::new("/root").metadata().is_ok()
            && run(std::process::Command::new("id").arg("-u"))?.trim() == "0";
        if root {
            run(std::process::Command::new("chown").arg("postgres").arg(temp.path()))?;
        }
        let wrap = |program: &Path| {
            if root {
                let mut command = std::process::Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
                command
            } else {
                std::process::Command::new(program)
            }
        };
        run(wrap(&initdb).arg("-D").arg(&data).args(["-A", "trust", "-U", "postgres", "-E", "UTF8"]))?;
        let address = free_port();
        let mut command = Command::from(wrap(&postgres));
        command
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-p"])
            .arg(address.port().to_string())
            .arg("-k")
            .arg(temp.path());
        let mut process = Process::start(
            "postgres",
            command,
            Path::new(&std::env::temp_dir().join(format!("pg-{}.log", address.port()))),
        )?;
        let sql = |database: &str, statement: &str| {
            run(std::process::Command::new(&psql)
                .args(["-h", "127.0.0.1", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-p"])
                .arg(address.port().to_string())
                .args(["-d", database, "-c", statement]))
        };
        // PostgreSQL accepts connections a moment before it answers queries.
        process.until(async || sql("postgres", "select 1").is_ok()).await?;
        let postgres = Postgres { process, address, _temp: temp };
        sql("postgres", "create role bench login password 'bench'")?;
        sql("postgres", "create database prosody owner bench")?;
        sql("postgres", "create database ejabberd owner bench")?;
        let schema = Path::new("/usr/share/ejabberd/sql/pg.sql");
        if schema.is_file() {
            run(std::process::Command::new(&psql)
                .args(["-h", "127.0.0.1", "-U", "bench", "-q", "-p"])
                .arg(address.port().to_string())
                .args(["-d", "ejabberd", "-f"])
                .arg(schema))?;
        }
        Ok(postgres)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Stops it as an operator would.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.process.signal("INT").await?;
        self.process.stop().await.map(drop)
    }
}
