//! The embedded engine when the process is killed and when its journal is damaged.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)] // a test

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::batcher::Settings;
use rookery_cluster::store::embedded::{Durability, Embedded};
use rookery_cluster::store::{Batcher, Database, Isolation, Mutate as _, Ops, Select, Store, Writes};

const FOLDER: &str = "ROOKERY_CRASH_TEST_FOLDER";

fn key(n: u64) -> Bytes {
    format!("row {n:08}").into()
}

fn value(n: u64) -> Vec<u8> {
    // A few longer than fjall's buffer of 8 kB, so that a kill finds batches half written.
    n.to_be_bytes().repeat(if n.is_multiple_of(7) { 2000 } else { 40 })
}

/// A child that another test is just starting holds our files, and so the lock, until it has become its own program.
fn open(folder: &Path) -> Arc<Embedded> {
    loop {
        match Embedded::open(folder, Durability::Sync) {
            Err(error) if error.is_locked() => std::thread::yield_now(),
            opened => return Arc::new(opened.unwrap()),
        }
    }
}

async fn rows(db: &Arc<Embedded>) -> Vec<(Bytes, Bytes)> {
    let mut select = Select::range(Bytes::from_static(b"row")..Bytes::from_static(b"rox"), 1000);
    let (mut tx, mut rows) = (db.begin(), Vec::new());
    loop {
        let page = tx.range(select.clone(), Isolation::Snapshot).await.unwrap();
        rows.extend(page.rows);
        match rows.last().filter(|_| page.more) {
            Some((last, _)) => select = select.after(last),
            None => return rows,
        }
    }
}

/// Not a test: the process that gets killed. This process commits from several tasks and says what is committed.
#[tokio::test]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let db = open(Path::new(&folder));
    let first = rows(&db).await.len() as u64 * 1000;
    let store = Store::new(db, Seams::system());
    let batcher = Batcher::start(store, Settings { queue: 64, ..Settings::default() });
    for n in first.. {
        let mut ops = Ops::new();
        ops.put(key(n), value(n).into());
        ops.put(format!("other {n:08}").into(), value(n).into());
        let writes = Writes::new(&Entity::new("juliet@localhost"), ops);
        while batcher
            .submit(writes.clone(), move |outcome| println!("\nACK {n} {}", outcome.is_ok()))
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_to_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 1..=4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = acknowledged.len() + 100 * round;
        let mut killed = false;
        for line in lines.map_while(Result::ok) {
            let Some(n) = line.strip_prefix("ACK ").and_then(|rest| rest.strip_suffix(" true")) else {
                continue;
            };
            acknowledged.push(n.parse::<u64>().unwrap());
            if acknowledged.len() >= wanted && !killed {
                child.kill().unwrap(); // SIGKILL; what was said before it is still read
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        let db = open(folder.path());
        let rows: std::collections::HashMap<_, _> = rows(&db).await.into_iter().collect();
        for n in &acknowledged {
            assert_eq!(rows.get(&key(*n)).map(Bytes::as_ref), Some(value(*n).as_slice()), "row {n}");
        }
        for key in rows.keys() {
            let other = [b"other", &key[3..]].concat();
            let other = db.begin().get(&other, Isolation::Snapshot).await.unwrap();
            assert!(other.is_some(), "half a commit: {key:?}");
        }
        db.close().await.unwrap();
    }
}

/// A folder with the rows 0..n, each a commit of its own, and its only journal.
async fn filled(folder: &Path, n: u64) -> PathBuf {
    let db = open(folder);
    for n in 0..n {
        let mut tx = db.begin();
        tx.set(&key(n), &value(n));
        tx.commit().await.unwrap();
    }
    db.close().await.unwrap();
    drop(db);
    // The second opening removes the room that fjall made in advance.
    open(folder).close().await.unwrap();
    let journals = std::fs::read_dir(folder.join("rows")).unwrap().map(|entry| entry.unwrap().path());
    let journals: Vec<_> = journals.filter(|path| path.extension().is_some_and(|e| e == "jnl")).collect();
    assert_eq!(journals.len(), 1);
    journals[0].clone()
}

/// Where the value of a row lies in the journal.
fn find(journal: &[u8], n: u64) -> usize {
    let key = key(n);
    journal.windows(key.len()).position(|window| window == key).unwrap() + key.len()
}

async fn kept(folder: &Path) -> Vec<Bytes> {
    let db = open(folder);
    let kept = rows(&db).await.into_iter().map(|(key, _)| key).collect();
    // The store also works on.
    let mut tx = db.begin();
    tx.set(b"sign of life", b"");
    tx.commit().await.unwrap();
    db.close().await.unwrap();
    kept
}

fn without(n: u64, gone: u64) -> Vec<Bytes> {
    (0..n).filter(|n| *n != gone).map(key).collect()
}

#[tokio::test]
async fn a_flipped_byte_costs_one_commit() {
    for (row, offset) in [(19, 5), (10, 100), (0, 0), (7, 9000)] {
        let folder = tempfile::tempdir().unwrap();
        let path = filled(folder.path(), 20).await;
        let mut journal = std::fs::read(&path).unwrap();
        let place = find(&journal, row) + offset;
        journal[place] ^= 0x10;
        std::fs::write(&path, &journal).unwrap();
        assert_eq!(kept(folder.path()).await, without(20, row));
        assert_eq!(std::fs::read_dir(folder.path().join("damaged")).unwrap().count(), 1);
        assert_eq!(kept(folder.path()).await, without(20, row), "and once more");
    }
}

#[tokio::test]
async fn a_broken_length_does_not_swallow_memory_or_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 20).await;
    let mut journal = std::fs::read(&path).unwrap();
    let place = find(&journal, 10) - key(0).len() - 1; // the highest byte of the stored length
    journal[place] = 0xff;
    std::fs::write(&path, &journal).unwrap();
    assert_eq!(kept(folder.path()).await, without(20, 10));
}

#[tokio::test]
async fn a_cut_tail_costs_what_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 20).await;
    let journal = std::fs::read(&path).unwrap();
    for cut in [find(&journal, 19) + 300, find(&journal, 19) - 12, find(&journal, 18) + 1] {
        std::fs::write(&path, &journal[..cut]).unwrap();
        let expected = if cut > find(&journal, 19) - 20 { 19 } else { 18 };
        assert_eq!(kept(folder.path()).await, (0..expected).map(key).collect::<Vec<_>>(), "cut at {cut}");
        assert!(!folder.path().join("damaged").exists(), "a cut tail is what a crash leaves");
    }
}

#[tokio::test]
async fn zeros_in_the_middle_cost_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = filled(folder.path(), 20).await;
    let mut journal = std::fs::read(&path).unwrap();
    let (from, to) = (find(&journal, 8), find(&journal, 10));
    journal[from..to].fill(0);
    std::fs::write(&path, &journal).unwrap();
    let mut expected = without(20, 8);
    expected.retain(|row| *row != key(9) && *row != key(10));
    assert_eq!(kept(folder.path()).await, expected);
}
