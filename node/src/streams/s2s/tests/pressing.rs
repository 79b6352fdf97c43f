//! A stream of another server to clients on sockets that confirm late or never, where nothing is archived.

use super::peer::Peer;
use super::*;
use crate::config::ArchiveDefault;
use crate::streams::c2s;
use crate::streams::c2s::tests::bind;
use crate::transport::tcp::{Socket, Start};

/// So many messages go to each client: those of two are more than may be under way on a stream.
const EACH: usize = 150;

/// A session of romeo with stream management, and the id by which it can be resumed.
async fn managed(node: &Node, at: SocketAddr, resource: &str, resume: bool) -> (Peer, String) {
    let mut client = Peer::client(node, at, "romeo").await;
    client.send(&bind(resource)).await;
    client.until("</iq>").await;
    client.send(&format!("<enable xmlns='urn:xmpp:sm:3' resume='{resume}'/>")).await;
    client.until("<enabled ").await;
    let enabled = client.until("/>").await;
    (client, if resume { peer::id(&format!(" {enabled}")) } else { String::new() })
}

/// Takes up the session of a client that has got `h` stanzas.
async fn back(node: &Node, at: SocketAddr, id: &str, h: usize) -> Peer {
    let mut client = Peer::client(node, at, "romeo").await;
    client.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>")).await;
    client.until("<resumed ").await;
    client
}

/// Reads the messages `from..EACH`, each once and in order.
async fn takes(client: &mut Peer, from: usize) {
    for n in from..EACH {
        let got = client.until("</body>").await;
        let bodies = got.matches("<body>").count();
        assert!(bodies == 1 && got.ends_with(&format!("<body>{n}</body>")), "{n}: {got}");
    }
}

/// No message is left.
async fn no_more(client: &mut Peer) {
    client.send("<iq type='get' id='end' to='a.example'><ping xmlns='urn:xmpp:ping'/></iq>").await;
    let got = client.until("id='end'").await;
    assert!(!got.contains("<body>"), "{got}");
}

#[tokio::test]
async fn clients_that_confirm_late_or_never_hold_up_no_stream() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |config| {
        config.archive.default = ArchiveDefault::Never;
        config.federation.limits.traffic.stanzas_burst = 1_000_000;
        config.federation.limits.traffic.bytes_burst = 1_000_000_000;
    })
    .await;
    let (shared, port) = (a.shared.clone(), Port::new());
    let (gate, stop, at) = (shared.gate.clone(), shared.stop.clone(), port.at);
    let take = move |stream, peer, pass| c2s::serve(&shared, Socket::new(stream, Start::Direct, peer), pass);
    let _accepting = tokio::spawn(accept::run(port.listener, gate, stop, take));
    let (mut slow, _) = managed(&a, at, "slow", true).await;
    // It confirms nothing, and cannot come back: nobody keeps a headline for it.
    let (mut mute, _) = managed(&a, at, "mute", false).await;
    let (mut deaf, deaf_id) = managed(&a, at, "deaf", true).await;
    let (asleep, asleep_id) = managed(&a, at, "asleep", true).await;
    drop(asleep);
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    peer.until("<enabled ").await;
    let kinds = [("mute", "headline"), ("deaf", "chat"), ("asleep", "chat"), ("slow", "chat")];
    let mut text = String::new();
    for n in 0..EACH {
        for (resource, kind) in kinds {
            let (from, to) = ("x@b.example/r", format!("romeo@a.example/{resource}"));
            text += &format!("<message from='{from}' to='{to}' type='{kind}'><body>{n}</body></message>");
        }
    }
    peer.send(&(text + "<r xmlns='urn:xmpp:sm:3'/>")).await;
    let reads = async {
        for n in 0..EACH {
            slow.until(&format!("<body>{n}</body>")).await;
            slow.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{n}'/>")).await;
        }
    };
    let all = format!("h='{}'/>", EACH * kinds.len());
    tokio::join!(reads, peer.until(&all));
    takes(&mut mute, 0).await;
    no_more(&mut mute).await;
    no_more(&mut slow).await;
    takes(&mut deaf, 0).await;
    drop(deaf);
    // It says of a third that it has them.
    let mut deaf = back(&a, at, &deaf_id, EACH / 3).await;
    takes(&mut deaf, EACH / 3).await;
    no_more(&mut deaf).await;
    let mut asleep = back(&a, at, &asleep_id, 0).await;
    takes(&mut asleep, 0).await;
    no_more(&mut asleep).await;
}
