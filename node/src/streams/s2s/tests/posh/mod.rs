//! Domains that prove their certificates by a file on their web site (RFC 7711).

mod kept;
mod web;

use rookery_ops::http;
use rustls::pki_types::CertificateDer;

use self::web::{Answer, Web, ok, to};
use super::peer::Peer;
use super::*;
use crate::streams::s2s::Direction;
use crate::tls::remote::posh::{PATH, document};

const FILE: &str = "b.example/.well-known/posh/xmpp-server.json";
const HOUR: Duration = Duration::from_secs(3_600);

/// `a.example` trusts the authority; `b.example` has a certificate of its own making, and a web site. `hosting.example` is another web site.
struct Scene {
    a: Node,
    b: Node,
    web: Web,
}

impl Scene {
    async fn new(change: impl Fn(&mut Config)) -> Self {
        let authority = Authority::new();
        let (at_a, at_b) = ((Port::new(), Port::new()), (Port::new(), Port::new()));
        let to_a = ("a.example", at_a.0.at, Begin::Starttls);
        let to_b = ("b.example", at_b.0.at, Begin::Starttls);
        let plan = |domain, authority, routes, policy| Plan { domain, authority, routes, policy };
        let on = |config: &mut Config| {
            config.federation.posh = true;
            change(config);
        };
        let a = plan("a.example", Some(&authority), vec![to_b], Policy::Certificate);
        let a = Node::start(a, at_a, on).await;
        let b = Node::start(plan("b.example", None, vec![to_a], Policy::Dialback), at_b, |_| {}).await;
        let web = Web::start(&authority, &["b.example", "hosting.example"]);
        let scene = Self { a, b, web };
        for host in ["b.example", "hosting.example", "other.example"] {
            scene.lies(host, scene.web.at);
        }
        scene
    }

    /// Where a web server is, as DNS has it.
    fn lies(&self, host: &str, at: SocketAddr) {
        self.a.federation.finder.know(&format!("https://{host}:443"), &[(at, Begin::Direct)]);
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.b.federation.tls.identity(Some("b.example")).unwrap().chain()[0].clone()
    }

    /// A right document.
    fn right(&self) -> String {
        document(&[&self.certificate()], HOUR)
    }

    /// Whether `a` takes the certificate of `b.example`, which calls; nothing that was known before counts.
    async fn is_taken(&self) -> bool {
        self.a.federation.posh.clear();
        self.is_still_taken().await
    }

    async fn is_still_taken(&self) -> bool {
        let (mut peer, features) = Peer::opened(&self.a, &self.b, "b.example").await;
        peer.send("</stream:stream>").await;
        peer.end().await;
        features.contains("EXTERNAL")
    }

    /// Why not.
    fn why(&self) -> String {
        self.a.federation.posh.why("b.example").unwrap_or_default()
    }
}

fn proofs(node: &Node, direction: Direction) -> Vec<&'static str> {
    let all = node.federation.table.list(None).into_iter().filter(|info| info.direction == direction);
    all.flat_map(|info| info.pairs.into_iter().map(|(_, by)| by)).collect()
}

#[tokio::test]
async fn a_file_proves_a_server_that_calls_and_one_that_is_called() {
    let scene = Scene::new(|_| {}).await;
    scene.web.answer(FILE, ok(&scene.right()));
    let (mut romeo, mut juliet) = (scene.a.session("romeo").await, scene.b.session("juliet").await);
    romeo.send("<message to='juliet@b.example' type='chat' id='1'><body>O speak again</body></message>");
    juliet.until("<body>O speak again</body>").await;
    juliet.send("<message to='romeo@a.example/r' type='chat' id='2'><body>Ay me</body></message>");
    romeo.until("<body>Ay me</body>").await;
    assert_eq!(proofs(&scene.a, Direction::Incoming), ["posh"]);
    // Both directions, and the questions of dialback: the file was fetched once.
    assert_eq!(scene.web.asked(), [FILE]);
    // The operator does not want it any more: what it has proved ends.
    let mut settings = (**scene.a.federation.settings.load()).clone();
    settings.federation.posh = false;
    scene.a.federation.reload(settings);
    assert!(!scene.is_taken().await && scene.web.asked().is_empty());
}

#[tokio::test]
async fn nobody_is_asked_where_the_file_would_not_count() {
    let pattern = || rookery_actors::options::DomainPattern::parse("b.example").unwrap();
    let changes: [&dyn Fn(&mut Config); 3] = [
        &|config| config.federation.posh = false,
        &|config| config.federation.policy = Policy::Dane,
        &|config| config.federation.policies = vec![(pattern(), Policy::Dialback)],
    ];
    for change in changes {
        let scene = Scene::new(change).await;
        scene.web.answer(FILE, ok(&scene.right()));
        assert!(!scene.is_taken().await);
        assert!(scene.web.asked().is_empty());
    }
}

#[tokio::test]
async fn references_and_redirects_lead_on_by_https() {
    let scene = Scene::new(|_| {}).await;
    let there = |url: &str| format!("{{\"url\":\"https://{url}\",\"expires\":60}}");
    scene.web.answer("hosting.example/b.json", ok(&scene.right()));
    scene.web.answer("b.example/moved.json", ok(&there("hosting.example/b.json")));
    for first in [
        ok(&there("hosting.example/b.json")),
        ok(&there("hosting.example:443/b.json")),
        to("https://hosting.example/b.json"),
        to("/moved.json"),
    ] {
        scene.web.answer(FILE, first);
        scene.web.answer("hosting.example:443/b.json", ok(&scene.right()));
        assert!(scene.is_taken().await, "{}", scene.why());
    }
    // A path of the server that sent the redirect, with its port.
    assert!(scene.web.asked().contains(&"b.example/moved.json".to_owned()));
    scene.web.answer("hosting.example/b.json", to("/again.json"));
    scene.web.answer("hosting.example/again.json", ok(&scene.right()));
    assert!(scene.is_taken().await, "{}", scene.why());
    // The reference holds for less than the fingerprints do.
    let holds = scene.a.federation.posh.holds("b.example").unwrap();
    assert!(holds <= Duration::from_secs(60), "{holds:?}");
    scene.web.answer(FILE, ok(&scene.right().replace("3600", "99999999")));
    assert!(scene.is_taken().await);
    let holds = scene.a.federation.posh.holds("b.example").unwrap();
    assert!(holds <= Duration::from_secs(86_400), "{holds:?}");
}

#[tokio::test]
async fn what_a_hostile_web_site_says_proves_nothing() {
    let refused = vec![rookery_actors::options::DomainPattern::parse("*.spam.example").unwrap()];
    let scene = Scene::new(move |config| config.federation.refuse = refused.clone()).await;
    let right = scene.right();
    let there = |url: &str| ok(&format!("{{\"url\":\"{url}\",\"expires\":60}}"));
    let wrong = document(&[&CertificateDer::from(vec![1])], HOUR);
    let giant = right.replace('{', &format!("{{{}", " ".repeat(100_000)));
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 1_000_000]].concat();
    let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n{right}", "A: b\r\n".repeat(1_000)).into_bytes();
    scene.lies("www.spam.example", scene.web.at);
    scene.lies("inner.example", "10.1.2.3:443".parse().unwrap());
    let elsewhere = Web::start(&Authority::new(), &["strange.example"]);
    scene.lies("strange.example", elsewhere.at);
    for host in ["www.spam.example", "inner.example", "strange.example", "other.example"] {
        elsewhere.answer(&format!("{host}/x"), ok(&right));
        scene.web.answer(&format!("{host}/x"), ok(&right));
    }
    scene.web.answer("hosting.example/r", there("https://hosting.example/r2"));
    scene.web.answer("hosting.example/r2", ok(&right));
    scene.web.answer("hosting.example/loop", to("https://hosting.example/loop"));
    for (first, why) in [
        (ok(&wrong), ""),
        (ok(&right.replace("3600", "0")), "has expired"),
        (ok(&right.replace("\"expires\":3600", "\"x\":1")), "has expired"),
        (ok("<html>Welcome</html>"), "not JSON"),
        (ok(&right.replacen('{', "{\"url\":\"https://hosting.example/r2\",", 1)), "neither"),
        (ok(&giant), "length limit"),
        (Answer::Bytes(endless), "length limit"),
        (Answer::Bytes(fields), ""),
        (Answer::Bytes(b"SSH-2.0-x\r\n".to_vec()), ""),
        (Answer::Bytes(Vec::new()), ""),
        (Answer::Bytes(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec()), "answers with 500"),
        (Answer::Silence, "in time"),
        (to("http://hosting.example/r2"), "must be https"),
        (to("https://hosting.example/loop"), "too many redirects"),
        (to("https://u@hosting.example/r2"), "must be https"),
        (to("//hosting.example/r2"), "must be https"),
        (to(""), "not a URL"),
        (there("http://hosting.example/r2"), "must be https"),
        (there("file:///etc/passwd"), ""),
        (there("hosting.example/r2"), ""),
        (there("https://hosting.example/r"), "another one has led"),
        (there("https://other.example/x"), "no TLS with other.example"),
        (there("https://strange.example/x"), "no TLS with strange.example"),
        (there("https://www.spam.example/x"), "federation.refuse"),
        (there("https://WWW.Spam.example./x"), "federation.refuse"),
        // Places that only this machine, or this network, should reach.
        (there("https://inner.example/x"), "dns.refuse_networks"),
        (there("https://10.1.2.3/x"), "dns.refuse_networks"),
        (to("https://[fe80::1]/x"), "dns.refuse_networks"),
        (to("https://[::ffff:10.1.2.3]:22/x"), "dns.refuse_networks"),
    ] {
        scene.web.answer(FILE, first);
        assert!(!scene.is_taken().await, "{why}");
        assert!(scene.why().contains(why), "{why:?} is not in {:?}", scene.why());
    }
    scene.web.answer(FILE, ok(&right));
    assert!(scene.is_taken().await, "{}", scene.why());
}

#[tokio::test]
async fn one_fetch_serves_all_who_wait_and_what_failed_is_remembered() {
    let scene = Scene::new(|_| {}).await;
    scene.web.answer(FILE, ok(&scene.right()));
    let one = || scene.is_still_taken();
    let taken = tokio::join!(one(), one(), one(), one());
    assert_eq!(taken, (true, true, true, true));
    assert_eq!(scene.web.asked(), [FILE]);
    scene.web.answer(FILE, ok("{}"));
    assert!(!scene.is_taken().await && !scene.is_still_taken().await);
    assert_eq!(scene.web.asked(), [FILE]);
}

#[tokio::test]
async fn the_next_certificate_is_looked_for_in_the_next_file() {
    let scene = Scene::new(|_| {}).await;
    scene.web.answer(FILE, ok(&document(&[&CertificateDer::from(vec![1])], HOUR)));
    assert!(!scene.is_taken().await);
    scene.web.answer(FILE, ok(&scene.right()));
    // The answer is new: nobody can make this server ask again at once.
    assert!(!scene.is_still_taken().await);
    scene.a.federation.posh.age("b.example", Duration::from_secs(61));
    assert!(scene.is_still_taken().await);
    assert_eq!(scene.web.asked(), [FILE, FILE]);
}

#[tokio::test]
async fn strangers_do_not_take_the_places_of_our_own() {
    let scene = Scene::new(|_| {}).await;
    scene.web.answer(FILE, ok(&scene.right()));
    let places = scene.a.federation.posh.fill_called(true);
    assert!(!scene.is_taken().await);
    assert!(scene.web.asked().is_empty());
    let (romeo, mut juliet) = (scene.a.session("romeo").await, scene.b.session("juliet").await);
    romeo.send("<message to='juliet@b.example' type='chat' id='1'><body>O speak again</body></message>");
    juliet.until("<body>O speak again</body>").await;
    assert_eq!(scene.web.asked(), [FILE]);
    drop(places);
    assert!(scene.is_taken().await);
    assert_eq!(PATH, FILE.strip_prefix("b.example").unwrap());
}

/// The answer of `at` to a request for the file of `host`.
async fn file(at: SocketAddr, host: &str) -> String {
    let mut web = Peer::plain(at).await;
    web.send(&format!("GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
    web.end().await
}

#[tokio::test]
async fn what_one_server_publishes_another_one_takes() {
    let scene = Scene::new(|_| {}).await;
    let (Port { listener, at }, trusted) = (Port::new(), Arc::new(|_| false));
    let routes = crate::posh::routes(Some(&scene.b.federation));
    let service = http::Service { routes, limits: http::Limits::default(), secure: http::Plain, trusted };
    let serving = tokio::spawn(service.serve(listener, std::future::pending()));
    assert!(file(at, "b.example").await.starts_with("HTTP/1.1 404 "));
    let mut settings = (**scene.b.federation.settings.load()).clone();
    settings.federation.posh_publish = true;
    scene.b.federation.reload(settings);
    for host in ["b.example", "B.Example:8080", "b.example."] {
        let answer = file(at, host).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("application/json"), "{answer}");
        assert!(answer.contains("cache-control: no-cache\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(body.ends_with("\"expires\":600}"), "{body}");
        scene.web.answer(FILE, ok(body));
        assert!(scene.is_taken().await, "{}", scene.why());
    }
    for host in ["c.example", "", "127.0.0.1", "b.example/x", "x.b.example"] {
        let answer = file(at, host).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{host}: {answer}");
    }
    serving.abort();
}
