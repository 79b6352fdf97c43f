//! What hostile servers try.

use super::peer::{Peer, header, id};
use super::*;

/// The stream error that ends it.
pub(super) async fn refused(peer: &mut Peer, condition: &str) {
    let end = peer.end().await;
    assert!(end.contains(&format!("<{condition} ")), "{condition} is not in {end}");
    assert!(end.ends_with("</stream:stream>"), "{end}");
}

/// Two nodes with certificates, and the victim's user online. The attacker is `b.example`.
async fn victim() -> (Node, Node, Session) {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |_| {}).await;
    let romeo = a.session("romeo").await;
    (a, b, romeo)
}

#[tokio::test]
async fn a_forged_from_ends_the_stream() {
    let (a, b, mut romeo) = victim().await;
    for (from, to, condition) in [
        ("juliet@c.example", "romeo@a.example", "invalid-from"),
        ("juliet@a.example", "romeo@a.example", "invalid-from"),
        ("juliet@sub.b.example", "romeo@a.example", "invalid-from"),
        ("juliet@b.example", "romeo@c.example", "host-unknown"),
    ] {
        let mut peer = Peer::authenticated(&a, &b, "b.example").await;
        peer.send(&format!("<message from='{from}' to='{to}'><body>x</body></message>")).await;
        refused(&mut peer, condition).await;
    }
    for message in ["<message to='romeo@a.example'/>", "<message from='juliet@b.example'/>"] {
        let mut peer = Peer::authenticated(&a, &b, "b.example").await;
        peer.send(message).await;
        refused(&mut peer, "improper-addressing").await;
    }
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send("<message from='Juliet@B.example/r' to='romeo@a.example'><body>y</body></message>").await;
    let got = romeo.until("</message>").await;
    assert!(got.contains("from='juliet@b.example/r'") && got.contains("<body>y</body>"), "{got}");
}

#[tokio::test]
async fn nobody_speaks_for_us_or_without_a_proof() {
    let (a, b, _romeo) = victim().await;
    // In the header: one of our own domains.
    let mut peer = Peer::tls(&a, &b, "b.example").await;
    peer.send(&header("a.example", "a.example")).await;
    refused(&mut peer, "invalid-from").await;
    // EXTERNAL is neither offered to nor taken from a server with another's certificate.
    let (mut peer, features) = Peer::opened(&a, &b, "c.example").await;
    assert!(!features.contains("EXTERNAL") && features.contains("urn:xmpp:features:dialback"), "{features}");
    peer.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
    peer.until("<not-authorized").await;
    peer.send("<message from='x@c.example' to='romeo@a.example'/>").await;
    refused(&mut peer, "not-authorized").await;
    // Nor does dialback do where a certificate is wanted.
    let (mut peer, _) = Peer::opened(&a, &b, "c.example").await;
    peer.send("<db:result from='c.example' to='a.example'>key</db:result>").await;
    let answer = peer.until("</db:result>").await;
    assert!(answer.contains("type='error'") && answer.contains("<not-authorized"), "{answer}");
    // In the clear there is nothing but TLS.
    let mut peer = Peer::plain(a.at).await;
    peer.send(&header("b.example", "a.example")).await;
    let features = peer.until("</stream:features>").await;
    assert!(features.contains("<required/>") && !features.contains("mechanisms"), "{features}");
    peer.send("<message from='x@b.example' to='romeo@a.example'/>").await;
    refused(&mut peer, "not-authorized").await;
}

/// Two nodes without certificates.
async fn dialled() -> (Node, Node) {
    two(None, Policy::Dialback, Begin::Starttls, |_| {}).await
}

#[tokio::test]
async fn a_false_key_is_found_out() {
    let (a, b) = dialled().await;
    // A key that b has not made: the stream is of no use.
    let (mut peer, _) = Peer::opened(&a, &b, "b.example").await;
    peer.send("<db:result from='b.example' to='a.example'>0123</db:result>").await;
    let end = peer.end().await;
    assert!(end.contains("type='invalid'") && end.contains("</stream:stream>"), "{end}");
    // A key that b has made, for another stream: a replay.
    let (mut peer, header) = Peer::opened(&a, &b, "b.example").await;
    let key = b.host.dialback_key("a.example", "b.example", "another");
    peer.send(&format!("<db:result from='b.example' to='a.example'>{key}</db:result>")).await;
    assert!(peer.end().await.contains("type='invalid'"));
    let _ = header;
    // And the right one, which proves the domain for this stream alone.
    let (mut peer, header) = Peer::opened(&a, &b, "b.example").await;
    let key = b.host.dialback_key("a.example", "b.example", &id(&header));
    peer.send(&format!("<db:result from='B.Example' to='a.example'>{key}</db:result>")).await;
    peer.until("type='valid'").await;
    peer.send(
        "<iq type='get' id='i' from='b.example' to='a.example'><query xmlns='jabber:iq:nothing'/></iq>",
    )
    .await;
    let other = "<db:result from='b.example' to='b.example'>k</db:result>";
    peer.send(other).await;
    assert!(peer.until("</db:result>").await.contains("<item-not-found"));
}

#[tokio::test]
async fn answers_that_nobody_asked_for_prove_nothing() {
    let (a, b) = dialled().await;
    let (mut peer, _) = Peer::opened(&a, &b, "b.example").await;
    for element in [
        "<db:result from='b.example' to='a.example' type='valid'/>",
        "<db:verify from='b.example' to='a.example' id='x' type='valid'/>",
    ] {
        peer.send(element).await;
    }
    peer.send("<message from='x@b.example' to='romeo@a.example'/>").await;
    refused(&mut peer, "not-authorized").await;
}

#[tokio::test]
async fn limits_end_streams_and_nobody_elses() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |config| {
        config.federation.limits.stanza_bytes = 20_000;
        config.federation.limits.new_streams_per_minute = 12;
        config.federation.limits.streams_per_domain = 2;
        config.federation.limits.domains_per_stream = 2;
    })
    .await;
    let mut romeo = a.session("romeo").await;
    // A giant stanza: before its end is there.
    let mut giant = Peer::authenticated(&a, &b, "b.example").await;
    let mut honest = Peer::authenticated(&a, &b, "b.example").await;
    giant.send("<message from='x@b.example' to='romeo@a.example'><body>").await;
    giant.send(&"x".repeat(25_000)).await;
    refused(&mut giant, "policy-violation").await;
    // What is as large as is said does go.
    let body = "y".repeat(19_000);
    honest
        .send(&format!("<message from='x@b.example' to='romeo@a.example'><body>{body}</body></message>"))
        .await;
    assert!(romeo.until("</message>").await.contains(&body));
    // Before anything is proved less is taken.
    let (mut early, features) = Peer::opened(&a, &b, "b.example").await;
    assert!(features.contains("<max-bytes>20000</max-bytes>"), "{features}");
    early.send(&format!("<db:result from='b.example' to='a.example'>{}", "k".repeat(33_000))).await;
    refused(&mut early, "policy-violation").await;
    // A third stream of the domain proves nothing.
    let _second = Peer::authenticated(&a, &b, "b.example").await;
    let (mut third, _) = Peer::opened(&a, &b, "b.example").await;
    third.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
    third.until("<temporary-auth-failure").await;
    // Streams and streams: from some number on they are closed without a word.
    let mut taken = 0;
    for _ in 0..20 {
        let mut peer = Peer::plain(a.at).await;
        peer.send(&header("b.example", "a.example")).await;
        taken += usize::from(!peer.first().await.is_empty());
    }
    assert!((1..=12).contains(&taken), "{taken}");
    // And the stream that was there goes on.
    honest.send("<message from='x@b.example' to='romeo@a.example'><body>still</body></message>").await;
    romeo.until("still").await;
}

#[tokio::test]
async fn who_is_slow_is_not_waited_for() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |config| {
        config.federation.limits.negotiation = Duration::from_secs(1);
        config.federation.limits.streams_unproved_per_address = 3;
    })
    .await;
    // A header that never ends; a stream on which nothing is proved; a handshake that does not come.
    let mut slow = Peer::plain(a.at).await;
    slow.send("<?xml version='1.0'?><stream:stream xmlns='jabber:server'").await;
    refused(&mut slow, "connection-timeout").await;
    let (mut idle, _) = Peer::opened(&a, &b, "b.example").await;
    refused(&mut idle, "connection-timeout").await;
    let mut silent = Peer::plain(a.at_tls).await;
    silent.end().await;
    // The oldest of those that have proved nothing makes room.
    let mut all = Vec::new();
    for _ in 0..4 {
        let mut peer = Peer::plain(a.at).await;
        peer.send(&header("b.example", "a.example")).await;
        peer.until("</stream:features>").await;
        all.push(peer);
    }
    assert_eq!(all[0].end().await, "");
    assert_eq!(all.len(), 4);
}

#[tokio::test]
async fn names_that_differ_by_form_are_one_name() {
    let authority = Authority::new();
    let a = (Port::new(), Port::new());
    let plan = Plan {
        domain: "bücher.example",
        authority: Some(&authority),
        routes: Vec::new(),
        policy: Policy::Certificate,
    };
    let a = Node::start(plan, a, |_| {}).await;
    let plan = Plan {
        domain: "b.example",
        authority: Some(&authority),
        routes: Vec::new(),
        policy: Policy::Certificate,
    };
    let b = Node::start(plan, (Port::new(), Port::new()), |_| {}).await;
    let mut romeo = a.session("romeo").await;
    for to in ["xn--bcher-kva.example", "BÜCHER.example"] {
        let mut peer = Peer::tls(&a, &b, "b.example").await;
        peer.send(&header("B.EXAMPLE", to)).await;
        let features = peer.until("</stream:features>").await;
        assert!(features.contains("EXTERNAL") && features.contains("from='bücher.example'"), "{features}");
        peer.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
        peer.until("<success").await;
        peer.send(&header("b.example", to)).await;
        peer.until("</stream:features>").await;
        let body = format!("<message from='x@b.example' to='romeo@{to}'><body>{to}</body></message>");
        peer.send(&body).await;
        romeo.until(&format!("<body>{to}</body>")).await;
    }
    // A name that only looks alike is another: here a Cyrillic letter.
    let (mut peer, features) = Peer::opened_to(&a, &b, "\u{432}.example", "bücher.example").await;
    assert!(!features.contains("EXTERNAL"), "{features}");
    peer.send("<message from='x@b.example' to='romeo@bücher.example'/>").await;
    refused(&mut peer, "not-authorized").await;
}
