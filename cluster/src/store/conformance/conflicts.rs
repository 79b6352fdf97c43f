//! Isolation: what conflicts and what does not.

use super::{SERIAL, Subject, all, class, expect, fill, names, value};
use crate::store::{Class, Isolation};

const CONFLICT: Option<Class> = Some(Class::Conflict);

/// Two that read and write the same key: the second fails.
pub async fn lost_updates_are_prevented(subject: Subject) {
    fill(&subject.db, &[("a", "0")]).await;
    let (mut first, mut second) = (subject.db.begin(), subject.db.begin());
    for tx in [&mut first, &mut second] {
        expect(tx.get(b"a", SERIAL).await);
        tx.set(b"a", b"1");
    }
    expect(first.commit().await);
    assert_eq!(class(second.commit().await), CONFLICT);
}

/// Two that each read what the other writes: one fails.
pub async fn write_skew_is_prevented(subject: Subject) {
    let (mut first, mut second) = (subject.db.begin(), subject.db.begin());
    assert_eq!(expect(first.get(b"a", SERIAL).await), None);
    assert_eq!(expect(second.get(b"b", SERIAL).await), None);
    first.set(b"b", b"1");
    second.set(b"a", b"1");
    expect(first.commit().await);
    assert_eq!(class(second.commit().await), CONFLICT);
    assert_eq!(value(&subject.db, "a").await, None);
}

/// Commits of one batch share a version. A reader at the version of a commit has not seen what others of its batch wrote behind it;
/// so all that was written at that version counts as unseen.
pub async fn what_was_written_at_a_version_that_is_set_conflicts(subject: Subject) {
    fill(&subject.db, &[("a", "1")]).await;
    let mut first = subject.db.begin();
    first.set(b"b", b"1");
    let version = expect(first.commit().await).version;
    let (mut other, mut same) = (subject.db.begin(), subject.db.begin());
    for (tx, read) in [(&mut other, b"a"), (&mut same, b"b")] {
        tx.set_read_version(version, version.before());
        assert_eq!(expect(tx.get(read, SERIAL).await).as_deref(), Some(b"1".as_slice()));
        tx.set(b"z", b"1");
    }
    expect(other.commit().await);
    assert_eq!(class(same.commit().await), CONFLICT);
}

/// Writes without reads go through; the later wins.
pub async fn blind_writes_do_not_conflict(subject: Subject) {
    let (mut first, mut second) = (subject.db.begin(), subject.db.begin());
    expect(first.read_version().await);
    expect(second.read_version().await);
    first.set(b"a", b"1");
    second.set(b"a", b"2");
    expect(first.commit().await);
    expect(second.commit().await);
    assert_eq!(value(&subject.db, "a").await.as_deref(), Some(b"2".as_slice()));
}

/// Snapshot reads, of keys and ranges.
pub async fn snapshot_reads_do_not_conflict(subject: Subject) {
    let mut tx = subject.db.begin();
    expect(tx.get(b"a", Isolation::Snapshot).await);
    expect(tx.range(all(9), Isolation::Snapshot).await);
    tx.set(b"z", b"1");
    fill(&subject.db, &[("a", "1")]).await;
    expect(tx.commit().await);
}

/// Reading back what one wrote says nothing about others.
pub async fn own_writes_read_back_do_not_conflict(subject: Subject) {
    let mut tx = subject.db.begin();
    tx.set(b"a", b"1");
    expect(tx.get(b"a", SERIAL).await);
    fill(&subject.db, &[("a", "2")]).await;
    expect(tx.commit().await);
}

/// A row that appears in a range that was read, or vanishes from it.
pub async fn phantoms_conflict(subject: Subject) {
    fill(&subject.db, &[("m", "1")]).await;
    for insert in [true, false] {
        let mut tx = subject.db.begin();
        expect(tx.range(all(9), SERIAL).await);
        tx.set(b"z", b"1");
        let mut other = subject.db.begin();
        if insert {
            other.set(b"k", b"1");
        } else {
            other.clear(b"m");
        }
        expect(other.commit().await);
        assert_eq!(class(tx.commit().await), CONFLICT, "insert: {insert}");
    }
}

/// A full page conflicts up to its last row only.
pub async fn what_lies_behind_a_page_does_not_conflict(subject: Subject) {
    fill(&subject.db, &[("b", "1"), ("d", "1"), ("f", "1"), ("h", "1")]).await;
    for (reverse, behind, within) in [(false, "g", "c"), (true, "a", "e")] {
        let select = || if reverse { all(2).reverse() } else { all(2) };
        let mut tx = subject.db.begin();
        expect(tx.range(select(), SERIAL).await);
        tx.set(b"z0", b"1");
        let mut other = subject.db.begin();
        other.clear(behind.as_bytes());
        expect(other.commit().await);
        expect(tx.commit().await);
        let mut undo = subject.db.begin();
        undo.clear(b"z0");
        expect(undo.commit().await);
        let mut tx = subject.db.begin();
        let page = expect(tx.range(select(), SERIAL).await);
        assert_eq!(page.rows.len(), 2);
        tx.set(b"z0", b"1");
        let key = if reverse { "g" } else { within };
        fill(&subject.db, &[(key, "1")]).await;
        assert_eq!(class(tx.commit().await), CONFLICT, "reverse: {reverse}");
        let mut undo = subject.db.begin();
        undo.clear(key.as_bytes());
        expect(undo.commit().await);
    }
}

/// One reads a place that is empty, the other clears a range around it: still a conflict.
pub async fn clear_range_conflicts_with_inserts_that_were_read(subject: Subject) {
    let mut tx = subject.db.begin();
    assert_eq!(expect(tx.get(b"m", SERIAL).await), None);
    tx.set(b"m", b"1");
    let mut clear = subject.db.begin();
    clear.clear_range(b"a", b"z");
    expect(clear.commit().await);
    assert_eq!(class(tx.commit().await), CONFLICT);
    // And the other way: the range was read to be cleared, a row came meanwhile.
    let mut clear = subject.db.begin();
    expect(clear.range(all(9), SERIAL).await);
    clear.clear_range(b"a", b"z");
    fill(&subject.db, &[("k", "1")]).await;
    assert_eq!(class(clear.commit().await), CONFLICT);
    assert!(value(&subject.db, "k").await.is_some());
}

/// Without reads the order of commits decides.
pub async fn clear_range_removes_what_came_before_and_not_after(subject: Subject) {
    fill(&subject.db, &[("a", "1"), ("c", "1"), ("z", "1")]).await;
    let mut clear = subject.db.begin();
    expect(clear.read_version().await);
    fill(&subject.db, &[("b", "2")]).await;
    clear.set(b"a", b"0");
    clear.clear_range(b"a", b"n");
    clear.set(b"c", b"3");
    expect(clear.commit().await);
    fill(&subject.db, &[("d", "4")]).await;
    let page = expect(subject.db.begin().range(all(9), SERIAL).await);
    assert_eq!(names(&page), "c d z");
}

/// Conflicts without reads or writes.
pub async fn explicit_conflicts_count(subject: Subject) {
    let mut reader = subject.db.begin();
    expect(reader.read_version().await);
    reader.add_read_conflict(b"a", b"c");
    reader.set(b"x", b"1");
    let mut writer = subject.db.begin();
    writer.add_write_conflict(b"b", b"b\0");
    expect(writer.commit().await);
    assert_eq!(class(reader.commit().await), CONFLICT);
    assert_eq!(value(&subject.db, "b").await, None);
}

/// What only reads is right as of its version.
pub async fn read_only_transactions_never_conflict(subject: Subject) {
    let mut tx = subject.db.begin();
    expect(tx.get(b"a", SERIAL).await);
    let version = expect(tx.read_version().await);
    fill(&subject.db, &[("a", "1")]).await;
    assert_eq!(tx.size(), 0);
    let committed = expect(tx.commit().await);
    assert_eq!((committed.version, committed.versionstamp), (version, [0; 10]));
}

/// Adds of several at a time.
pub async fn adds_do_not_conflict_and_sum_up(subject: Subject) {
    let mut open = Vec::new();
    for delta in [5, -7, 1] {
        let mut tx = subject.db.begin();
        expect(tx.read_version().await);
        tx.add(b"n", delta);
        open.push(tx);
    }
    for tx in open {
        expect(tx.commit().await);
    }
    let expected = (-1i64).to_le_bytes();
    assert_eq!(value(&subject.db, "n").await.as_deref(), Some(expected.as_slice()));
}

/// An add after a set, a clear, a clear of a range; and to a value of another length.
pub async fn adds_follow_their_transaction(subject: Subject) {
    fill(&subject.db, &[("b", "x"), ("c", "x"), ("d", "\u{1}")]).await;
    let mut tx = subject.db.begin();
    tx.set(b"a", &2i64.to_le_bytes());
    tx.add(b"a", 1);
    tx.clear(b"b");
    tx.add(b"b", 1);
    tx.clear_range(b"c", b"d");
    tx.add(b"c", 1);
    tx.add(b"d", 1);
    expect(tx.commit().await);
    for (key, expected) in [("a", 3i64), ("b", 1), ("c", 1), ("d", 2)] {
        assert_eq!(
            value(&subject.db, key).await.as_deref(),
            Some(expected.to_le_bytes().as_slice()),
            "{key}"
        );
    }
}
