//! Certificates from an ACME authority: Pebble issues, real nodes order, answer and serve.
//!
//! Length: one test for each kind of challenge and for each thing that can go wrong, against the same Pebble.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rookery_tests::server::pebble::{Pebble, Settings, connect, serial};
use rookery_tests::server::rookery::{Config, Rookery, binary, get};
use rookery_tests::server::{self, Error, Process, find_program, free_port, run};
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const NAME: &str = "a.example";

/// What is not installed skips the test, and says so.
macro_rules! pebble_or_skip {
    () => {
        if find_program("pebble").is_none() {
            println!("skipped: pebble is not installed");
            return;
        }
    };
}

/// An authority, and what a node's configuration says of it.
struct World {
    pebble: Pebble,
    dir: tempfile::TempDir,
}

impl World {
    async fn start(settings: Settings) -> World {
        let dir = tempfile::Builder::new().prefix("rookery-acme-").tempdir().unwrap();
        let pebble = Pebble::start(dir.path(), settings).await.unwrap_or_else(|e| panic!("{e}"));
        World { pebble, dir }
    }

    fn section(&self, challenge: &str, more: &str) -> String {
        let (directory, ca) = (self.pebble.directory(), self.pebble.ca.display());
        format!(
            "[acme]\ndirectory = \"{directory}\"\nagree = true\ncontact = [\"mailto:admin@a.example\"]\n\
             challenge = \"{challenge}\"\nca = \"{ca}\"\n{more}\n"
        )
    }

    /// A node for [`NAME`] on this port.
    async fn node(&self, port: u16, challenge: &str, more: &str) -> Rookery {
        let config = Config {
            domain: NAME.into(),
            more: self.section(challenge, more),
            ports: [0, port, 0],
            ..Config::default()
        };
        Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"))
    }
}

/// The certificate that a client gets which trusts the authority's root.
async fn served(
    at: SocketAddr,
    name: &str,
    root: &CertificateDer<'static>,
) -> Result<CertificateDer<'static>, Error> {
    let stream = connect(at, name, root.clone(), b"xmpp-client").await?;
    let sent = stream.get_ref().1.peer_certificates().and_then(|all| all.first()).cloned();
    sent.map(CertificateDer::into_owned).ok_or(Error::Failed("no certificate".into()))
}

/// Asks until the answer is there. There is no event to wait for in other processes.
async fn eventually<T>(what: &str, log: impl Fn() -> String, ask: impl AsyncFn() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "{what} did not happen\n{}", log());
        sleep(Duration::from_millis(50)).await; // other processes: they give no event
    }
}

async fn issued(node: &Rookery, world: &World, name: &str) -> CertificateDer<'static> {
    let root = world.pebble.root().await.unwrap_or_else(|e| panic!("{e}"));
    let log = || format!("{}\n{}", node.whole_log(), world.pebble.log());
    let at = node.listening.c2s_tls;
    eventually("a certificate", log, async || served(at, name, &root).await.ok()).await
}

/// The line of a name in `rookery certificate list`.
fn listed(node: &Rookery, name: &str) -> Value {
    let text = node.command(&["certificate", "list", "--json"]).unwrap_or_else(|e| panic!("{e}"));
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name} is not in {text}"))
}

#[allow(clippy::disallowed_methods, reason = "what another process says is compared with it")]
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

#[tokio::test]
async fn issued_served_and_kept_over_a_restart() {
    pebble_or_skip!();
    let port = free_port().port();
    let world = World::start(Settings { tls: port, ..Settings::default() }).await;
    let mut node = world.node(port, "tls-alpn-01", "").await;
    let certificate = issued(&node, &world, NAME).await;
    let line = listed(&node, NAME);
    assert_eq!(line["source"], Value::from(world.pebble.directory()));
    assert!(line["issuer"].as_str().unwrap().contains("Pebble"), "{line}");
    let (expires, next) = (line["expires"].as_i64().unwrap(), line["next_order"].as_i64().unwrap());
    // A third of 90 days is left, or up to three days more.
    let left = expires - next;
    assert!((30 * 86_400 - 2..=33 * 86_400 + 2).contains(&left), "renewed {left} s before the end");
    assert_eq!(line["error"], "");
    let metrics = node.metrics().await.unwrap();
    for counted in [
        "rookery_acme_orders_total{outcome=\"ok\"} 1",
        "rookery_acme_challenges_total{challenge=\"tls-alpn-01\",outcome=\"answered\"} ",
        "rookery_certificate_expiry_seconds{domain=\"a.example\"} ",
    ] {
        assert!(metrics.contains(counted), "{counted} is not in the metrics");
    }
    // What is stored is served at once, and nothing is ordered.
    node.stop().await.unwrap_or_else(|e| panic!("{e}"));
    node.restart().await.unwrap_or_else(|e| panic!("{e}"));
    let root = world.pebble.root().await.unwrap();
    let again = served(node.listening.c2s_tls, NAME, &root).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((serial(&again), world.pebble.orders()), (serial(&certificate), 1));
    // STARTTLS has it, too, and keys are in no log.
    assert!(!node.whole_log().contains("PRIVATE"));
}

#[tokio::test]
async fn by_http_and_for_more_names() {
    pebble_or_skip!();
    let (port, http) = (free_port().port(), free_port());
    let world = World::start(Settings { http: http.port(), ..Settings::default() }).await;
    let more = format!("listen = [\"{http}\"]\nnames = [\"xmpp.a.example\"]");
    let node = world.node(port, "http-01", &more).await;
    issued(&node, &world, NAME).await;
    issued(&node, &world, "xmpp.a.example").await;
    assert_eq!(world.pebble.orders(), 2);
    // The answers are gone, and nothing else is there.
    for path in ["/.well-known/acme-challenge/x", "/.well-known/acme-challenge/..%2f", "/metrics", "/"] {
        let answer = get(http, path).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn by_dns_with_a_program() {
    pebble_or_skip!();
    let port = free_port().port();
    let world = World::start(Settings::default()).await;
    let (hook, said) = (world.dir.path().join("hook.py"), world.dir.path().join("said"));
    std::fs::write(
        &hook,
        "import json, sys, urllib.request\n\
         log, server, verb, record, value = sys.argv[1:]\n\
         open(log, 'a').write(verb + ' ' + record + '\\n')\n\
         path = {'set': '/set-txt', 'remove': '/clear-txt'}[verb]\n\
         body = json.dumps({'host': record + '.', 'value': value}).encode()\n\
         urllib.request.urlopen('http://' + server + path, body).read()\n",
    )
    .unwrap();
    let python = find_program("python3").expect("python3");
    let arguments =
        [&*python.to_string_lossy(), &*hook.to_string_lossy(), &*said.to_string_lossy()].map(str::to_owned);
    let more = format!("hook = {arguments:?}").replace(']', &format!(", \"{}\"]", world.pebble.names()));
    let node = world.node(port, "dns-01", &more).await;
    issued(&node, &world, NAME).await;
    let said = std::fs::read_to_string(said).unwrap();
    assert_eq!(said, "set _acme-challenge.a.example\nremove _acme-challenge.a.example\n");
}

#[tokio::test]
async fn renewed_in_time() {
    pebble_or_skip!();
    let port = free_port().port();
    let world = World::start(Settings { tls: port, life: 24, ..Settings::default() }).await;
    let node = world.node(port, "tls-alpn-01", "").await;
    let first = issued(&node, &world, NAME).await;
    let root = world.pebble.root().await.unwrap();
    let log = || node.whole_log();
    let at = node.listening.c2s_tls;
    eventually("a renewal", log, async || {
        // At no time is there none that is valid.
        let certificate = served(at, NAME, &root).await.unwrap_or_else(|e| panic!("{e}"));
        (serial(&certificate) != serial(&first)).then_some(())
    })
    .await;
    assert_eq!(world.pebble.orders(), 2, "{}", node.whole_log());
}

#[tokio::test]
async fn ordered_now_and_the_old_one_revoked() {
    pebble_or_skip!();
    let port = free_port().port();
    let world = World::start(Settings { tls: port, ..Settings::default() }).await;
    let node = world.node(port, "tls-alpn-01", "").await;
    let old = issued(&node, &world, NAME).await;
    let said = node.command(&["certificate", "order", "A.example", "--revoke"]).unwrap();
    assert!(said.contains("a.example is being ordered"), "{said}");
    let log = || format!("{}\n{}", node.whole_log(), world.pebble.log());
    eventually("the revocation", log, async || world.pebble.is_revoked(&old).await.unwrap().then_some(()))
        .await;
    let new = issued(&node, &world, NAME).await;
    assert_ne!(serial(&new), serial(&old));
    assert!(!world.pebble.is_revoked(&new).await.unwrap());
    let error = node.command(&["certificate", "order", "b.example"]).unwrap_err().to_string();
    assert!(error.contains("no certificate is ordered for b.example"), "{error}");
}

#[tokio::test]
async fn a_failure_is_told_and_waits() {
    pebble_or_skip!();
    let port = free_port().port();
    let world = World::start(Settings { tls: port, ..Settings::default() }).await;
    // Nobody listens there.
    world.pebble.put(NAME, "127.0.0.77").await.unwrap();
    let node = world.node(port, "tls-alpn-01", "").await;
    let log = || format!("{}\n{}", node.whole_log(), world.pebble.log());
    let line = eventually("a failure", log, async || {
        let line = listed(&node, NAME);
        (line["error"] != "").then_some(line)
    })
    .await;
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("could not check the name by tls-alpn-01") && error.len() > 60, "{error}");
    // Two minutes, and a quarter by chance.
    let wait = line["next_order"].as_i64().unwrap() - now();
    assert!((100..=151).contains(&wait), "{wait}");
    assert!(node.whole_log().contains("no certificate could be ordered"), "{}", node.whole_log());
    let metrics = node.metrics().await.unwrap();
    assert!(metrics.contains("rookery_acme_orders_total{outcome=\"failed\"} 1"), "{metrics}");
    // There is nothing to serve: the client is told that the name is unknown.
    let root = world.pebble.root().await.unwrap();
    let refused = served(node.listening.c2s_tls, NAME, &root).await.unwrap_err().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    // An operator who has mended it need not wait.
    assert_eq!(world.pebble.orders(), 1);
    world.pebble.put(NAME, "127.0.0.1").await.unwrap();
    node.command(&["certificate", "order", NAME]).unwrap();
    issued(&node, &world, NAME).await;
    assert_eq!((listed(&node, NAME)["error"].as_str(), world.pebble.orders()), (Some(""), 2));
}

#[tokio::test]
async fn nonces_may_be_refused_and_accounts_forgotten() {
    pebble_or_skip!();
    let port = free_port().port();
    let environment = vec![("PEBBLE_WFE_NONCEREJECT", "15".to_owned())];
    let mut world = World::start(Settings { tls: port, environment, ..Settings::default() }).await;
    let node = world.node(port, "tls-alpn-01", "").await;
    // Three refusals in a row end an attempt: the operator tries again.
    let patiently = async |world: &World| {
        let root = world.pebble.root().await.unwrap();
        let log = || format!("{}\n{}", node.whole_log(), world.pebble.log());
        let at = node.listening.c2s_tls;
        eventually("a certificate in the end", log, async || {
            if let Ok(certificate) = served(at, NAME, &root).await {
                return Some(certificate);
            }
            if listed(&node, NAME)["error"] != "" {
                node.command(&["certificate", "order", NAME]).unwrap();
                sleep(Duration::from_secs(1)).await; // an operator's pace; the list is polled
            }
            None
        })
        .await
    };
    patiently(&world).await;
    world.pebble.forget().await.unwrap();
    node.command(&["certificate", "order", NAME]).unwrap();
    patiently(&world).await;
    assert!(node.whole_log().matches("account made at the certificate authority").count() >= 2);
}

#[tokio::test]
async fn what_a_file_covers_is_not_ordered() {
    pebble_or_skip!();
    let port = free_port().port();
    let world = World::start(Settings { tls: port, ..Settings::default() }).await;
    let (certificate, key, _) = server::certificate(world.dir.path(), "*.b.example").unwrap();
    let files = format!(
        "names = [\"xmpp.b.example\"]\n[[domain]]\nname = \"conference.b.example\"\ncertificate = \"{}\"\nkey = \"{}\"\n\
         [[domain]]\nname = \"localhost\"\nself_signed = true",
        certificate.display(),
        key.display()
    );
    let node = world.node(port, "tls-alpn-01", &files).await;
    issued(&node, &world, NAME).await;
    assert_eq!(world.pebble.orders(), 1);
    assert_eq!(listed(&node, "conference.b.example")["source"], Value::from(certificate.to_string_lossy()));
    assert_eq!(listed(&node, "localhost")["source"], "self-signed");
    let root = CertificateDer::from(std::fs::read(&certificate).map(|pem| der(&pem)).unwrap());
    for name in ["xmpp.b.example", "conference.b.example"] {
        let sent = connect(node.listening.c2s_tls, name, root.clone(), b"xmpp-client").await;
        sent.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn der(pem: &[u8]) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem).unwrap().to_vec()
}

#[tokio::test]
async fn a_bad_section_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rookery.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = std::process::Command::new(binary().unwrap());
        run(command.arg("check").arg("--config").arg(&file)).unwrap_err().to_string()
    };
    let said = check("[acme]\ndirectory = \"letsencrypt\"\n[[domain]]\nname = \"a.example\"\n");
    assert!(said.contains("line 1: acme.agree: is not true") && said.contains("agree = true"), "{said}");
    let said = check("[[domain]]\nname = \"a.example\"\n");
    assert!(
        said.contains("line 2: domain.certificate: is missing") && said.contains("self_signed"),
        "{said}"
    );
}

/// Three nodes on one store, each at an address of its own, all with the port that the authority asks.
struct Cluster {
    store: Process,
    nodes: Vec<Option<Rookery>>,
}

impl Cluster {
    async fn start(world: &World, port: u16) -> Cluster {
        let mut command = Command::new(binary().unwrap());
        command.args(["store", "--memory", "--listen", "127.0.0.1:0"]);
        let log = world.dir.path().join("store.log");
        let mut store = Process::start("store", command, &log).unwrap();
        let said = || std::fs::read_to_string(&log).unwrap_or_default();
        store.until(async || said().contains("rookery store at ")).await.unwrap_or_else(|e| panic!("{e}"));
        let said = said();
        let at = said.split("rookery store at ").nth(1).unwrap().split(',').next().unwrap().to_owned();
        let mut nodes = Vec::new();
        for number in 1..=3 {
            let name = format!("n{number}");
            let keys = world.dir.path().join("keys");
            let mut cert = std::process::Command::new(binary().unwrap());
            run(cert.args(["cluster", "cert", "--node", &name, "--dir"]).arg(&keys))
                .unwrap_or_else(|e| panic!("{e}"));
            let config = Config {
                domain: NAME.into(),
                store: format!("dev://{at}"),
                more: format!("{}{}", world.section("tls-alpn-01", ""), cluster(&name, &keys)),
                ports: [0, port, 0],
                address: Ipv4Addr::new(127, 0, 0, number),
                ..Config::default()
            };
            nodes.push(Some(Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"))));
        }
        Cluster { store, nodes }
    }

    fn up(&self) -> impl Iterator<Item = (usize, &Rookery)> {
        self.nodes.iter().enumerate().filter_map(|(number, node)| Some((number, node.as_ref()?)))
    }

    fn logs(&self) -> String {
        self.up().map(|(number, node)| format!("--- n{}\n{}", number + 1, node.whole_log())).collect()
    }

    /// The node that ordered.
    fn orderer(&self) -> Option<usize> {
        let ordered = |node: &Rookery| node.whole_log().contains("account made at the certificate authority");
        self.up().find(|(_, node)| ordered(node)).map(|(number, _)| number)
    }

    /// The serial numbers that the nodes serve, once all serve one.
    async fn serials(&self, world: &World) -> Vec<String> {
        let mut all = Vec::new();
        for (_, node) in self.up() {
            all.push(serial(&issued(node, world, NAME).await));
        }
        all
    }
}

fn cluster(name: &str, keys: &Path) -> String {
    let keys = keys.display();
    format!(
        "[cluster]\nnode = \"{name}\"\nlisten = \"127.0.0.1:0\"\nauthority = \"{keys}/cluster_ca.pem\"\n\
         certificate = \"{keys}/{name}.pem\"\nkey = \"{keys}/{name}.key\"\n"
    )
}

#[tokio::test]
async fn three_nodes_share_one_order_and_any_answers() {
    pebble_or_skip!();
    let port = free_port().port();
    let world = World::start(Settings { tls: port, ..Settings::default() }).await;
    // No authority is there at first: the order fails, so that the ordering node is known.
    world.pebble.put(NAME, "127.0.0.77").await.unwrap();
    let cluster = Cluster::start(&world, port).await;
    let logs = || format!("{}\n{}", cluster.logs(), world.pebble.log());
    let failed = async || cluster.logs().contains("no certificate could be ordered").then_some(());
    eventually("a failure", logs, failed).await;
    let orderer = cluster.orderer().expect("somebody made the account");
    // The authority asks another one, and the operator a third.
    let (asked, told) = ((orderer + 1) % 3, (orderer + 2) % 3);
    world.pebble.put(NAME, &format!("127.0.0.{}", asked + 1)).await.unwrap();
    cluster.nodes[told].as_ref().unwrap().command(&["certificate", "order", NAME]).unwrap();
    let serials = cluster.serials(&world).await;
    assert!(serials.iter().all(|serial| *serial == serials[0]), "{serials:?}");
    assert_eq!(world.pebble.orders(), 2, "{}", cluster.logs());
    let answered = cluster.nodes[asked].as_ref().unwrap().metrics().await.unwrap();
    let counted = "rookery_acme_challenges_total{challenge=\"tls-alpn-01\",outcome=\"answered\"}";
    assert!(answered.contains(counted), "the node that was asked did not answer");
    for (_, node) in cluster.up() {
        assert_eq!(listed(node, NAME)["error"], "");
    }
    drop(cluster.store);
}

#[tokio::test]
async fn another_node_goes_on_with_the_order_of_a_dead_one() {
    pebble_or_skip!();
    // The authority looks at once, or up to twelve seconds later, by chance. The orderer must be dead before that.
    for _ in 0..8 {
        if the_orderer_dies_in_time().await {
            return;
        }
    }
    panic!("the authority looked at once each time");
}

/// Whether the authority has looked after the orderer's death, and all was as it should be then.
async fn the_orderer_dies_in_time() -> bool {
    let port = free_port().port();
    let environment = vec![("PEBBLE_VA_SLEEPTIME", "12".to_owned())];
    let world = World::start(Settings { tls: port, environment, ..Settings::default() }).await;
    world.pebble.put(NAME, "127.0.0.77").await.unwrap();
    let mut cluster = Cluster::start(&world, port).await;
    let logs = || format!("{}\n{}", cluster.logs(), world.pebble.log());
    eventually("an order", logs, async || (world.pebble.orders() == 1).then_some(())).await;
    let orderer = eventually("an orderer", logs, async || cluster.orderer()).await;
    let heir = (orderer + 1) % 3;
    world.pebble.put(NAME, &format!("127.0.0.{}", heir + 1)).await.unwrap();
    let mut dead = cluster.nodes[orderer].take().unwrap();
    dead.kill().await.unwrap();
    let looked = async || {
        let log = world.pebble.log();
        let too_soon = log.contains("set INVALID");
        (too_soon || log.contains("set VALID")).then_some(too_soon)
    };
    let logs = || format!("{}\n{}", cluster.logs(), world.pebble.log());
    if eventually("a look of the authority", logs, looked).await {
        return false;
    }
    let serials = cluster.serials(&world).await;
    assert_eq!(serials[0], serials[1]);
    let goes_on = cluster.logs().contains("the order under way goes on");
    let failed = dead.whole_log().contains("no certificate could be ordered");
    assert!(goes_on && !failed, "{}", cluster.logs());
    assert_eq!(world.pebble.orders(), 1, "{}", cluster.logs());
    true
}
