//! The development store when things go wrong, beyond the conformance suite.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)] // a test

mod server;

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::seams::Seams;
use rookery_cluster::store::dev::Remote;
use rookery_cluster::store::embedded::{Durability, Embedded};
use rookery_cluster::store::faults::{Fault, Faults};
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{Class, Database, Isolation, Options, Select, Store, limits};
use server::Server;

const SERIAL: Isolation = Isolation::Serializable;

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await; // counters of the server give no event
    }
}

async fn set(db: &Remote, key: &[u8], value: &[u8]) {
    let mut tx = db.begin();
    tx.set(key, value);
    tx.commit().await.unwrap();
}

/// The client cannot know whether the server did it; the runner finds out, and it has one effect.
#[tokio::test]
async fn a_server_killed_in_mid_commit_leaves_the_outcome_open() {
    for fault in [Fault::Hang, Fault::Mute] {
        let faults = Arc::new(Faults::new(Arc::new(Memory::new())));
        let server = Server::start(faults.clone(), 0);
        let (port, db) = (server.port, server.client());
        faults.script([fault]);
        let mut tx = db.begin();
        tx.add(b"plain", 1);
        let commit = tokio::spawn(tx.commit());
        until(|| faults.struck() == 1).await;
        server.kill();
        assert_eq!(commit.await.unwrap().unwrap_err().class, Class::MaybeCommitted);

        let server = Server::start(faults.clone(), port);
        faults.script([fault]);
        let store = Store::new(Arc::new(db.clone()), Seams::system());
        let options = Options::default().operation(store.operation());
        let count = tokio::spawn(async move {
            let body = store.write(options, |tx| {
                tx.add(b"once", 1);
                Box::pin(std::future::ready(Ok(())))
            });
            body.await
        });
        until(|| faults.struck() == 2).await;
        server.kill();
        let _server = Server::start(faults.clone(), port);
        count.await.unwrap().unwrap();
        let once = faults.begin().get(b"once", SERIAL).await.unwrap();
        assert_eq!(once.as_deref(), Some(&1i64.to_le_bytes()[..]), "{fault:?}");
    }
}

/// Nobody listens: an answer at once; and as soon as somebody does, all is well.
#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_until_it_is() {
    let memory = Arc::new(Memory::new());
    let server = Server::start(memory.clone(), 0);
    let (port, db) = (server.port, server.client());
    set(&db, b"a", b"1").await;
    server.kill();
    let mut tx = db.begin();
    tx.set(b"a", b"2");
    // The first may still hit the broken connection; after that it is known that there is none.
    let first = tx.commit().await.unwrap_err().class;
    assert!(matches!(first, Class::Unavailable | Class::MaybeCommitted));
    let mut tx = db.begin();
    tx.set(b"a", b"2");
    assert_eq!(tx.commit().await.unwrap_err().class, Class::Unavailable);
    assert_eq!(db.begin().get(b"a", SERIAL).await.unwrap_err().class, Class::Unavailable);
    let store = Store::new(Arc::new(db.clone()), Seams::system());
    let waiting = tokio::spawn(async move { store.get(b"a").await });
    let _server = Server::start(memory, port);
    assert_eq!(waiting.await.unwrap().unwrap().as_deref(), Some(&b"1"[..]));
}

/// Stopped properly it has everything on disk, and has told the waiters.
#[tokio::test]
async fn a_server_that_stops_tells_who_waits_and_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Arc::new(Embedded::open(folder.path(), Durability::Sync).unwrap());
    let server = Server::start(open(), 0);
    let (port, db) = (server.port, server.client());
    set(&db, b"a", b"1").await;
    let before = db.begin().read_version().await.unwrap();
    let mut tx = db.begin();
    let watch = tx.watch(b"a");
    tx.commit().await.unwrap();
    server.stop().await.unwrap();
    assert_eq!(watch.await.unwrap_err().class, Class::Unavailable);

    let _server = Server::start(open(), port);
    assert_eq!(db.begin().get(b"a", SERIAL).await.unwrap().as_deref(), Some(&b"1"[..]));
    // No version comes twice, so what was read before the restart is too old and not wrong.
    let mut tx = db.begin();
    tx.set_read_version(before, before);
    assert!(tx.get(b"a", SERIAL).await.unwrap_err().is_too_old());
}

/// Watches end with the connection, so that nobody waits for ever for a change.
#[tokio::test]
async fn a_lost_connection_ends_watches() {
    let server = Server::start(Arc::new(Memory::new()), 0);
    let db = server.client();
    let mut tx = db.begin();
    let (first, second) = (tx.watch(b"a"), tx.watch(b"b"));
    tx.commit().await.unwrap();
    set(&db, b"b", b"1").await;
    second.await.unwrap();
    server.kill();
    assert_eq!(first.await.unwrap_err().class, Class::Unavailable);
}

/// The client's end ends its watches, and nothing goes any more.
#[tokio::test]
async fn a_closed_client_says_so() {
    let server = Server::start(Arc::new(Memory::new()), 0);
    let (db, other) = (server.client(), server.client());
    let mut tx = db.begin();
    let watch = tx.watch(b"a");
    tx.commit().await.unwrap();
    db.close().await.unwrap();
    assert_eq!(watch.await.unwrap_err().class, Class::Unavailable);
    assert_eq!(db.begin().read_version().await.unwrap_err().class, Class::Unavailable);
    set(&other, b"a", b"1").await;
}

/// The largest transaction goes through, while others do not wait for it.
#[tokio::test]
async fn ten_megabytes_and_many_calls_at_once() {
    let server = Server::start(Arc::new(Memory::new()), 0);
    let db = server.client();
    let big = vec![7; limits::VALUE];
    let mut tx = db.begin();
    for n in 0..98u8 {
        tx.set(&[b'k', n], &big);
    }
    let small = (0..500u16).map(|n| {
        let db = db.clone();
        tokio::spawn(async move {
            let mut tx = db.begin();
            assert!(tx.get(&n.to_be_bytes(), SERIAL).await.unwrap().is_none());
            tx.set(&n.to_be_bytes(), b"");
            tx.commit().await
        })
    });
    let small: Vec<_> = small.collect();
    tx.commit().await.unwrap();
    for commit in small {
        commit.await.unwrap().unwrap();
    }
    let (mut select, mut rows) = (Select::range(vec![0].into()..vec![0xff].into(), 1000), 0);
    let mut tx = db.begin();
    loop {
        let page = tx.range(select.clone(), SERIAL).await.unwrap();
        rows += page.rows.len();
        let Some((last, _)) = page.rows.last().filter(|_| page.more) else { break };
        select = select.after(last);
    }
    assert_eq!(rows, 598);
}
