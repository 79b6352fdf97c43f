//! Many domains, many streams, many bytes, and servers that never answer: nobody else suffers.

use tokio::net::TcpSocket;

use super::peer::{Peer, header, id};
use super::*;

const MANY: usize = 60;

/// `a.example` and 59 more.
fn many(config: &mut Config) {
    let first = config.domains[0].clone();
    let other =
        |n: usize| config::Domain { name: format!("a{n}.example"), certificate: None, ..first.clone() };
    config.domains.extend((1..MANY).map(other));
}

fn name(n: usize) -> String {
    if n == 0 { "a.example".to_owned() } else { format!("a{n}.example") }
}

/// By certificate, all at once: the other server opens a stream for each pair.
#[tokio::test]
async fn sixty_domains_may_hear_one_other_server() {
    let authority = Authority::new();
    let a = Node::start(Plan::certified("a.example", &authority), (Port::new(), Port::new()), many).await;
    let b = Node::start(Plan::certified("b.example", &authority), (Port::new(), Port::new()), |_| {}).await;
    let mut peers = Vec::new();
    for n in 0..MANY {
        let to = name(n);
        let (mut peer, features) = Peer::opened_to(&a, &b, "b.example", &to).await;
        assert!(features.contains("EXTERNAL"), "{features}");
        peer.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
        peer.until("<success").await;
        peer.send(&header("b.example", &to)).await;
        peer.until("</stream:features>").await;
        peers.push(peer);
    }
    assert_eq!(a.federation.table.list(Some("b.example")).len(), MANY);
}

/// By dialback, with all that is as it is delivered: a request to each domain, and an answer from each.
#[tokio::test]
async fn sixty_domains_talk_to_one_other_server() {
    let (a, b) = ((Port::new(), Port::new()), (Port::new(), Port::new()));
    let (at_a, at_b) = (a.0.at, b.0.at);
    let to_b = vec![("b.example", at_b, Begin::Starttls)];
    let _a = Node::start(Plan::by_dialback("a.example", to_b), a, many).await;
    let back = vec![("*", at_a, Begin::Starttls)];
    let b = Node::start(Plan::by_dialback("b.example", back), b, |_| {}).await;
    let mut juliet = b.session("juliet").await;
    for n in 0..MANY {
        let to = name(n);
        juliet.send(&format!("<iq to='{to}' type='get' id='p{n}'><ping xmlns='urn:xmpp:ping'/></iq>"));
    }
    let mut answers = Vec::new();
    while answers.len() < MANY {
        let got = juliet.until("/>").await;
        if let Some(answer) = got.rfind("<iq ").and_then(|at| got.get(at..)) {
            assert!(answer.contains("type='result'"), "{answer}");
            answers.push(answer.to_owned());
        }
    }
}

#[tokio::test]
async fn keys_that_nobody_answers_for_do_not_keep_others_waiting() {
    let tarpit = Port::new();
    let b = (Port::new(), Port::new());
    let routes = vec![("*.tar.example", tarpit.at, Begin::Starttls), ("b.example", b.0.at, Begin::Starttls)];
    let few = |config: &mut Config| config.federation.limits.verifications = 3;
    let a = Node::start(Plan::by_dialback("a.example", routes), (Port::new(), Port::new()), few).await;
    let b = Node::start(Plan::by_dialback("b.example", Vec::new()), b, |_| {}).await;
    let (mut hostile, _) = Peer::opened(&a, &b, "0.tar.example").await;
    for n in 0..3 {
        let from = format!("{n}.tar.example");
        hostile.send(&format!("<db:result from='{from}' to='a.example'>k</db:result>")).await;
    }
    // All three are being verified: a fourth is told to come back.
    hostile.send("<db:result from='3.tar.example' to='a.example'>k</db:result>").await;
    assert!(hostile.until("</db:result>").await.contains("<resource-constraint"));
    // An honest server at another address does not wait for any of them.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let io = socket.connect(a.at_tls).await.unwrap();
    let mut honest = Peer::on(io, &a, &b, "b.example").await;
    honest.send(&header("b.example", "a.example")).await;
    let opened = honest.until("</stream:features>").await;
    let key = b.host.dialback_key("a.example", "b.example", &id(&opened));
    honest.send(&format!("<db:result from='b.example' to='a.example'>{key}</db:result>")).await;
    let answer = honest.until("<db:result ").await + &honest.until(">").await;
    assert!(answer.contains("type='valid'"), "{answer}");
    // One of the three has made room for it, and is told that its key could not be verified.
    let told = hostile.until("</db:result>").await;
    assert!(told.contains("<remote-server-timeout"), "{told}");
}

#[tokio::test]
async fn a_target_that_says_nothing_leads_to_the_next() {
    let authority = Authority::new();
    let slow = |config: &mut Config| config.federation.limits.negotiation = Duration::from_secs(20);
    let a = Node::start(Plan::certified("a.example", &authority), (Port::new(), Port::new()), slow).await;
    let b = Node::start(Plan::certified("b.example", &authority), (Port::new(), Port::new()), |_| {}).await;
    let (silent, begun) = (Port::new(), std::time::Instant::now());
    a.federation.finder.know("b.example", &[(silent.at, Begin::Direct), (b.at, Begin::Starttls)]);
    let (romeo, mut juliet) = (a.session("romeo").await, b.session("juliet").await);
    romeo.send("<message to='juliet@b.example' type='chat' id='m1'><body>hello</body></message>");
    juliet.until("<body>hello</body>").await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // The operator finds the stream by its domain, and can close it.
    let streams = a.federation.table.list(Some("b.example"));
    assert_eq!((streams.len(), streams[0].pairs[0].1), (1, "certificate"));
    assert_eq!(a.federation.table.close(super::super::table::Which::Remote("b.example")), 1);
}

#[tokio::test]
async fn a_flood_holds_up_its_own_domain_alone() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |config| {
        config.federation.limits.traffic.stanzas_per_second = 50;
        config.federation.limits.traffic.stanzas_burst = 50;
    })
    .await;
    let c = Node::start(Plan::certified("c.example", &authority), (Port::new(), Port::new()), |_| {}).await;
    let mut romeo = a.session("romeo").await;
    let (mut flood, mut honest) =
        (Peer::authenticated(&a, &b, "b.example").await, Peer::authenticated(&a, &c, "c.example").await);
    let message = |from: &str, body: &str| {
        format!("<message from='x@{from}' to='romeo@a.example'><body>{body}</body></message>")
    };
    let many: String = (0..250).map(|n| message("b.example", &format!("flood {n}."))).collect();
    flood.send(&many).await;
    romeo.until("flood 0.").await;
    honest.send(&message("c.example", "honest")).await;
    let before = romeo.until("<body>honest</body>").await;
    assert!(!before.contains("flood 249."), "{before}");
    romeo.until("flood 249.").await;
}

#[tokio::test]
async fn a_server_that_does_not_read_is_let_go() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |config| {
        config.limits.answer = Duration::from_secs(1);
        config.federation.limits.traffic.bytes_burst = 1_000_000_000;
        config.federation.limits.traffic.bytes_per_second = 1_000_000_000;
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut peer = Peer::on(socket.connect(a.at_tls).await.unwrap(), &a, &b, "b.example").await;
    peer.log_in("b.example", "a.example").await;
    peer.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    // It asks and asks, and reads no answer. When this node has had enough, it cannot even ask.
    let asked = "<r xmlns='urn:xmpp:sm:3'/>".repeat(1_000);
    let begun = std::time::Instant::now();
    while peer.try_send(&asked).await {
        assert!(begun.elapsed() < Duration::from_secs(50), "still there");
    }
    // Others did not notice.
    let mut other = Peer::authenticated(&a, &b, "b.example").await;
    other.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    other.until("<unexpected-request").await;
}
