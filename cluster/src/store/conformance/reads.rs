//! Reads: own writes, isolation, pages.

use bytes::Bytes;

use super::{SERIAL, Subject, all, expect, fill, names, value};
use crate::store::split::{self, Joiner};
use crate::store::{Isolation, Select, Store, limits};

/// A transaction reads what it wrote, in every kind of write.
pub async fn reads_see_own_writes(subject: Subject) {
    fill(&subject.db, &[("old", "1"), ("gone", "1"), ("ranged", "1")]).await;
    let mut tx = subject.db.begin();
    tx.set(b"new", b"2");
    tx.set(b"old", b"2");
    tx.clear(b"gone");
    tx.clear_range(b"r", b"s");
    tx.add(b"sum", 3);
    tx.add(b"sum", 4);
    for (key, expected) in [
        ("new", Some("2")),
        ("old", Some("2")),
        ("gone", None),
        ("ranged", None),
        ("sum", Some("\u{7}\0\0\0\0\0\0\0")),
    ] {
        let got = expect(tx.get(key.as_bytes(), SERIAL).await);
        assert_eq!(got.as_deref(), expected.map(str::as_bytes), "{key}");
    }
}

/// So do ranges, in both directions.
pub async fn ranges_see_own_writes(subject: Subject) {
    fill(&subject.db, &[("a", "1"), ("c", "1"), ("e", "1"), ("g", "1")]).await;
    let mut tx = subject.db.begin();
    for key in [b"b", b"d", b"h"] {
        tx.set(key, b"2");
    }
    tx.clear(b"c");
    tx.clear_range(b"f", b"h");
    let page = expect(tx.range(all(10), SERIAL).await);
    assert_eq!((names(&page).as_str(), page.more), ("a b d e h", false));
    let page = expect(tx.range(all(10).reverse(), SERIAL).await);
    assert_eq!(names(&page), "h e d b a");
    let page = expect(tx.range(all(2), SERIAL).await);
    assert_eq!((names(&page).as_str(), page.more), ("a b", true));
    let page = expect(tx.range(all(2).reverse(), SERIAL).await);
    assert_eq!((names(&page).as_str(), page.more), ("h e", true));
}

/// Writes are invisible to others before the commit, and all at once after it.
pub async fn nothing_is_visible_before_the_commit(subject: Subject) {
    let mut tx = subject.db.begin();
    tx.set(b"a", b"1");
    tx.set(b"b", b"1");
    assert_eq!(value(&subject.db, "a").await, None);
    expect(tx.commit().await);
    assert_eq!(names(&expect(subject.db.begin().range(all(9), SERIAL).await)), "a b");
}

/// A transaction sees one version from its first read on.
pub async fn reads_repeat_within_a_transaction(subject: Subject) {
    fill(&subject.db, &[("a", "1"), ("b", "1")]).await;
    let mut tx = subject.db.begin();
    expect(tx.get(b"a", SERIAL).await);
    fill(&subject.db, &[("b", "2"), ("c", "2")]).await;
    assert_eq!(expect(tx.get(b"b", SERIAL).await).as_deref(), Some(b"1".as_slice()));
    assert_eq!(names(&expect(tx.range(all(9), SERIAL).await)), "a b");
    let mut later = subject.db.begin();
    assert!(expect(later.read_version().await) > expect(tx.read_version().await));
    assert_eq!(expect(later.get(b"b", SERIAL).await).as_deref(), Some(b"2".as_slice()));
}

async fn walk(subject: &Subject, mut select: Select) -> Vec<Bytes> {
    let mut tx = subject.db.begin();
    let mut keys = Vec::new();
    loop {
        let page = expect(tx.range(select.clone(), Isolation::Snapshot).await);
        assert!(page.rows.len() <= select.limit);
        keys.extend(page.rows.into_iter().map(|(key, _)| key));
        match keys.last().filter(|_| page.more) {
            Some(last) => select = select.after(last),
            None => return keys,
        }
    }
}

async fn hundred(subject: &Subject) -> Vec<Bytes> {
    let mut tx = subject.db.begin();
    let keys: Vec<Bytes> = (0..100).map(|n| format!("key {n:03}").into()).collect();
    for key in &keys {
        tx.set(key, b"");
    }
    expect(tx.commit().await);
    keys
}

/// Page after page meets every row once.
pub async fn pages_go_forward_to_the_end(subject: Subject) {
    let keys = hundred(&subject).await;
    for limit in [1, 7, 50, 100, 101] {
        assert_eq!(walk(&subject, all(limit)).await, keys, "pages of {limit}");
    }
}

/// Backward too: the next page ends before the last row.
pub async fn pages_go_backward_to_the_end(subject: Subject) {
    let mut keys = hundred(&subject).await;
    keys.reverse();
    for limit in [1, 7, 50, 100, 101] {
        assert_eq!(walk(&subject, all(limit).reverse()).await, keys, "pages of {limit}");
    }
}

/// A page of many bytes ends before its limit, and says that there is more.
pub async fn large_pages_end_early(subject: Subject) {
    let big = vec![7; limits::VALUE];
    for part in 0..3u8 {
        let mut tx = subject.db.begin();
        for n in 0..8u8 {
            tx.set(&[b'k', part, n], &big);
        }
        expect(tx.commit().await);
    }
    let page = expect(subject.db.begin().range(all(24), SERIAL).await);
    assert!(page.more && page.rows.len() < 24);
    assert_eq!(walk(&subject, all(24)).await.len(), 24);
}

/// Values that no row may hold: written, shortened, read in both directions, removed.
pub async fn values_above_100_kb_are_kept_in_parts(subject: Subject) {
    let long =
        |n: u8, size: usize| (0..size).map(|i| n ^ u8::try_from(i % 251).unwrap_or(0)).collect::<Bytes>();
    let mut values = [long(1, limits::VALUE + 1), long(2, 250_000), long(3, 1)];
    for step in 0..3 {
        let mut tx = subject.db.begin();
        for (n, value) in (0u8..).zip(&values) {
            expect(split::replace(&mut *tx, &[b'v', n], value));
        }
        assert_eq!(
            expect(split::get(&mut *tx, b"v\x01", SERIAL).await),
            values.get(1).cloned(),
            "own writes"
        );
        expect(tx.commit().await);
        for reverse in [false, true] {
            let (mut tx, mut joiner, mut got) = (subject.db.begin(), Joiner::default(), Vec::new());
            let mut select = if reverse { all(7).reverse() } else { all(7) };
            loop {
                let page = expect(tx.range(select.clone(), SERIAL).await);
                for row in &page.rows {
                    got.extend(expect(joiner.push(row)).map(|(_, value)| value));
                    select = select.after(&row.0);
                }
                if !page.more {
                    break;
                }
            }
            expect(joiner.end());
            if reverse {
                got.reverse();
            }
            assert_eq!(got, values, "step {step}, reverse {reverse}");
        }
        values.rotate_left(1);
    }
    let mut tx = subject.db.begin();
    for n in 0u8..3 {
        split::remove(&mut *tx, &[b'v', n]);
    }
    assert!(split::insert(&mut *tx, b"w", &long(4, split::MAX + 1)).is_err());
    expect(tx.commit().await);
    assert!(expect(subject.db.begin().range(all(1), SERIAL).await).rows.is_empty());
}

/// A scan that takes longer than a transaction may goes on in the next, behind the last row. What others do behind it and
/// before it does not disturb it: each row that was there all the time comes once, and in order.
async fn scan_over_transactions(subject: Subject, reverse: bool) {
    let mut keys = hundred(&subject).await;
    let store = Store::new(subject.db.clone(), crate::seams::Seams::system());
    let (mut seen, mut select): (Vec<Bytes>, _) =
        (Vec::new(), if reverse { all(30).reverse() } else { all(30) });
    let (behind, before) = if reverse { ("key 0999", "key 0000") } else { ("key 0000", "key 0999") };
    loop {
        let next = &select;
        let page = expect(store.read(|tx| Box::pin(async move { tx.range(next.clone()).await })).await);
        seen.extend(page.rows.into_iter().map(|(key, _)| key));
        fill(&subject.db, &[(behind, ""), (before, "")]).await;
        (subject.pass)(limits::AGE * 2);
        match seen.last().filter(|_| page.more) {
            Some(last) => select = select.after(last),
            None => break,
        }
    }
    keys.push(before.into());
    keys.sort();
    if reverse {
        keys.reverse();
    }
    assert_eq!(seen, keys);
}

/// Forward.
pub async fn scans_follow_pages_over_transactions(subject: Subject) {
    scan_over_transactions(subject, false).await;
}

/// And backward.
pub async fn scans_backward_follow_pages_over_transactions(subject: Subject) {
    scan_over_transactions(subject, true).await;
}

/// A version that one transaction saw can be read by another.
pub async fn an_old_version_can_be_read_again(subject: Subject) {
    fill(&subject.db, &[("a", "1")]).await;
    let version = expect(subject.db.begin().read_version().await);
    fill(&subject.db, &[("a", "2"), ("b", "2")]).await;
    let mut tx = subject.db.begin();
    tx.set_read_version(version, version);
    assert_eq!(expect(tx.read_version().await), version);
    assert_eq!(expect(tx.get(b"a", SERIAL).await).as_deref(), Some(b"1".as_slice()));
    assert_eq!(names(&expect(tx.range(all(9), SERIAL).await)), "a");
}
