//! The program as a process: start, signals, exit codes, and what it leaves behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const CONFIG: &str = "data_dir = 'data'\n[listen]\nc2s = ['127.0.0.1:0']\nc2s_tls = ['127.0.0.1:0']\nhttp = ['127.0.0.1:0']\n\
    [[domain]]\nname = 'localhost'\n[sasl]\niterations = 4096\n";

fn rookery(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rookery"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    rookery(folder, arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A serving process, killed when a test fails.
struct Node {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Node {
    fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("rookery.toml"), CONFIG).unwrap();
        let mut node = Self::spawn(folder, &["serve", "--config", "rookery.toml"]);
        node.until("serving");
        node
    }

    /// Any command whose log is read.
    fn spawn(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = rookery(folder, arguments);
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { log: BufReader::new(child.stderr.take().unwrap()), child }
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

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> (i32, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), rest)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ports(folder: &Path, name: &str) -> u16 {
    let json = std::fs::read_to_string(folder.join("data/ports.json")).unwrap();
    let list = json.split(&format!("\"{name}\":[")).nth(1).unwrap();
    list.split([']', ',']).next().unwrap().parse().unwrap()
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn starts_serves_and_ends_properly() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path());
    let http = ports(folder.path(), "http");
    assert!(get(http, "/readyz").starts_with("HTTP/1.1 200"));
    assert!(get(http, "/metrics").contains("rookery_certificate_expiry_seconds{domain=\"localhost\"}"));

    let mut stream = TcpStream::connect(("127.0.0.1", ports(folder.path(), "c2s"))).unwrap();
    stream
        .write_all(b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>")
        .unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4_096];
    while !seen.contains("</stream:features>") {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0);
        seen.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }

    let added = run(folder.path(), &["user", "add", "romeo@localhost", "--config", "rookery.toml"]);
    assert!(added.status.success(), "{}", text(&added.stderr));
    let list = run(folder.path(), &["user", "list", "--config", "rookery.toml"]);
    assert_eq!(text(&list.stdout).trim(), "romeo@localhost");
    let status = text(&run(folder.path(), &["status", "--config", "rookery.toml"]).stdout);
    assert!(status.contains("ready") && status.contains("embedded (sync)"), "{status}");

    let config = CONFIG.replace("[sasl]", "[limits]\nstanza_bytes = 100000\n[log]\nlevel = 'debug'\n[sasl]");
    std::fs::write(folder.path().join("rookery.toml"), config).unwrap();
    node.signal(Signal::HUP);
    node.until("reloaded: limits: changed");
    std::fs::write(folder.path().join("rookery.toml"), "nonsense = 1").unwrap();
    node.signal(Signal::HUP);
    node.until("nothing changed");

    node.signal(Signal::TERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("<system-shutdown ") && rest.ends_with("</stream:stream>"), "{rest}");
    drop(stream);
    let (code, log) = node.end();
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("stopped"), "{log}");
    assert!(
        !folder.path().join("data/ports.json").exists() && !folder.path().join("data/admin.sock").exists()
    );
}

#[test]
fn one_node_for_a_folder_and_what_was_stored_stays() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rookery.toml"), CONFIG).unwrap();
    let offline = run(folder.path(), &["user", "add", "romeo@localhost", "--config", "rookery.toml"]);
    assert!(offline.status.success(), "{}", text(&offline.stderr));
    let node = Node::start(folder.path());
    let second = run(folder.path(), &["serve", "--config", "rookery.toml"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("a node with this store runs already"), "{}", text(&second.stderr));
    let list = run(folder.path(), &["user", "list", "--config", "rookery.toml"]);
    assert_eq!(text(&list.stdout).trim(), "romeo@localhost");
    node.signal(Signal::INT);
    assert_eq!(node.end().0, 0);
    // Killed without warning, it comes back, and a stale socket and ports file harm nobody.
    let node = Node::start(folder.path());
    node.signal(Signal::KILL);
    node.end();
    let node = Node::start(folder.path());
    node.signal(Signal::TERM);
    assert_eq!(node.end().0, 0);
}

/// As when both begin in the same second, or a command is at work on the folder when the node starts.
#[test]
fn a_store_that_somebody_has_open_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rookery.toml"), CONFIG).unwrap();
    std::fs::create_dir_all(folder.path().join("data/store")).unwrap();
    let lock = std::fs::File::create(folder.path().join("data/store/lock")).unwrap();
    lock.lock().unwrap();
    let add = ["user", "add", "romeo@localhost", "--config", "rookery.toml"];
    let mut command = Node::spawn(folder.path(), &add);
    let mut node = Node::spawn(folder.path(), &["serve", "--config", "rookery.toml"]);
    for waiting in [&mut command, &mut node] {
        let line = waiting.until("another process has the store in");
        assert!(line.contains("waiting until that process ends or answers at unix:"), "{line}");
    }
    drop(lock);
    let (code, log) = command.end();
    assert_eq!(code, 0, "{log}");
    node.until("serving");
    let list = run(folder.path(), &["user", "list", "--config", "rookery.toml"]);
    assert_eq!(text(&list.stdout).trim(), "romeo@localhost");
    node.signal(Signal::TERM);
    assert_eq!(node.end().0, 0);
}

/// A hook that renews certificates asks whether it worked.
#[test]
fn a_certificate_that_is_refused_fails_the_reload_and_what_runs_stays() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path());
    let write = |config: &str| std::fs::write(folder.path().join("rookery.toml"), config).unwrap();
    let reload = || run(folder.path(), &["reload", "--config", "rookery.toml"]);
    let fine = reload();
    assert!(fine.status.success(), "{}", text(&fine.stderr));

    let moved = CONFIG.replacen("127.0.0.1:0", "127.0.0.1:1", 1);
    write(&moved);
    for _ in 0..2 {
        let said = reload();
        assert!(said.status.success() && text(&said.stdout).contains("other addresses need a restart"));
    }
    write(CONFIG);
    assert!(!text(&reload().stdout).contains("restart"));

    for name in ["bad.pem", "bad.key"] {
        std::fs::write(folder.path().join(name), "nothing").unwrap();
    }
    let keys = "name = 'localhost'\ncertificate = 'bad.pem'\nkey = 'bad.key'";
    write(
        &CONFIG
            .replace("name = 'localhost'", keys)
            .replace("[sasl]", "[limits]\nstanza_bytes = 100000\n[sasl]"),
    );
    let refused = reload();
    let said = text(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    for part in ["localhost: the old certificate stays", "the rest: limits: changed"] {
        assert!(said.contains(part), "{said}");
    }
    let status = run(folder.path(), &["status", "--config", "rookery.toml"]);
    assert!(status.status.success());
    node.signal(Signal::TERM);
    assert_eq!(node.end().0, 0);
}

/// As a load balancer does every second or so.
#[test]
fn a_bare_look_at_a_proxied_port_is_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("[[domain]]", "proxy_protocol = true\n[[domain]]");
    std::fs::write(folder.path().join("rookery.toml"), config).unwrap();
    let mut node = Node::spawn(folder.path(), &["serve", "--config", "rookery.toml"]);
    node.until("serving");
    for listener in ["c2s", "c2s_tls"] {
        drop(TcpStream::connect(("127.0.0.1", ports(folder.path(), listener))).unwrap());
    }
    // Behind the two in time, and worth a line.
    let mut wrong = TcpStream::connect(("127.0.0.1", ports(folder.path(), "c2s"))).unwrap();
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let _ = wrong.read(&mut [0; 16]);
    let line = node.until("connection refused");
    assert!(line.contains("no PROXY header"), "{line}");
    node.signal(Signal::TERM);
    let (code, log) = node.end();
    assert!(code == 0 && !log.contains("connection refused"), "{log}");
}

#[test]
fn what_has_no_login_stays_on_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(folder.path(), &["store", "--memory", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--off-loopback"), "{}", text(&refused.stderr));
}

#[test]
fn check_and_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let development = run(folder.path(), &["check"]);
    assert!(development.status.success());
    assert!(
        text(&development.stdout).contains("127.0.0.1:5222") && text(&development.stdout).ends_with("ok\n")
    );
    assert!(!folder.path().join("rookery-data").exists(), "check changes nothing");

    let example = run(folder.path(), &["check", "--example", "--config", "none.toml"]);
    assert!(example.status.success() && text(&example.stdout).contains("\n#stanza_bytes = "));
    std::fs::write(folder.path().join("example.toml"), &example.stdout).unwrap();
    let checked = run(folder.path(), &["check", "--config", "example.toml"]);
    assert!(text(&checked.stdout).ends_with("ok\n"), "{}", text(&checked.stderr));

    std::fs::write(folder.path().join("bad.toml"), "colour = 1\n[[domain]]\nname = ''\n").unwrap();
    let bad = run(folder.path(), &["check", "--config", "bad.toml"]);
    assert_eq!(bad.status.code(), Some(5));
    let errors = text(&bad.stderr);
    assert!(errors.contains("line 1: colour") && errors.contains("line 3: domain.name"), "{errors}");
    assert_eq!(run(folder.path(), &["check", "--config", "none.toml"]).status.code(), Some(5));

    std::fs::write(folder.path().join("rookery.toml"), CONFIG).unwrap();
    let lonely = run(folder.path(), &["session", "list", "--config", "rookery.toml"]);
    assert_eq!(lonely.status.code(), Some(6));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = CONFIG.replacen("127.0.0.1:0", &taken.local_addr().unwrap().to_string(), 1);
    std::fs::write(folder.path().join("rookery.toml"), config).unwrap();
    let busy = run(folder.path(), &["serve", "--config", "rookery.toml"]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(text(&busy.stderr).contains("another program listens there"), "{}", text(&busy.stderr));
}

/// A TLS client of the node's own authority, with this protocol in ALPN.
fn https(folder: &Path, port: u16, alpn: &[u8], path: &str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("data/tls/ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(tls, TcpStream::connect(("127.0.0.1", port)).unwrap());
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn https_has_the_domains_certificates_and_shows_no_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let config = CONFIG.replace("[listen]\n", "[listen]\nhttps = ['127.0.0.1:0']\n");
    std::fs::write(folder.path().join("rookery.toml"), config).unwrap();
    let mut node = Node::spawn(folder.path(), &["serve", "--config", "rookery.toml"]);
    assert!(node.until("serving").contains("https 127.0.0.1:"));
    let port = ports(folder.path(), "https");
    let answer = https(folder.path(), port, b"http/1.1", "/readyz").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ready\n"), "{answer}");
    assert!(https(folder.path(), port, b"http/1.1", "/metrics").unwrap().starts_with("HTTP/1.1 404"));
    assert!(https(folder.path(), port, b"xmpp-client", "/readyz").is_err());
    // In the clear there is nothing.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    node.signal(Signal::TERM);
    assert_eq!(node.end().0, 0);
}
