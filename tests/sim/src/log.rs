//! What happened: the trace and its hash, what must not be, and how often what came to pass.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3Default;

use crate::chance::now;

#[derive(Default)]
struct State {
    hash: Xxh3Default,
    events: u64,
    out: Option<std::io::BufWriter<std::fs::File>>,
    wrong: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// Everything of one run. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<State>>);

impl Log {
    /// Writes every event to a file as well.
    pub(crate) fn write_to(&self, file: std::fs::File) {
        self.0.lock().out = Some(std::io::BufWriter::new(file));
    }

    /// An event.
    pub(crate) fn note(&self, who: impl Display, what: impl Display) {
        let line = format!("{:>9.3} {who} {what}\n", now().as_secs_f64());
        let mut state = self.0.lock();
        state.events += 1;
        state.hash.update(line.as_bytes());
        if let Some(out) = &mut state.out {
            let _ = out.write_all(line.as_bytes());
        }
    }

    /// Something that must not be.
    pub(crate) fn wrong(&self, what: impl Display) {
        self.note("WRONG", &what);
        self.0.lock().wrong.push(what.to_string());
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: &'static str, times: u64) {
        *self.0.lock().counts.entry(what).or_default() += times;
    }

    /// What must not be and was, the hash and length of the trace, and the counts.
    pub(crate) fn end(&self) -> (Vec<String>, u64, u64, BTreeMap<&'static str, u64>) {
        let mut state = self.0.lock();
        if let Some(out) = &mut state.out {
            let _ = out.flush();
        }
        (state.wrong.clone(), state.hash.digest(), state.events, state.counts.clone())
    }
}

/// The program's own counters.
#[derive(Default)]
pub(crate) struct Meters(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Meters {
    /// All counters, and from zero again.
    pub(crate) fn take(&self) -> BTreeMap<String, u64> {
        let all = std::mem::take(&mut *self.0.lock());
        all.into_iter().map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect()
    }
}

impl metrics::Recorder for &'static Meters {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        let name = key.name().trim_start_matches("rookery_").trim_end_matches("_total").to_owned();
        metrics::Counter::from_arc(self.0.lock().entry(name).or_default().clone())
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }

    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}
