//! What a commit of 2 keys of 300 bytes costs: `cargo bench -p rookery-cluster --bench commit`.
//!
//! On each engine, one at a time and with 64 under way through the batcher, and as a transaction of its own. `load.rs` looks
//! at the same under load.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/server/mod.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::embedded::{Durability, Embedded};
use rookery_cluster::store::keys::{Key, Kind};
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{Batcher, BatcherSettings, Database, Mutate as _, Ops, Options, Store, Writes};
use tokio::task::JoinSet;

fn writes(n: u64) -> Writes {
    let entity = Entity::new(format!("user{}@example.org", n % 100));
    let mut ops = Ops::new();
    for (kind, at) in [(Kind::Archive, n), (Kind::Seen, 0)] {
        ops.put(Key::of(kind, &entity).u64(at).u64(0).finish(), Bytes::from(vec![b'x'; 300]));
    }
    Writes::new(&entity, ops)
}

/// `count` writes through the batcher, at most `window` of them under way.
async fn batched(batcher: &Batcher, count: u64, window: usize) -> Duration {
    let began = Instant::now();
    let mut under_way = JoinSet::new();
    for n in 0..count {
        if under_way.len() >= window {
            under_way.join_next().await.unwrap().unwrap();
        }
        let batcher = batcher.clone();
        under_way.spawn(async move { batcher.write(writes(n)).await.unwrap() });
    }
    while let Some(written) = under_way.join_next().await {
        written.unwrap();
    }
    began.elapsed()
}

async fn transactions(store: &Store, count: u64) -> Duration {
    let began = Instant::now();
    for n in 0..count {
        let ops = &writes(n).ops;
        let write = store.write(Options::default(), |tx| {
            ops.iter().for_each(|op| op.apply(&mut **tx));
            Box::pin(std::future::ready(Ok(())))
        });
        write.await.unwrap();
    }
    began.elapsed()
}

fn commit(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let at = std::env::var_os("BENCH_DIR");
    let folder = tempfile::tempdir_in(at.as_deref().map_or(Path::new("."), Path::new)).unwrap();
    let embedded = |name: &str, durability| Embedded::open(&folder.path().join(name), durability).unwrap();
    let synced: Arc<dyn Database> = Arc::new(embedded("served", Durability::Sync));
    let servers = [server::Server::start(Arc::new(Memory::new()), 0), server::Server::start(synced, 0)];
    let [over_memory, over_synced] =
        servers.each_ref().map(|server| runtime.block_on(async { server.client() }));
    let engines: [(&str, Arc<dyn Database>); 5] = [
        ("memory", Arc::new(Memory::new())),
        ("embedded, buffered", Arc::new(embedded("buffered", Durability::Buffered))),
        ("embedded, synced", Arc::new(embedded("synced", Durability::Sync))),
        ("dev over memory", Arc::new(over_memory)),
        ("dev over embedded, synced", Arc::new(over_synced)),
    ];
    let mut group = c.benchmark_group("a commit of two keys");
    group.throughput(Throughput::Elements(1));
    for (engine, db) in engines {
        let store = Store::new(db, Seams::system());
        let batcher = runtime.block_on(async { Batcher::start(store.clone(), BatcherSettings::default()) });
        for (name, window) in [("alone", 1), ("64 under way", 64)] {
            group.bench_function(BenchmarkId::new(engine, name), |b| {
                b.iter_custom(|count| runtime.block_on(batched(&batcher, count, window)));
            });
        }
        group.bench_function(BenchmarkId::new(engine, "transaction"), |b| {
            b.iter_custom(|count| runtime.block_on(transactions(&store, count)));
        });
        runtime.block_on(store.close()).unwrap();
    }
    group.finish();
}

criterion_group!(benches, commit);
criterion_main!(benches);
