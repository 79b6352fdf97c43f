//! Watches.

use super::{SERIAL, Subject, class, expect, fill};
use crate::store::Class;

/// A watch ends when the key gets another value: later, or already between read and commit.
pub async fn watches_fire_on_change(subject: Subject) {
    fill(&subject.db, &[("a", "1")]).await;
    let mut tx = subject.db.begin();
    let watch = tx.watch(b"a");
    expect(tx.commit().await);
    let waiting = tokio::spawn(watch);
    fill(&subject.db, &[("b", "1")]).await;
    assert!(!waiting.is_finished());
    fill(&subject.db, &[("a", "2")]).await;
    assert!(matches!(waiting.await, Ok(Ok(()))));
    // A writer expects its own value …
    let mut tx = subject.db.begin();
    tx.set(b"a", b"3");
    let watch = tx.watch(b"a");
    expect(tx.commit().await);
    let waiting = tokio::spawn(watch);
    let mut clear = subject.db.begin();
    clear.clear_range(b"a", b"b");
    expect(clear.commit().await);
    assert!(matches!(waiting.await, Ok(Ok(()))));
    // … and what changed before the commit of the watch is a change too.
    let mut tx = subject.db.begin();
    expect(tx.get(b"a", SERIAL).await);
    let watch = tx.watch(b"a");
    fill(&subject.db, &[("a", "4")]).await;
    expect(tx.commit().await);
    expect(watch.await);
}

/// A watch lives by the commit of its transaction.
pub async fn watches_of_failed_transactions_end(subject: Subject) {
    let mut tx = subject.db.begin();
    let watch = tx.watch(b"a");
    drop(tx);
    assert!(class(watch.await).is_some());
    let mut tx = subject.db.begin();
    expect(tx.get(b"a", SERIAL).await);
    tx.set(b"b", b"1");
    let watch = tx.watch(b"a");
    fill(&subject.db, &[("a", "1")]).await;
    assert_eq!(class(tx.commit().await), Some(Class::Conflict));
    assert!(class(watch.await).is_some());
}
