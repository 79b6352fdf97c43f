//! Three nodes, and another server: the node that has the link is killed while people talk to that server.
//!
//! The link comes back on another node, resumes the other server's stream there (XEP-0198), and goes on: nothing that was acknowledged is
//! lost, each sender's order is kept, and nothing comes twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rookery_tests::client::{Client, Error, Event, Options, SM};
use rookery_tests::peers::{Authority, Kind};
use rookery_tests::server::rookery::{Config, Rookery, binary};
use rookery_tests::server::{Process, free_port, run};
use rookery_tests::xml::Element;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const NEAR: &str = "near.example";
const FAR: &str = "far.example";
const PASSWORD: &str = "secret";
const SENDERS: usize = 6;
/// Messages of one sender.
const COUNT: usize = 300;
/// What a sender is ahead of the acknowledgements.
const AHEAD: usize = 40;
/// Only how long a failing test hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// The server that others talk to.
async fn far(authority: &Authority, s2s: SocketAddr) -> Rookery {
    let config = Config {
        listen: format!("s2s = [\"{s2s}\"]"),
        more: federation(authority, FAR),
        ..Config::default()
    };
    let far = Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"));
    far.add_users([(format!("juliet@{FAR}").as_str(), PASSWORD)]).unwrap();
    far
}

/// The domain with its certificate, and how its server and others prove themselves.
fn federation(authority: &Authority, domain: &str) -> String {
    let files = authority.issue(&[domain], Kind::Valid).unwrap_or_else(|e| panic!("{e}"));
    format!(
        "[federation]\npolicy = \"certificate\"\n[authorities]\nsystem = false\nfile = \"{}\"\n\
         [dns]\nrefuse_networks = []\n[log]\nlevel = \"info,rookery_actors::link=debug\"\n\
         [[domain]]\nname = \"{domain}\"\ncertificate = \"{}\"\nkey = \"{}\"\n",
        authority.file().display(),
        files.cert.display(),
        files.key.display()
    )
}

/// The nodes of one deployment, which know by a route where the other server is.
async fn near(dir: &Path, authority: &Authority, store: &str, to: SocketAddr) -> Vec<Rookery> {
    let keys = dir.join("keys");
    let common = federation(authority, NEAR);
    let mut nodes = Vec::new();
    for name in ["n1", "n2", "n3"] {
        let mut cert = std::process::Command::new(binary().unwrap());
        run(cert.args(["cluster", "cert", "--node", name, "--dir"]).arg(&keys))
            .unwrap_or_else(|e| panic!("{e}"));
        let folder = keys.display();
        let more = format!(
            "{common}[[route]]\ndomain = \"{FAR}\"\nvia = \"{to}\"\n[cluster]\nnode = \"{name}\"\nlisten = \"127.0.0.1:0\"\n\
             authority = \"{folder}/cluster_ca.pem\"\ncertificate = \"{folder}/{{node}}.pem\"\nkey = \"{folder}/{{node}}.key\""
        );
        let listen = format!("s2s = [\"{}\"]", free_port());
        let config = Config { store: store.to_owned(), listen, more, ..Config::default() };
        nodes.push(Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}")));
    }
    nodes
}

async fn store(dir: &Path) -> (Process, String) {
    let mut command = Command::new(binary().unwrap());
    command.args(["store", "--memory", "--listen", "127.0.0.1:0"]);
    let log = dir.join("store.log");
    let mut store = Process::start("store", command, &log).unwrap();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    store.until(async || said().contains("rookery store at ")).await.unwrap_or_else(|e| panic!("{e}"));
    let said = said();
    let at = said.split("rookery store at ").nth(1).unwrap().split(',').next().unwrap();
    (store, format!("dev://{at}"))
}

/// A user of the deployment, who writes to the other server and comes back by another node whenever the stream ends.
struct Sender {
    number: usize,
    nodes: Vec<Options>,
    /// What came back, and why.
    bounced: BTreeMap<usize, String>,
}

impl Sender {
    fn name(&self) -> String {
        format!("romeo{}", self.number)
    }

    async fn begin(&self) -> Result<Client, Error> {
        let options = &self.nodes[self.number % self.nodes.len()];
        let mut client = Client::login(options, &self.name(), PASSWORD, "here").await?;
        client.enable_sm(true, true).await?;
        client.available().await?;
        client.all_acked().await?;
        Ok(client)
    }

    /// Sends all its messages; then the last one again and again, until it is told that it has arrived.
    async fn talk(mut self, mut client: Client, mut over: watch::Receiver<bool>) -> Sender {
        let mut at = 0;
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let mut last = tokio::time::interval(Duration::from_secs(1));
        loop {
            let sm = &client.sm;
            let room = at < COUNT && sm.unacked.len() < AHEAD;
            let step: Result<(), Error> = tokio::select! {
                _ = over.changed() => return self,
                event = client.fresh() => match event {
                    Ok(Event::Element(element)) => {
                        self.heard(&element);
                        Ok(())
                    }
                    Ok(Event::Close | Event::End) => Err(Error::Closed("more".into())),
                    Err(error) => Err(error),
                },
                _ = tick.tick(), if room => {
                    at += 1;
                    let id = format!("{}-{}", self.number, at - 1);
                    say(&mut client, &id).await
                }
                _ = last.tick() => {
                    if at == COUNT && client.sm.unacked.is_empty() {
                        let id = format!("{}-last", self.number);
                        say(&mut client, &id).await
                    } else {
                        client.send_raw(format!("<r xmlns='{SM}'/>").as_bytes()).await
                    }
                }
            };
            if step.is_err() {
                client = self.come_back(client).await;
            }
        }
    }

    fn heard(&mut self, element: &Element) {
        let number = || element.attr("id")?.split_once('-')?.1.parse().ok();
        if element.attr("type") == Some("error")
            && let Some(number) = number()
        {
            self.bounced.insert(number, element.to_string());
        }
    }

    async fn come_back(&mut self, client: Client) -> Client {
        let lost = client.lose();
        let (begun, name) = (Instant::now(), self.name());
        for options in self.nodes.clone().iter().cycle() {
            assert!(begun.elapsed() < PATIENCE, "{name} does not come back");
            let again = Client::resume(options, &name, PASSWORD, lost.clone());
            match timeout(Duration::from_secs(20), again).await {
                Ok(Ok((mut client, answer))) if answer.is("resumed", SM) => {
                    client.sm.automatic = true;
                    while let Some(element) = client.kept.pop_front() {
                        self.heard(&element);
                    }
                    return client;
                }
                // As long as nobody can say whether there is a session, the stream ends.
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
        unreachable!("there are nodes")
    }
}

async fn say(client: &mut Client, id: &str) -> Result<(), Error> {
    let text = format!("<message to='juliet@{FAR}' type='chat' id='{id}'><body>{id}</body></message>");
    client.send(&text).await?;
    client.send_raw(format!("<r xmlns='{SM}'/>").as_bytes()).await
}

/// What the other server's user has got, in order: of each sender its numbers.
#[derive(Default)]
struct Got {
    of: BTreeMap<usize, Vec<usize>>,
    ended: BTreeSet<usize>,
}

impl Got {
    fn take(&mut self, element: &Element) {
        let Some((sender, number)) = element.attr("id").and_then(|id| id.split_once('-')) else { return };
        let Ok(sender) = sender.parse() else { return };
        match number.parse() {
            Ok(number) => self.of.entry(sender).or_default().push(number),
            Err(_) => drop(self.ended.insert(sender)),
        }
    }

    fn all(&self) -> usize {
        self.of.values().map(Vec::len).sum()
    }
}

/// The node whose log says that it has opened the stream, among those.
fn home(nodes: &[Rookery], but: Option<usize>) -> Option<usize> {
    let has = |node: &Rookery| {
        let log = node.whole_log();
        log.lines().any(|line| line.contains("a stream to another server is open "))
    };
    (0..nodes.len()).find(|at| Some(*at) != but && has(&nodes[*at]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_survives_the_node_that_has_it() {
    let dir = tempfile::Builder::new().prefix("rookery-link-").tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("certificates")).unwrap_or_else(|e| panic!("{e}"));
    let s2s = free_port();
    let far = far(&authority, s2s).await;
    let (_store, url) = store(dir.path()).await;
    let mut nodes = near(dir.path(), &authority, &url, s2s).await;
    let users: Vec<String> = (0..SENDERS).map(|n| format!("romeo{n}@{NEAR}")).collect();
    nodes[0].add_users(users.iter().map(|user| (user.as_str(), PASSWORD))).unwrap();
    let options =
        |node: &Rookery, domain: &str| Options::new(node.listening.c2s, node.listening.c2s_tls, domain);
    let places: Vec<Options> = nodes.iter().map(|node| options(node, NEAR)).collect();

    let mut juliet = Client::login(&options(&far, FAR), "juliet", PASSWORD, "balcony").await.unwrap();
    juliet.available().await.unwrap();
    let (over, ends) = watch::channel(false);
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        let sender = Sender { number, nodes: places.clone(), bounced: BTreeMap::new() };
        let client = sender.begin().await.unwrap_or_else(|e| panic!("{}: {e}", sender.name()));
        senders.spawn(sender.talk(client, ends.clone()));
    }

    let mut got = Got::default();
    let mut killed = None;
    let logs = |nodes: &[Rookery]| nodes.iter().map(Rookery::log).collect::<Vec<_>>().join("\n---\n");
    while got.ended.len() < SENDERS {
        let event = timeout(PATIENCE, juliet.fresh()).await;
        match event.unwrap_or_else(|_| panic!("nothing comes any more\n{}", logs(&nodes))).unwrap() {
            Event::Element(element) if element.name == "message" => got.take(&element),
            Event::Element(_) => {}
            Event::Close | Event::End => panic!("the other server has ended\n{}", far.log()),
        }
        if killed.is_none() && got.all() >= SENDERS * COUNT / 3 {
            let node = home(&nodes, None).expect("a node has the link");
            nodes[node].kill().await.unwrap();
            killed = Some(node);
        }
    }
    over.send_replace(true);
    let killed = killed.expect("a node was killed");
    let after = home(&nodes, Some(killed)).expect("the link came back");
    let log = nodes[after].whole_log();
    let opened: Vec<&str> =
        log.lines().filter(|l| l.contains("a stream to another server is open ")).collect();
    println!("n{} was killed; on n{}: {}", killed + 1, after + 1, opened.join("\n"));

    for sender in senders.join_all().await {
        let numbers = got.of.remove(&sender.number).unwrap_or_default();
        let different: BTreeSet<usize> = numbers.iter().copied().collect();
        let bounced: BTreeSet<usize> = sender.bounced.keys().copied().collect();
        let lost: Vec<usize> =
            (0..COUNT).filter(|n| !different.contains(n) && !bounced.contains(n)).collect();
        let both: Vec<&usize> = different.intersection(&bounced).collect();
        println!("{}: {} delivered, bounced {:?}", sender.name(), numbers.len(), sender.bounced);
        assert!(lost.is_empty(), "{}: lost {lost:?}\n{}", sender.name(), logs(&nodes));
        assert!(both.is_empty(), "{}: delivered and bounced {both:?}", sender.name());
        assert!(numbers.is_sorted(), "{}: not in order: {numbers:?}", sender.name());
        assert_eq!(numbers.len(), different.len(), "{}: twice: {numbers:?}", sender.name());
    }
    assert!(opened.iter().any(|line| line.contains("resumed=true")), "{}", opened.join("\n"));
}
