//! What links to other servers keep: stanzas that wait for the other server, and what it takes to resume the stream (XEP-0198) after
//! the link's home has died.
//!
//! A link has a record as long as it has stanzas here, and longer: the node that takes its shard over finds the link by the record.

use bytes::Bytes;

use super::archive::ArchiveId;
use super::{CHUNK, Rows, decode, encode, join};
use crate::entity::{Entity, Shard};
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Isolation, Mutate, Result, Select, Transaction, split};

/// A link.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Record {
    /// The other server's id of the stream, for resumption; empty if there is none.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Where the other server wants to be called for that; empty if it did not say.
    #[prost(string, tag = "2")]
    pub location: String,
    /// The name of the numbers that stanzas have on that stream: random.
    #[prost(fixed64, tag = "3")]
    pub numbering: u64,
}

/// Without the id, which resumes the stream.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record(resumable: {})", !self.id.is_empty())
    }
}

/// A stanza that waits for the other server, or for its confirmation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Waiting {
    /// The whole stanza in its canonical form.
    #[prost(bytes = "bytes", tag = "1")]
    pub stanza: Bytes,
    /// Since when it waits, microseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub since: u64,
    /// The numbering in which it has a number; zero if it has none.
    #[prost(fixed64, tag = "3")]
    pub numbering: u64,
    /// The number in it, told before the stanza is sent: never too low.
    #[prost(uint32, tag = "4")]
    pub n: u32,
    /// The stanza goes back to its sender with this error condition, and is not to be sent any more; empty otherwise.
    #[prost(string, tag = "5")]
    pub returned: String,
}

/// Without the stanza: it may be a message.
impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiting({} bytes, number {})", self.stanza.len(), self.n)
    }
}

/// Writes a link's record. [`Class::TooLarge`](crate::store::Class::TooLarge) above [`split::MAX`] bytes.
pub fn put(out: &mut (impl Mutate + ?Sized), link: &Entity, record: &Record) -> Result<()> {
    split::replace(out, &Key::of(Kind::Link, link).finish(), &encode(record))
}

/// Removes a link's record. What waits stays.
pub fn clear(out: &mut (impl Mutate + ?Sized), link: &Entity) {
    split::remove(out, &Key::of(Kind::Link, link).finish());
}

/// A link's record.
pub async fn get(tx: &mut dyn Transaction, link: &Entity) -> Result<Option<Record>> {
    let key = Key::of(Kind::Link, link).finish();
    split::get(tx, &key, Isolation::Snapshot).await?.map(decode).transpose()
}

/// The links of a shard, at most `limit`, from the one behind `after`: what a node reads when it takes a shard over. Conflicts
/// with nothing.
pub async fn of_shard(
    tx: &mut dyn Transaction,
    shard: Shard,
    after: Option<&Entity>,
    limit: usize,
) -> Result<Rows<Entity>> {
    let mut range = Key::shard(Kind::Link, shard).range();
    if let Some(after) = after {
        range.start = Key::of(Kind::Link, after).range().end;
    }
    let found = join(tx, range, limit, Isolation::Snapshot).await?;
    let mut rows = Vec::with_capacity(found.rows.len());
    for (key, _) in &found.rows {
        let mut parts = Parts::of(Kind::Link, key)?;
        rows.push(parts.entity()?);
        parts.end()?;
    }
    Ok(Rows { rows, more: found.more })
}

/// Writes a stanza that waits, in place of what is stored under this id.
/// [`Class::TooLarge`](crate::store::Class::TooLarge) above [`split::MAX`] bytes, and then nothing is written.
pub fn put_waiting(
    out: &mut (impl Mutate + ?Sized),
    link: &Entity,
    id: ArchiveId,
    waiting: &Waiting,
) -> Result<()> {
    split::replace(out, &key(link, id), &encode(waiting))
}

/// Removes a stanza that waits.
pub fn remove(out: &mut (impl Mutate + ?Sized), link: &Entity, id: ArchiveId) {
    split::remove(out, &key(link, id));
}

/// What waits behind `after`, in the order of the ids: at most `limit` stanzas, and no more when they come to `max_bytes`; the last
/// one may exceed that. Reads a snapshot and conflicts with nothing.
pub async fn waiting(
    tx: &mut dyn Transaction,
    link: &Entity,
    after: Option<ArchiveId>,
    limit: usize,
    max_bytes: usize,
) -> Result<Rows<(ArchiveId, Waiting)>> {
    let prefix = Key::of(Kind::LinkQueue, link);
    let mut range = prefix.clone().range();
    if let Some(after) = after {
        range.start = prefix.clone().fixed(&after.to_bytes()).range().end;
    }
    let prefix = prefix.finish();
    let mut select = Select::range(range, limit.saturating_add(1).min(CHUNK));
    let mut joiner = split::Joiner::default();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    loop {
        let page = tx.range(select.clone(), Isolation::Snapshot).await?;
        for row in &page.rows {
            if rows.len() >= limit || bytes >= max_bytes {
                return Ok(Rows { rows, more: true });
            }
            let Some((key, value)) = joiner.push(row)? else { continue };
            let mut parts = Parts::after(&prefix, &key)?;
            let id = ArchiveId::from_bytes(parts.fixed()?);
            let waiting: Waiting = decode(value)?;
            bytes += waiting.stanza.len();
            rows.push((id, waiting));
        }
        match page.rows.last() {
            Some((last, _)) if page.more => select = select.after(last),
            _ => return joiner.end().map(|()| Rows { rows, more: false }),
        }
    }
}

/// The id of the newest stanza that waits: where a new owner's clock starts.
pub async fn last_id(tx: &mut dyn Transaction, link: &Entity) -> Result<Option<ArchiveId>> {
    let prefix = Key::of(Kind::LinkQueue, link);
    let mut select = Select::range(prefix.clone().range(), 1);
    select.reverse = true;
    let page = tx.range(select, Isolation::Snapshot).await?;
    let Some((key, _)) = page.rows.first() else { return Ok(None) };
    Ok(Some(ArchiveId::from_bytes(Parts::after(&prefix.finish(), key)?.fixed()?)))
}

fn key(link: &Entity, id: ArchiveId) -> Bytes {
    Key::of(Kind::LinkQueue, link).fixed(&id.to_bytes()).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Ops;
    use crate::tables::double::{Double, still_decodes};

    fn id(micros: u64) -> ArchiveId {
        ArchiveId::first_at(micros)
    }

    fn stanza(size: usize) -> Waiting {
        Waiting { stanza: vec![b'x'; size].into(), since: 300, numbering: 0, n: 1, returned: String::new() }
    }

    #[test]
    fn old_records_decode_and_debug_shows_nothing() {
        still_decodes(
            "0a0161120162190700000000000000",
            &Record { id: "a".into(), location: "b".into(), numbering: 7 },
        );
        still_decodes(
            "0a017810ac0219070000000000000020ac022a0161",
            &Waiting {
                stanza: Bytes::from_static(b"x"),
                since: 300,
                numbering: 7,
                n: 300,
                returned: "a".into(),
            },
        );
        assert_eq!(format!("{:?}", stanza(2)), "Waiting(2 bytes, number 1)");
        assert_eq!(
            format!("{:?}", Record { id: "a".into(), ..Record::default() }),
            "Record(resumable: true)"
        );
    }

    #[tokio::test]
    async fn what_waits_comes_back_in_order_whatever_its_size() {
        let (mut tx, link) = (Double::new(), Entity::new("a@b"));
        let mut ops = Ops::new();
        for (n, size) in [(1, 1), (2, 30_000), (3, 1), (4, 1)] {
            put_waiting(&mut ops, &link, id(n), &stanza(size)).unwrap();
        }
        put_waiting(&mut ops, &Entity::new("a@c"), id(9), &stanza(1)).unwrap();
        ops.iter().for_each(|op| op.apply(&mut tx));
        let mut ask = async |after: Option<u64>, limit, bytes| {
            let found = waiting(&mut tx, &link, after.map(id), limit, bytes).await.unwrap();
            (found.rows.iter().map(|(id, _)| id.micros).collect::<Vec<_>>(), found.more)
        };
        assert_eq!(ask(None, 9, 1 << 20).await, (vec![1, 2, 3, 4], false));
        assert_eq!(ask(None, 4, 1 << 20).await, (vec![1, 2, 3, 4], false));
        assert_eq!(ask(None, 2, 1 << 20).await, (vec![1, 2], true));
        assert_eq!(ask(Some(2), 9, 1 << 20).await, (vec![3, 4], false));
        assert_eq!(ask(None, 9, 10_000).await, (vec![1, 2], true));
        assert_eq!(ask(Some(4), 9, 1).await, (vec![], false));
        assert_eq!(last_id(&mut tx, &link).await.unwrap(), Some(id(4)));
        let out: &mut dyn Transaction = &mut tx;
        put_waiting(out, &link, id(2), &Waiting { n: 5, ..stanza(1) }).unwrap();
        remove(out, &link, id(1));
        remove(out, &link, id(4));
        let found = waiting(&mut tx, &link, None, 9, 1 << 20).await.unwrap();
        assert_eq!(found.rows, [(id(2), Waiting { n: 5, ..stanza(1) }), (id(3), stanza(1))]);
        assert_eq!(last_id(&mut tx, &Entity::new("nobody@b")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_shard_names_its_links() {
        let mut tx = Double::new();
        let shard = Entity::new("a@b").shard();
        let mut links: Vec<Entity> =
            (0..).map(|n| Entity::new(format!("x{n}@b"))).filter(|e| e.shard() == shard).take(4).collect();
        links.sort();
        let record = Record { numbering: 7, ..Record::default() };
        for link in &links {
            put(&mut tx as &mut dyn Transaction, link, &record).unwrap();
        }
        let first = of_shard(&mut tx, shard, None, 3).await.unwrap();
        assert_eq!((&first.rows[..], first.more), (&links[..3], true));
        let rest = of_shard(&mut tx, shard, first.rows.last(), 3).await.unwrap();
        assert_eq!((&rest.rows[..], rest.more), (&links[3..], false));
        let one = links.first().unwrap();
        assert_eq!(get(&mut tx, one).await.unwrap(), Some(record));
        clear(&mut tx as &mut dyn Transaction, one);
        assert_eq!(get(&mut tx, one).await.unwrap(), None);
    }
}
