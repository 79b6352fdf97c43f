//! Versionstamps.

use super::{SERIAL, Subject, all, class, expect, value};
use crate::store::Class;

/// Later commits have greater stamps, and the version in front.
pub async fn versionstamps_ascend_with_commits(subject: Subject) {
    let mut last = [0; 10];
    for n in 0..20u8 {
        let mut tx = subject.db.begin();
        tx.set(&[b'k', n], b"");
        let committed = expect(tx.commit().await);
        assert!(committed.versionstamp > last);
        last = committed.versionstamp;
        assert_eq!(last.first_chunk(), Some(&committed.version.0.to_be_bytes()));
    }
}

/// The stamp of the commit stands in keys and values, at its place.
pub async fn versionstamps_fill_keys_and_values(subject: Subject) {
    let mut tx = subject.db.begin();
    tx.set_versionstamped_key(b"log/..........!", 4, b"entry");
    tx.set_versionstamped_value(b"version", b"<..........>", 1);
    let stamp = expect(tx.commit().await).versionstamp;
    assert_eq!(
        value(&subject.db, "version").await.as_deref(),
        Some([b"<", &stamp[..], b">"].concat().as_slice())
    );
    let mut tx = subject.db.begin();
    let page = expect(tx.range(all(1), SERIAL).await);
    let expected = [b"log/", &stamp[..], b"!"].concat();
    assert!(page.rows.iter().any(|(key, entry)| *key == expected && entry == "entry"));
}

/// A log whose keys are versionstamps is read in the order of its commits, those at the same time included.
pub async fn versionstamped_keys_lie_in_the_order_of_commits(subject: Subject) {
    let mut last = [0; 10];
    let mut stamps = Vec::new();
    for round in 0..5u8 {
        let commits: Vec<_> = (0..8u8)
            .map(|n| {
                let mut tx = subject.db.begin();
                tx.set_versionstamped_key(b"log/..........", 4, &[round, n]);
                tokio::spawn(tx.commit())
            })
            .collect();
        let before = last;
        for (commit, n) in commits.into_iter().zip(0u8..) {
            let Ok(committed) = commit.await else { return assert_eq!(n, u8::MAX, "a commit panicked") };
            let stamp = expect(committed).versionstamp;
            assert!(stamp > before, "a round is after the one before");
            last = last.max(stamp);
            stamps.push((stamp, [round, n]));
        }
    }
    stamps.sort_unstable();
    let mut tx = subject.db.begin();
    let rows = expect(tx.range(all(100), SERIAL).await).rows;
    assert_eq!(rows.len(), stamps.len());
    for ((key, value), (stamp, written)) in rows.iter().zip(&stamps) {
        assert_eq!(*key, [b"log/", &stamp[..]].concat());
        assert_eq!(*value, written.as_slice());
    }
}

/// Before the commit nobody knows them.
pub async fn unknown_versionstamps_cannot_be_read(subject: Subject) {
    let mut tx = subject.db.begin();
    tx.set_versionstamped_key(b"log/..........", 4, b"entry");
    tx.set_versionstamped_value(b"version", b"..........", 0);
    assert_eq!(class(tx.get(b"version", SERIAL).await), Some(Class::Misuse));
    assert_eq!(class(tx.range(all(9), SERIAL).await), Some(Class::Misuse));
    assert_eq!(expect(tx.get(b"other", SERIAL).await), None);
    let mut tx = subject.db.begin();
    tx.set_versionstamped_value(b"version", b"too short", 0);
    assert_eq!(class(tx.commit().await), Some(Class::Misuse));
}
