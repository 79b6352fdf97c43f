//! Clients and servers on one port, over in-memory pipes with real TLS. (Over sockets: `shared_port` among the tests of
//! [`s2s`](crate::streams::s2s).)

use super::*;
use crate::config::Config;
use crate::start;
use crate::streams::c2s::tests::{Client as Words, Fixture, HEADER, bind, fixture, plain};

/// A node, and its port for both.
struct Scene {
    fixture: Fixture,
    federation: Arc<Federation>,
}

const SERVER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
    xmlns:stream='http://etherx.jabber.org/streams' from='b.example' to='localhost' version='1.0'>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
/// Here servers are on this very machine.
const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 40_000);

async fn scene(change: impl FnOnce(&mut Config)) -> Scene {
    let mut kept = None;
    let fixture = fixture(|config| {
        change(config);
        kept = Some(config.clone());
    })
    .await;
    let federation = start::federation(&kept.unwrap(), &fixture.shared).unwrap().unwrap();
    Scene { fixture, federation }
}

impl Scene {
    fn connect(&self, start: Start) -> Words {
        let pass = self.fixture.shared.gate.enter().unwrap();
        let federation = &self.federation;
        self.fixture
            .raw(|shared, stream| serve(shared, federation, stream, start, SocketAddr::from(PEER), pass))
    }

    /// Connections that count: of clients and of servers.
    fn counts(&self) -> (usize, usize) {
        (self.fixture.shared.gate.counts().0, self.federation.gate.counts().0)
    }
}

/// Sends a header, and gives the answer up to the end of the features.
async fn open(words: &mut Words, header: &str) -> String {
    words.send(header).await;
    words.until("</stream:features>").await
}

/// Logs in, binds, and asks something.
async fn session(mut client: Words) {
    let features = open(&mut client, HEADER).await;
    assert!(features.contains("SCRAM-SHA-1-PLUS") && features.contains("tls-exporter"), "{features}");
    client.send(&plain("romeo", "secret")).await;
    client.until("<success").await;
    open(&mut client, HEADER).await;
    client.send(&bind("orchard")).await;
    client.until("</iq>").await;
    client.nothing_but_pong().await;
}

/// The features for a server that has not proved anything.
async fn server(mut peer: Words) -> Words {
    let features = open(&mut peer, SERVER).await;
    assert!(
        features.contains("xmlns='jabber:server'") && features.contains("urn:xmpp:features:dialback"),
        "{features}"
    );
    assert!(!features.contains("PLAIN"), "{features}");
    peer
}

#[tokio::test]
async fn the_namespace_tells_them_apart_with_starttls() {
    let scene = scene(|_| {}).await;
    let mut client = scene.connect(Start::InTheStream);
    let features = open(&mut client, HEADER).await;
    assert!(features.contains("xmlns='jabber:client'") && features.contains("<required"), "{features}");
    assert_eq!(scene.counts(), (1, 0));
    client.send(STARTTLS).await;
    client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    session(client.encrypt().await).await;
    // Byte by byte, and with its next word in the same packet.
    let mut peer = scene.connect(Start::InTheStream);
    let (most, last) = SERVER.split_at(SERVER.len() - 1);
    for byte in most.bytes() {
        peer.bytes(&[byte]).await;
    }
    peer.send(&format!("{last}{STARTTLS}")).await;
    let answer = peer.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    assert!(answer.contains("xmlns='jabber:server'") && answer.contains("<required/>"), "{answer}");
    let peer = server(peer.encrypt().await).await;
    assert_eq!(scene.counts().1, 1);
    drop(peer);
}

#[tokio::test]
async fn the_namespace_tells_them_apart_with_direct_tls_without_alpn() {
    let scene = scene(|_| {}).await;
    session(scene.connect(Start::Direct).encrypt().await).await;
    let peer = server(scene.connect(Start::Direct).encrypt().await).await;
    assert_eq!(scene.counts().1, 1);
    drop(peer);
    // Offering both says nothing.
    let both: &[&[u8]] = &[b"xmpp-client", b"xmpp-server"];
    session(scene.connect(Start::Direct).encrypt_as(both).await.unwrap()).await;
    server(scene.connect(Start::Direct).encrypt_as(both).await.unwrap()).await;
}

#[tokio::test]
async fn alpn_tells_them_apart_and_the_stream_must_agree() {
    let scene = scene(|_| {}).await;
    let direct = || scene.connect(Start::Direct);
    session(direct().encrypt_as(&[b"xmpp-client"]).await.unwrap()).await;
    server(direct().encrypt_as(&[b"xmpp-server"]).await.unwrap()).await;
    for (alpn, header) in [(&b"xmpp-client"[..], SERVER), (&b"xmpp-server"[..], HEADER)] {
        let mut peer = direct().encrypt_as(&[alpn]).await.unwrap();
        peer.send(header).await;
        let end = peer.end().await;
        assert!(end.contains("<invalid-namespace ") && end.ends_with("</stream:stream>"), "{end}");
    }
    assert!(direct().encrypt_as(&[b"h2"]).await.is_none());
}

#[tokio::test]
async fn a_stream_stays_what_it_began_as() {
    let scene = scene(|_| {}).await;
    for (first, second) in [(HEADER, SERVER), (SERVER, HEADER)] {
        let mut peer = scene.connect(Start::InTheStream);
        open(&mut peer, first).await;
        peer.send(STARTTLS).await;
        peer.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
        let mut peer = peer.encrypt().await;
        peer.send(second).await;
        let end = peer.end().await;
        assert!(end.contains("<invalid-namespace ") && end.ends_with("</stream:stream>"), "{end}");
    }
    // After a login, too.
    let mut client = scene.connect(Start::Direct).encrypt().await;
    open(&mut client, HEADER).await;
    client.send(&plain("romeo", "secret")).await;
    client.until("<success").await;
    client.send(SERVER).await;
    assert!(client.end().await.contains("<invalid-namespace "));
}

#[tokio::test]
async fn what_is_neither_gets_the_errors_of_a_clients_port() {
    let scene = scene(|_| {}).await;
    let mut wrong = Vec::new();
    let header = |content: &str| SERVER.replace("'jabber:server' ", &format!("'{content}' "));
    for (said, condition) in [
        (
            header("jabber:component:accept").replace("xmlns:db='jabber:server:dialback' ", ""),
            "invalid-namespace",
        ),
        (header("urn:x"), "invalid-namespace"),
        (SERVER.replace("http://etherx.jabber.org/streams", "urn:x"), "invalid-namespace"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "not-well-formed"),
        ("<?xml version='1.0' encoding='latin-1'?>".to_owned(), "unsupported-encoding"),
        (format!("<stream:stream a='{}", "x".repeat(20_000)), "policy-violation"),
        (" ".repeat(20_000) + "x", ""),
    ] {
        for start in [Start::InTheStream, Start::Direct] {
            let mut peer = scene.connect(start);
            if start == Start::Direct {
                peer = peer.encrypt().await;
            }
            peer.send(&said).await;
            let end = peer.end().await;
            if !end.contains(&format!("<{condition}")) || !end.ends_with("</stream:stream>") {
                wrong.push(format!("{condition} for {said:.60}: {end}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // One that says nothing and goes.
    scene.connect(Start::InTheStream).cut();
    scene.connect(Start::Direct).cut();
    scene.fixture.shared.gate.emptied().await;
    assert_eq!(scene.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_never_says_what_it_is_ends_as_a_client() {
    let scene = scene(|config| config.limits.login = Duration::from_secs(40)).await;
    let mut silent = scene.connect(Start::InTheStream);
    let end = silent.end().await;
    assert!(end.contains("<connection-timeout ") && end.contains("xmlns='jabber:client'"), "{end}");
    let mut slow = scene.connect(Start::InTheStream);
    slow.send("<?xml version='1.0'?><stream:stream xmlns='jabber:server'").await;
    assert!(slow.end().await.contains("<connection-timeout "));
    let mut without_tls = scene.connect(Start::Direct);
    assert_eq!(without_tls.end().await, "");
}

/// The time to log in begins with the connection, not when its kind is known.
#[tokio::test(start_paused = true)]
async fn the_time_to_log_in_or_to_prove_a_domain_begins_with_the_connection() {
    let scene = scene(|config| {
        config.limits.login = Duration::from_secs(40);
        config.federation.limits.negotiation = Duration::from_secs(30);
    })
    .await;
    let took = |begun: Instant| begun.elapsed().as_secs();
    for (start, encrypted) in [(Start::InTheStream, false), (Start::Direct, false), (Start::Direct, true)] {
        let begun = Instant::now();
        let mut peer = scene.connect(start);
        tokio::task::yield_now().await; // its time begins
        tokio::time::advance(Duration::from_secs(10)).await;
        if encrypted {
            peer = peer.encrypt().await;
        }
        peer.end().await;
        assert!((40..50).contains(&took(begun)), "{start:?} {encrypted}: {} s", took(begun));
    }
    let begun = Instant::now();
    let mut peer = scene.connect(Start::InTheStream);
    tokio::task::yield_now().await;
    tokio::time::advance(Duration::from_secs(10)).await;
    open(&mut peer, SERVER).await;
    assert!(peer.end().await.contains("<connection-timeout "));
    assert!((30..40).contains(&took(begun)), "{} s", took(begun));
}

/// A handshake that nobody goes on with does not keep the node from stopping.
#[tokio::test(start_paused = true)]
async fn whoever_has_not_said_what_it_is_goes_when_the_node_stops() {
    for parks in [false, true] {
        let scene = scene(|_| {}).await;
        let mut silent = [Start::InTheStream, Start::Direct].map(|start| scene.connect(start));
        let begun = Instant::now();
        if parks {
            scene.fixture.shared.gate.shut();
        } else {
            scene.fixture.stop.send(true).unwrap();
        }
        assert!(silent[0].end().await.contains("<system-shutdown "));
        assert_eq!(silent[1].end().await, "");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn until_it_is_known_a_connection_is_a_client_without_a_login() {
    let scene = scene(|config| config.limits.connections_before_login = 2).await;
    let mut oldest = scene.connect(Start::InTheStream);
    let _direct = scene.connect(Start::Direct);
    assert_eq!(scene.counts(), (2, 0));
    let third = scene.connect(Start::InTheStream);
    assert_eq!(oldest.end().await, "");
    // Servers leave the clients' gate, and take no room there.
    let mut peers = vec![third];
    open(&mut peers[0], SERVER).await;
    for _ in 0..4 {
        let mut peer = scene.connect(Start::InTheStream);
        open(&mut peer, SERVER).await;
        peers.push(peer);
    }
    assert_eq!(scene.counts(), (1, 5));
    // The node takes no server now, and clients still.
    scene.federation.park();
    let mut peer = scene.connect(Start::InTheStream);
    peer.send(SERVER).await;
    assert_eq!(peer.end().await, "");
    let mut client = scene.connect(Start::InTheStream);
    open(&mut client, HEADER).await;
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let scene = scene(|config| config.limits.connections_before_login_per_address = 1).await;
    let mut first = scene.connect(Start::InTheStream);
    let mut second = scene.connect(Start::InTheStream);
    open(&mut second, HEADER).await;
    // The connection is counted once, although two hands pass it on.
    assert_eq!((first.end().await.as_str(), scene.counts()), ("", (1, 0)));
}

#[tokio::test]
async fn a_balancer_says_where_both_come_from() {
    let scene = scene(|config| {
        config.federation.loopback = false;
        config.listen.proxy = Some(vec![crate::config::Network::parse("127.0.0.0/8").unwrap()]);
        config.limits.connections_before_login_per_address = 1;
    })
    .await;
    let mut clients = Vec::new();
    for n in 1..4 {
        let mut client = scene.connect(Start::InTheStream);
        client.send(&format!("PROXY TCP4 192.0.2.{n} 127.0.0.1 4000 5222\r\n")).await;
        open(&mut client, HEADER).await;
        clients.push(client);
    }
    assert_eq!(scene.counts(), (3, 0));
    let mut peer = scene.connect(Start::Direct);
    peer.send("PROXY TCP4 192.0.2.9 127.0.0.1 4000 5269\r\n").await;
    server(peer.encrypt().await).await;
    for start in [Start::InTheStream, Start::Direct] {
        let mut peer = scene.connect(start);
        peer.send(SERVER).await;
        assert_eq!(peer.end().await, "");
    }
}
