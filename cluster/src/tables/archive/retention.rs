//! Forgetting: the index by day, and what clears by it.

use super::{ArchiveId, Collection};
use crate::entity::{Entity, Shard};
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Isolation, Mutate, Result, Transaction};
use crate::tables::{CHUNK, scan};

/// Notes that an archive has entries of a day, in both directions: which archives a day has, for retention, and
/// which days an archive has, for its erasure.
pub(super) fn index(out: &mut (impl Mutate + ?Sized), collection: Collection, owner: &Entity, day: u32) {
    // An empty value is an empty record: fields can be added.
    out.put(index_key(collection, owner, day), bytes::Bytes::new());
    out.put(days_key(collection, owner, day), bytes::Bytes::new());
}

/// What [`retain`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retained {
    /// How many days of archives were removed.
    pub removed: usize,
    /// Whether more is left: then call it again in another transaction.
    pub more: bool,
}

/// Removes the entries of all days before `day` from the archives of a shard, at most `limit` days of archives.
/// Reads no entry.
pub async fn retain(
    tx: &mut dyn Transaction,
    collection: Collection,
    shard: Shard,
    day: u32,
    limit: usize,
) -> Result<Retained> {
    let begin = Key::shard(collection.index(), shard).finish();
    let end = Key::shard(collection.index(), shard).u32(day).finish();
    let page = scan(tx, begin..end, limit, Isolation::Snapshot).await?;
    for (key, _) in &page.rows {
        let mut parts = Parts::of(collection.index(), key)?;
        let day = parts.u32()?;
        let owner = parts.entity()?;
        parts.end()?;
        clear_through(tx, collection, &owner, day);
        unindex(tx, collection, &owner, day);
    }
    Ok(Retained { removed: page.rows.len(), more: page.more })
}

/// Removes the entries of all days before `day` (counted from 1970-01-01, UTC) from one archive.
pub async fn purge_before(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    day: u32,
) -> Result<()> {
    unindex_all(tx, collection, owner, Some(day)).await?;
    if let Some(last) = day.checked_sub(1) {
        clear_through(tx, collection, owner, last);
    }
    Ok(())
}

/// Removes all entries of one archive. Code that appends to it must forget the last day (see [`super::append`]).
pub async fn purge_all(tx: &mut dyn Transaction, collection: Collection, owner: &Entity) -> Result<()> {
    unindex_all(tx, collection, owner, None).await?;
    let range = Key::of(collection.entries(), owner).range();
    tx.delete_range(range.start, range.end);
    Ok(())
}

/// Removes an archive's index rows of the days before `day`. The read conflicts with an append that begins a day.
async fn unindex_all(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    day: Option<u32>,
) -> Result<()> {
    let prefix = Key::of(collection.days(), owner);
    let mut range = prefix.clone().range();
    if let Some(day) = day {
        range.end = prefix.clone().u32(day).finish();
    }
    let prefix = prefix.finish();
    loop {
        // A hundred years are 36,525 rows: they fit a transaction.
        let page = scan(tx, range.clone(), CHUNK, Isolation::Serializable).await?;
        for (key, _) in &page.rows {
            let day = Parts::after(&prefix, key)?.u32()?;
            unindex(tx, collection, owner, day);
        }
        if !page.more {
            return Ok(());
        }
    }
}

pub(super) fn unindex(tx: &mut dyn Transaction, collection: Collection, owner: &Entity, day: u32) {
    tx.delete(index_key(collection, owner, day));
    tx.delete(days_key(collection, owner, day));
}

/// Removes the entries up to the end of a day: from the archive's beginning, so that entries whose index row was
/// lost go too.
fn clear_through(tx: &mut dyn Transaction, collection: Collection, owner: &Entity, day: u32) {
    let range = Key::of(collection.entries(), owner).range();
    let end = match day.checked_add(1) {
        Some(next) => {
            Key::of(collection.entries(), owner).fixed(&ArchiveId::first_of_day(next).to_bytes()).finish()
        }
        None => range.end,
    };
    tx.delete_range(range.start, end);
}

fn index_key(collection: Collection, owner: &Entity, day: u32) -> bytes::Bytes {
    let kind: Kind = collection.index();
    Key::shard(kind, owner.shard()).u32(day).text(owner.as_str()).finish()
}

pub(super) fn days_key(collection: Collection, owner: &Entity, day: u32) -> bytes::Bytes {
    Key::of(collection.days(), owner).u32(day).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::archive::{Clock, Entry, append, first_id};
    use crate::tables::double::Double;

    const DAY: u64 = 86_400_000_000;

    /// Two archives of one shard and one of another, three entries a day on days 1 to 5 each.
    fn archives(tx: &mut Double) -> [Entity; 3] {
        let a = Entity::new("a@b");
        let numbered = |n| Entity::new(format!("x{n}@b"));
        let same = (0..).map(numbered).find(|e| e.shard() == a.shard()).unwrap();
        let other = (0..).map(numbered).find(|e| e.shard() != a.shard()).unwrap();
        for owner in [&a, &same, &other] {
            let (mut clock, mut last_day) = (Clock::default(), None);
            for n in 3..18 {
                let id = clock.next(n * DAY / 3, 1);
                let tx: &mut dyn Transaction = tx;
                let day = append(tx, Collection::Queue, owner, id, &Entry::default(), last_day).unwrap();
                assert_eq!(u64::from(day), n / 3);
                last_day = Some(day);
            }
        }
        [a, same, other]
    }

    #[tokio::test]
    async fn retention_clears_whole_days_of_a_shard_in_portions() {
        let mut tx = Double::new();
        let [a, same, other] = archives(&mut tx);
        assert_eq!(tx.rows.len(), 3 * (15 + 10));
        let first = retain(&mut tx, Collection::Queue, a.shard(), 3, 3).await.unwrap();
        assert_eq!(first, Retained { removed: 3, more: true });
        let second = retain(&mut tx, Collection::Queue, a.shard(), 3, 3).await.unwrap();
        assert_eq!(second, Retained { removed: 1, more: false });
        assert_eq!(tx.rows.len(), 2 * (9 + 6) + (15 + 10));
        for (owner, day) in [(&a, 3), (&same, 3), (&other, 1)] {
            assert_eq!(first_id(&mut tx, Collection::Queue, owner).await.unwrap().unwrap().day(), day);
        }
        let none = retain(&mut tx, Collection::Archive, other.shard(), 9, 9).await.unwrap();
        assert_eq!(none, Retained { removed: 0, more: false });
        let rest = retain(&mut tx, Collection::Queue, other.shard(), u32::MAX, 9).await.unwrap();
        assert_eq!(rest, Retained { removed: 5, more: false });
        assert_eq!(first_id(&mut tx, Collection::Queue, &other).await.unwrap(), None);
    }

    #[tokio::test]
    async fn purges_leave_no_row_behind() {
        let mut tx = Double::new();
        let [a, same, other] = archives(&mut tx);
        purge_before(&mut tx, Collection::Queue, &a, 5).await.unwrap();
        assert_eq!(tx.rows.len(), 3 + 2 + 2 * 25);
        purge_before(&mut tx, Collection::Queue, &a, 0).await.unwrap();
        purge_all(&mut tx, Collection::Archive, &a).await.unwrap();
        assert_eq!(tx.rows.len(), 3 + 2 + 2 * 25);
        for owner in [&a, &same, &other] {
            purge_all(&mut tx, Collection::Queue, owner).await.unwrap();
        }
        assert!(tx.rows.is_empty());
    }
}
