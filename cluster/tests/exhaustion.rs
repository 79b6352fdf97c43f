//! The embedded store when the operating system gives nothing more: no room for a write, no file descriptor for a table. Each test
//! runs in a process of its own, whose limits are taken away and given back; a limit of file size fails writes as a full disk does.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)] // a test

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::embedded::{Durability, Embedded, Settings};
use rookery_cluster::store::{
    Batcher, BatcherSettings, Class, Database, Mutate as _, Ops, Standing, Store, Writes,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::time::timeout;

/// Longer than any machine takes to open a small store again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether this is the process for `test`; otherwise it has run, and gone well.
fn is_child(test: &str) -> bool {
    const CHILD: &str = "ROOKERY_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut command = Command::new("sh");
    // With the signal ignored, a write beyond the limit fails.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Takes a limit away until it is dropped.
struct Taken(Resource, Rlimit);

impl Taken {
    fn all_but(resource: Resource, left: u64) -> Self {
        let before = getrlimit(resource);
        setrlimit(resource, Rlimit { current: Some(left), maximum: before.maximum }).unwrap();
        Self(resource, before)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        setrlimit(self.0, self.1).unwrap();
    }
}

async fn until(standing: &mut watch::Receiver<Standing>, wanted: Standing) {
    let reached = timeout(PATIENCE, standing.wait_for(|now| *now == wanted)).await.is_ok();
    assert!(reached, "{:?}, not {wanted:?}", standing.borrow());
}

async fn put(db: &dyn Database, key: &str, value: &[u8]) -> Result<(), Class> {
    let mut tx = db.begin();
    tx.set(key.as_bytes(), value);
    tx.commit().await.map(drop).map_err(|error| error.class)
}

fn writes(key: &'static str) -> Writes {
    let mut ops = Ops::new();
    ops.put(Bytes::from_static(key.as_bytes()), Bytes::from_static(b"value"));
    Writes::new(&Entity::new("juliet@localhost"), ops)
}

#[tokio::test]
async fn the_store_goes_on_when_its_disk_has_room_again() {
    if !is_child("the_store_goes_on_when_its_disk_has_room_again") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let db = Arc::new(Embedded::open(folder.path(), Durability::Sync).unwrap());
    let store = Store::new(db.clone(), Seams::system());
    let batcher = Batcher::start(store.clone(), BatcherSettings::default());
    let mut standing = db.standing();
    put(&*db, "before", b"1").await.unwrap();
    let watch = {
        let mut tx = db.begin();
        let watch = tx.watch(b"before");
        tx.commit().await.unwrap();
        watch
    };

    let full = Taken::all_but(Resource::Fsize, 100);
    let in_doubt = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.write(writes("in doubt")).await }
    });
    until(&mut standing, Standing::Broken).await;
    assert_eq!(put(&*db, "refused", b"").await, Err(Class::Unavailable));
    // What is there can be read.
    assert_eq!(store.get(b"before").await.unwrap().as_deref(), Some(b"1".as_slice()));
    assert!(!in_doubt.is_finished(), "nobody is told before the store knows");

    drop(full);
    until(&mut standing, Standing::Well).await;
    in_doubt.await.unwrap().unwrap();
    watch.await.unwrap(); // it may have changed
    put(&*db, "after", b"1").await.unwrap();
    drop(batcher);
    db.close().await.unwrap();
    drop((store, db));

    let db = Embedded::open(folder.path(), Durability::Sync).unwrap();
    let mut tx = db.begin();
    for (key, there) in [("before", true), ("in doubt", true), ("refused", false), ("after", true)] {
        let value = tx.get(key.as_bytes(), rookery_cluster::store::Isolation::Snapshot).await.unwrap();
        assert_eq!(value.is_some(), there, "{key}");
    }
}

/// A table that cannot be written for want of a descriptor ends a thread of fjall's.
#[tokio::test]
async fn the_store_goes_on_when_there_are_descriptors_again() {
    if !is_child("the_store_goes_on_when_there_are_descriptors_again") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let db = Arc::new(Embedded::open(folder.path(), Durability::Buffered).unwrap());
    let mut standing = db.standing();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let none = Taken::all_but(Resource::Nofile, open);
    let mut stored = 0;
    // More than is kept in memory, so that a table is due.
    while put(&*db, &format!("{stored:08}"), &[7; 90_000]).await.is_ok() {
        stored += 1;
        assert!(stored < 2_000, "a table was written without a descriptor");
    }
    until(&mut standing, Standing::Broken).await;
    drop(none);
    until(&mut standing, Standing::Well).await;
    put(&*db, "after", b"1").await.unwrap();
    let store = Store::new(db.clone(), Seams::system());
    for number in 0..stored {
        assert!(
            store.get(format!("{number:08}").as_bytes()).await.unwrap().is_some(),
            "{number} of {stored}"
        );
    }
    db.close().await.unwrap();
}

/// With less room than is to be left, what removes is taken and what adds is not; for a batch too.
#[tokio::test]
async fn without_room_only_removals_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let db = Embedded::open(folder.path(), Durability::Buffered).unwrap();
    put(&db, "message", b"text").await.unwrap();
    db.close().await.unwrap();
    drop(db);

    let settings = Settings { durability: Durability::Buffered, free: u64::MAX };
    let db = Arc::new(Embedded::open(folder.path(), settings).unwrap());
    assert_eq!(put(&*db, "more", b"text").await, Err(Class::Full));
    until(&mut db.standing(), Standing::Full).await;
    let store = Store::new(db.clone(), Seams::system());
    let batcher = Batcher::start(store.clone(), BatcherSettings::default());
    let mut removal = Ops::new();
    removal.delete(Bytes::from_static(b"message"));
    removal.put(Bytes::from_static(b"count"), Bytes::from_static(b"0"));
    let (added, removed, added_too) = tokio::join!(
        batcher.write(writes("one")),
        batcher.write(Writes::new(&Entity::new("romeo@localhost"), removal)),
        batcher.write(writes("two")),
    );
    assert_eq!([added, added_too].map(|outcome| outcome.unwrap_err().class), [Class::Full; 2]);
    removed.unwrap();
    assert!(store.get(b"message").await.unwrap().is_none());
    assert!(store.get(b"count").await.unwrap().is_some());
}
