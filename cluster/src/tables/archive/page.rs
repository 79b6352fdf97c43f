//! Pages of an archive (XEP-0313, XEP-0059).

use bytes::Bytes;

use super::{ArchiveId, Collection, Entry, id_of};
use crate::entity::Entity;
use crate::store::keys::Key;
use crate::store::{Isolation, Result, Select, Transaction, split};
use crate::tables::{CHUNK, decode};

/// Entries with whom.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum With {
    /// With anyone.
    #[default]
    Any,
    /// With any resource of a bare JID.
    Bare(String),
    /// With one full JID.
    Full(String),
    /// To or from one full JID of the archive's owner, which only the stanza tells.
    Own(String, Reads),
}

/// Says whether a stanza is to or from a JID.
#[derive(Clone, Copy)]
pub struct Reads(pub fn(stanza: &Bytes, jid: &str) -> bool);

impl PartialEq for Reads {
    fn eq(&self, _: &Self) -> bool {
        true // there is one way to read a stanza
    }
}

impl Eq for Reads {}

impl std::fmt::Debug for Reads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reads")
    }
}

impl With {
    /// Whether an entry is one of these.
    pub fn matches(&self, entry: &Entry) -> bool {
        match self {
            Self::Any => true,
            Self::Bare(jid) => entry.with == *jid,
            Self::Full(jid) => entry.with_full == *jid,
            Self::Own(jid, Reads(reads)) => reads(&entry.stanza, jid),
        }
    }
}

/// What is asked for. All conditions hold together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query {
    /// Only entries behind this one.
    pub after: Option<ArchiveId>,
    /// Only entries before this one.
    pub before: Option<ArchiveId>,
    /// Only entries of this time or later, microseconds since 1970.
    pub start: Option<u64>,
    /// Only entries of this time or earlier, microseconds since 1970.
    pub end: Option<u64>,
    /// Only entries with these.
    pub with: With,
    /// From the newest to the oldest.
    pub backwards: bool,
    /// At most that many entries.
    pub limit: usize,
    /// Stop when so many rows were read, matching or not (a row holds up to 10 kB).
    pub max_rows: usize,
    /// Stop when the stanzas found come to so many bytes; the last one may exceed it.
    pub max_bytes: usize,
}

impl Query {
    /// Everything, from the oldest to the newest, at most `limit` entries, in portions that keep to a transaction's
    /// time: 5,000 rows, 1 MB.
    pub fn all(limit: usize) -> Self {
        Self {
            after: None,
            before: None,
            start: None,
            end: None,
            with: With::Any,
            backwards: false,
            limit,
            max_rows: 5_000,
            max_bytes: 1_000_000,
        }
    }

    /// What is left after a slice with that cursor: the query for the next transaction (adjust `limit`).
    pub fn onwards(mut self, cursor: Option<ArchiveId>) -> Self {
        if cursor.is_some() {
            *(if self.backwards { &mut self.before } else { &mut self.after }) = cursor;
        }
        self
    }

    /// First id included and end excluded; `None` if nothing lies between.
    fn range(&self) -> Option<(ArchiveId, Option<ArchiveId>)> {
        let mut begin = ArchiveId::first_at(self.start.unwrap_or(0));
        if let Some(after) = self.after {
            begin = begin.max(following(after)?);
        }
        let end = self.end.and_then(|micros| micros.checked_add(1)).map(ArchiveId::first_at);
        let end = end.into_iter().chain(self.before).min();
        end.is_none_or(|end| begin < end).then_some((begin, end))
    }
}

/// Why a slice ends where it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Nothing that matches lies behind.
    Complete,
    /// `limit` was reached, and at least one more matches.
    Limit,
    /// `max_rows` or `max_bytes` was reached; whether more matches is not known: go on with the cursor.
    Budget,
}

/// Part of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Slice {
    /// What was found, in the direction of the query.
    pub entries: Vec<(ArchiveId, Entry)>,
    /// Why there is not more.
    pub end: End,
    /// How far the archive was read, in the direction of the query; `None` if nothing was.
    pub cursor: Option<ArchiveId>,
}

/// A part of the archive. Reads a snapshot and conflicts with nothing.
pub async fn page(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    query: &Query,
) -> Result<Slice> {
    let mut slice = Slice { entries: Vec::new(), end: End::Complete, cursor: None };
    let Some((begin, end)) = query.range() else { return Ok(slice) };
    let prefix = Key::of(collection.entries(), owner);
    let bound = |id: ArchiveId| prefix.clone().fixed(&id.to_bytes()).finish();
    let mut select = Select {
        begin: bound(begin),
        end: end.map_or_else(|| prefix.clone().range().end, bound),
        reverse: query.backwards,
        // One more than is wanted tells whether there is more.
        limit: if query.with == With::Any { query.limit.saturating_add(1).min(CHUNK) } else { CHUNK },
    };
    let prefix: Bytes = prefix.clone().finish();
    let mut joiner = split::Joiner::default();
    let (mut rows, mut bytes) = (0, 0);
    loop {
        let chunk = tx.range(select.clone(), Isolation::Snapshot).await?;
        for row in &chunk.rows {
            rows += 1;
            let Some((_, value)) = joiner.push(row)? else { continue };
            let (id, entry) = (id_of(&prefix, row)?, decode::<Entry>(value)?);
            if query.with.matches(&entry) {
                if slice.entries.len() >= query.limit {
                    slice.end = End::Limit;
                    return Ok(slice);
                }
                bytes += entry.stanza.len();
                slice.entries.push((id, entry));
            }
            slice.cursor = Some(id);
            if rows >= query.max_rows || bytes >= query.max_bytes {
                slice.end = End::Budget;
                return Ok(slice);
            }
        }
        match chunk.rows.last() {
            Some((last, _)) if chunk.more => select = select.after(last),
            _ => return joiner.end().map(|()| slice),
        }
    }
}

/// The smallest id greater than that one.
fn following(id: ArchiveId) -> Option<ArchiveId> {
    u128::from_be_bytes(id.to_bytes()).checked_add(1).map(|n| ArchiveId::from_bytes(n.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Ops, split::PART};
    use crate::tables::archive::{Clock, append, entry_key};
    use crate::tables::double::Double;

    fn owner() -> Entity {
        Entity::new("juliet@a")
    }

    /// An archive with an entry at each microsecond from 10 on: the sender, the size.
    fn archive(entries: &[(&str, usize)]) -> (Double, Vec<(ArchiveId, Entry)>) {
        let mut tx = Double::new();
        let mut clock = Clock::default();
        let mut all = Vec::new();
        let mut ops = Ops::new();
        for (now, (with, size)) in (10..).zip(entries) {
            let id = clock.next(now, 1);
            let (bare, _) = with.split_once('/').unwrap_or((with, ""));
            let with_full = if *with == bare { String::new() } else { (*with).to_owned() };
            let stanza = vec![b'x'; *size].into();
            let entry = Entry { with: bare.into(), with_full, stanza, ..Entry::default() };
            append(&mut ops, Collection::Archive, &owner(), id, &entry, None).unwrap();
            all.push((id, entry));
        }
        // A neighbour's entries are never seen.
        for near in ["juliet@", "juliet@aa", "juliet@a\0"] {
            append(
                &mut ops,
                Collection::Archive,
                &Entity::new(near),
                clock.next(1, 1),
                &Entry::default(),
                None,
            )
            .unwrap();
        }
        ops.iter().for_each(|op| op.apply(&mut tx));
        (tx, all)
    }

    async fn ask(tx: &mut Double, query: &Query) -> Slice {
        page(tx, Collection::Archive, &owner(), query).await.unwrap()
    }

    fn micros(slice: &Slice) -> Vec<u64> {
        slice.entries.iter().map(|(id, _)| id.micros).collect()
    }

    #[tokio::test]
    async fn limits_and_bounds_hold_in_both_directions() {
        let (mut tx, all) =
            archive(&[("r@b/1", 1), ("n@b", 1), ("r@b/2", 3 * PART), ("r@b/1", 1), ("n@b", 1)]);
        let slice = ask(&mut tx, &Query::all(9)).await;
        assert_eq!((slice.end, &slice.entries), (End::Complete, &all));
        let slice = ask(&mut tx, &Query::all(5)).await;
        assert_eq!((slice.end, slice.cursor), (End::Complete, Some(all[4].0)));
        let slice = ask(&mut tx, &Query::all(2)).await;
        assert_eq!((slice.end, micros(&slice), slice.cursor), (End::Limit, vec![10, 11], Some(all[1].0)));
        let slice = ask(&mut tx, &Query { after: slice.cursor, ..Query::all(2) }).await;
        assert_eq!((slice.end, micros(&slice)), (End::Limit, vec![12, 13]));
        let back = Query { backwards: true, ..Query::all(3) };
        let slice = ask(&mut tx, &back).await;
        assert_eq!((slice.end, micros(&slice)), (End::Limit, vec![14, 13, 12]));
        let slice = ask(&mut tx, &back.onwards(slice.cursor)).await;
        assert_eq!((slice.end, micros(&slice)), (End::Complete, vec![11, 10]));
        let slice = ask(&mut tx, &Query { start: Some(11), end: Some(13), ..Query::all(9) }).await;
        assert_eq!((slice.end, micros(&slice)), (End::Complete, vec![11, 12, 13]));
        let slice = ask(&mut tx, &Query { start: Some(14), end: Some(13), ..Query::all(9) }).await;
        assert_eq!((slice.end, micros(&slice), slice.cursor), (End::Complete, vec![], None));
        let slice = ask(&mut tx, &Query { end: Some(u64::MAX), start: Some(14), ..Query::all(0) }).await;
        assert_eq!((slice.end, micros(&slice)), (End::Limit, vec![]));
        let last = ArchiveId::from_bytes([0xff; 16]);
        assert_eq!(ask(&mut tx, &Query { after: Some(last), ..Query::all(9) }).await.end, End::Complete);
    }

    #[tokio::test]
    async fn filters_and_budgets() {
        let (mut tx, all) =
            archive(&[("r@b/1", 1), ("n@b", 1), ("r@b/2", 3 * PART), ("r@b/1", 1), ("n@b", 1)]);
        let romeo = Query { with: With::Bare("r@b".into()), ..Query::all(2) };
        let slice = ask(&mut tx, &romeo).await;
        assert_eq!((slice.end, micros(&slice)), (End::Limit, vec![10, 12]));
        let slice = ask(&mut tx, &romeo.clone().onwards(slice.cursor)).await;
        assert_eq!((slice.end, micros(&slice), slice.cursor), (End::Complete, vec![13], Some(all[4].0)));
        let full = Query { with: With::Full("r@b/1".into()), ..Query::all(9) };
        assert_eq!(micros(&ask(&mut tx, &full).await), [10, 13]);
        // Three rows: the budget ends within the third entry, which is read to its end.
        let slice = ask(&mut tx, &Query { max_rows: 3, with: With::Full("x".into()), ..Query::all(9) }).await;
        assert_eq!((slice.end, micros(&slice), slice.cursor), (End::Budget, vec![], Some(all[2].0)));
        let slice = ask(&mut tx, &Query { max_bytes: 2, ..Query::all(9) }).await;
        assert_eq!((slice.end, micros(&slice)), (End::Budget, vec![10, 11]));
    }

    #[tokio::test]
    async fn a_damaged_archive_is_an_error() {
        let (mut tx, all) = archive(&[("r@b/1", 3 * PART), ("n@b", 1)]);
        let first = entry_key(Collection::Archive, &owner(), all[0].0);
        let second_part = tx.rows.range(first..).nth(1).unwrap().0.clone();
        tx.clear(&second_part);
        assert!(page(&mut tx, Collection::Archive, &owner(), &Query::all(9)).await.is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the direction, the page size and the budgets, walking an archive shows each match once, in order.
        #[test]
        fn walking_finds_every_match_once(
            entries in prop::collection::vec((prop::sample::select(vec!["r@b/1", "n@b", "r@b/2"]), 0..3 * PART), 0..20),
            filter in 0..3usize, backwards: bool, limit in 1..5usize, max_rows in 1..9usize, rows in 1..9usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (mut tx, all) = archive(&entries);
            tx.page = rows;
            let with = [With::Any, With::Bare("r@b".into()), With::Full("r@b/1".into())][filter].clone();
            let mut expected: Vec<_> = all.into_iter().filter(|(_, e)| with.matches(e)).collect();
            if backwards {
                expected.reverse();
            }
            let mut query = Query { with, backwards, max_rows, ..Query::all(limit) };
            let mut found = Vec::new();
            loop {
                let slice = runtime.block_on(ask(&mut tx, &query));
                prop_assert!(slice.entries.len() <= limit);
                found.extend(slice.entries);
                match slice.end {
                    End::Complete => break,
                    _ => prop_assert!(slice.cursor.is_some()),
                }
                query = query.onwards(slice.cursor);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
