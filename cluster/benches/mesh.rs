//! What the channel between two nodes costs: `cargo bench -p rookery-cluster --bench mesh`.
//!
//! Two nodes in one process, over the loopback interface with mutual TLS. Envelopes of 300 bytes; CPU is that of the
//! process, user and system, so of both ends together.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_possible_truncation)]
#![allow(clippy::indexing_slicing)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::{
    Addresses, Done, Envelope, Me, NodeId, Options, Peer, Peers, Receiver, Security, authority, net, tls,
};
use rookery_cluster::seams::Seams;
use tokio::sync::{Semaphore, oneshot};

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat.rsplit(')').next().map_or(0, |rest| {
        rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum()
    });
    Duration::from_millis(ticks * 10)
}

/// Adds up counters by name.
#[derive(Default, Clone)]
struct Sums(Arc<Mutex<HashMap<String, Arc<AtomicU64>>>>);

struct Sum(Arc<AtomicU64>);

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let sum = Arc::clone(self.0.lock().entry(key.name().to_owned()).or_default());
        Counter::from_arc(Arc::new(Sum(sum)))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Sums {
    fn get(&self, name: &str) -> u64 {
        self.0.lock().get(name).map_or(0, |sum| sum.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct Book(Mutex<HashMap<NodeId, String>>);

impl Addresses for Book {
    fn address(&self, node: &NodeId) -> Option<String> {
        self.0.lock().get(node).cloned()
    }
}

struct Takes;

/// The epoch of envelopes that want a reply, which goes back at once; that others were taken is told by and by.
const REPLY: u64 = 2;

impl Receiver for Takes {
    fn take(&self, _: &NodeId, envelope: Envelope, done: Done) {
        if envelope.epoch == REPLY {
            done.reply(Bytes::from_static(b"reply")).unwrap();
        } else {
            done.taken();
        }
    }
}

async fn node(name: &str, folder: Option<&std::path::Path>, book: &Arc<Book>, now: i64) -> Peers {
    let node = NodeId::new(name).unwrap();
    #[allow(clippy::disallowed_methods)] // a free port of the loopback interface
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    book.0.lock().insert(node.clone(), listener.local_addr().unwrap().to_string());
    let security = folder.map_or(Security::PlainText, |folder| {
        let files = authority::certificate(folder, &node, now).unwrap();
        Security::Tls(tls::Tls::read(&files, &node).unwrap())
    });
    let me =
        Me { cluster: "bench".into(), node, generation: 1, software: "bench".into(), versions: Me::VERSIONS };
    let peers =
        Peers::new(me, Options::default(), security, Arc::new(net::Tcp), book.clone(), Seams::system());
    let serving = peers.clone();
    tokio::spawn(async move { serving.serve(listener, Arc::new(Takes), std::future::pending()).await });
    peers
}

fn envelope(epoch: u64) -> Envelope {
    Envelope::new(
        Shard(1),
        epoch,
        Bytes::from_static(b"juliet@example.org"),
        Bytes::from_static(&[b'x'; 300]),
    )
}

/// Sends with `in_flight` under way at a time, or `rate` a second.
async fn run(
    name: &str,
    peer: &Peer,
    sums: &Sums,
    count: u32,
    in_flight: usize,
    rate: Option<u32>,
    epoch: u64,
) {
    let counted = || {
        let [messages, envelopes] = ["rookery_mesh_sent_messages_total", "rookery_mesh_sent_envelopes_total"]
            .map(|name| sums.get(name));
        (messages, envelopes)
    };
    let (before, cpu_before, start) = (counted(), cpu(), Instant::now());
    let permits = Arc::new(Semaphore::new(in_flight));
    let times = Arc::new(Mutex::new(Vec::with_capacity(count as usize)));
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    while sent < count {
        let portion = match rate {
            Some(rate) => {
                ticks.tick().await;
                let due = start.elapsed().as_secs_f64() * f64::from(rate);
                (due as u32).min(count).saturating_sub(sent)
            }
            None => 1,
        };
        for _ in 0..portion {
            let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
            let (times, began) = (Arc::clone(&times), Instant::now());
            let outcome = peer.send(envelope(epoch), move |_| {
                times.lock().push(began.elapsed());
                drop(permit);
            });
            assert!(outcome.is_ok());
        }
        sent += portion;
    }
    let _all = permits.acquire_many(u32::try_from(in_flight).unwrap()).await.unwrap();
    let (wall, used, after) = (start.elapsed(), cpu() - cpu_before, counted());
    let mut times = times.lock();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    let (messages, envelopes) = (after.0 - before.0, after.1 - before.1);
    println!(
        "{name:<34} {:>9.0}/s  {:>6.1} envelopes/message  CPU per 10,000: {:>7.1} ms  p50 {:>7.0?}  p99 {:>7.0?}",
        f64::from(count) / wall.as_secs_f64(),
        envelopes as f64 / messages.max(1) as f64,
        used.as_secs_f64() * 1e7 / f64::from(count),
        at(0.5),
        at(0.99),
    );
}

fn main() {
    // `-- plain` runs the lines with that in their names.
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let sums = Sums::default();
    metrics::set_global_recorder(sums.clone()).unwrap();
    let now = i64::try_from(Seams::system().clock.now_micros() / 1_000_000).unwrap();
    let folder = tempfile::tempdir().unwrap();
    authority::make(folder.path(), "bench", now).unwrap();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(
        async {
            tokio::spawn(async move {
                for (security, folder) in [("mTLS", Some(folder.path())), ("plain", None)] {
                    let book = Arc::new(Book::default());
                    let a = node("a", folder, &book, now).await;
                    let _b = node("b", folder, &book, now).await;
                    let b = NodeId::new("b").unwrap();
                    assert!(a.probe(&b, Duration::from_secs(5)).await);
                    let peer = a.peer(&b);
                    let (done, warm) = oneshot::channel();
                    peer.send(envelope(REPLY), move |_| done.send(()).unwrap()).unwrap();
                    warm.await.unwrap();
                    for (name, count, in_flight, rate, epoch) in [
                        ("one at a time, reply", 10_000, 1, None, REPLY),
                        ("16 in flight, reply", 100_000, 16, None, REPLY),
                        ("256 in flight", 200_000, 256, None, 1),
                        ("4096 in flight", 500_000, 4_096, None, 1),
                        ("1,000 a second", 5_000, 4_096, Some(1_000), 1),
                        ("1,000 a second, reply", 5_000, 4_096, Some(1_000), REPLY),
                        ("10,000 a second", 50_000, 4_096, Some(10_000), 1),
                    ] {
                        let name = format!("{security}, {name}");
                        if only.as_ref().is_none_or(|only| name.contains(only)) {
                            run(&name, &peer, &sums, count, in_flight, rate, epoch).await;
                        }
                    }
                    a.close();
                }
            })
            .await
            .unwrap();
        },
    );
}
