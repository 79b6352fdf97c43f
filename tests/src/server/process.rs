//! A child process whose output goes to a file, and which never outlives us.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::Error;

/// How long a server may take to start or to stop before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; both its outputs are appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Process, Error> {
        let out = File::options().create(true).append(true).open(log)?;
        let err = out.try_clone()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).kill_on_drop(true);
        let child = command.spawn()?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` says yes. Files and ports of another program have no event to wait for: this asks.
    pub async fn until<F: Future<Output = bool>>(&mut self, ready: impl Fn() -> F) -> Result<(), Error> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            if ready().await {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::Failed(format!("{} ended with {status}\n{}", self.name, self.tail())));
            }
            if Instant::now() > give_up {
                return Err(Error::Failed(format!("{} is not getting ready\n{}", self.name, self.tail())));
            }
            sleep(Duration::from_millis(20)).await; // another process: it gives no event
        }
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<(), Error> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Result<ExitStatus, Error> {
        self.signal("TERM").await?;
        self.wait().await
    }

    /// Waits for the end.
    pub async fn wait(&mut self) -> Result<ExitStatus, Error> {
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.child.kill().await?;
                Err(Error::Failed(format!("{} did not stop\n{}", self.name, self.tail())))
            }
        }
    }

    /// Sends a signal by name, such as `HUP` or `STOP`.
    pub async fn signal(&self, signal: &str) -> Result<(), Error> {
        if let Some(pid) = self.pid() {
            Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().await?;
        }
        Ok(())
    }

    /// All that it has printed.
    pub fn output(&self) -> String {
        std::fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The last lines that it printed, for an error message.
    pub fn tail(&self) -> String {
        let all = self.output();
        let lines: Vec<&str> = all.lines().collect();
        let from = lines.len().saturating_sub(60);
        format!("--- the end of {} ---\n{}\n---", self.log.display(), lines[from..].join("\n"))
    }
}
