//! How far in an archive a client has come that comes back with a count of stanzas (XEP-0198 section 5), when the
//! process that counted them is gone.

use bytes::Bytes;

use super::{ArchiveId, Collection, End, Entry, Query, Sent, entry_key, page};
use crate::entity::Entity;
use crate::store::{Isolation, Result, Transaction, split};
use crate::tables::{decode, encode};

/// What a client's count says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Received {
    /// The last entry that it has.
    pub last: Option<ArchiveId>,
    /// All that it has and that bears its number: what of the queue can go.
    pub ids: Vec<ArchiveId>,
}

/// Entries per read.
const PAGE: usize = 200;

/// Reads on behind `after` as far as `most` entries, until one comes that a client with `h` stanzas of `numbering` can't
/// have. Entries without a number were not sent to it, or not by this way.
pub async fn received(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    after: Option<ArchiveId>,
    (numbering, h): (u64, u32),
    most: usize,
) -> Result<Received> {
    let mut found = Received::default();
    let mut query = Query { after, ..Query::all(PAGE) };
    for _ in 0..most.div_ceil(PAGE) {
        let slice = page(tx, collection, owner, &query).await?;
        for (id, entry) in &slice.entries {
            match entry.number(numbering) {
                Some(sent) if sent.covered_by(h) => {
                    found.last = Some(*id);
                    found.ids.push(*id);
                }
                // Archives are in the order of delivery; what lies in a queue got there when it had waited.
                Some(_) if collection == Collection::Archive => return Ok(found),
                _ => {}
            }
        }
        if slice.end == End::Complete {
            break;
        }
        query = query.onwards(slice.cursor);
    }
    Ok(found)
}

/// Gives an entry other numbers. Nothing happens if it is gone.
pub async fn renumber(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    id: ArchiveId,
    sent: Vec<Sent>,
) -> Result<()> {
    let key: Bytes = entry_key(collection, owner, id);
    let Some(stored) = split::get(tx, &key, Isolation::Serializable).await? else { return Ok(()) };
    let entry = Entry { sent, ..decode(stored)? };
    split::replace(tx, &key, &encode(&entry))
}

/// Gives an entry the flags that `change` says, if it says any. Returns its size; nothing if it is gone.
pub async fn reflag(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    id: ArchiveId,
    change: impl FnOnce(&Entry) -> Option<u32>,
) -> Result<Option<usize>> {
    let key: Bytes = entry_key(collection, owner, id);
    let Some(stored) = split::get(tx, &key, Isolation::Serializable).await? else { return Ok(None) };
    let (size, entry) = (stored.len(), decode::<Entry>(stored)?);
    if let Some(flags) = change(&entry) {
        split::replace(tx, &key, &encode(&Entry { flags, ..entry }))?;
    }
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use super::super::append;
    use super::*;
    use crate::store::Ops;
    use crate::tables::double::Double;

    const MINE: u64 = 7;

    fn id(micros: u64) -> ArchiveId {
        ArchiveId::first_at(micros)
    }

    fn entry(sent: &[(u64, u32)]) -> Entry {
        let sent = sent.iter().map(|&(numbering, n)| Sent { numbering, n }).collect();
        Entry { stanza: Bytes::from_static(b"<message/>"), sent, ..Entry::default() }
    }

    async fn last(tx: &mut Double, after: u64, h: u32) -> Option<u64> {
        let owner = Entity::new("juliet@a");
        let after = Some(id(after));
        let found = received(tx, Collection::Archive, &owner, after, (MINE, h), 1_000).await.unwrap();
        found.last.map(|id| id.micros)
    }

    #[tokio::test]
    async fn a_count_names_a_place_in_the_archive() {
        let (mut tx, owner) = (Double::new(), Entity::new("juliet@a"));
        let mut ops = Ops::new();
        let rows: [&[(u64, u32)]; 6] = [
            &[(MINE, u32::MAX - 1)],
            &[],
            &[(9, 1), (MINE, u32::MAX)],
            &[(9, 2)], // not for this session
            &[(MINE, 1)],
            &[(MINE, 2)],
        ];
        for (n, row) in (1..).zip(rows) {
            append(&mut ops, Collection::Archive, &owner, id(n), &entry(row), None).unwrap();
        }
        ops.iter().for_each(|op| op.apply(&mut tx));
        assert_eq!(last(&mut tx, 0, u32::MAX - 2).await, None);
        assert_eq!(last(&mut tx, 0, u32::MAX - 1).await, Some(1));
        assert_eq!(last(&mut tx, 0, u32::MAX).await, Some(3));
        assert_eq!(last(&mut tx, 0, 0).await, Some(3), "numbers wrap");
        assert_eq!(last(&mut tx, 0, 1).await, Some(5));
        assert_eq!(last(&mut tx, 5, 1).await, None);
        let numbers = vec![Sent { numbering: MINE, n: 4 }];
        renumber(&mut tx, Collection::Archive, &owner, id(6), numbers).await.unwrap();
        renumber(&mut tx, Collection::Archive, &owner, id(66), Vec::new()).await.unwrap();
        assert_eq!(last(&mut tx, 0, 3).await, Some(5));
        assert_eq!(last(&mut tx, 0, 4).await, Some(6));
        let flags = |entry: &Entry| (entry.flags == 0).then_some(3);
        assert!(reflag(&mut tx, Collection::Archive, &owner, id(6), flags).await.unwrap().is_some());
        assert!(reflag(&mut tx, Collection::Archive, &owner, id(66), flags).await.unwrap().is_none());
        let entry = super::super::get(&mut tx, Collection::Archive, &owner, id(6)).await.unwrap().unwrap();
        assert_eq!((entry.flags, entry.number(MINE).map(|sent| sent.n)), (3, Some(4)));
    }
}
