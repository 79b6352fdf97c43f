//! What the conformance suite cannot ask of every engine.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::seams::Seams;
use rookery_cluster::store::fdb::{Fdb, classify};
use rookery_cluster::store::{Class, Database as _, FdbSettings, Isolation, Options, Select, Store};
use rookery_fdb::foundationdb::FdbError;
use tokio::runtime::Runtime;

use crate::cluster::Cluster;

type Case = fn(&Runtime, &mut Cluster, &Arc<Fdb>);

pub(crate) const CASES: &[(&str, Case)] = &[
    ("errors_have_classes", |_, _, _| errors_have_classes()),
    ("the_engine_keys_of_the_database_stay_out_of_sight", |runtime, _, db| runtime.block_on(own_keys(db))),
    ("an_unreachable_cluster_fails_in_time", |_, _, _| unreachable_in_time()),
    ("a_killed_server_loses_and_doubles_nothing", killed),
];

/// By the library's own predicates, and what they leave open.
fn errors_have_classes() {
    for (code, read, commit) in [
        (1007, Class::Retry, Class::Retry),                // transaction_too_old
        (1009, Class::Retry, Class::Retry),                // future_version
        (1020, Class::Conflict, Class::Conflict),          // not_committed
        (1021, Class::Retry, Class::MaybeCommitted),       // commit_unknown_result
        (1025, Class::Unavailable, Class::MaybeCommitted), // transaction_cancelled
        (1031, Class::Unavailable, Class::MaybeCommitted), // transaction_timed_out
        (1037, Class::Retry, Class::Retry),                // process_behind
        (1038, Class::Unavailable, Class::Unavailable),    // database_locked
        (1039, Class::Retry, Class::MaybeCommitted),       // cluster_version_changed
        (1051, Class::Retry, Class::Retry),                // batch_transaction_throttled
        (1213, Class::Retry, Class::Retry),                // tag_throttled
        (1101, Class::Unavailable, Class::MaybeCommitted), // operation_cancelled
        (2004, Class::Misuse, Class::Misuse),              // key_outside_legal_range
        (2101, Class::TooLarge, Class::TooLarge),          // transaction_too_large
        (2102, Class::TooLarge, Class::TooLarge),          // key_too_large
        (2103, Class::TooLarge, Class::TooLarge),          // value_too_large
        (2125, Class::Unavailable, Class::Unavailable),    // incompatible_client
        (2130, Class::Unavailable, Class::Unavailable),    // tenant_name_required
        (2204, Class::Unavailable, Class::Unavailable),    // api_function_missing
        (4100, Class::Unavailable, Class::MaybeCommitted), // internal_error
    ] {
        let error = FdbError::from_code(code);
        assert_eq!(classify(error, false).class, read, "{code} {error}");
        assert_eq!(classify(error, true).class, commit, "{code} {error}");
    }
    assert!(classify(FdbError::from_code(1007), true).is_too_old());
}

/// A scan of everything ends before FoundationDB's own keys.
async fn own_keys(db: &Fdb) {
    let mut tx = db.begin();
    tx.set(&[0xfe; 3], b"last");
    tx.commit().await.unwrap();
    let select = || Select::range(vec![].into()..vec![0xff].into(), 10);
    for select in [select(), select().reverse()] {
        let page = db.begin().range(select, Isolation::Serializable).await.unwrap();
        assert_eq!((page.rows.len(), page.more), (1, false));
    }
}

/// Nobody listens at that address: an answer after the time that was set, and not never.
fn unreachable_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fdb.cluster");
    std::fs::write(&file, "nobody:here@127.0.0.1:9\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = FdbSettings { timeout: Duration::from_millis(500), ..FdbSettings::default() };
    runtime.block_on(async {
        let db = Fdb::open(&file, &settings).unwrap();
        let read = tokio::time::timeout(Duration::from_secs(5), async { db.begin().read_version().await });
        assert_eq!(read.await.unwrap().unwrap_err().class, Class::Unavailable);
        let mut tx = db.begin();
        tx.set(b"a", b"");
        let commit = tokio::time::timeout(Duration::from_secs(5), tx.commit());
        assert_eq!(commit.await.unwrap().unwrap_err().class, Class::MaybeCommitted);
        db.close().await.unwrap();
    });
    let missing = Fdb::open(&folder.path().join("none"), &settings);
    assert_eq!(missing.err().unwrap().class, Class::Unavailable);
}

/// Operations that name themselves count once each, through two deaths of the only server.
fn killed(runtime: &Runtime, server: &mut Cluster, db: &Arc<Fdb>) {
    const TASKS: u64 = 8;
    const EACH: u64 = 40;
    let store = Store::new(db.clone(), Seams::system());
    let done = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let work: Vec<_> = (0..TASKS)
        .map(|_| {
            let (store, done) = (store.clone(), done.clone());
            runtime.spawn(async move {
                for _ in 0..EACH {
                    let patient =
                        Options::default().deadline(Duration::from_secs(120)).operation(store.operation());
                    let add = store.write(patient, |tx| {
                        tx.add(b"n", 1);
                        Box::pin(std::future::ready(Ok(())))
                    });
                    add.await.unwrap();
                    done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            })
        })
        .collect();
    let began = std::time::Instant::now();
    for until in [TASKS * EACH / 3, TASKS * EACH * 2 / 3] {
        while done.load(std::sync::atomic::Ordering::Relaxed) < until {
            assert!(began.elapsed() < Duration::from_secs(130), "the server does not come back");
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill();
        server.restart();
    }
    runtime.block_on(async {
        for task in work {
            task.await.unwrap();
        }
        let counted = store.get(b"n").await.unwrap();
        assert_eq!(counted.as_deref(), Some(&(TASKS * EACH).to_le_bytes()[..]));
    });
}

/// At the end watches and later transactions say so; the library stops.
pub(crate) async fn the_end_is_orderly(db: &Arc<Fdb>) {
    let mut tx = db.begin();
    let watch = tx.watch(b"a");
    tx.set(b"b", b"1");
    tx.commit().await.unwrap();
    db.close().await.unwrap();
    assert_eq!(watch.await.unwrap_err().class, Class::Unavailable);
    assert_eq!(db.begin().read_version().await.unwrap_err().class, Class::Unavailable);
}
