//! What durable writes cost under load, in processor time and waiting, which criterion does not measure:
//! `cargo bench -p rookery-cluster --bench load`.
//!
//! 1, 16 and 256 submitters, each with one write of 2 keys of 300 bytes under way, through the batcher and as transactions
//! of their own. CPU is that of the whole process (user and system), the submitters included.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_precision_loss)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::batcher::Settings;
use rookery_cluster::store::embedded::{Durability, Embedded};
use rookery_cluster::store::keys::{Key, Kind};
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{Batcher, Database, Mutate as _, Op, Ops, Options, Store, Writes};

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: u64 = stat.rsplit(')').next().map_or(0, |rest| {
        rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum()
    });
    Duration::from_millis(ticks * 10)
}

fn writes(submitter: u64, n: u64) -> Writes {
    let entity = Entity::new(format!("user{submitter}@example.org"));
    let mut ops = Ops::new();
    for kind in [Kind::Archive, Kind::Seen] {
        let key = Key::of(kind, &entity).u64(if kind == Kind::Archive { n } else { 0 }).u64(0).finish();
        ops.put(key, Bytes::from(vec![b'x'; 300]));
    }
    Writes::new(&entity, ops)
}

async fn run(name: &str, store: Store, submitters: u64, batched: bool, time: Duration) {
    let batcher = Batcher::start(store.clone(), Settings::default());
    let (began, used) = (Instant::now(), cpu());
    let tasks: Vec<_> = (0..submitters)
        .map(|submitter| {
            let (store, batcher) = (store.clone(), batcher.clone());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for n in 0.. {
                    let start = Instant::now();
                    if start - began > time {
                        break;
                    }
                    let writes = writes(submitter, n);
                    if batched {
                        batcher.write(writes).await.unwrap();
                    } else {
                        let ops = &writes.ops;
                        let write = store.write(Options::default(), |tx| {
                            for op in ops {
                                if let Op::Set { key, value } = op {
                                    tx.put(key.clone(), value.clone());
                                }
                            }
                            Box::pin(std::future::ready(Ok(())))
                        });
                        write.await.unwrap();
                    }
                    waits.push(start.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let (elapsed, used) = (began.elapsed(), cpu().saturating_sub(used));
    waits.sort();
    let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{name:<18} {submitters:>4} {:<12} {:>8.0}/s  {:>6.1} us CPU each  p50 {:>8.1?}  p99 {:>8.1?}",
        if batched { "batcher" } else { "transactions" },
        waits.len() as f64 / elapsed.as_secs_f64(),
        used.as_secs_f64() * 1e6 / waits.len() as f64,
        at(50),
        at(99),
    );
}

/// Writes at a fixed rate, as a server has them.
async fn at_rate(name: &str, store: &Store, rate: u64, pace: Duration, time: Duration) {
    let batcher = Batcher::start(store.clone(), Settings { pace, ..Settings::default() });
    let waits = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let (began, used) = (Instant::now(), cpu());
    let mut tick = tokio::time::interval(Duration::from_millis(1));
    let mut sent = 0;
    while began.elapsed() < time {
        tick.tick().await;
        let due = u64::try_from(began.elapsed().as_micros()).unwrap() * rate / 1_000_000;
        for n in sent..due {
            let (start, waits) = (Instant::now(), waits.clone());
            let done = move |_| waits.lock().push(start.elapsed());
            batcher.submit(writes(n % 100, n), done).unwrap();
        }
        sent = due;
    }
    batcher.flush().await.unwrap();
    let used = cpu().saturating_sub(used);
    let mut waits = std::mem::take(&mut *waits.lock());
    waits.sort();
    let at = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or_default();
    println!(
        "{name:<18} {rate:>5}/s, pace {pace:?}: {:>6.1} us CPU each  p50 {:>8.1?}  p99 {:>8.1?}",
        used.as_secs_f64() * 1e6 / waits.len() as f64,
        at(50),
        at(99),
    );
}

/// Point reads, and pages of the newest 50, of an archive of `rows`.
async fn reads(name: &str, store: &Store, rows: u64) {
    let batcher = Batcher::start(store.clone(), Settings::default());
    for n in 0..rows {
        while batcher.submit(writes(7, n), |_| ()).is_err() {
            batcher.flush().await.unwrap();
        }
    }
    batcher.flush().await.unwrap();
    let entity = Entity::new("user7@example.org");
    let (points, pages) = (rows, rows / 10);
    let began = Instant::now();
    for n in 0..points {
        let key = Key::of(Kind::Archive, &entity).u64(n * 7919 % rows).u64(0).finish();
        assert!(store.get(&key).await.unwrap().is_some());
    }
    let point = began.elapsed();
    let began = Instant::now();
    for _ in 0..pages {
        let range = &Key::of(Kind::Archive, &entity).range();
        let page = store.read(|tx| Box::pin(async move { tx.scan_back(range.clone(), 50).await }));
        assert_eq!(page.await.unwrap().rows.len(), 50);
    }
    let micros = |time: Duration, n: u64| time.as_secs_f64() * 1e6 / n as f64;
    println!(
        "{name:<18} point read {:.1} us, page of 50 from the end {:.1} us ({rows} rows)",
        micros(point, points),
        micros(began.elapsed(), pages)
    );
}

fn main() {
    // `cargo test` runs benches too, to see that they work.
    let quick = !std::env::args().any(|arg| arg == "--bench");
    let time = Duration::from_millis(if quick { 20 } else { 3000 });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder =
        tempfile::tempdir_in(std::env::var_os("BENCH_DIR").as_deref().map_or(Path::new("."), Path::new))
            .unwrap();
    runtime.block_on(async {
        let only = std::env::var("BENCH_ENGINE").ok();
        let engines = ["memory", "embedded buffered", "embedded sync"];
        for engine in engines.into_iter().filter(|e| only.as_deref().is_none_or(|only| e.contains(only))) {
            let path = folder.path().join(engine.replace(' ', "-"));
            let db: Arc<dyn Database> = match engine {
                "memory" => Arc::new(Memory::new()),
                "embedded sync" => Arc::new(Embedded::open(&path, Durability::Sync).unwrap()),
                _ => Arc::new(Embedded::open(&path, Durability::Buffered).unwrap()),
            };
            let store = Store::new(db, Seams::system());
            let submitters: &[u64] =
                if std::env::var_os("BENCH_RATES").is_some() { &[] } else { &[1, 16, 256] };
            for submitters in submitters.iter().copied() {
                for batched in [true, false] {
                    run(engine, store.clone(), submitters, batched, time).await;
                }
            }
            if engine == "embedded sync" {
                for rate in [1000, 2000, 10_000] {
                    for pace in [0, 2, 3, 5] {
                        at_rate(engine, &store, rate, Duration::from_millis(pace), time).await;
                    }
                }
            }
            reads(engine, &store, if quick { 100 } else { 20_000 }).await;
            store.close().await.unwrap();
        }
    });
}
