//! How much an archive holds, and what goes when that is too much. Nothing is counted when a message is written: what lies in
//! a day that is over does not change, so it is weighed once, and its weight stands beside the day.

use super::retention::{days_key, unindex};
use super::{ArchiveId, Collection, entry_key, id_of, remove_through};
use crate::entity::Entity;
use crate::store::keys::{Key, Parts};
use crate::store::{Isolation, Result, Select, Transaction};
use crate::tables::{CHUNK, decode, encode, scan};

/// What is known of a day of an archive: the value of its row.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Day {
    /// Its entries, keys and values, bytes; 0 if it was not weighed.
    #[prost(uint64, tag = "1")]
    bytes: u64,
}

/// How many days one archive may have: a hundred years.
const DAYS: usize = 36_525;

/// The days of an archive, the newest first, with their weight if that is known.
pub async fn days(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
) -> Result<Vec<(u32, Option<u64>)>> {
    let prefix = Key::of(collection.days(), owner);
    let page = scan(tx, prefix.clone().range(), DAYS, Isolation::Snapshot).await?;
    let prefix = prefix.finish();
    let mut days = Vec::with_capacity(page.rows.len());
    for (key, value) in page.rows {
        let bytes = decode::<Day>(value)?.bytes;
        days.push((Parts::after(&prefix, &key)?.u32()?, (bytes > 0).then_some(bytes)));
    }
    days.reverse();
    Ok(days)
}

/// A part of a day, from its newest entry on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weighed {
    /// What fits, bytes.
    pub bytes: u64,
    /// The oldest entry that was looked at.
    pub last: Option<ArchiveId>,
    /// The newest entry that does not fit.
    pub beyond: Option<ArchiveId>,
    /// There is more to look at, behind `last`.
    pub more: bool,
}

/// Weighs the entries of a day that are older than `before`, the newest first, until more than `room` bytes were found or
/// `rows` rows read (which hold up to 10 kB each). Conflicts with nothing.
pub async fn weigh(
    tx: &mut dyn Transaction,
    (collection, owner): (Collection, &Entity),
    (day, before): (u32, Option<ArchiveId>),
    (room, rows): (u64, usize),
) -> Result<Weighed> {
    let prefix = Key::of(collection.entries(), owner);
    let end = match (before, day.checked_add(1)) {
        (Some(before), _) => entry_key(collection, owner, before),
        (None, Some(next)) => entry_key(collection, owner, ArchiveId::first_of_day(next)),
        (None, None) => prefix.clone().range().end,
    };
    let range = entry_key(collection, owner, ArchiveId::first_of_day(day))..end;
    let prefix = prefix.finish();
    let mut select = Select::range(range, CHUNK).reverse();
    let mut weighed = Weighed { bytes: 0, last: None, beyond: None, more: false };
    let (mut read, mut entry) = (0, 0);
    loop {
        let page = tx.range(select.clone(), Isolation::Snapshot).await?;
        for row in &page.rows {
            let id = id_of(&prefix, row)?;
            if weighed.last != Some(id) {
                if read >= rows {
                    weighed.more = true;
                    return Ok(weighed);
                }
                (weighed.last, entry) = (Some(id), 0);
            }
            read += 1;
            let bytes = (row.0.len() + row.1.len()) as u64;
            entry += bytes;
            weighed.bytes += bytes;
            if weighed.bytes > room {
                weighed.bytes -= entry;
                weighed.beyond = Some(id);
                return Ok(weighed);
            }
        }
        match page.rows.last() {
            Some((last, _)) if page.more => select = select.after(last),
            _ => return Ok(weighed),
        }
    }
}

/// Writes down what a day weighs that is over, if it is still there.
pub async fn note(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    day: u32,
    bytes: u64,
) -> Result<()> {
    let key = days_key(collection, owner, day);
    if tx.get(&key, Isolation::Serializable).await?.is_some() {
        tx.set(&key, &encode(&Day { bytes }));
    }
    Ok(())
}

/// An entry of a day has become smaller: what the day weighs is not known any more, so it is weighed again.
pub(super) async fn forget(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    day: u32,
) -> Result<()> {
    let key = days_key(collection, owner, day);
    if tx.get(&key, Isolation::Serializable).await?.is_some_and(|day| !day.is_empty()) {
        tx.set(&key, &[]);
    }
    Ok(())
}

/// Removes an entry of a day and everything older, at most `limit` whole days at a time. `kept`: what is left of that day if
/// it is over. Returns whether there are more days: then call it again in another transaction.
pub async fn cut(
    tx: &mut dyn Transaction,
    (collection, owner): (Collection, &Entity),
    through: ArchiveId,
    kept: Option<u64>,
    limit: usize,
) -> Result<bool> {
    let prefix = Key::of(collection.days(), owner);
    let mut range = prefix.clone().range();
    range.end = prefix.clone().u32(through.day()).finish();
    let page = scan(tx, range, limit, Isolation::Serializable).await?;
    let prefix = prefix.finish();
    for (key, _) in &page.rows {
        unindex(tx, collection, owner, Parts::after(&prefix, key)?.u32()?);
    }
    remove_through(tx, collection, owner, through);
    match kept {
        Some(0) => unindex(tx, collection, owner, through.day()),
        Some(bytes) => note(tx, collection, owner, through.day(), bytes).await?,
        None => {}
    }
    Ok(page.more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::archive::{Clock, Entry, append, first_id};
    use crate::tables::double::{Double, still_decodes};

    const DAY: u64 = 86_400_000_000;

    #[test]
    fn old_records_decode() {
        still_decodes("08ac02", &Day { bytes: 300 });
        still_decodes("", &Day { bytes: 0 });
    }

    #[tokio::test]
    async fn days_are_weighed_and_the_oldest_go() {
        let mut tx = Double::new();
        let owner = Entity::new("juliet@a");
        let at = (Collection::Archive, &owner);
        let (mut clock, mut last_day, mut ids) = (Clock::default(), None, Vec::new());
        for n in 3..12 {
            let id = clock.next(n * DAY / 3, 1);
            let entry = Entry { stanza: vec![b'x'; 25_000].into(), ..Entry::default() };
            let tx: &mut dyn Transaction = &mut tx;
            last_day = Some(append(tx, Collection::Archive, &owner, id, &entry, last_day).unwrap());
            ids.push(id);
        }
        assert_eq!(
            days(&mut tx, Collection::Archive, &owner).await.unwrap(),
            [(3, None), (2, None), (1, None)]
        );
        let whole = weigh(&mut tx, at, (3, None), (u64::MAX, 1_000)).await.unwrap();
        assert_eq!((whole.last, whole.beyond, whole.more), (Some(ids[6]), None, false));
        let one = whole.bytes / 3;
        assert!(one > 25_000, "{one}");
        // In portions, which end between entries.
        let part = weigh(&mut tx, at, (3, None), (u64::MAX, 1)).await.unwrap();
        assert_eq!(part, Weighed { bytes: one, last: Some(ids[8]), beyond: None, more: true });
        let next = weigh(&mut tx, at, (3, part.last), (2 * one - 1, 1_000)).await.unwrap();
        assert_eq!((next.bytes, next.beyond), (one, Some(ids[6])));
        note(&mut tx, Collection::Archive, &owner, 2, 7).await.unwrap();
        note(&mut tx, Collection::Archive, &owner, 9, 7).await.unwrap();
        let found = days(&mut tx, Collection::Archive, &owner).await.unwrap();
        assert_eq!(found, [(3, None), (2, Some(7)), (1, None)]);
        assert!(!cut(&mut tx, at, ids[4], Some(one), 9).await.unwrap());
        assert_eq!(first_id(&mut tx, Collection::Archive, &owner).await.unwrap(), Some(ids[5]));
        assert_eq!(days(&mut tx, Collection::Archive, &owner).await.unwrap(), [(3, None), (2, Some(one))]);
    }
}
