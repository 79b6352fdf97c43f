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
