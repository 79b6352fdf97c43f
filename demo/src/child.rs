//! The processes of a demonstration. None outlives it: each ends when its standard input does, whatever becomes of us.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Error;

/// The option that ties a process to its standard input; see [`tie`].
pub const TIED: &str = "--tied";

/// A process of this program.
pub struct Process(Child);

impl Process {
    /// Starts `rookery ARGUMENTS`; what it prints is added to `log`.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Result<Self, Error> {
        let file = |e| Error::file(log, e);
        let out = File::options().create(true).append(true).open(log).map_err(file)?;
        let err = out.try_clone().map_err(file)?;
        let child = Command::new(program)
            .arg(TIED)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            // Ctrl-C in the terminal is for us alone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        child.map(Self).map_err(|source| Error::Start { program: program.to_owned(), source })
    }

    /// kill -9.
    pub async fn kill(&mut self) {
        let _ = self.0.kill().await;
    }

    /// SIGTERM: it drains, and ends.
    pub fn terminate(&self) {
        let pid = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }
}

/// This very program.
pub fn program() -> Result<PathBuf, Error> {
    std::env::current_exe().map_err(|source| Error::Start { program: "rookery".into(), source })
}

/// Ends this process as soon as its standard input ends: its parent is gone. For [`TIED`].
pub fn tie() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        std::process::exit(1);
    });
}
