//! Nodes as an operator sees them: real processes on one store, with certificates, drained, killed, evicted, cut off.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::path::Path;
use std::time::Duration;

use rookery_tests::client::{Client, Event, Lost, SM};
use rookery_tests::server::rookery::{Config, Rookery, binary, get};
use rookery_tests::server::{Error, Process, run};
use rookery_tests::xml;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const SHARDS: usize = 1024;

/// A store in memory and the nodes on it.
struct World {
    store: Process,
    url: String,
    nodes: Vec<Rookery>,
    dir: tempfile::TempDir,
}

impl World {
    async fn start(nodes: usize) -> World {
        let dir = tempfile::Builder::new().prefix("rookery-cluster-").tempdir().unwrap();
        let mut command = Command::new(binary().unwrap());
        command.args(["store", "--memory", "--listen", "127.0.0.1:0"]);
        let log = dir.path().join("store.log");
        let mut store = Process::start("store", command, &log).unwrap();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        store.until(async || said().contains("rookery store at ")).await.unwrap_or_else(|e| panic!("{e}"));
        let said = said();
        let at = said.split("rookery store at ").nth(1).unwrap().split(',').next().unwrap();
        let mut world = World { store, url: format!("dev://{at}"), nodes: Vec::new(), dir };
        for number in 1..=nodes {
            world.join(&format!("n{number}")).await;
        }
        world
    }

    /// Another node; it is ready when this returns.
    async fn join(&mut self, name: &str) {
        let keys = self.dir.path().join("keys");
        let mut cert = std::process::Command::new(binary().unwrap());
        run(cert.args(["cluster", "cert", "--node", name, "--dir"]).arg(&keys))
            .unwrap_or_else(|e| panic!("{e}"));
        let config = Config { store: self.url.clone(), more: section(name, &keys), ..Config::default() };
        let node = Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"));
        self.nodes.push(node);
    }

    /// Name, state and number of shards of each node, as that one sees them.
    fn rows(&self, asked: usize) -> Vec<(String, String, usize)> {
        let text = self.command(asked, &["cluster", "status"]).unwrap_or_else(|e| panic!("{e}"));
        let rows = text.lines().skip(1).filter(|line| {
            !line.contains(" cannot be reached from this node: ") && !line.starts_with("cluster ")
        });
        rows.map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            (cells[0].trim_end_matches('*').to_owned(), cells[1].to_owned(), cells[2].parse().unwrap())
        })
        .collect()
    }

    fn command(&self, asked: usize, args: &[&str]) -> Result<String, Error> {
        self.nodes[asked].command(args)
    }

    async fn ready(&self, node: usize) -> String {
        get(self.nodes[node].listening.http.unwrap(), "/readyz").await.unwrap_or_else(|e| e.to_string())
    }

    fn logs(&self) -> String {
        self.nodes.iter().map(Rookery::whole_log).collect::<Vec<_>>().join("\n---\n")
    }
}

fn section(name: &str, keys: &Path) -> String {
    let keys = keys.display();
    format!(
        "[cluster]\nnode = \"{name}\"\nlisten = \"127.0.0.1:0\"\nauthority = \"{keys}/cluster_ca.pem\"\n\
         certificate = \"{keys}/{{node}}.pem\"\nkey = \"{keys}/{{node}}.key\""
    )
}

/// Asks until it is so; how long that took. Other programs have no event to wait for.
async fn eventually(what: &str, world: &World, is_so: impl AsyncFn() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}\n{}", world.logs());
        sleep(Duration::from_millis(50)).await; // other processes: they give no event
    }
    begun.elapsed()
}

/// Only how long a failing test hangs: a slow machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn nodes_share_what_there_is_and_give_it_to_each_other() {
    let mut world = World::start(3).await;
    let spread = async || {
        let rows = world.rows(0);
        let even = rows.iter().all(|(_, state, shards)| state == "active" && (250..450).contains(shards));
        rows.len() == 3 && even && rows.iter().map(|row| row.2).sum::<usize>() == SHARDS
    };
    let took = eventually("three share", &world, spread).await;
    println!("spread over three nodes: {took:?} after the third was ready");
    let settled =
        async || world.command(1, &["cluster", "shards", "--moving"]).unwrap().contains("every shard");
    eventually("all is settled", &world, settled).await;

    // Drained: it holds nothing, takes no clients, and runs.
    let begun = Instant::now();
    let said = world.command(0, &["cluster", "drain", "n3", "--wait"]).unwrap_or_else(|e| panic!("{e}"));
    println!("drained: {:?}", begun.elapsed());
    assert!(said.contains("n3 holds no shards") && said.contains("shards left"), "{said}");
    let red = async || world.ready(2).await.contains("draining");
    eventually("red", &world, red).await;
    assert!(world.ready(2).await.starts_with("HTTP/1.1 503"));
    assert_eq!(world.rows(2)[2].1, "draining");
    let said = world.command(1, &["cluster", "undrain", "n3"]).unwrap();
    assert!(said.contains("n3 takes shards again"), "{said}");
    eventually("back", &world, async || spread().await && world.ready(2).await.contains("200 OK")).await;

    // What can't be is said.
    for (args, why) in [
        (&["cluster", "drain", "n9"][..], "there is no node \"n9\"; known nodes: n1, n2, n3"),
        (&["cluster", "evict", "n2"], "--force"),
        (&["cluster", "evict", "self"], "cannot evict itself"),
        (&["cluster", "undrain", "n2"], ""),
    ] {
        let said = world.command(0, args);
        assert!(
            said.as_ref().map_or_else(ToString::to_string, Clone::clone).contains(why),
            "{args:?}: {said:?}"
        );
    }

    // Killed: the others find out by themselves.
    world.nodes[1].kill().await.unwrap();
    let taken = async || {
        let rows = world.rows(0);
        rows[1] == ("n2".into(), "dead".into(), 0) && rows[0].2 + rows[2].2 == SHARDS
    };
    let took = eventually("others have it all", &world, taken).await;
    println!("from kill -9 to all shards on others: {took:?}");

    // Stopped: nobody has to find out.
    let begun = Instant::now();
    let status = world.nodes[2].stop().await.unwrap_or_else(|e| panic!("{e}"));
    println!("SIGTERM to exit: {:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0), "{}", world.nodes[2].whole_log());
    let gone = async || world.rows(0)[2].1 == "dead" && world.rows(0)[0].2 == SHARDS;
    let took = eventually("left", &world, gone).await;
    println!("from exit to \"dead\": {took:?}");
    // Unlike the one that was killed, it was not missed by anybody.
    let missed = |name: &str| {
        [0, 2].iter().any(|at| {
            let log = world.nodes[*at].whole_log();
            log.lines()
                .any(|line| line.contains("node declared dead") && line.contains(&format!("node={name}")))
        })
    };
    assert!(missed("n2") && !missed("n3"), "{}", world.logs());
    let log = world.nodes[2].whole_log();
    assert!(log.contains("left the cluster") && !log.contains("ERROR"), "{log}");

    // The last one is alone and stops like a node that always was.
    let alone = world.command(0, &["cluster", "drain", "self"]).unwrap_err().to_string();
    assert!(alone.contains("no other node is active"), "{alone}");
    let begun = Instant::now();
    assert_eq!(world.nodes[0].stop().await.unwrap().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_node_that_is_declared_dead_ends_at_once() {
    let mut world = World::start(2).await;
    let said = world.command(0, &["cluster", "evict", "n2", "--force"]).unwrap_or_else(|e| panic!("{e}"));
    assert!(said.contains("n2 is declared dead"), "{said}");
    let begun = Instant::now();
    let status = world.nodes[1].ended().await.unwrap();
    println!("from evict to exit: {:?}", begun.elapsed());
    let log = world.nodes[1].whole_log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("this node was declared dead: no heartbeats"), "{log}");
    // Started anew, as systemd does, it takes part again.
    world.nodes[1].restart().await.unwrap_or_else(|e| panic!("{e}"));
    let both = async || world.rows(0).iter().all(|row| row.1 == "active" && row.2 > 400);
    eventually("both", &world, both).await;
    // A second process of the same node does not push the first one out.
    let twice = world.command(1, &["serve"]).unwrap_err().to_string();
    assert!(world.ready(1).await.contains("200 OK"), "{twice}");
}

/// A node that slept while others took its shards: its clients' streams end with a word, nobody gets an error, and the log says
/// once what happened.
#[tokio::test]
async fn a_node_that_wakes_up_without_its_shards_says_so_once() {
    let mut world = World::start(2).await;
    let names: Vec<String> = (0..12).map(|n| format!("user{n}")).collect();
    let users: Vec<String> = names.iter().map(|name| format!("{name}@localhost")).collect();
    world.nodes[0].add_users(users.iter().map(|user| (user.as_str(), "secret"))).unwrap();
    let options = world.nodes[1].listening.options();
    let mut clients = Vec::new();
    for name in &names {
        let mut client = Client::login(&options, name, "secret", "a").await.unwrap();
        client.enable_sm(true, true).await.unwrap();
        client.available().await.unwrap();
        clients.push(client);
    }
    world.nodes[1].signal("STOP").await.unwrap();
    // The stopped node reads them when it wakes.
    for client in &mut clients {
        for n in 0..20 {
            let to = &users[n % users.len()];
            let text = format!("<message to='{to}' type='chat' id='m{n}'><body>m{n}</body></message>");
            client.send(&text).await.unwrap();
        }
    }
    let dead = async || world.rows(0).iter().any(|row| row.0 == "n2" && row.1 == "dead");
    eventually("n2 is taken for dead", &world, dead).await;
    let before = world.nodes[1].whole_log().lines().count();
    world.nodes[1].signal("CONT").await.unwrap();
    for client in &mut clients {
        let mut last = String::new();
        while let Ok(Event::Element(element)) = client.next().await {
            assert_ne!(element.attr("type"), Some("error"), "{element}");
            last = element.to_string();
        }
        assert!(last.contains("system-shutdown"), "{last}\n{}", world.logs());
    }
    let status = world.nodes[1].ended().await.unwrap();
    let log = world.nodes[1].whole_log();
    let loud: Vec<&str> =
        log.lines().skip(before).filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    println!("{}", loud.join("\n"));
    assert_eq!(status.code(), Some(1), "{log}");
    let told =
        loud.iter().filter(|line| line.contains("other nodes have taken over shards of this node")).count();
    assert_eq!((told, loud.len()), (1, 2), "{}", loud.join("\n"));
    assert!(loud[1].contains("this node was declared dead: no heartbeats"), "{}", loud.join("\n"));
}

#[tokio::test]
async fn a_node_without_its_store_sends_its_clients_away_and_comes_back() {
    let world = World::start(2).await;
    let node = &world.nodes[0];
    node.add_users([("romeo@localhost", "secret"), ("juliet@localhost", "secret")]).unwrap();
    let options = node.listening.options();
    let mut romeo = Client::login(&options, "romeo", "secret", "orchard").await.unwrap();
    world.store.signal("STOP").await.unwrap();
    let begun = Instant::now();
    let red = async || world.ready(0).await.contains("parked");
    eventually("parked", &world, red).await;
    println!("from the store's end to parked: {:?}", begun.elapsed());
    let mut seen = String::new();
    while let Ok(Event::Element(element)) = romeo.next().await {
        if element.is("error", xml::STREAMS) {
            seen = element.to_string();
        }
    }
    assert!(seen.contains("system-shutdown"), "{seen}");
    assert!(Client::login(&options, "juliet", "secret", "").await.is_err());
    world.store.signal("CONT").await.unwrap();
    let green = async || world.ready(0).await.contains("200 OK");
    eventually("ready again", &world, green).await;
    eventually("log in", &world, async || Client::login(&options, "juliet", "secret", "").await.is_ok())
        .await;
}

/// A message each way arrives; how long the slower one took.
async fn talk(about: &str, romeo: &mut Client, juliet: &mut Client) -> Duration {
    let mut slowest = Duration::ZERO;
    for turn in ["there", "and back"] {
        let (from, to) =
            if turn == "there" { (&mut *romeo, &mut *juliet) } else { (&mut *juliet, &mut *romeo) };
        let begun = Instant::now();
        let body = format!("{about}: {turn}");
        let whom = to.jid.split('/').next().unwrap();
        let text = format!("<message to='{whom}' type='chat'><body>{body}</body></message>");
        from.send(&text).await.unwrap_or_else(|e| panic!("{body}: {e}"));
        let has = |e: &xml::Element| e.get("body").is_some_and(|b| b.text() == body);
        to.wait(&body, has).await.unwrap_or_else(|e| panic!("{body}: {e}"));
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

/// Until a node that may have to find out first has the session.
async fn back(world: &World, node: usize, user: &str, lost: &Lost) -> Client {
    let options = world.nodes[node].listening.options();
    let begun = Instant::now();
    let (mut client, answer) = loop {
        match Client::resume(&options, user, "secret", lost.clone()).await {
            Ok(resumed) => break resumed,
            // As long as nobody can say whether there is a session, the stream ends.
            Err(_) if begun.elapsed() < PATIENCE => sleep(Duration::from_millis(200)).await, // a client's pace
            Err(e) => panic!("{user} after {:?}: {e}\n{}", begun.elapsed(), world.logs()),
        }
    };
    assert!(answer.is("resumed", SM), "{user}: {answer}\n{}", world.logs());
    println!("{user} resumed on n{}: {:?}", node + 1, begun.elapsed());
    client.sm.automatic = true;
    client
}

#[tokio::test]
async fn users_talk_through_any_node_while_nodes_come_and_go() {
    let mut world = World::start(3).await;
    let users = [("romeo@localhost", "secret"), ("juliet@localhost", "secret")];
    world.nodes[0].add_users(users).unwrap_or_else(|e| panic!("{e}"));
    let mut clients = Vec::new();
    for (node, user) in [(0, "romeo"), (1, "juliet")] {
        let mut client =
            Client::login(&world.nodes[node].listening.options(), user, "secret", "a").await.unwrap();
        client.enable_sm(true, true).await.unwrap();
        client.available().await.unwrap();
        clients.push(client);
    }
    let [mut romeo, mut juliet] = <[Client; 2]>::try_from(clients).map_err(drop).unwrap();
    println!("three nodes: {:?}", talk("three nodes", &mut romeo, &mut juliet).await);
    let settled =
        async || world.command(1, &["cluster", "shards", "--moving"]).unwrap().contains("every shard");
    eventually("all is settled", &world, settled).await;
    let many: Vec<String> = (0..30).map(|n| format!("user{n}@localhost")).collect();
    let made = world.nodes[0].add_users(many.iter().map(|user| (user.as_str(), "secret")));
    assert!(made.as_ref().is_ok_and(|said| said.contains("30 accounts added")), "{made:?}");
    println!("settled: {:?}", talk("settled", &mut romeo, &mut juliet).await);
    let list = world.command(2, &["session", "list"]).unwrap();
    assert!(list.contains("romeo@localhost/a") && list.contains("juliet@localhost/a"), "{list}");

    // Their users move away under them, and neither notices.
    for node in ["n1", "n2", "n3"] {
        world.command(0, &["cluster", "drain", node, "--wait"]).unwrap_or_else(|e| panic!("{e}"));
        println!("without {node}: {:?}", talk(&format!("without {node}"), &mut romeo, &mut juliet).await);
        world.command(1, &["cluster", "undrain", node]).unwrap();
        println!("with {node}: {:?}", talk(&format!("with {node}"), &mut romeo, &mut juliet).await);
    }

    // An operator may ask any node about any user.
    for (node, user) in [(0, &many[0]), (1, &many[1]), (2, &many[2])] {
        let removed = world.command(node, &["user", "remove", user]);
        removed.unwrap_or_else(|e| panic!("{user}, asked of n{}: {e}", node + 1));
    }

    // Juliet's node ends in order: she is sent away.
    let status = world.nodes[1].stop().await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(status.code(), Some(0), "{}", world.nodes[1].whole_log());
    let told = juliet.wait("the end", |e| e.is("error", xml::STREAMS)).await.unwrap();
    assert!(told.to_string().contains("system-shutdown"), "{told}");
    let mut juliet = back(&world, 2, "juliet", &juliet.lose()).await;
    println!("after a stop: {:?}", talk("after a stop", &mut romeo, &mut juliet).await);

    // Romeo's node is killed: its users live on the last one, when that has found out.
    world.nodes[0].kill().await.unwrap();
    let mut romeo = back(&world, 2, "romeo", &romeo.lose()).await;
    println!("after a kill: {:?}", talk("after a kill", &mut romeo, &mut juliet).await);
    romeo.close().await.unwrap();
    juliet.close().await.unwrap();
}
