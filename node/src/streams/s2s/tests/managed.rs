//! Stream management between servers (XEP-0198), both ways on one stream (XEP-0288), and ends that lose nothing.

use super::peer::Peer;
use super::*;
use crate::streams::s2s::Direction;
use crate::streams::s2s::table::Which;

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

fn message(n: usize) -> String {
    format!("<message from='x@b.example' to='romeo@a.example' id='{n}'><body>{n}</body></message>")
}

async fn pair() -> (Node, Node, Session) {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |_| {}).await;
    let romeo = a.session("romeo").await;
    (a, b, romeo)
}

/// The first three messages go over a stream, and are acknowledged.
async fn three(peer: &mut Peer, romeo: &mut Session) {
    for n in 1..=3 {
        peer.send(&message(n)).await;
    }
    romeo.until("<body>3</body>").await;
    peer.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    peer.until("<a xmlns='urn:xmpp:sm:3' h='3'/>").await;
}

fn attribute(text: &str, name: &str) -> String {
    text.rsplit_once(&format!(" {name}='")).unwrap().1.split('\'').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_lost_stream_goes_on_where_it_was() {
    let (a, b, mut romeo) = pair().await;
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    peer.until("<unexpected-request").await;
    peer.send(ENABLE).await;
    let enabled = peer.until("/>").await + &peer.until("/>").await;
    let id = attribute(&enabled, "id");
    three(&mut peer, &mut romeo).await;
    peer.send(&message(4)).await;
    romeo.until("<body>4</body>").await;
    drop(peer);
    // Of another domain it cannot be resumed, nor by a name that nobody has given.
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send("<resume xmlns='urn:xmpp:sm:3' previd='no-such' h='0'/>").await;
    peer.until("<item-not-found").await;
    peer.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>")).await;
    let resumed = peer.until("h='4'/>").await;
    assert!(resumed.contains("<resumed ") && attribute(&resumed, "previd") == id, "{resumed}");
    peer.send(&message(5)).await;
    peer.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    peer.until("h='5'/>").await;
    let got = romeo.until("<body>5</body>").await;
    assert!(!got.contains("<body>4</body>"), "{got}");
    // A stream that is still there gives up what it has to the one that resumes it.
    let mut next = Peer::authenticated(&a, &b, "b.example").await;
    next.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>")).await;
    next.until("h='5'/>").await;
    peer.end().await;
    // Closed in order it is gone.
    next.send("</stream:stream>").await;
    next.end().await;
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>")).await;
    peer.until("<item-not-found").await;
}

/// A stanza was lost inside this server: the other server sends it again, and nothing else comes twice.
#[tokio::test]
async fn what_was_lost_inside_comes_again_on_the_same_stream() {
    let (a, b, mut romeo) = pair().await;
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send(ENABLE).await;
    let enabled = peer.until("/>").await;
    let id = attribute(&enabled, "id");
    three(&mut peer, &mut romeo).await;
    let number = a.federation.table.list(Some("b.example"))[0].number;
    a.federation.table.forget(number);
    let end = peer.end().await;
    assert!(!end.contains("<stream:error"), "{end}");
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>")).await;
    assert!(peer.until("h='3'/>").await.contains("<resumed "));
    peer.send(&message(4)).await;
    let got = romeo.until("<body>4</body>").await;
    assert!(!got.contains("<body>3</body>"), "{got}");
}

#[tokio::test]
async fn what_came_before_the_end_is_settled_and_acknowledged() {
    let (a, b, mut romeo) = pair().await;
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    let mut text = ENABLE.to_owned();
    (1..=200).for_each(|n| text.push_str(&message(n)));
    peer.send(&(text + "</stream:stream>")).await;
    let end = peer.end().await;
    assert!(end.ends_with("<a xmlns='urn:xmpp:sm:3' h='200'/></stream:stream>"), "{end}");
    romeo.until("<body>200</body>").await;
    // The same without counting: all of it arrives.
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    let text: String = (201..=300).map(message).collect();
    peer.send(&(text + "</stream:stream>")).await;
    assert!(peer.end().await.ends_with("</stream:stream>"));
    romeo.until("<body>300</body>").await;
    // And when this side ends it: what is known is said first.
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send(&format!("{ENABLE}{}", message(301))).await;
    romeo.until("<body>301</body>").await;
    let incoming = |info: &super::super::table::Info| info.direction == Direction::Incoming;
    let number = a.federation.table.list(Some("b.example")).into_iter().find(incoming).unwrap().number;
    assert_eq!(a.federation.table.close(Which::Number(number)), 1);
    let end = peer.until("</stream:stream>").await;
    assert!(end.contains("<a xmlns='urn:xmpp:sm:3' h='1'/></stream:stream>"), "{end}");
    peer.send("</stream:stream>").await;
    peer.end().await;
    // When the node stops, it says why.
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send(&message(302)).await;
    romeo.until("<body>302</body>").await;
    a.stop.send(true).unwrap();
    let end = peer.until("</stream:stream>").await;
    assert!(end.contains("<system-shutdown "), "{end}");
    peer.send("</stream:stream>").await;
    a.federation.gate.emptied().await;
}

#[tokio::test]
async fn a_stream_that_goes_both_ways_is_lent_to_the_link() {
    let authority = Authority::new();
    // The node does not know where the other server is: only the other's own stream leads there.
    let nowhere = Port::new();
    let at = nowhere.at;
    drop(nowhere);
    let plan =
        |domain, routes| Plan { domain, authority: Some(&authority), routes, policy: Policy::Certificate };
    let ports = || (Port::new(), Port::new());
    let a = Node::start(plan("a.example", vec![("b.example", at, Begin::Starttls)]), ports(), |_| {}).await;
    let b = Node::start(plan("b.example", Vec::new()), ports(), |_| {}).await;
    let romeo = a.session("romeo").await;
    let (mut peer, features) = Peer::opened(&a, &b, "b.example").await;
    assert!(features.contains("<bidi xmlns='urn:xmpp:features:bidi'/>"), "{features}");
    peer.send("<bidi xmlns='urn:xmpp:bidi'/>").await;
    peer.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
    peer.until("<success").await;
    peer.send(&super::peer::header("b.example", "a.example")).await;
    peer.until("</stream:features>").await;
    romeo.send("<message to='x@b.example' type='chat' id='m'><body>over your own line</body></message>");
    let got = peer.until("</message>").await;
    assert!(got.contains("from='romeo@a.example/r'") && got.contains("over your own line"), "{got}");
    let info = &a.federation.table.list(Some("b.example"))[0];
    assert!(info.bidi && info.direction == Direction::Incoming);
}

#[tokio::test]
async fn a_link_goes_on_over_a_stream_that_breaks() {
    let (a, b, mut romeo) = pair().await;
    let juliet = b.session("juliet").await;
    juliet.send("<message to='romeo@a.example' id='0'><body>first</body></message>");
    assert!(romeo.until("</message>").await.contains("<body>first</body>"));
    for n in 0..2 {
        let incoming = a.federation.table.list(Some("b.example"));
        let number = incoming.iter().find(|info| info.direction == Direction::Incoming).unwrap();
        assert_eq!(number.managed, Some(true));
        // Cut without a word, in the midst of messages.
        for m in 0..20 {
            if m == 10 {
                a.federation.table.cut(number.number);
            }
            juliet
                .send(&format!("<message to='romeo@a.example' id='{n}-{m}'><body>{n}-{m}</body></message>"));
        }
        for m in 0..20 {
            let got = romeo.until("</message>").await;
            assert!(got.contains(&format!("<body>{n}-{m}</body>")), "{n}-{m}: {got}");
        }
    }
}

const EXTERNAL: &str = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>\
    <bidi xmlns='urn:xmpp:features:bidi'/>";

#[tokio::test]
async fn a_server_that_cannot_resume_is_asked_to_send_on_the_same_stream() {
    let authority = Authority::new();
    let port = Port::new();
    let plan =
        |domain, routes| Plan { domain, authority: Some(&authority), routes, policy: Policy::Certificate };
    let ports = || (Port::new(), Port::new());
    let a =
        Node::start(plan("a.example", vec![("b.example", port.at, Begin::Direct)]), ports(), |_| {}).await;
    let b = Node::start(plan("b.example", Vec::new()), ports(), |_| {}).await;
    let mut romeo = a.session("romeo").await;
    for both in [false, true] {
        romeo.send("<presence to='x@b.example'/>");
        let mut peer = Peer::called(&port.listener, &b).await;
        peer.greet("b.example", EXTERNAL).await;
        let auth = peer.until("</auth>").await;
        assert!(auth.contains(">YS5leGFtcGxl<"), "a.example in base64: {auth}");
        let asked = auth.contains("<bidi xmlns='urn:xmpp:bidi'><limits xmlns='urn:xmpp:stream-limits:0'>");
        assert_eq!(asked, both, "{auth}");
        peer.send("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
        peer.greet("b.example", "").await;
        peer.until("<presence ").await;
        peer.send("<message from='x@b.example' to='romeo@a.example'><body>back</body></message>").await;
        if both {
            romeo.until("<body>back</body>").await;
        } else {
            // Nobody has asked it to send here.
            assert!(peer.end().await.contains("<not-authorized "));
        }
    }
}

#[tokio::test]
async fn results_of_dialback_count_for_what_was_asked() {
    let authority = Authority::new();
    let port = Port::new();
    let plan =
        |domain, routes| Plan { domain, authority: Some(&authority), routes, policy: Policy::Certificate };
    let ports = || (Port::new(), Port::new());
    let a =
        Node::start(plan("a.example", vec![("b.example", port.at, Begin::Direct)]), ports(), |_| {}).await;
    let b = Node::start(plan("b.example", Vec::new()), ports(), |_| {}).await;
    let romeo = a.session("romeo").await;
    romeo.send("<message to='x@b.example' type='chat' id='m'><body>wait for it</body></message>");
    let mut peer = Peer::called(&port.listener, &b).await;
    peer.greet("b.example", "").await;
    let request = peer.until("</db:result>").await;
    let key = a.host.dialback_key("b.example", "a.example", "i-1");
    assert!(request.contains(&key) && request.contains("from='a.example'"), "{request}");
    // Of others, and about others: nothing is sent.
    peer.send("<db:result from='c.example' to='a.example' type='valid'/>").await;
    peer.send("<db:result from='b.example' to='c.example' type='valid'/>").await;
    peer.send("<db:verify from='b.example' to='a.example' id='i-1' type='valid'/>").await;
    peer.send("<db:result from='b.example' to='a.example' type='valid'/>").await;
    assert!(peer.until("</message>").await.contains("wait for it"));
}
