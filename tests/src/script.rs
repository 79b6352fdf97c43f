//! Scripts in Python that drive a server, as tests: exit code 0 passes, 77 skips.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::harness::Outcome;
use crate::server::Listening;

/// What a script may take in all.
const PATIENCE: Duration = Duration::from_secs(180);

/// The interpreter that the environment variable `given` names, else the one that `cargo xtask test` has made in
/// `target/<folder>`, if it is there.
pub fn python(folder: &str, given: &str) -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(folder).join("bin/python");
    std::env::var_os(given).map(PathBuf::from).or_else(|| made.is_file().then_some(made))
}

/// The command that runs a script against a server: address, ports and domain are its arguments.
pub fn command(python: &Path, script: &Path, listening: &Listening) -> Command {
    let mut command = Command::new(python);
    command
        .arg(script)
        .arg(listening.c2s.ip().to_string())
        .arg(listening.c2s.port().to_string())
        .arg(listening.c2s_tls.port().to_string())
        .arg(&listening.domain)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .kill_on_drop(true);
    command
}

/// Runs it. `log` is asked for the server's log if the script fails.
pub async fn play(mut command: Command, log: impl Fn() -> String) -> Outcome {
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Outcome::Failed(e.to_string()),
        Err(_) => return Outcome::Failed(format!("{:?} does not end", command.as_std())),
    };
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Outcome::Passed,
        Some(77) => Outcome::Skipped(text.trim().to_owned()),
        code => Outcome::Failed(format!("exit code {code:?}\n{text}\n{}", log())),
    }
}
