//! Finding other servers, with an authoritative DNS server on loopback: signed and unsigned zones, wrong answers, dead targets.
//!
//! Length: one test for each answer that DNS can give.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]
#![allow(clippy::disallowed_methods, unreachable_pub, reason = "test code")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rookery_cluster::seams::Seams;
use rookery_node::config::{Anchor, Dns, Network, Proxy};
use rookery_node::dns::{Begin, Finder, NotFound, Target};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[path = "dns/nsd.rs"]
mod nsd;

use nsd::{Nsd, Signed};

fn finder_with(servers: Vec<SocketAddr>, trust_anchor: Anchor, proxy: Option<Proxy>) -> Finder {
    Finder::new(&Dns { servers, trust_anchor, proxy, refused: Vec::new() }, Seams::system()).unwrap()
}

/// Asks `nsd`, and trusts its root.
fn finder(nsd: &Nsd) -> Finder {
    finder_with(vec![nsd.address], Anchor::Keys(nsd.anchor.clone()), None)
}

/// `direct host:port`, in the order of attempts.
async fn list(finder: &Finder, domain: &str) -> Vec<String> {
    let line = |t: &Target| {
        let begin = if t.begin == Begin::Direct { "direct" } else { "starttls" };
        format!("{begin} {}:{}", t.host, t.port)
    };
    finder.find(domain).await.unwrap_or_else(|e| panic!("{domain}: {e}")).list.iter().map(line).collect()
}

async fn error(finder: &Finder, domain: &str) -> NotFound {
    finder.find(domain).await.unwrap_err()
}

/// The records of a server with everything, the same in each zone.
const SERVER: &str = "
_xmpp-server._tcp.a 300 IN SRV 5 0 5269 xmpp
xmpp 300 IN A 127.0.0.66
xmpp 300 IN AAAA ::1
_5269._tcp.xmpp 300 IN TLSA 3 1 1 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
_5269._tcp.xmpp 300 IN TLSA 2 0 2 cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e
bare 300 IN A 127.0.0.66
alias 300 IN CNAME bare
_xmpp-server._tcp.away 300 IN SRV 5 0 5269 xmpp.plain.
*.wild 300 IN A 127.0.0.66
";

#[tokio::test]
async fn dnssec_says_how_sure_an_answer_is() {
    let nsd = Nsd::start(&[
        ("signed", Signed::Yes, SERVER),
        ("hashed", Signed::Hashed, SERVER),
        ("plain", Signed::No, SERVER),
        ("broken", Signed::Broken, SERVER),
    ]);
    let finder = finder(&nsd);
    let only = async |domain: &str| {
        let found = finder.find(domain).await.unwrap_or_else(|e| panic!("{domain}: {e}"));
        assert_eq!(found.list.len(), 1, "{domain}");
        found.list[0].clone()
    };
    for zone in ["signed", "hashed"] {
        let target = only(&format!("a.{zone}")).await;
        assert_eq!((target.host, target.port), (format!("xmpp.{zone}"), 5269));
        let wanted: Vec<IpAddr> = vec!["::1".parse().unwrap(), "127.0.0.66".parse().unwrap()];
        assert_eq!(target.addresses, wanted);
        assert!(target.secure, "{zone}");
        let mut kinds: Vec<_> =
            target.tlsa.iter().map(|r| (r.usage, r.selector, r.matching, r.data.len())).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [(2, 0, 2, 64), (3, 1, 1, 32)], "{zone}");
        // Without SRV records, and by an alias.
        for domain in ["bare", "alias"] {
            let target = only(&format!("{domain}.{zone}")).await;
            assert_eq!((target.port, target.begin), (5269, Begin::Starttls));
            assert!(target.secure && target.tlsa.is_empty(), "{domain}.{zone}: {target:?}");
        }
        // hickory-resolver 0.26.3 takes the proof that goes with a wildcard for broken: found all the same.
        let target = only(&format!("x.wild.{zone}")).await;
        assert_eq!(target.addresses, ["127.0.0.66".parse::<IpAddr>().unwrap()]);
        // A host without signatures is at the end of the way.
        let target = only(&format!("away.{zone}")).await;
        assert_eq!(target.host, "xmpp.plain");
        assert!(!target.secure && target.tlsa.is_empty(), "{target:?}");
        assert_eq!(
            error(&finder, &format!("missing.{zone}")).await,
            NotFound::NoName(format!("missing.{zone}"))
        );
    }
    // Unsigned: found, and no record counts for DANE.
    let target = only("a.plain").await;
    assert!(!target.secure && target.tlsa.is_empty() && target.addresses.len() == 2, "{target:?}");
    assert!(error(&finder, "missing.plain").await.permanent());
    // A broken signature is no better than none, and no worse.
    let target = only("a.broken").await;
    assert!(!target.secure && target.tlsa.is_empty(), "{target:?}");
    assert_eq!(target.addresses.len(), 2);
    assert!(target.addresses.contains(&"127.0.0.99".parse().unwrap()), "{target:?}");
}

#[tokio::test]
async fn another_key_or_none_means_not_secure() {
    let nsd = Nsd::start(&[("signed", Signed::Yes, SERVER)]);
    let other = Nsd::start(&[]);
    for anchor in [Anchor::Keys(other.anchor.clone()), Anchor::None, Anchor::Root] {
        let finder = finder_with(vec![nsd.address], anchor, None);
        let target = finder.find("a.signed").await.unwrap().list[0].clone();
        assert!(!target.secure && target.tlsa.is_empty(), "{target:?}");
        assert_eq!(target.addresses.len(), 2);
        assert!(error(&finder, "missing.signed").await.permanent());
    }
}

const KINDS: &str = "
_xmpp-server._tcp.mixed 300 IN SRV 20 0 5269 one
_xmpp-server._tcp.mixed 300 IN SRV 5 0 5268 one
_xmpps-server._tcp.mixed 300 IN SRV 10 0 5270 two
_xmpps-server._tcp.mixed 300 IN SRV 1 0 443 two
one 300 IN A 127.0.0.1
two 300 IN A 127.0.0.2
_xmpp-server._tcp.weights 300 IN SRV 1 30 5269 one
_xmpps-server._tcp.weights 300 IN SRV 1 70 5270 two
_xmpp-server._tcp.no 300 IN SRV 0 0 0 .
no 300 IN A 127.0.0.1
_xmpps-server._tcp.nodirect 300 IN SRV 0 0 0 .
nodirect 300 IN A 127.0.0.1
_xmpps-server._tcp.onlystarttls 300 IN SRV 0 0 0 .
_xmpp-server._tcp.onlystarttls 300 IN SRV 0 0 5269 one
_xmpp-server._tcp.wrong 300 IN SRV 9 9 5269 one
_xmpp-server._tcp.wrong 300 IN SRV 1 0 0 one
_xmpp-server._tcp.wrong 300 IN SRV 2 0 5269 nowhere
_xmpp-server._tcp.wrong 300 IN SRV 3 0 5269 loop1
_xmpp-server._tcp.wrong 300 IN SRV 4 0 5269 .
_xmpp-server._tcp.wrong 300 IN SRV 5 0 5269 not\\032a\\032host
_xmpp-server._tcp.wrong 300 IN SRV 6 0 5269 nothing
_xmpps-server._tcp.wrong 300 IN TXT \"an answer of another kind\"
loop1 300 IN CNAME loop2
loop2 300 IN CNAME loop1
nothing 300 IN A 0.0.0.0
_xmpp-server._tcp.nohost 300 IN SRV 1 0 5269 nowhere
_xmpp-server._tcp.xn--bcher-kva 300 IN SRV 1 0 5269 one
";

#[tokio::test]
async fn service_records_to_the_letter() {
    let nsd = Nsd::start(&[("kinds", Signed::Yes, KINDS)]);
    let finder = finder(&nsd);
    let mixed = [
        "direct two.kinds:443",
        "starttls one.kinds:5268",
        "direct two.kinds:5270",
        "starttls one.kinds:5269",
    ];
    assert_eq!(list(&finder, "mixed.kinds").await, mixed);
    // Both kinds share the weights; each call draws anew.
    let mut firsts: HashMap<String, u32> = HashMap::new();
    for _ in 0..1_000 {
        *firsts.entry(list(&finder, "weights.kinds").await[0].clone()).or_default() += 1;
    }
    assert!(firsts["direct two.kinds:5270"].abs_diff(700) < 80, "{firsts:?}");
    // `.` means no, and then no address counts.
    for domain in ["no.kinds", "nodirect.kinds"] {
        let error = error(&finder, domain).await;
        assert_eq!(error, NotFound::NoService(domain.to_owned()));
        assert!(error.permanent());
    }
    assert_eq!(list(&finder, "onlystarttls.kinds").await, ["starttls one.kinds:5269"]);
    // What is wrong is passed over.
    assert_eq!(list(&finder, "wrong.kinds").await, ["starttls one.kinds:5269"]);
    assert_eq!(error(&finder, "nohost.kinds").await, NotFound::NoAddress("nohost.kinds".to_owned()));
    // No records but an address; an address itself; names in both spellings; no name.
    assert_eq!(list(&finder, "one.kinds").await, ["starttls one.kinds:5269"]);
    assert_eq!(list(&finder, "127.0.0.5").await, ["starttls 127.0.0.5:5269"]);
    assert_eq!(list(&finder, "[::1]").await, ["starttls ::1:5269"]);
    for spelling in ["bücher.kinds", "xn--bcher-kva.kinds", "BÜCHER.kinds"] {
        assert_eq!(list(&finder, spelling).await, ["starttls one.kinds:5269"]);
    }
    for bad in ["a b.kinds", "", "0.0.0.0", "224.0.0.1"] {
        assert!(error(&finder, bad).await.permanent(), "{bad}");
    }
    // A route's host.
    let target = finder.host("two.kinds", 1234, Begin::Direct).await.unwrap();
    assert_eq!((target.port, target.begin, target.secure), (1234, Begin::Direct, true));
    assert!(finder.host("nowhere.kinds", 1234, Begin::Direct).await.unwrap_err().permanent());
}

#[tokio::test]
async fn a_flood_of_records_is_bounded() {
    let mut records = String::new();
    for n in 0..200 {
        records += &format!(
            "_xmpp-server._tcp.many 300 IN SRV 1 1 {} host{n}.a-long-name-that-fills-the-answer\n",
            6000 + n
        );
        records += &format!("host{n}.a-long-name-that-fills-the-answer 300 IN A 127.0.0.1\n");
        records += &format!("crowd 300 IN A 127.1.1.{}\n", n + 1);
    }
    let nsd = Nsd::start(&[("big", Signed::Yes, &records)]);
    let finder = finder(&nsd);
    let found = finder.find("many.big").await.unwrap();
    assert!(found.list.len() == 16 && found.list.iter().all(|t| t.secure), "{}", found.list.len());
    assert_eq!(finder.find("crowd.big").await.unwrap().list[0].addresses.len(), 4);
}

#[tokio::test]
async fn a_server_on_trial_stays_on_loopback() {
    let records = "away 300 IN A 192.0.2.1\nboth 300 IN A 192.0.2.1\nboth 300 IN A 127.0.0.3\n\
        here 300 IN A 127.0.0.1\n_xmpp-server._tcp.srv 300 IN SRV 1 1 6379 here\n";
    let nsd = Nsd::start(&[("zone", Signed::No, records)]);
    let (servers, trust_anchor) = (vec![nsd.address], Anchor::None);
    let mut dns = Dns { servers, trust_anchor, proxy: None, refused: Vec::new() };
    let finder = Finder::new(&dns, Seams::system()).unwrap().on_loopback();
    for domain in ["away.zone", "192.0.2.1"] {
        assert_eq!(error(&finder, domain).await, NotFound::Refused(domain.to_owned()));
    }
    let both = finder.find("both.zone").await.unwrap();
    assert_eq!(both.list[0].addresses, ["127.0.0.3".parse::<IpAddr>().unwrap()]);
    // Any other is kept out of what the operator names; a route is not.
    dns.refused = vec![Network::parse("127.0.0.0/8").unwrap()];
    let finder = Finder::new(&dns, Seams::system()).unwrap();
    let both = finder.find("both.zone").await.unwrap();
    assert_eq!(both.list[0].addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    for domain in ["127.0.0.1", "here.zone", "srv.zone"] {
        let refused = error(&finder, domain).await;
        assert_eq!(refused, NotFound::Refused(domain.to_owned()));
        assert!(refused.permanent());
    }
    assert!(finder.host("here.zone", 5269, Begin::Starttls).await.is_ok());
}

#[tokio::test]
async fn what_was_found_is_remembered_and_forgotten() {
    let mut nsd = Nsd::start(&[("zone", Signed::Yes, SERVER)]);
    let (servers, trust_anchor) = (vec![nsd.address], Anchor::Keys(nsd.anchor.clone()));
    let dns = Dns { servers, trust_anchor, proxy: None, refused: Vec::new() };
    let finder = Finder::new(&dns, Seams::system()).unwrap();
    let before = finder.find("a.zone").await.unwrap();
    assert!(error(&finder, "missing.zone").await.permanent());
    nsd.stop();
    // For as long as the TTLs say, nobody is asked.
    assert_eq!(finder.find("a.zone").await.unwrap(), before);
    assert!(error(&finder, "missing.zone").await.permanent());
    // What nobody answers may pass.
    let begun = Instant::now();
    let gone = error(&finder, "b.zone").await;
    assert!(!gone.permanent(), "{gone}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    finder.reload(&dns).unwrap();
    assert!(!error(&finder, "a.zone").await.permanent(), "forgotten with the old configuration");
}

#[tokio::test]
async fn servers_that_say_nothing_do_not_hold_anybody() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let nsd = Nsd::start(&[("zone", Signed::No, SERVER)]);
    let mute = finder_with(vec![silent.local_addr().unwrap()], Anchor::Root, None);
    let begun = Instant::now();
    let all: Vec<_> = (0..200)
        .map(|n| {
            let name = format!("d{n}.example");
            let mute = &mute;
            async move { mute.find(&name).await.unwrap_err() }
        })
        .collect();
    let mut errors = Vec::new();
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        all.retain_mut(|one| match one.as_mut().poll(cx) {
            std::task::Poll::Ready(error) => {
                errors.push(error);
                false
            }
            std::task::Poll::Pending => true,
        });
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    assert!(errors.iter().all(|e| !e.permanent()), "{errors:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // With a second server that answers, the silent one costs time and nothing else.
    let both = finder_with(vec![silent.local_addr().unwrap(), nsd.address], Anchor::Root, None);
    assert_eq!(list(&both, "a.zone").await, ["starttls xmpp.zone:5269"]);
}

fn target(addresses: &[SocketAddr]) -> Target {
    Target {
        begin: Begin::Starttls,
        host: "x.example".to_owned(),
        port: addresses[0].port(),
        addresses: addresses.iter().map(SocketAddr::ip).collect(),
        secure: false,
        tlsa: Vec::new(),
        proxied: false,
    }
}

/// A place where nobody listens.
async fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A listener that lets nobody in: its queue is full, so the kernel does not answer.
struct Full {
    address: SocketAddr,
    _all: (std::net::TcpListener, Vec<std::net::TcpStream>),
}

fn full(ip: &str) -> Full {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap().into_std().unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
        assert!(waiting.len() < 100);
    }
    Full { address, _all: (listener, waiting) }
}

#[tokio::test]
async fn a_dead_target_leads_to_the_next() {
    let finder = finder_with(vec!["127.0.0.1:9".parse().unwrap()], Anchor::None, None);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap();
    let targets = [target(&[dead().await]), target(&[dead().await]), target(&[here])];
    let connected = finder.connect(&targets).await.unwrap();
    assert_eq!((connected.target, connected.address), (2, here));
    assert!(connected.stream.nodelay().unwrap());
    let error = finder.connect(&targets[..2]).await.unwrap_err();
    assert_eq!(error.0.len(), 2, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(finder.connect(&[]).await.is_err());
}

#[tokio::test]
async fn addresses_are_raced() {
    let finder = finder_with(vec!["127.0.0.1:9".parse().unwrap()], Anchor::None, None);
    let silent = full("127.0.0.7");
    let listener = TcpListener::bind(("127.0.0.8", silent.address.port())).await.unwrap();
    let here = listener.local_addr().unwrap();
    // The second address of a host is tried after a quarter of a second, beside the first.
    let begun = Instant::now();
    let connected = finder.connect(&[target(&[silent.address, here])]).await.unwrap();
    let took = begun.elapsed();
    assert_eq!((connected.target, connected.address), (0, here));
    assert!((Duration::from_millis(200)..Duration::from_secs(2)).contains(&took), "{took:?}");
    // The next target waits longer, but not until the first has timed out.
    let begun = Instant::now();
    let connected = finder.connect(&[target(&[silent.address]), target(&[here])]).await.unwrap();
    assert_eq!(connected.target, 1);
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn onions_go_through_the_proxy_and_nowhere_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let domains = vec!["*.onion".to_owned(), "hidden.example".to_owned()];
    let nowhere = vec!["127.0.0.1:9".parse().unwrap()];
    let finder = finder_with(nowhere.clone(), Anchor::None, Some(Proxy { address, domains }));
    let onion = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.onion";
    for (domain, answer, works) in [
        (onion, &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], true),
        ("hidden.example", &[5, 0, 0, 3, 2, b'h', b'i', 0, 0], true),
        ("chat.hidden.onion", &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0], false),
        ("other.onion", &[4, 0, 0, 1], false),
    ] {
        let targets = finder.find(domain).await.unwrap().list;
        assert!(targets.len() == 1 && targets[0].proxied && targets[0].addresses.is_empty());
        let proxy = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut greeting = [0; 3];
            stream.read_exact(&mut greeting).await.unwrap();
            assert_eq!(greeting, [5, 1, 0]);
            stream.write_all(&[5, 0]).await.unwrap();
            let mut request = vec![0; 5 + domain.len() + 2];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(request[..4], [5, 1, 0, 3]);
            assert_eq!(&request[5..5 + domain.len()], domain.as_bytes());
            assert_eq!(request[5 + domain.len()..], 5269_u16.to_be_bytes());
            stream.write_all(answer).await.unwrap();
            // What follows belongs to the stream.
            stream.write_all(b"hello").await.unwrap();
            stream
        };
        let (connected, _open) = tokio::join!(finder.connect(&targets), proxy);
        assert_eq!(connected.is_ok(), works, "{domain}: {connected:?}");
        if let Ok(mut connected) = connected {
            let mut hello = [0; 5];
            connected.stream.read_exact(&mut hello).await.unwrap();
            assert_eq!((connected.address, &hello), (address, b"hello"));
        }
    }
    let without = finder_with(nowhere, Anchor::None, None);
    assert_eq!(error(&without, onion).await, NotFound::NoProxy(onion.to_owned()));
}
