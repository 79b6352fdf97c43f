//! A node whose process gets nothing more from the operating system: no room on the disk, no file descriptors. The node says so, keeps what
//! it has, and goes on when the cause is gone. Limits of the process stand for the disk: they can be given back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

const CONFIG: &str = "data_dir = 'data'\n[listen]\nc2s = ['127.0.0.1:0']\nc2s_tls = ['127.0.0.1:0']\nhttp = ['127.0.0.1:0']\n\
    [[domain]]\nname = 'localhost'\n[sasl]\niterations = 4096\n[limits]\nconnections_per_address = 10000\n\
    connections_before_login_per_address = 10000\nconnections_before_login = 10000\n";

/// A serving process, killed when a test fails.
struct Node {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Node {
    /// Starts one after some words to the shell.
    fn start(folder: &Path, before: &str, more: &str) -> Self {
        std::fs::write(folder.join("rookery.toml"), format!("{CONFIG}{more}")).unwrap();
        let mut command = Command::new("sh");
        let words = format!("{before}; exec \"$0\" serve --config rookery.toml");
        command.current_dir(folder).args(["-c", &words, env!("CARGO_BIN_EXE_rookery")]).stdin(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut node = Self { log: BufReader::new(child.stderr.take().unwrap()), child };
        node.until("serving");
        node
    }

    /// Reads the log up to a line that holds `needle`.
    fn until(&mut self, needle: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended before {needle:?}");
            if line.contains(needle) {
                return line;
            }
        }
    }

    /// Sets the process's own limit, and gives that before.
    fn limit(&self, resource: Resource, current: Option<u64>) -> Option<u64> {
        let pid = Some(Pid::from_child(&self.child));
        let maximum = prlimit(pid, resource, Rlimit { current, maximum: None });
        maximum.unwrap().current
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0), "{rest}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rookery"));
    command.current_dir(folder).args(arguments).args(["--config", "rookery.toml"]).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn add(folder: &Path, name: &str) -> Output {
    run(folder, &["user", "add", &format!("{name}@localhost")])
}

fn port(folder: &Path, name: &str) -> u16 {
    let json = std::fs::read_to_string(folder.join("data/ports.json")).unwrap();
    let list = json.split(&format!("\"{name}\":[")).nth(1).unwrap();
    list.split([']', ',']).next().unwrap().parse().unwrap()
}

fn ready(folder: &Path) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port(folder, "http"))).unwrap();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut node = Node::start(folder, "trap '' XFSZ", "");
    assert!(add(folder, "romeo").status.success());
    assert!(ready(folder).starts_with("HTTP/1.1 200"));

    node.limit(Resource::Fsize, Some(100));
    assert!(!add(folder, "juliet").status.success());
    node.until("a write to the store failed");
    let answer = ready(folder);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("store unavailable"), "{answer}");
    let status = text(&run(folder, &["status"]).stdout);
    assert!(status.contains("store unavailable"), "{status}");
    assert_eq!(text(&run(folder, &["user", "list"]).stdout), "romeo@localhost\n");

    node.limit(Resource::Fsize, None);
    node.until("the store accepts writes again");
    while !ready(folder).starts_with("HTTP/1.1 200") {
        std::thread::yield_now();
    }
    let added = add(folder, "mercutio");
    assert!(added.status.success(), "{}", text(&added.stderr));
    node.stop();
    let list = text(&run(folder, &["user", "list"]).stdout);
    assert!(list.contains("romeo@localhost\n") && list.contains("mercutio@localhost\n"), "{list}");
}

#[test]
fn a_disk_that_is_nearly_full_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let node = Node::start(folder, ":", "");
    assert!(add(folder, "romeo").status.success());
    node.stop();
    // More than any disk of a test has.
    let mut node = Node::start(folder, ":", "[store]\nfree_megabytes = 1000000\n");
    let refused = add(folder, "juliet");
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("nearly full"), "{}", text(&refused.stderr));
    let answer = ready(folder);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("store full"), "{answer}");
    node.child.kill().unwrap();
}

#[test]
fn connections_leave_descriptors_to_the_store_and_the_operator() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut node = Node::start(folder, "ulimit -n 200", "");
    let at = ("127.0.0.1", port(folder, "c2s"));
    let crowd: Vec<_> = (0..400).map(|_| TcpStream::connect(at).unwrap()).collect();
    node.until("connections cannot be accepted");
    let status = text(&run(folder, &["status"]).stdout);
    assert!(status.contains("ready"), "{status}");
    assert!(add(folder, "romeo").status.success());
    assert!(ready(folder).starts_with("HTTP/1.1 200"));
    drop(crowd);
    node.stop();
}

#[test]
fn the_store_is_its_users_alone_whatever_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let old = folder.join("data/store/rows");
    std::fs::create_dir_all(&old).unwrap();
    for path in [folder.join("data"), folder.join("data/store"), old] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut node = Node::start(folder, "umask 000", "");
    assert!(add(folder, "romeo").status.success());
    let (mut open, mut left) = (Vec::new(), vec![folder.join("data/store")]);
    while let Some(path) = left.pop() {
        let there = std::fs::metadata(&path).unwrap();
        if there.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        open.extend((there.permissions().mode() & 0o077 != 0).then_some(path));
    }
    assert!(open.is_empty(), "{open:?}");
    node.child.kill().unwrap();
}
