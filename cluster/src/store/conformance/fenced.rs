//! Writes that prove the right to write by what they conflict with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{SERIAL, Subject, class, expect, fill, value};
use crate::entity::{Entity, Shard};
use crate::seams::Seams;
use crate::store::faults::{Fault, Faults};
use crate::store::{Class, Database, Error, Fence, Fut, Options, Result, Store, Transaction, Version};

const STATUS: &[u8] = b"node";
const SHARD: &[u8] = b"shard";

/// The rows of a node and of a shard, and the version at which the node last saw both to be its own.
#[derive(Default)]
struct Beat(AtomicU64);

impl Beat {
    /// What a node does every second.
    async fn beat(&self, db: &Arc<dyn Database>) {
        let mut tx = db.begin();
        assert_eq!(expect(tx.get(STATUS, SERIAL).await).as_deref(), Some(b"active".as_slice()));
        self.0.store(expect(tx.read_version().await).0, Ordering::Relaxed);
        tx.set(b"beat", b"");
        expect(tx.commit().await);
    }
}

impl Fence for Beat {
    fn join<'a>(&'a self, tx: &'a mut dyn Transaction, _: &'a [Shard], attempt: u32) -> Fut<'a, Result<()>> {
        Box::pin(async move {
            if attempt == 0 {
                let proven = Version(self.0.load(Ordering::Relaxed));
                tx.set_read_version(proven, proven.before());
                tx.add_read_conflict(STATUS, b"node\0");
                tx.add_read_conflict(SHARD, b"shard\0");
                return Ok(());
            }
            let (status, shard) = (tx.get(STATUS, SERIAL).await?, tx.get(SHARD, SERIAL).await?);
            match (status.as_deref(), shard.as_deref()) {
                (Some(b"active"), Some(b"ours")) => Ok(()),
                _ => Err(Error::new(Class::Fenced, "taken over")),
            }
        })
    }
}

async fn start(subject: &Subject) -> (Arc<Faults>, Arc<Beat>, Store) {
    fill(&subject.db, &[("node", "active"), ("shard", "ours")]).await;
    let (faults, beat) = (Arc::new(Faults::new(subject.db.clone())), Arc::new(Beat::default()));
    beat.beat(&subject.db).await;
    let store = Store::fenced(faults.clone(), Seams::system(), beat.clone());
    (faults, beat, store)
}

async fn write(store: &Store, value: &'static [u8]) -> Result<()> {
    let options = Options::owner(&Entity::new("juliet@example.org"));
    let body = store.write(options, |tx| {
        tx.set(b"k", value);
        Box::pin(std::future::ready(Ok(())))
    });
    body.await
}

/// The version of the last beat serves write after write, also when others write; a conflict of another kind costs one
/// more attempt.
pub async fn a_fenced_write_goes_through_while_its_node_lives(subject: Subject) {
    let (faults, beat, store) = start(&subject).await;
    for value in [b"1", b"2"] {
        expect(write(&store, value).await);
        fill(&subject.db, &[("other", "x")]).await;
    }
    faults.script([Fault::Conflict, Fault::TooOld]);
    expect(write(&store, b"3").await);
    beat.beat(&subject.db).await;
    expect(write(&store, b"4").await);
    assert_eq!(value(&subject.db, "k").await.as_deref(), Some(b"4".as_slice()));
}

/// One row, of the node or of the shard, ends all writes of a node that does not know it yet.
pub async fn a_fenced_write_fails_after_the_takeover(subject: Subject) {
    for (row, taken) in [("node", "dead"), ("shard", "theirs")] {
        let (_, _, store) = start(&subject).await;
        expect(write(&store, b"before").await);
        fill(&subject.db, &[(row, taken)]).await;
        assert_eq!(class(write(&store, b"after").await), Some(Class::Fenced), "{row}");
        assert_eq!(value(&subject.db, "k").await.as_deref(), Some(b"before".as_slice()));
    }
}

/// A commit that was on its way at the takeover and arrives after it does nothing.
pub async fn a_late_commit_of_who_was_fenced_comes_to_nothing(subject: Subject) {
    let (faults, _, store) = start(&subject).await;
    expect(write(&store, b"before").await);
    faults.script([Fault::UnknownLate]);
    let late = tokio::spawn({
        let store = store.clone();
        async move { write(&store, b"late").await }
    });
    while faults.struck() == 0 {
        tokio::task::yield_now().await;
    }
    // The repetition may win against the takeover; its value stands then. Nothing comes behind it.
    fill(&subject.db, &[("node", "dead")]).await;
    assert!(late.await.is_ok());
    let then = value(&subject.db, "k").await;
    let mut outcomes = faults.release().await.into_iter().map(class);
    assert_eq!(outcomes.next(), Some(Some(Class::Conflict)));
    assert_eq!(value(&subject.db, "k").await, then);
    assert_eq!(class(write(&store, b"after").await), Some(Class::Fenced));
}

/// What another node wrote since the last beat is seen by a body that writes nothing, and by one that fails: no commit judges what
/// they read.
pub async fn a_fenced_body_that_writes_nothing_sees_the_newest(subject: Subject) {
    let (_, beat, store) = start(&subject).await;
    fill(&subject.db, &[("account", "made elsewhere")]).await;
    let look = |fails: bool| {
        let body = store.write(Options::owner(&Entity::new("juliet@example.org")), move |tx| {
            Box::pin(async move {
                let seen = tx.get(b"account").await?;
                match seen {
                    None if fails => Err(Error::new(Class::TooLarge, "there is no account")),
                    seen => Ok(seen),
                }
            })
        });
        async { expect(body.await) }
    };
    assert_eq!(look(false).await.as_deref(), Some(b"made elsewhere".as_slice()));
    assert_eq!(look(true).await.as_deref(), Some(b"made elsewhere".as_slice()));
    // The cached version made the difference.
    let mut tx = subject.db.begin();
    tx.set_read_version(Version(beat.0.load(Ordering::Relaxed)), Version(beat.0.load(Ordering::Relaxed)));
    assert_eq!(expect(tx.get(b"account", SERIAL).await), None);
}
