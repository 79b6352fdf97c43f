//! What the conformance suite cannot force: groups of several commits, and a disk that fails.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::commit::Request;
use super::*;
use crate::store::buffered::pending::Pending;
use crate::store::buffered::span::Span;
use crate::store::{Class, Committed, Error, memory::Versions};

/// A request that read `read` at version 1 and sets `write`.
fn request(read: &'static str, write: &'static str) -> (Request, oneshot::Receiver<Result<Committed>>) {
    let (done, answer) = oneshot::channel();
    let mut pending = Pending::default();
    pending.set(Bytes::from_static(write.as_bytes()), Bytes::from_static(write.as_bytes()));
    let reads = vec![Span::Key(Bytes::from_static(read.as_bytes()))];
    let now = Instant::now();
    (Request { read: Some((Version(1), now)), reads, pending, watches: Vec::new(), now, done }, answer)
}

#[tokio::test]
async fn a_group_has_one_version_and_conflicts_within() {
    let engine = Engine::new(Versions::default(), Version(1), Version(1));
    let (first, first_answer) = request("x", "a");
    let (second, second_answer) = request("a", "b");
    let (third, third_answer) = request("b", "c");
    engine.commit(vec![first, second, third]);
    let first = first_answer.await.unwrap().unwrap();
    assert_eq!(second_answer.await.unwrap().unwrap_err().class, Class::Conflict);
    let third = third_answer.await.unwrap().unwrap(); // the second, which wrote b, did not happen
    assert_eq!((first.version, third.version), (Version(2), Version(2)));
    assert!(first.versionstamp < third.versionstamp);
    let latest = engine.latest().unwrap();
    assert!(engine.backend.get(&latest.view, b"b").unwrap().is_none());
    assert!(engine.backend.get(&latest.view, b"c").unwrap().is_some());
}

#[tokio::test]
async fn what_follows_in_a_group_sees_what_went_before() {
    let engine = Engine::new(Versions::default(), Version(1), Version(1));
    let (first, _first_answer) = request("x", "n");
    let (mut second, second_answer) = request("x", "m");
    second.pending.clear_range(b"a", b"z");
    second.pending.add(b"n", 1);
    engine.commit(vec![first, second]);
    assert!(second_answer.await.unwrap().is_ok());
    let latest = engine.latest().unwrap();
    assert_eq!(engine.backend.get(&latest.view, b"n").unwrap().unwrap(), 1i64.to_le_bytes().as_slice());
    assert!(engine.backend.get(&latest.view, b"m").unwrap().is_none());
}

/// A disk that is full.
struct Full(Versions, AtomicBool);

impl Backend for Full {
    type View = Version;
    const NAME: &'static str = "full";

    fn get(&self, view: &Version, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(view, key)
    }

    fn scan(
        &self,
        view: &Version,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        self.0.scan(view, begin, end, reverse, visit)
    }

    fn apply(&self, version: Version, changes: Changes) -> Result<Version> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(Class::Unavailable, "no space left"));
        }
        self.0.apply(version, changes)
    }

    fn mend(&self) -> Result<(Version, Version)> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::new(Class::Unavailable, "no space left"));
        }
        Ok((Version(100), Version(100)))
    }

    fn forget(&self, oldest: Version) {
        self.0.forget(oldest);
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }
}

#[tokio::test]
async fn after_a_failed_write_nothing_is_acknowledged_and_reads_go_on() {
    let engine = Engine::new(Full(Versions::default(), AtomicBool::new(false)), Version(1), Version(1));
    let (good, good_answer) = request("x", "a");
    engine.commit(vec![good]);
    assert!(good_answer.await.unwrap().is_ok());
    engine.backend.1.store(true, Ordering::Relaxed);
    let (lost, lost_answer) = request("x", "b");
    engine.commit(vec![lost]);
    assert_eq!(lost_answer.await.unwrap().unwrap_err().class, Class::MaybeCommitted);
    engine.backend.1.store(false, Ordering::Relaxed);
    let (refused, refused_answer) = request("x", "c");
    engine.commit(vec![refused]);
    assert_eq!(refused_answer.await.unwrap().unwrap_err().class, Class::Unavailable); // it may pass
    let latest = engine.latest().unwrap();
    assert!(engine.backend.get(&latest.view, b"a").unwrap().is_some());
    assert_eq!(*engine.standing.borrow(), Standing::Broken);
}

/// The store takes writes again when its disk does; what was read before the failure is not built upon.
#[tokio::test]
async fn a_failed_engine_mends() {
    let engine = Engine::new(Full(Versions::default(), AtomicBool::new(true)), Version(1), Version(1));
    let (lost, lost_answer) = request("x", "a");
    engine.commit(vec![lost]);
    assert_eq!(lost_answer.await.unwrap().unwrap_err().class, Class::MaybeCommitted);
    engine.tend();
    assert_eq!(*engine.standing.borrow(), Standing::Broken);
    engine.backend.1.store(false, Ordering::Relaxed);
    engine.tend();
    assert_eq!(*engine.standing.borrow(), Standing::Well);
    let (old, old_answer) = request("x", "b"); // it read at version 1
    engine.commit(vec![old]);
    assert!(old_answer.await.unwrap().unwrap_err().is_too_old());
    let (mut fresh, fresh_answer) = request("x", "c");
    fresh.read = None;
    engine.commit(vec![fresh]);
    assert!(fresh_answer.await.unwrap().unwrap().version > Version(100));
    let latest = engine.latest().unwrap();
    assert!(engine.backend.get(&latest.view, b"c").unwrap().is_some());
}

#[tokio::test]
async fn a_closed_database_says_so() {
    let db = Handle::in_place(Engine::new(Versions::default(), Version(1), Version(1)));
    let watch = {
        let mut tx = db.begin();
        let watch = tx.watch(b"a");
        tx.commit().await.unwrap();
        watch
    };
    let mut tx = db.begin();
    tx.set(b"a", b"");
    db.close().await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err().class, Class::Unavailable);
    assert_eq!(watch.await.unwrap_err().class, Class::Unavailable);
    db.close().await.unwrap();
}
