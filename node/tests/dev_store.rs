//! `rookery store` as a process, and what uses it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

fn rookery(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rookery"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

/// Killed when a test fails.
struct Server(Child);

impl Server {
    /// Starts it and returns its first line.
    fn start(folder: &Path, arguments: &[&str]) -> (Self, String) {
        let mut child = rookery(folder, arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line)
    }

    fn stop(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn address(line: &str) -> String {
    assert!(line.contains("for development and tests, not for production"), "{line}");
    line.split_whitespace().nth(3).unwrap().trim_end_matches(',').to_owned()
}

fn configure(folder: &Path, name: &str, address: &str) {
    let config = format!(
        "data_dir = '{name}'\n[store]\nurl = 'dev://{address}'\n[[domain]]\nname = 'localhost'\nself_signed = true\n[sasl]\niterations = 4096\n"
    );
    std::fs::write(folder.join(format!("{name}.toml")), config).unwrap();
}

fn user(folder: &Path, name: &str, arguments: &[&str]) -> Output {
    let config = format!("{name}.toml");
    rookery(folder, &[&["user"], arguments, &["--config", &config]].concat()).output().unwrap()
}

/// What one node's command writes, another's reads; also after the store was started again.
#[test]
fn accounts_are_shared_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arguments = ["store", "--listen", "127.0.0.1:0", "--data", "kept"];
    let (server, line) = Server::start(folder, &arguments);
    configure(folder, "one", &address(&line));
    configure(folder, "two", &address(&line));
    assert!(user(folder, "one", &["add", "romeo@localhost"]).status.success());
    assert_eq!(user(folder, "two", &["list"]).stdout, b"romeo@localhost\n");
    assert_eq!(user(folder, "two", &["add", "romeo@localhost"]).status.code(), Some(4));
    assert_eq!(server.stop(), Some(0));
    let (server, line) = Server::start(folder, &arguments);
    configure(folder, "two", &address(&line));
    assert_eq!(user(folder, "two", &["list"]).stdout, b"romeo@localhost\n");
    assert_eq!(server.stop(), Some(0));
}

/// A store that is not there is a sentence and exit code 6, not a wait without end.
#[test]
fn without_a_server_the_answer_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (server, line) = Server::start(folder.path(), &["store", "--listen", "127.0.0.1:0", "--memory"]);
    let address = address(&line);
    drop(server);
    configure(folder.path(), "one", &address);
    let output = user(folder.path(), "one", &["list"]);
    assert_eq!(output.status.code(), Some(6));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("the store did not answer") && error.contains("refused"), "{error}");
}
