//! Limits, at the commit; and the age of transactions.

use super::{SERIAL, Subject, all, class, expect, fill};
use crate::store::{Class, Version, limits};

const TOO_LARGE: Option<Class> = Some(Class::TooLarge);

/// The longest key and value go, one byte more does not, and nothing of that transaction is kept.
pub async fn keys_and_values_have_limits(subject: Subject) {
    for (key, value, expected) in [
        (limits::KEY, limits::VALUE, None),
        (limits::KEY + 1, 0, TOO_LARGE),
        (1, limits::VALUE + 1, TOO_LARGE),
    ] {
        let mut tx = subject.db.begin();
        tx.set(b"beside", b"");
        tx.set(&vec![b'k'; key], &vec![0; value]);
        assert_eq!(class(tx.commit().await), expected, "{key} {value}");
    }
    let mut tx = subject.db.begin();
    assert_eq!(expect(tx.range(all(9), SERIAL).await).rows.len(), 2);
    assert_eq!(expect(tx.get(&vec![b'k'; limits::KEY + 1], SERIAL).await), None);
}

/// 10 MB of keys, values and conflict ranges.
pub async fn transactions_have_a_limit(subject: Subject) {
    let mut tx = subject.db.begin();
    let value = vec![0; limits::VALUE];
    for n in 0..99u8 {
        tx.set(&[b'k', n], &value);
    }
    assert!(tx.size() > 99 * limits::VALUE && tx.size() < limits::TRANSACTION);
    tx.set(b"last", &value);
    assert_eq!(class(tx.commit().await), TOO_LARGE);
    // Reads count too.
    let mut tx = subject.db.begin();
    let mut key = vec![b'k'; limits::KEY];
    for n in 0..600u16 {
        key.splice(..2, n.to_be_bytes());
        expect(tx.get(&key, SERIAL).await);
    }
    tx.set(b"a", b"");
    assert_eq!(class(tx.commit().await), TOO_LARGE);
    assert!(expect(subject.db.begin().range(all(9), SERIAL).await).rows.is_empty());
}

/// The engine's own keys, inverted ranges.
pub async fn illegal_keys_are_refused(subject: Subject) {
    let misuse = Some(Class::Misuse);
    let mut tx = subject.db.begin();
    tx.set(b"\xff/system", b"");
    assert_eq!(class(tx.commit().await), misuse);
    let mut tx = subject.db.begin();
    tx.clear_range(b"b", b"a");
    assert_eq!(class(tx.commit().await), misuse);
    let mut tx = subject.db.begin();
    let mut select = all(1);
    select.end = bytes::Bytes::from_static(b"\xff\xff");
    assert_eq!(class(tx.range(select, SERIAL).await), misuse);
    let mut select = all(1);
    std::mem::swap(&mut select.begin, &mut select.end);
    assert_eq!(class(tx.range(select, SERIAL).await), misuse);
}

/// Five seconds after its first read a transaction can neither read nor commit.
pub async fn old_transactions_are_refused(subject: Subject) {
    fill(&subject.db, &[("a", "1")]).await;
    let (mut reader, mut writer, mut again) = (subject.db.begin(), subject.db.begin(), subject.db.begin());
    let version = expect(reader.read_version().await);
    expect(writer.get(b"a", SERIAL).await);
    writer.set(b"b", b"1");
    fill(&subject.db, &[("c", "1")]).await;
    (subject.pass)(limits::AGE + limits::AGE / 10);
    fill(&subject.db, &[("d", "1")]).await;
    assert_eq!(class(reader.get(b"a", SERIAL).await), Some(Class::Retry));
    assert_eq!(class(writer.commit().await), Some(Class::Retry));
    again.set_read_version(version, version);
    assert_eq!(class(again.get(b"a", SERIAL).await), Some(Class::Retry));
    expect(subject.db.begin().get(b"a", SERIAL).await);
}

/// A version that no commit has reached.
pub async fn a_future_version_is_refused(subject: Subject) {
    let version = expect(subject.db.begin().read_version().await);
    let mut tx = subject.db.begin();
    let future = Version(version.0 + 1_000_000_000);
    tx.set_read_version(future, future);
    assert_eq!(class(tx.get(b"a", SERIAL).await), Some(Class::Retry));
}
