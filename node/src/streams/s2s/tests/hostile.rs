//! What hostile servers try.

use super::peer::{Peer, header, id};
use super::*;

/// The stream error that ends it.
async fn refused(peer: &mut Peer, condition: &str) {
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
    // EXTERNAL is not offered to whoever has another's certificate, and not taken.
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
