//! A node whose servers call on the port of its clients.

use super::peer::Peer;
use super::*;
use crate::streams::either;
use crate::streams::s2s::Direction;
use crate::transport::tcp::Start;

#[tokio::test]
async fn servers_and_clients_call_on_one_port() {
    for (begin, start) in [(Begin::Starttls, Start::InTheStream), (Begin::Direct, Start::Direct)] {
        let authority = Authority::new();
        let (both, at_b) = (Port::new(), (Port::new(), Port::new()));
        let to_b = ("b.example", at_b.0.at, Begin::Starttls);
        let to_a = ("a.example", both.at, begin);
        let plan = |domain, route| Plan {
            domain,
            authority: Some(&authority),
            routes: vec![route],
            policy: Policy::Certificate,
        };
        let a = Node::start(plan("a.example", to_b), (Port::new(), Port::new()), |_| {}).await;
        let b = Node::start(plan("b.example", to_a), at_b, |_| {}).await;
        let (shared, federation) = (a.shared.clone(), a.federation.clone());
        let (gate, stop, at) = (shared.gate.clone(), shared.stop.clone(), both.at);
        let take = move |stream, peer, pass| either::serve(&shared, &federation, stream, start, peer, pass);
        let _accepting = tokio::spawn(accept::run(both.listener, gate, stop, take));
        let (mut romeo, mut juliet) = (a.session("romeo").await, b.session("juliet").await);
        juliet.send("<message to='romeo@a.example/r' type='chat' id='1'><body>Ay me</body></message>");
        romeo.until("<body>Ay me</body>").await;
        romeo.send("<message to='juliet@b.example' type='chat' id='2'><body>O speak again</body></message>");
        juliet.until("<body>O speak again</body>").await;
        let streams = a.federation.table.list(None);
        let incoming = streams.iter().find(|info| info.direction == Direction::Incoming).unwrap();
        assert_eq!(incoming.pairs[0].1, "certificate");
        assert_eq!((a.shared.gate.counts().0, a.federation.gate.counts().0), (0, 1));
        if begin == Begin::Starttls {
            let mut client = Peer::plain(at).await;
            let header =
                peer::header("romeo@a.example", "a.example").replace("jabber:server'", "jabber:client'");
            client.send(&header.replace(" xmlns:db='jabber:server:dialback'", "")).await;
            let features = client.until("</stream:features>").await;
            assert!(
                features.contains("xmlns='jabber:client'") && features.contains("starttls"),
                "{features}"
            );
            assert_eq!((a.shared.gate.counts().0, a.federation.gate.counts().0), (1, 1));
        }
    }
}
