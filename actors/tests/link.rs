//! Links to other servers: what is sent comes once and in order, whatever dies, or goes back.
//!
//! Length: one test for each way in which a stream or a home can end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
mod support;

use std::sync::Arc;
use std::time::Duration;

use foreign::{Foreign, Ways, is_error, not_there, unreachable};
use rookery_actors::Options;
use rookery_actors::link::stream::Failure;
use rookery_actors::options::Federation;
use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::store::keys::{Key, Kind};
use rookery_cluster::tables::{links, seen};
use support::{Client, World};

fn federated(options: &mut Options) {
    options.federation = Some(Federation::default());
}

/// Stanzas go back soon.
fn impatient(options: &mut Options) {
    options.federation = Some(Federation { queue: Duration::from_secs(2), ..Federation::default() });
}

/// One node, and a foreign server.
async fn world(ways: Ways, change: impl FnOnce(&mut Options)) -> (World, Arc<Foreign>) {
    let foreign = Foreign::new(ways);
    let world = World::with(change).await;
    foreign.serves(&world.host);
    (world, foreign)
}

fn chat(n: usize) -> String {
    format!("<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body></message>")
}

fn bodies(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("m{n}.")).collect()
}

/// All of these come back, each once.
async fn errors(romeo: &mut Client, ids: impl Iterator<Item = String>, condition: &str) {
    let mut ids: Vec<_> = ids.map(|id| format!(" id='{id}'")).collect();
    while !ids.is_empty() {
        let error = romeo.recv().await;
        assert!(is_error(&error, condition), "{error}");
        let place = ids.iter().position(|id| error.contains(id.as_str()));
        ids.swap_remove(place.unwrap_or_else(|| panic!("{error} came twice")));
    }
}

async fn romeo(world: &World) -> Client {
    let mut romeo = world.bind("romeo", "phone").await;
    romeo.resumable().await;
    romeo
}

#[tokio::test]
async fn what_is_sent_comes_in_order() {
    for managed in [true, false] {
        let (world, foreign) = world(Ways { managed, ..Ways::default() }, federated).await;
        let mut romeo = romeo(&world).await;
        for n in 0..300 {
            romeo.send(&chat(n));
            if n % 10 == 3 {
                romeo.send(&format!("<iq to='foreign.example' type='get' id='i{n}'><q xmlns='urn:q'/></iq>"));
                romeo.send("<presence to='room@foreign.example/r'/>");
            }
            if n % 100 == 99 {
                romeo.settled().await;
            }
        }
        let got = foreign.got("m299.").await;
        assert_eq!(foreign.bodies(), bodies(0..300));
        let place = |part: &str| got.iter().position(|got| got.contains(part)).unwrap();
        assert!(place("m3.") < place("id='i3'") && place("id='i3'") < place("m4."), "{got:#?}");
        assert!(got[0].contains("from='romeo@localhost/phone'"), "{}", got[0]);
        assert_eq!((got.len(), foreign.dials()), (360, 1));
    }
}

#[tokio::test]
async fn without_federation_nothing_leaves() {
    let (world, foreign) = world(Ways::default(), |_| {}).await;
    let mut romeo = romeo(&world).await;
    romeo.send(&chat(1));
    assert!(is_error(&romeo.recv().await, "remote-server-not-found"));
    romeo.settled().await;
    assert_eq!(foreign.dials(), 0);
}

#[tokio::test]
async fn refused_domains_are_not_spoken_with() {
    let refuse = |options: &mut Options| {
        let refuse = vec![rookery_actors::options::DomainPattern::parse("*.example").unwrap()];
        options.federation = Some(Federation { refuse, ..Federation::default() });
    };
    let (world, foreign) = world(Ways::default(), refuse).await;
    let mut romeo = romeo(&world).await;
    romeo.send(&chat(1));
    assert!(is_error(&romeo.recv().await, "remote-server-not-found"));
    assert!(!world.host.federates("foreign.example") && world.host.federates("foreign.org"));
    assert_eq!(foreign.dials(), 0);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_error_at_once() {
    let (world, foreign) = world(Ways { away: Some(not_there()), ..Ways::default() }, federated).await;
    let mut romeo = romeo(&world).await;
    for n in 0..100 {
        romeo.send(&chat(n));
    }
    romeo.send("<iq to='foreign.example' type='get' id='q'><q xmlns='urn:q'/></iq>");
    errors(&mut romeo, (0..100).map(|n| n.to_string()).chain(["q".into()]), "remote-server-not-found").await;
    romeo.settled().await;
    assert!(foreign.all().is_empty());
    romeo.nothing().await;
    // Nothing is left of it in the store: whoever tries names would fill that. The record goes last, with the senders.
    let link = &Entity::new("localhost@foreign.example");
    let left = async {
        loop {
            let read = world.store.write(store::Options::default(), |tx| {
                Box::pin(async move {
                    let changed = tx.watch(&Key::of(Kind::Link, link).fixed(&[0, 0]).finish());
                    let (record, last) =
                        (links::get(&mut **tx, link).await?, links::last_id(&mut **tx, link).await?);
                    Ok(((record, last, seen::load(&mut **tx, link, 1).await?.rows.len()), changed))
                })
            });
            match read.await.unwrap() {
                ((None, None, 0), _) => return,
                (_, changed) => changed.await.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), left).await.expect("something is left");
}

#[tokio::test]
async fn what_waits_too_long_goes_back() {
    let (world, foreign) = world(Ways { away: Some(unreachable()), ..Ways::default() }, impatient).await;
    let mut romeo = romeo(&world).await;
    for n in 0..20 {
        romeo.send(&chat(n));
    }
    romeo.send("<iq to='foreign.example' type='get' id='q'><q xmlns='urn:q'/></iq>");
    romeo.send("<presence to='juliet@foreign.example' type='unavailable'/>");
    romeo.settled().await; // before anything comes back: all of it is kept
    errors(&mut romeo, (0..20).map(|n| n.to_string()).chain(["q".into()]), "remote-server-timeout").await;
    romeo.nothing().await;
    // The server is there again: what comes now is sent, nothing of what went back.
    foreign.change(|ways| ways.away = None);
    romeo.send(&chat(20));
    foreign.got("m20.").await;
    assert_eq!(foreign.bodies(), ["m20."]);
}

/// The process dies while stanzas go back. Each goes back; twice may come only those few that were on their way.
#[tokio::test]
async fn what_goes_back_goes_back_after_a_crash() {
    for seen in [5, 70, 100] {
        let (world, foreign) = world(Ways { takes: false, ..Ways::default() }, federated).await;
        let mut romeo = romeo(&world).await;
        for n in 0..100 {
            romeo.send(&chat(n));
        }
        foreign.opened().await;
        romeo.settled().await;
        foreign.change(|ways| ways.away = Some(not_there()));
        foreign.cut();
        let mut times = [0; 100];
        let count = |times: &mut [usize; 100], error: &str| {
            let n: Option<usize> =
                error.split(" id='").nth(1).and_then(|id| id.split('\'').next()?.parse().ok());
            if let Some(n) = n.filter(|_| is_error(error, "remote-server-not-found")) {
                times[n] += 1;
            }
        };
        for _ in 0..seen {
            count(&mut times, &romeo.recv().await);
        }
        romeo.told().await;
        romeo.ack();
        romeo.forget();
        let world = world.restart().await;
        foreign.serves(&world.host);
        let mut romeo = world.resume(&romeo).await.expect("resumed");
        while times.contains(&0) {
            count(&mut times, &romeo.recv().await);
        }
        romeo.send("<iq type='get' id='end' to='localhost'><none xmlns='urn:x'/></iq>");
        loop {
            let got = romeo.recv().await;
            if got.contains("id='end'") {
                break;
            }
            count(&mut times, &got);
        }
        let twice = times.iter().filter(|times| **times == 2).count();
        assert!(times.iter().all(|times| *times <= 2) && twice <= 16, "after {seen}: {times:?}");
        assert!(foreign.all().is_empty());
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_the_only_node() {
    let (world, foreign) = world(Ways { away: Some(unreachable()), ..Ways::default() }, federated).await;
    let mut romeo = romeo(&world).await;
    for n in 0..250 {
        romeo.send(&chat(n));
    }
    romeo.settled().await;
    romeo.forget();
    let world = world.restart().await;
    foreign.change(|ways| ways.away = None);
    foreign.serves(&world.host);
    foreign.got("m249.").await;
    assert_eq!(foreign.bodies(), bodies(0..250));
}

#[tokio::test]
async fn a_stream_that_was_lost_is_resumed() {
    let (world, foreign) = world(Ways::default(), federated).await;
    let mut romeo = romeo(&world).await;
    romeo.send(&chat(0));
    foreign.got("m0.").await;
    for round in 0..4 {
        let first = 1 + round * 60;
        for n in first..first + 20 {
            romeo.send(&chat(n));
        }
        foreign.got(&format!("m{}.", first + 19)).await;
        // The other server gets these, and does not say so.
        foreign.change(|ways| ways.confirms = false);
        for n in first + 20..first + 40 {
            romeo.send(&chat(n));
        }
        foreign.got(&format!("m{}.", first + 39)).await;
        // These are lost on their way.
        foreign.change(|ways| ways.takes = false);
        let read = foreign.bytes_read();
        for n in first + 40..first + 60 {
            romeo.send(&chat(n));
        }
        foreign.read(read + 100).await;
        romeo.settled().await;
        foreign.change(|ways| (ways.takes, ways.confirms) = (true, true));
        foreign.cut();
    }
    foreign.got("m240.").await;
    assert_eq!(foreign.bodies(), bodies(0..241));
    assert_eq!(foreign.resumed(), 4);
}

#[tokio::test]
async fn the_next_process_resumes_the_stream() {
    let (mut world, foreign) = world(Ways::default(), federated).await;
    let mut next = 0;
    for _ in 0..3 {
        let mut romeo = romeo(&world).await;
        foreign.change(|ways| ways.confirms = false);
        for n in next..next + 40 {
            romeo.send(&chat(n));
            if n % 7 == 0 {
                romeo.send("<presence to='room@foreign.example/r'/>"); // counts, and is not stored
            }
        }
        next += 40;
        foreign.got(&format!("m{}.", next - 1)).await;
        romeo.settled().await;
        foreign.change(|ways| ways.takes = false);
        let read = foreign.bytes_read();
        for n in next..next + 20 {
            romeo.send(&chat(n));
        }
        next += 20;
        foreign.read(read + 100).await;
        romeo.settled().await;
        romeo.forget();
        world = world.restart().await;
        foreign.cut();
        foreign.change(|ways| (ways.takes, ways.confirms) = (true, true));
        foreign.serves(&world.host);
        foreign.got(&format!("m{}.", next - 1)).await;
    }
    assert_eq!(foreign.bodies(), bodies(0..next));
    assert_eq!(foreign.resumed(), 3);
}

#[tokio::test]
async fn without_resumption_what_was_not_confirmed_comes_again() {
    for managed in [true, false] {
        let ways = Ways { managed, resumable: false, ..Ways::default() };
        let (world, foreign) = world(ways, federated).await;
        let mut romeo = romeo(&world).await;
        for n in 0..150 {
            romeo.send(&chat(n));
        }
        foreign.got("m149.").await;
        romeo.settled().await;
        foreign.change(|ways| (ways.confirms, ways.answers) = (false, false));
        for n in 150..160 {
            romeo.send(&chat(n));
        }
        foreign.got("m159.").await;
        foreign.change(|ways| (ways.confirms, ways.answers) = (true, true));
        foreign.cut();
        romeo.send(&chat(160));
        foreign.got("m160.").await;
        let bodies = foreign.bodies();
        for n in 0..161 {
            let times = bodies.iter().filter(|body| **body == format!("m{n}.")).count();
            // Without XEP-0198 a ping each second, or after a hundred stanzas, says what has arrived.
            let once = n < if managed { 150 } else { 100 } || n == 160;
            assert!(times == 1 || !once && times == 2, "m{n}: {times} times");
        }
        let last: Vec<_> = bodies.iter().rev().take(11).rev().cloned().collect();
        assert_eq!(last, self::bodies(150..161), "in order");
    }
}

/// A slow server: what waits for it waits in the store.
#[tokio::test]
async fn a_server_that_does_not_read_costs_little_memory() {
    let little = |options: &mut Options| {
        options.federation = Some(Federation { memory_bytes: 64 << 10, ..Federation::default() });
    };
    let (world, foreign) = world(Ways::default(), little).await;
    let mut romeo = romeo(&world).await;
    romeo.send(&chat(0));
    foreign.got("m0.").await;
    foreign.change(|ways| ways.reads = false);
    let pad = "x".repeat(1_000);
    let long = |n: usize| {
        format!(
            "<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body><x xmlns='urn:x'>{pad}</x></message>"
        )
    };
    for n in 1..600 {
        romeo.send(&long(n));
        if n % 100 == 99 {
            romeo.settled().await;
        }
    }
    foreign.change(|ways| ways.reads = true);
    for n in 600..650 {
        romeo.send(&long(n));
    }
    foreign.got("m649.").await;
    assert_eq!(foreign.bodies(), bodies(0..650));
    romeo.settled().await;
}

#[tokio::test]
async fn a_full_queue_is_an_error() {
    let few = |options: &mut Options| {
        options.federation =
            Some(Federation { queue_stanzas: 20, memory_bytes: 8_000, ..Federation::default() });
    };
    let (world, foreign) = world(Ways { away: Some(unreachable()), ..Ways::default() }, few).await;
    let mut romeo = romeo(&world).await;
    for n in 0..20 {
        romeo.send(&chat(n));
    }
    for n in 10..20 {
        let error = romeo.until(&format!("id='{n}'")).await;
        assert!(is_error(&error, "resource-constraint"), "{error}");
    }
    for n in 0..100 {
        romeo.send(&format!("<iq to='foreign.example' type='get' id='i{n}'><q xmlns='urn:q'/></iq>"));
    }
    assert!(is_error(&romeo.until("id='i99'").await, "resource-constraint"));
    romeo.settled().await;
    foreign.change(|ways| ways.away = None);
    foreign.got("id='i0'").await;
    assert_eq!(foreign.bodies(), bodies(0..10));
}

/// XEP-0478: a stanza that the other server does not take is refused by this one.
#[tokio::test]
async fn what_is_too_large_goes_back() {
    let (world, foreign) = world(Ways { max_bytes: Some(1_000), ..Ways::default() }, federated).await;
    let mut romeo = romeo(&world).await;
    let large = format!(
        "<message to='juliet@foreign.example' type='chat' id='large'><body>{}</body></message>",
        "x".repeat(2_000)
    );
    romeo.send(&large); // when nothing is known of the other server
    assert!(is_error(&romeo.until("id='large'").await, "policy-violation"));
    romeo.send(&chat(1));
    foreign.got("m1.").await;
    romeo.send(&large);
    assert!(is_error(&romeo.until("id='large'").await, "policy-violation"));
    romeo.settled().await;
    assert_eq!(foreign.bodies(), bodies(1..2));
}

#[tokio::test]
async fn an_idle_stream_is_closed_and_opened_again() {
    let idle = |options: &mut Options| {
        options.federation = Some(Federation { idle: Duration::from_secs(1), ..Federation::default() });
    };
    let (world, foreign) = world(Ways::default(), idle).await;
    let mut romeo = romeo(&world).await;
    for n in 0..2 {
        romeo.send(&chat(n));
        foreign.closed(n + 1).await;
    }
    assert_eq!((foreign.bodies(), foreign.resumed()), (bodies(0..2), 0));
}

/// The end of the process: what was sent is confirmed, and the stream is closed in order.
#[tokio::test]
async fn the_end_of_the_process_closes_streams() {
    let (world, foreign) = world(Ways::default(), federated).await;
    let mut romeo = romeo(&world).await;
    for n in 0..50 {
        romeo.send(&chat(n));
    }
    romeo.settled().await;
    world.host.shutdown().await;
    foreign.closed(1).await;
    assert_eq!(foreign.bodies(), bodies(0..50));
}

#[tokio::test]
async fn what_other_servers_send_is_looked_at() {
    use rookery_actors::link::incoming::NotTaken;
    use rookery_actors::{Origin, OriginName, Receipt};
    use rookery_proto::xml::{Limits, Scope};
    use rookery_proto::xmpp::stanza::Stanza;
    let (world, foreign) = world(Ways::default(), federated).await;
    let mut romeo = world.online("romeo", "phone").await;
    let parse = |xml: &str| Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap();
    let domain = foreign::domain();
    let take = |xml: &str, origin| world.host.from_remote(&domain, parse(xml), Receipt::none(), origin);
    let from = |from: &str, to: &str| {
        format!("<message from='{from}' to='{to}' type='chat'><body>forged</body></message>")
    };
    for other in ["juliet@other.example", "juliet@sub.foreign.example", "juliet@localhost", "localhost"] {
        assert_eq!(take(&from(other, "romeo@localhost"), None), Err(NotTaken::InvalidFrom), "{other}");
    }
    assert_eq!(
        take(&from("juliet@foreign.example", "romeo@other.example"), None),
        Err(NotTaken::HostUnknown)
    );
    assert_eq!(take("<message to='romeo@localhost'/>", None), Err(NotTaken::ImproperAddressing));
    assert_eq!(take("<message from='foreign.example'/>", None), Err(NotTaken::ImproperAddressing));
    // What comes twice is known, and stamps in the name of this server are taken out.
    let origin = Origin::new(OriginName::new([7; 16]), 1);
    let stamped = "<message from='juliet@foreign.example/b' to='romeo@localhost' type='chat'><body>hi</body>\
                   <delay xmlns='urn:xmpp:delay' from='localhost' stamp='2002-09-10T23:08:25Z'/></message>";
    take(stamped, Some(origin)).unwrap();
    take(stamped, Some(origin)).unwrap();
    let got = romeo.expect("<body>hi").await;
    assert!(!got.contains("urn:xmpp:delay"), "{got}");
    romeo.nothing().await;
    foreign.send(
        &world.host,
        "<iq from='foreign.example' to='localhost' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    let got = foreign.got("id='p'").await;
    assert!(got.last().unwrap().contains("type='result'"), "{got:#?}");
}

#[tokio::test]
async fn any_node_verifies_the_keys_of_all() {
    let (world, _) = world(Ways::default(), federated).await;
    let key = world.host.dialback_key("foreign.example", "localhost", "id1");
    let world = world.restart().await;
    assert!(world.host.is_dialback_key("foreign.example", "localhost", "id1", &key));
    assert!(!world.host.is_dialback_key("foreign.example", "localhost", "id2", &key));
    assert!(!world.host.is_dialback_key("foreign.example", "localhost", "id1", &key[1..]));
}

#[tokio::test]
async fn what_is_for_a_server_without_a_valid_certificate_goes_back_soon() {
    let soon = |options: &mut Options| {
        let unproved = Duration::from_secs(1);
        options.federation = Some(Federation { unproved, ..Federation::default() });
    };
    let away = Failure { unproved: true, ..Failure::passing("the certificate has expired") };
    let (world, foreign) = world(Ways { away: Some(away), ..Ways::default() }, soon).await;
    let mut romeo = romeo(&world).await;
    romeo.send(&chat(1));
    let error = romeo.recv().await;
    assert!(is_error(&error, "remote-server-timeout") && error.contains("certificate"), "{error}");
    // The certificate is another: what comes now is sent.
    foreign.change(|ways| ways.away = None);
    romeo.send(&chat(2));
    foreign.got("m2.").await;
    assert_eq!(foreign.bodies(), ["m2."]);
}
