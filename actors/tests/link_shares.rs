//! One sender does not fill the queue of a link that many share, and no limit is passed when the process that counted is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
mod support;

use std::sync::{Arc, Mutex};

use foreign::{Foreign, Ways, is_error, unreachable};
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use rookery_actors::options::{Federation, Service};
use rookery_actors::{Options, toys};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::stanza::Stanza;
use support::{Client, World};

/// How often somebody had its share.
#[derive(Default)]
struct Refused(Mutex<u64>);

impl CounterFn for Refused {
    fn increment(&self, value: u64) {
        *self.0.lock().unwrap() += value;
    }

    fn absolute(&self, _: u64) {}
}

struct OneCounter(Arc<Refused>);

impl Recorder for OneCounter {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let ours = key.labels().any(|label| label.value() == "link_sender");
        if ours { Counter::from_arc(self.0.clone()) } else { Counter::noop() }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn chat(n: usize) -> String {
    format!("<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body></message>")
}

async fn world(
    change: impl FnOnce(&mut Federation),
    more: impl FnOnce(&mut Options),
) -> (World, Arc<Foreign>) {
    let foreign = Foreign::new(Ways { away: Some(unreachable()), ..Ways::default() });
    let mut federation = Federation { queue_stanzas: 40, ..Federation::default() };
    change(&mut federation);
    let world = World::with(|options| {
        options.federation = Some(federation);
        more(options);
    })
    .await;
    foreign.serves(&world.host);
    (world, foreign)
}

async fn client(world: &World, name: &str) -> Client {
    let mut client = world.bind(name, "phone").await;
    client.resumable().await;
    client
}

/// How many of so many messages are taken; the others are refused.
async fn taken(client: &mut Client, ids: std::ops::Range<usize>) -> usize {
    for n in ids.clone() {
        client.send(&chat(n));
    }
    client.settled().await;
    client.send("<iq type='get' id='end' to='localhost'><none xmlns='urn:x'/></iq>");
    let mut refused = 0;
    loop {
        let got = client.recv().await;
        if got.contains("id='end'") {
            return ids.len() - refused;
        }
        assert!(is_error(&got, "resource-constraint"), "{got}");
        refused += 1;
    }
}

#[tokio::test]
async fn one_sender_leaves_room_for_others_also_for_the_next_process() {
    let refused = Arc::new(Refused::default());
    metrics::set_global_recorder(OneCounter(refused.clone())).ok().unwrap();
    let (world, foreign) = world(|_| {}, |_| {}).await;
    let mut romeo = client(&world, "romeo").await;
    let mut nurse = client(&world, "nurse").await;
    assert_eq!(taken(&mut romeo, 0..60).await, 20);
    assert!(*refused.0.lock().unwrap() >= 40); // other tests count too
    assert_eq!(taken(&mut nurse, 100..105).await, 5);
    romeo.forget();
    nurse.forget();
    // The next process knows whose all of it is.
    let world = world.restart().await;
    foreign.serves(&world.host);
    let mut romeo = client(&world, "romeo").await;
    let mut nurse = client(&world, "nurse").await;
    let mut juliet = client(&world, "juliet").await;
    assert_eq!(taken(&mut romeo, 200..210).await, 0);
    assert_eq!(taken(&mut nurse, 300..330).await, 5); // ten of hers, and five are free
    assert_eq!(taken(&mut juliet, 400..430).await, 5);
    foreign.change(|ways| ways.away = None);
    foreign.got("m404.").await;
    assert_eq!(foreign.bodies().len(), 35);
    // What has arrived is not counted any more.
    let free = async {
        while taken(&mut romeo, 500..501).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), free).await.unwrap();
}

/// A component is one sender, whatever address speaks through it.
#[tokio::test]
async fn all_addresses_of_a_component_have_one_share() {
    let service = Service { name: "far.example".into(), kind: "far-server", whole: true };
    let (world, foreign) = world(|_| {}, |options| options.services.push(service)).await;
    let far = toys::Far::of(&world.host);
    for n in 0..60 {
        let message = format!(
            "<message from='c{n}@far.example/x' to='juliet@foreign.example' type='chat' id='f{n}'><body>f{n}.</body></message>"
        );
        far.say(Stanza::parse(message.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap());
    }
    let mut romeo = client(&world, "romeo").await;
    assert_eq!(taken(&mut romeo, 0..5).await, 5);
    foreign.change(|ways| ways.away = None);
    // Two pairs of domains, so two links, each at its own time.
    foreign.got("m4.").await;
    foreign.got("f19.").await;
    assert_eq!(foreign.bodies().iter().filter(|body| body.starts_with('f')).count(), 20);
}

/// What is in no row takes memory, of which one sender gets a share too, and stored messages leave some.
#[tokio::test]
async fn requests_of_one_leave_room_for_those_of_others() {
    let little = |federation: &mut Federation| {
        (federation.memory_bytes, federation.queue_stanzas) = (16 << 10, 1_000);
    };
    let (world, foreign) = world(little, |_| {}).await;
    let mut romeo = client(&world, "romeo").await;
    let mut nurse = client(&world, "nurse").await;
    assert_eq!(taken(&mut romeo, 0..200).await, 200); // more than memory holds
    let request =
        |n: usize| format!("<iq to='foreign.example' type='get' id='q{n}.'><q xmlns='urn:q'/></iq>");
    for n in 0..200 {
        romeo.send(&request(n));
    }
    assert!(is_error(&romeo.until("id='q199.'").await, "resource-constraint"));
    nurse.send(&request(900));
    nurse.settled().await;
    nurse.nothing().await;
    foreign.change(|ways| ways.away = None);
    let got = foreign.got("q900.").await;
    assert!(got.iter().filter(|got| got.contains("id='q")).count() > 2, "{got:?}");
}
