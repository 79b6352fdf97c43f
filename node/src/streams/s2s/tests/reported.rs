//! Faults that were reported of other servers.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::hostile::refused;
use super::peer::Peer;
use super::*;

/// After direct TLS nothing but STARTTLS and dialback was offered, so that servers with a certificate could not log in (Openfire, pull request
/// 3464); or STARTTLS was taken within TLS (1471).
#[tokio::test]
async fn direct_tls_leads_to_a_login_and_to_no_second_tls() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Direct, |_| {}).await;
    let (mut peer, features) = Peer::opened(&a, &b, "b.example").await;
    assert!(features.contains("EXTERNAL") && features.contains("urn:xmpp:features:dialback"), "{features}");
    assert!(!features.contains("xmpp-tls"), "{features}");
    peer.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    refused(&mut peer, "unsupported-stanza-type").await;
}

/// A stream was opened for each stanza that waited (Openfire, pull request 1914), and more than ten thousand a minute to a server that refused
/// (jabberd2, issue 63).
#[tokio::test]
async fn stanzas_that_wait_for_one_server_make_one_attempt() {
    let (port, calls) = (Port::new(), Arc::new(AtomicUsize::new(0)));
    let authority = Authority::new();
    let routes = vec![("b.example", port.at, Begin::Direct)];
    let plan = Plan { routes, ..Plan::certified("a.example", &authority) };
    let short = |config: &mut Config| config.federation.queue = Duration::from_secs(2);
    let a = Node::start(plan, (Port::new(), Port::new()), short).await;
    let counts = calls.clone();
    let refusing = tokio::spawn(async move {
        while let Ok((socket, _)) = port.listener.accept().await {
            counts.fetch_add(1, Ordering::Relaxed);
            drop(socket);
        }
    });
    let mut romeo = a.session("romeo").await;
    for n in 0..200 {
        romeo.send(&format!("<message to='x@b.example' type='chat' id='m{n}'><body>x</body></message>"));
    }
    for _ in 0..200 {
        let got = romeo.until("</message>").await;
        assert!(got.contains("<remote-server-timeout"), "{got}");
    }
    refusing.abort();
    let calls = calls.load(Ordering::Relaxed);
    assert!((1..=5).contains(&calls), "{calls}");
}

/// A port for servers alone is none for clients: not at once, and not behind TLS or a login that a server has begun.
#[tokio::test]
async fn no_client_comes_in_by_the_servers_port() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |_| {}).await;
    let servers = peer::header("b.example", "a.example");
    let clients = servers.replace("jabber:server'", "jabber:client'");
    let mut peer = Peer::plain(a.at).await;
    peer.send(&clients).await;
    refused(&mut peer, "invalid-namespace").await;
    let mut peer = Peer::tls(&a, &b, "b.example").await;
    peer.send(&clients).await;
    refused(&mut peer, "invalid-namespace").await;
    let (mut peer, _) = Peer::opened(&a, &b, "b.example").await;
    peer.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
    peer.until("<success").await;
    peer.send(&clients).await;
    refused(&mut peer, "invalid-namespace").await;
    // Nor with a client's way to log in.
    let (mut peer, features) = Peer::opened(&a, &b, "b.example").await;
    assert!(!features.contains("PLAIN") && !features.contains("SCRAM"), "{features}");
    peer.send(&crate::streams::c2s::tests::plain("romeo", "secret")).await;
    peer.until("<failure").await;
}
