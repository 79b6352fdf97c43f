//! A slow server costs little memory: what waits for it waits in the store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
mod support;

use std::sync::{Arc, Mutex};

use foreign::{Foreign, Ways};
use metrics::{Counter, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use rookery_actors::options::Federation;
use support::World;

/// How many stanzas links hold in memory: now, and the most so far.
#[derive(Default)]
struct Level(Mutex<(f64, f64)>);

impl Level {
    fn change(&self, by: f64) {
        let mut level = self.0.lock().unwrap();
        level.0 += by;
        level.1 = level.1.max(level.0);
    }
}

impl GaugeFn for Level {
    fn increment(&self, value: f64) {
        self.change(value);
    }

    fn decrement(&self, value: f64) {
        self.change(-value);
    }

    fn set(&self, _: f64) {}
}

struct OneGauge(Arc<Level>);

impl Recorder for OneGauge {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        if key.name() == "rookery_link_stanzas" { Gauge::from_arc(self.0.clone()) } else { Gauge::noop() }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test]
async fn what_waits_for_a_slow_server_waits_in_the_store() {
    let level = Arc::new(Level::default());
    metrics::set_global_recorder(OneGauge(level.clone())).ok().unwrap();
    let foreign = Foreign::new(Ways::default());
    let little = Federation { memory_bytes: 64 << 10, ..Federation::default() };
    let world = World::with(|options| options.federation = Some(little)).await;
    foreign.serves(&world.host);
    let mut romeo = world.bind("romeo", "phone").await;
    romeo.resumable().await;
    let pad = "x".repeat(1_000);
    let long = |n: usize| {
        format!(
            "<message to='juliet@foreign.example' type='chat' id='{n}'><body>m{n}.</body><x xmlns='urn:x'>{pad}</x></message>"
        )
    };
    romeo.send(&long(0));
    foreign.got("m0.").await;
    foreign.change(|ways| ways.reads = false);
    for n in 1..1_000 {
        romeo.send(&long(n));
        if n % 10 == 0 {
            romeo.settled().await;
        }
    }
    foreign.change(|ways| ways.reads = true);
    foreign.got("m999.").await;
    let expected: Vec<String> = (0..1_000).map(|n| format!("m{n}.")).collect();
    assert_eq!(foreign.bodies(), expected);
    let (_, most) = *level.0.lock().unwrap();
    // 64 kB of them are some 55; one more page may be on its way, and what has just come.
    assert!(most > 20.0 && most < 100.0, "{most} stanzas in memory");
}
