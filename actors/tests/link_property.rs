//! Whatever happens to a stream, the other server and this one: what is sent comes once and in order, or goes back once. What was sent on
//! a stream that cannot be resumed, and was not confirmed, may come twice; so may a few errors that were on their way when the process died.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use foreign::{Foreign, Ways, not_there, unreachable};
use proptest::prelude::*;
use rookery_actors::options::Federation;
use support::{Client, World};

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    /// So many messages are sent, and a request with them.
    Send(usize),
    /// What was sent is settled.
    Settle,
    /// What the other server does from now on.
    Ways {
        reads: bool,
        takes: bool,
        confirms: bool,
    },
    /// All streams are lost.
    Cut,
    /// The other server forgets its streams.
    Forget,
    /// The foreign server cannot be reached, or it can.
    Away(bool),
    NotThere,
    /// The process is killed and starts again.
    Kill,
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (1..40usize).prop_map(Event::Send),
        2 => Just(Event::Settle),
        3 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(reads, takes, confirms)| Event::Ways { reads, takes, confirms }),
        2 => Just(Event::Ways { reads: true, takes: true, confirms: true }),
        3 => Just(Event::Cut),
        1 => Just(Event::Forget),
        2 => any::<bool>().prop_map(Event::Away),
        1 => Just(Event::NotThere),
        2 => Just(Event::Kill),
        2 => (0..300u64).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 4..25)
}

fn chat(n: usize) -> String {
    // Some are long: what is in memory is little.
    let pad = "x".repeat(if n.is_multiple_of(3) { 900 } else { 0 });
    format!(
        "<message to='juliet@foreign.example' type='chat' id='m{n}'><body>m{n}</body><x xmlns='urn:x'>{pad}</x></message>"
    )
}

struct Run {
    world: Option<World>,
    romeo: Client,
    returned: BTreeMap<usize, usize>,
}

impl Run {
    /// Looks at what has come to the client, up to the answer of a request that is sent now.
    async fn look(&mut self) {
        self.romeo.send("<iq type='get' id='look' to='localhost'><none xmlns='urn:x'/></iq>");
        loop {
            let got = self.romeo.recv().await;
            if got.contains("id='look'") {
                return;
            }
            let id = got.split("id='m").nth(1).and_then(|rest| rest.split('\'').next()?.parse().ok());
            if let Some(id) = id.filter(|_| got.starts_with("<message") && got.contains("type='error'")) {
                *self.returned.entry(id).or_default() += 1;
            }
        }
    }
}

async fn run(managed: bool, resumable: bool, events: Vec<Event>) {
    let foreign = Foreign::new(Ways { managed, resumable, ..Ways::default() });
    let little =
        Federation { memory_bytes: 8 << 10, queue: Duration::from_secs(600), ..Federation::default() };
    let world = World::with(|options| options.federation = Some(little)).await;
    foreign.serves(&world.host);
    let mut romeo = world.bind("romeo", "phone").await;
    romeo.resumable().await;
    let mut run = Run { world: Some(world), romeo, returned: BTreeMap::new() };
    let (mut sent, mut kills) = (0, 0);
    // Those that may come twice, and whether any may.
    let mut twice = !resumable || !managed;
    for event in events {
        match event {
            Event::Send(count) => {
                for _ in 0..count {
                    run.romeo.send(&chat(sent));
                    sent += 1;
                }
                run.romeo.send("<iq to='foreign.example' type='get' id='q'><q xmlns='urn:q'/></iq>");
            }
            Event::Settle => run.romeo.settled().await,
            Event::Ways { reads, takes, confirms } => foreign.change(|ways| {
                (ways.reads, ways.takes, ways.confirms, ways.answers) = (reads, takes, confirms, confirms);
            }),
            Event::Cut => foreign.cut(),
            Event::Forget => {
                foreign.forget();
                foreign.cut();
                twice = true;
            }
            Event::Away(away) => {
                foreign.change(|ways| ways.away = away.then(unreachable));
                foreign.cut();
            }
            Event::NotThere => {
                foreign.change(|ways| ways.away = Some(not_there()));
                foreign.cut();
            }
            Event::Kill => {
                kills += 1;
                run.look().await;
                run.romeo.told().await; // what is not written down is the client's to send again
                run.romeo.ack();
                run.romeo.forget();
                let world = run.world.take().unwrap().restart().await;
                foreign.cut();
                foreign.serves(&world.host);
                run.romeo = world.resume(&run.romeo).await.expect("resumed");
                run.world = Some(world);
            }
            // Part of the plan: the links' clocks go on.
            Event::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }
    // In the end the other server is well. What it has read and not taken was lost with the stream.
    foreign.change(|ways| {
        *ways = Ways { managed, resumable, ..Ways::default() };
    });
    foreign.cut();
    run.romeo.settled().await;
    loop {
        run.romeo
            .send("<message to='juliet@foreign.example' type='chat' id='last'><body>last</body></message>");
        // It comes, or goes back when the link still believes that the server is away: then it is said again.
        let _ = tokio::time::timeout(Duration::from_millis(300), foreign.came("last")).await;
        run.look().await;
        if foreign.bodies().iter().any(|body| body == "last") {
            break;
        }
    }
    run.look().await;
    let bodies: Vec<usize> =
        foreign.bodies().iter().filter_map(|body| body.strip_prefix('m')?.parse().ok()).collect();
    let mut doubles = 0;
    for n in 0..sent {
        let came = bodies.iter().filter(|body| **body == n).count();
        let back = run.returned.get(&n).copied().unwrap_or(0);
        doubles += usize::from(back == 2);
        assert!(back <= 2, "m{n} went back {back} times");
        assert!(came + back >= 1, "m{n} is lost");
        if !twice {
            assert!(came <= 1, "m{n} came {came} times");
        }
    }
    // A few errors were on their way when the process died: each kill lets so many come again.
    assert!(doubles <= 16 * kills, "{doubles} went back twice");
    // The order of what came first.
    let mut first = Vec::new();
    for body in bodies {
        if !first.contains(&body) {
            first.push(body);
        }
    }
    assert!(first.is_sorted(), "out of order: {first:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 60, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(managed: bool, resumable: bool, events in events()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(managed, resumable || !managed, events));
    }
}

/// `PROPTEST_CASES` sets how many; a few are enough for each change.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(12)
}
