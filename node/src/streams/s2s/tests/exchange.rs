//! What honest servers do.

use super::*;
use crate::streams::s2s::Direction;

/// A message each way.
async fn talk(a: &Node, b: &Node) {
    let (mut romeo, mut juliet) = (a.session("romeo").await, b.session("juliet").await);
    romeo.send(
        "<message to='juliet@b.example' type='chat' id='m1'><body>O speak again</body>\
         <x xmlns='urn:x'><message xmlns='jabber:client'/></x></message>",
    );
    let got = juliet.until("</message>").await;
    assert!(got.contains("from='romeo@a.example/r'") && got.contains("<body>O speak again</body>"), "{got}");
    juliet.send("<message to='romeo@a.example/r' type='chat' id='m2'><body>Ay me</body></message>");
    let got = romeo.until("</message>").await;
    assert!(got.contains("from='juliet@b.example/r'") && got.contains("<body>Ay me</body>"), "{got}");
    romeo.send("<iq to='b.example' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>");
    let got = romeo.until("id='p'").await;
    assert!(got.contains("from='b.example'"), "{got}");
}

fn proofs(node: &Node, direction: Direction) -> Vec<&'static str> {
    let all = node.federation.table.list(None).into_iter().filter(|info| info.direction == direction);
    all.flat_map(|info| info.pairs.into_iter().map(|(_, by)| by)).collect()
}

#[tokio::test]
async fn by_certificate_with_starttls() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |_| {}).await;
    talk(&a, &b).await;
    assert_eq!(
        (proofs(&a, Direction::Incoming), proofs(&b, Direction::Incoming)),
        (vec!["certificate"], vec!["certificate"])
    );
}

#[tokio::test]
async fn by_certificate_with_direct_tls() {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Direct, |_| {}).await;
    talk(&a, &b).await;
    assert_eq!(proofs(&b, Direction::Incoming), ["certificate"]);
}

#[tokio::test]
async fn by_dialback_where_no_authority_has_signed() {
    let (a, b) = two(None, Policy::Dialback, Begin::Starttls, |_| {}).await;
    talk(&a, &b).await;
    assert_eq!(
        (proofs(&a, Direction::Incoming), proofs(&b, Direction::Incoming)),
        (vec!["dialback"], vec!["dialback"])
    );
}

#[tokio::test]
async fn nothing_is_sent_to_who_must_have_a_certificate_and_has_none() {
    let (a, _b) = two(None, Policy::Dialback, Begin::Starttls, |config| {
        config.federation.require_secure =
            vec![rookery_actors::options::DomainPattern::parse("b.example").unwrap()];
        config.federation.queue = Duration::from_secs(1);
    })
    .await;
    let mut romeo = a.session("romeo").await;
    romeo.send("<message to='juliet@b.example' type='chat' id='m1'><body>secret</body></message>");
    let got = romeo.until("</message>").await;
    assert!(got.contains("type='error'") && got.contains("<remote-server-timeout"), "{got}");
    assert!(a.federation.table.list(None).is_empty());
}
