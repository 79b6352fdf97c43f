//! `rookery demo` as a user runs it after cloning this repository: a node is killed by a key, and nothing is left at the end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test code"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rookery_tests::client::{Client, Options, SM};
use rookery_tests::server::rookery::binary;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// What any step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// One after the other: two that look for free ports at the same time find the same ones.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Demo {
    child: Child,
    keys: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    said: String,
    begun: Instant,
}

impl Demo {
    fn start() -> Demo {
        let mut child = Command::new(binary().unwrap())
            .args(["demo", "--nodes", "3"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let keys = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Demo { child, keys, lines, said: String::new(), begun: Instant::now() }
    }

    /// Reads until a line has all of this.
    async fn says(&mut self, parts: &[&str]) -> String {
        loop {
            let next = timeout(PATIENCE, self.lines.next_line()).await;
            let line = next.unwrap_or_else(|_| panic!("never said {parts:?}:\n{}", self.said)).unwrap();
            let line = line.unwrap_or_else(|| panic!("ended without {parts:?}:\n{}", self.said));
            self.said.push_str(&line);
            self.said.push('\n');
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
        }
    }

    /// Reads until each of these was in a line.
    async fn says_in_any_order(&mut self, parts: &[&str]) {
        let mut left = parts.to_vec();
        while !left.is_empty() {
            let line = self.says(&[""]).await;
            left.retain(|part| !line.contains(part));
        }
    }

    /// Something has not gone well yet.
    fn patient(&self, error: &dyn std::fmt::Display) {
        assert!(self.begun.elapsed() < 3 * PATIENCE, "{error}:\n{}", self.said);
    }

    async fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).await.unwrap();
    }

    /// The address after this word at the beginning of a line, and the one after that.
    fn addresses(line: &str) -> [SocketAddr; 2] {
        let words = line.split([' ', ',', ';']).filter_map(|word| word.parse().ok());
        words.collect::<Vec<_>>().try_into().expect("two addresses")
    }
}

/// Waits until nobody listens there any more.
async fn closed(at: SocketAddr) {
    let give_up = Instant::now() + PATIENCE;
    while TcpStream::connect(at).await.is_ok() {
        assert!(Instant::now() < give_up, "somebody still listens at {at}");
        sleep(Duration::from_millis(50)).await; // another process: it gives no event
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed_by_a_key_and_a_client_goes_on() {
    let _alone = ALONE.lock().await;
    let mut demo = Demo::start();
    let [c2s, c2s_tls] = Demo::addresses(&demo.says(&["any node"]).await);
    let [n1, _] = Demo::addresses(&demo.says(&["  n1  "]).await);
    let authority = demo.says(&["  authority"]).await;
    let folder = Path::new(authority.split_whitespace().last().unwrap());
    let folder = folder.ancestors().nth(2).unwrap().to_owned();
    assert!(folder.join("n3.log").is_file(), "{}", folder.display());
    demo.says(&["every shard is where it belongs"]).await;

    // A client in front of the door does not care which node is behind it.
    let options = Options::new(c2s, c2s_tls, "localhost");
    let mut juliet = loop {
        match Client::login(&options, "juliet", "wherefore", "balcony").await {
            Ok(juliet) => break juliet,
            // The door looks for a node that is ready every now and then.
            Err(error) => demo.patient(&error),
        }
        sleep(Duration::from_millis(200)).await; // a client's pace
    };
    juliet.enable_sm(true, true).await.unwrap();
    juliet.available().await.unwrap();
    juliet.all_acked().await.unwrap();
    let lost = juliet.lose();

    demo.press("1").await;
    demo.says(&["n1 is killed (kill -9), with"]).await;
    closed(n1).await;
    demo.says(&["n1 is found dead, after"]).await;
    demo.says(&["all that was at home on n1 has a new home"]).await;
    let (mut juliet, answer) = loop {
        match Client::resume(&options, "juliet", "wherefore", lost.clone()).await {
            Ok(resumed) => break resumed,
            Err(error) => demo.patient(&error),
        }
        sleep(Duration::from_millis(200)).await; // a client's pace
    };
    assert!(answer.is("resumed", SM), "{answer}");
    juliet.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
    demo.press("1").await;
    demo.says_in_any_order(&["n1 is ready", "every shard is where it belongs"]).await;
    demo.press("d2").await;
    demo.says(&["n2 has drained and ended", "exit status: 0"]).await;
    demo.press("q").await;
    let status = timeout(PATIENCE, demo.child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}\n{}", demo.said);
    assert!(!folder.exists(), "{} is left", folder.display());
}

#[tokio::test]
async fn nothing_outlives_it() {
    let _alone = ALONE.lock().await;
    let mut demo = Demo::start();
    let places = [demo.says(&["  n1  "]).await, demo.says(&["  n3  "]).await];
    let authority = demo.says(&["  authority"]).await;
    demo.says(&["n1 is ready"]).await;
    demo.child.kill().await.unwrap();
    for place in places {
        closed(Demo::addresses(&place)[0]).await;
    }
    // Nobody is left to remove it.
    let authority = Path::new(authority.split_whitespace().last().unwrap());
    let _ = std::fs::remove_dir_all(authority.ancestors().nth(2).unwrap());
}
