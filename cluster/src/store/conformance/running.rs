//! The runner and the batcher over the engine, with faults.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{SERIAL, Subject, all, class, expect, value};
use crate::entity::Entity;
use crate::seams::Seams;
use crate::store::batcher::Settings;
use crate::store::faults::{Chances, Fault, Faults};
use crate::store::op::Mutate as _;
use crate::store::{Batcher, Class, Ops, Options, Store, Writes, runner};

fn faulty(subject: &Subject) -> (Arc<Faults>, Store) {
    let faults = Arc::new(Faults::new(subject.db.clone()));
    (faults.clone(), Store::new(faults, Seams::system()))
}

async fn increment(store: &Store, options: Options) -> crate::store::Result<u64> {
    store
        .write(options, |tx| {
            Box::pin(async move {
                let before =
                    tx.get(b"n").await?.and_then(|v| Some(u64::from_be_bytes(v.as_ref().try_into().ok()?)));
                let after = before.unwrap_or(0) + 1;
                tx.set(b"n", &after.to_be_bytes());
                Ok(after)
            })
        })
        .await
}

async fn counted(subject: &Subject) -> Option<u64> {
    value(&subject.db, "n").await.and_then(|v| Some(u64::from_be_bytes(v.as_ref().try_into().ok()?)))
}

/// Many tasks count at once; no count is lost.
pub async fn concurrent_counters_lose_nothing(subject: Subject) {
    let store = Store::new(subject.db.clone(), Seams::system());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let patient = Options::default().deadline(Duration::from_secs(60));
                    expect(increment(&store, patient).await);
                }
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.is_ok());
    }
    assert_eq!(counted(&subject).await, Some(80));
}

/// Conflicts and old age are repeated until the body goes through.
pub async fn the_runner_repeats_conflicts(subject: Subject) {
    let (faults, store) = faulty(&subject);
    faults.script([Fault::Conflict, Fault::TooOld, Fault::Unreachable, Fault::Conflict]);
    assert_eq!(expect(increment(&store, Options::default()).await), 1);
    assert_eq!((counted(&subject).await, faults.struck()), (Some(1), 4));
}

/// "Commit unknown", done or lost: an operation with an id takes effect once, and returns what the attempt that was
/// done returned.
pub async fn unknown_commits_have_one_effect(subject: Subject) {
    let (faults, store) = faulty(&subject);
    let mut expected = 0;
    for script in [
        vec![Fault::UnknownDone],
        vec![Fault::UnknownLost],
        vec![Fault::UnknownLost, Fault::UnknownDone],
        vec![Fault::Conflict, Fault::UnknownLost, Fault::UnknownLost, Fault::Conflict, Fault::UnknownDone],
    ] {
        faults.script(script);
        expected += 1;
        let options = Options::default().operation(store.operation());
        assert_eq!(expect(increment(&store, options).await), expected);
        assert_eq!(counted(&subject).await, Some(expected));
    }
}

/// A commit that arrives after its repetition does nothing: neither that of an operation, nor that of plain writes,
/// which would bring back an old value.
pub async fn late_commits_have_one_effect(subject: Subject) {
    let (faults, store) = faulty(&subject);
    faults.script([Fault::UnknownLate]);
    let options = Options::default().operation(store.operation());
    assert_eq!(expect(increment(&store, options).await), 1);
    faults.script([Fault::UnknownLate]);
    for value in [b"first", b"newer"] {
        let write = store.write(Options::default(), |tx| {
            tx.set(b"plain", value);
            Box::pin(std::future::ready(Ok(())))
        });
        expect(write.await);
    }
    let late = faults.release().await;
    assert_eq!(
        late.into_iter().map(class).collect::<Vec<_>>(),
        [Some(Class::Conflict), Some(Class::Conflict)]
    );
    assert_eq!(counted(&subject).await, Some(1));
    assert_eq!(value(&subject.db, "plain").await.as_deref(), Some(b"newer".as_slice()));
}

/// A call that gave up in doubt cannot undo what was written after it.
pub async fn late_commits_of_failed_calls_come_to_nothing(subject: Subject) {
    let (faults, store) = faulty(&subject);
    // The short deadline is not for making the connection.
    expect(increment(&store, Options::default()).await);
    faults.script([Fault::UnknownLate, Fault::Hang]);
    for (value, deadline, expected) in [
        (b"first", Duration::from_millis(500), Some(Class::MaybeCommitted)),
        (b"newer", runner::DEADLINE, None),
    ] {
        let write = store.write(Options::default().deadline(deadline), |tx| {
            tx.set(b"plain", value);
            Box::pin(std::future::ready(Ok(())))
        });
        assert_eq!(class(write.await), expected);
    }
    let late = faults.release().await;
    assert_eq!(late.into_iter().map(class).collect::<Vec<_>>(), [Some(Class::Conflict)]);
    assert_eq!(value(&subject.db, "plain").await.as_deref(), Some(b"newer".as_slice()));
}

/// Whatever becomes of the attempts, the stamp that a caller gets is the one that its writes have got.
pub async fn the_runner_tells_the_stamp_of_the_commit(subject: Subject) {
    let (faults, store) = faulty(&subject);
    for (named, script) in [
        (false, vec![]),
        (false, vec![Fault::UnknownLost, Fault::Conflict]),
        (false, vec![Fault::UnknownDone]),
        (true, vec![]),
        (true, vec![Fault::UnknownLost]),
        (true, vec![Fault::UnknownLost, Fault::UnknownDone]),
    ] {
        faults.script(script);
        let options = Options { operation: named.then(|| store.operation()), ..Options::default() };
        let write = store.write_stamped(options, |tx| {
            tx.set_versionstamped_value(b"stamped", &[0; 10], 0);
            Box::pin(std::future::ready(Ok(())))
        });
        let ((), stamp) = expect(write.await);
        assert_eq!(value(&subject.db, "stamped").await.as_deref(), Some(stamp.as_slice()));
    }
    let nothing = store.write_stamped(Options::default(), |_| Box::pin(std::future::ready(Ok(()))));
    assert_eq!(expect(nothing.await), ((), [0; 10]));
}

/// The same by chance: every call that succeeded counted once.
pub async fn random_faults_have_one_effect_each(subject: Subject) {
    let chances = Chances {
        conflict: 100,
        too_old: 50,
        unknown_done: 100,
        unknown_lost: 100,
        unknown_late: 50,
        unreachable: 50,
        ..Chances::default()
    };
    let faults = Arc::new(Faults::random(subject.db.clone(), 7, chances));
    let store = Store::new(faults.clone(), Seams::system());
    for expected in 1..=60 {
        let patient = Options::default().deadline(Duration::from_secs(60)).operation(store.operation());
        assert_eq!(expect(increment(&store, patient).await), expected);
    }
    faults.release().await;
    assert_eq!(counted(&subject).await, Some(60));
    assert!(faults.struck() > 10);
}

/// A store that does not answer costs the deadline: unknown if the commit was under way, else unavailable.
pub async fn the_runner_keeps_its_deadline(subject: Subject) {
    let (faults, store) = faulty(&subject);
    let short = || Options::default().deadline(Duration::from_millis(500));
    // The deadline is not for making the connection.
    assert_eq!(expect(increment(&store, Options::default()).await), 1);
    faults.script([Fault::Hang]);
    assert_eq!(class(increment(&store, short()).await), Some(Class::MaybeCommitted));
    faults.set_reachable(false);
    assert_eq!(class(increment(&store, short()).await), Some(Class::Unavailable));
    faults.set_reachable(true);
    assert_eq!(expect(increment(&store, Options::default()).await), 2);
}

/// 1 MB of writes.
pub async fn the_runner_keeps_its_budget(subject: Subject) {
    let store = Store::new(subject.db.clone(), Seams::system());
    let write = store.write(Options::default(), |tx| {
        for n in 0..=10u8 {
            tx.set(&[b'k', n], &vec![0; runner::BUDGET / 11 + 1]);
        }
        Box::pin(std::future::ready(Ok(())))
    });
    assert_eq!(class(write.await), Some(Class::TooLarge));
    assert!(expect(subject.db.begin().range(all(1), SERIAL).await).rows.is_empty());
}

/// The marks of operations go with the next ones, or are swept.
pub async fn marks_of_operations_go(subject: Subject) {
    let store = Store::new(subject.db.clone(), Seams::system());
    for _ in 0..3 {
        expect(increment(&store, Options::default().operation(store.operation())).await);
    }
    let rows = async || expect(subject.db.begin().range(all(9), SERIAL).await).rows.len();
    assert_eq!(rows().await, 2, "the counter and the last mark");
    assert_eq!(expect(store.sweep(0, 10).await), 0);
    assert_eq!(expect(store.sweep(u64::MAX, 10).await), 1);
    assert_eq!(rows().await, 1);
}

fn put(key: &str, value: String) -> Writes {
    let mut ops = Ops::new();
    ops.put(Bytes::copy_from_slice(key.as_bytes()), value.into());
    Writes::new(&Entity::new("juliet@example.org"), ops)
}

/// Commits and callbacks come in the order of submission.
pub async fn batched_writes_are_ordered(subject: Subject) {
    let batcher = Batcher::start(Store::new(subject.db.clone(), Seams::system()), Settings::default());
    let order = Arc::new(Mutex::new(Vec::new()));
    for n in 0..500 {
        let order = order.clone();
        let (key, value) = (format!("k{}", n % 7), n.to_string());
        expect(batcher.submit(put(&key, value), move |outcome| order.lock().push((n, outcome.is_ok()))));
    }
    expect(batcher.flush().await);
    assert_eq!(*order.lock(), (0..500).map(|n| (n, true)).collect::<Vec<_>>());
    for n in 493..500 {
        assert_eq!(value(&subject.db, &format!("k{}", n % 7)).await, Some(n.to_string().into()));
    }
}

/// Faults cost time, not writes; what waits when the last handle goes is still committed.
pub async fn batches_survive_faults(subject: Subject) {
    let (faults, store) = faulty(&subject);
    let batcher = Batcher::start(store, Settings::default());
    for (n, fault) in
        [Fault::UnknownLate, Fault::Conflict, Fault::UnknownDone, Fault::Unreachable].into_iter().enumerate()
    {
        faults.script([fault]);
        expect(batcher.write(put("k", n.to_string())).await);
        faults.release().await;
        assert_eq!(value(&subject.db, "k").await, Some(n.to_string().into()));
    }
    let (done, outcome) = tokio::sync::oneshot::channel();
    expect(batcher.submit(put("k", "end".into()), |result| drop(done.send(result))));
    drop(batcher);
    assert!(matches!(outcome.await, Ok(Ok(()))));
}

/// Over its limits a batcher refuses at once; what it took it answers.
pub async fn a_full_batcher_refuses(subject: Subject) {
    let (faults, store) = faulty(&subject);
    faults.script([Fault::Hang]);
    let deadline = Duration::from_millis(50);
    let batcher = Batcher::start(store, Settings { queue: 3, deadline, ..Settings::default() });
    let stuck = tokio::spawn({
        let batcher = batcher.clone();
        async move { batcher.write(put("k", "stuck".into())).await }
    });
    while faults.struck() == 0 {
        tokio::task::yield_now().await;
    }
    let (done, mut outcomes) = tokio::sync::mpsc::channel(3);
    for _ in 0..3 {
        let done = done.clone();
        expect(batcher.submit(put("k", "waits".into()), move |outcome| {
            let _ = done.try_send(class(outcome));
        }));
    }
    assert_eq!(class(batcher.submit(put("k", "too many".into()), |_| ())), Some(Class::Unavailable));
    let huge = put("k", "x".repeat(crate::store::limits::VALUE + 1));
    assert_eq!(class(batcher.submit(huge, |_| ())), Some(Class::TooLarge));
    // Nobody knew what had become of it, so it was done again.
    assert!(matches!(stuck.await.map(class), Ok(None)));
    for _ in 0..3 {
        assert!(outcomes.recv().await.is_some());
    }
}
