//! Archives of stanzas, of users and rooms alike, and the queues of users whose archive is off: the same rows
//! under another kind ([`Collection`]).
//!
//! The owner of an archive makes the ids ([`Clock`]); they order the entries by time, so that one range read serves
//! time, paging and look-up. An index by day tells retention what to clear without reading any entry.

use bytes::Bytes;

use super::{decode, encode};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Isolation, Mutate, Result, Row, Select, Transaction, split};

mod edit;
mod id;
mod page;
pub mod quota;
mod received;
mod retention;

pub use edit::edit;
pub use id::{ArchiveId, Clock, IdCipher};
pub use page::{End, Query, Reads, Slice, With, page};
pub use received::{Received, received, reflag, renumber};
pub use retention::{Retained, purge_all, purge_before, retain};

/// Where entries are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Collection {
    /// The archive.
    Archive,
    /// What waits for a device of a user whose archive is off.
    Queue,
}

impl Collection {
    /// The kind of the entries.
    const fn entries(self) -> Kind {
        match self {
            Self::Archive => Kind::Archive,
            Self::Queue => Kind::Queue,
        }
    }

    /// The kind of the index by day.
    const fn index(self) -> Kind {
        match self {
            Self::Archive => Kind::ArchiveDay,
            Self::Queue => Kind::QueueDay,
        }
    }

    /// The kind of the list of an entity's days.
    const fn days(self) -> Kind {
        match self {
            Self::Archive => Kind::ArchiveDays,
            Self::Queue => Kind::QueueDays,
        }
    }
}

/// Which way a stanza went.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Direction {
    /// Not known to this version.
    Unknown = 0,
    /// To the owner of the archive.
    In = 1,
    /// From the owner of the archive.
    Out = 2,
}

/// An archived stanza.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Entry {
    /// The other side's bare JID.
    #[prost(string, tag = "1")]
    pub with: String,
    /// The other side's full JID; empty if it has no resource.
    #[prost(string, tag = "2")]
    pub with_full: String,
    /// Which way it went.
    #[prost(enumeration = "Direction", tag = "3")]
    pub direction: i32,
    /// The whole stanza in its canonical form.
    #[prost(bytes = "bytes", tag = "4")]
    pub stanza: Bytes,
    /// When it was stored, microseconds since 1970.
    #[prost(uint64, tag = "5")]
    pub stored_at: u64,
    /// What kind of stanza it is: bits whose meaning is the writer's.
    #[prost(uint32, tag = "6")]
    pub flags: u32,
    /// Which number it has in the sessions it goes to.
    #[prost(message, repeated, tag = "7")]
    pub sent: Vec<Sent>,
    /// By what it is known should it come again, if a client may have it already; mostly empty. What that is, the writer knows.
    #[prost(bytes = "bytes", tag = "8")]
    pub origin: Bytes,
}

/// A stanza's number in a session that can be resumed, told before it is sent: never too low.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Sent {
    /// The session's numbering: [`Record::numbering`](super::sessions::Record::numbering).
    #[prost(fixed64, tag = "1")]
    pub numbering: u64,
    /// The number (XEP-0198 section 4).
    #[prost(uint32, tag = "2")]
    pub n: u32,
}

impl Sent {
    /// Whether a client that has got `h` stanzas has got this one. Numbers wrap.
    pub fn covered_by(self, h: u32) -> bool {
        h.wrapping_sub(self.n) < u32::MAX / 2
    }
}

impl Entry {
    /// Its number in that numbering, if it has one.
    pub fn number(&self, numbering: u64) -> Option<Sent> {
        self.sent.iter().copied().find(|sent| sent.numbering == numbering)
    }
}

/// Without the stanza: it is a message.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({:?}, {} bytes, flags {:#x})", self.direction(), self.stanza.len(), self.flags)
    }
}

/// Adds an entry, and returns its day. `last_day` is what the last call for this archive returned, if the caller
/// knows: the index by day is written when the day changes (and once more than needed when it is `None`; forget it
/// after a purge). The id must be greater than all in the archive. [`Class::TooLarge`](crate::store::Class::TooLarge)
/// above [`split::MAX`] bytes, and then nothing is written.
pub fn append(
    out: &mut (impl Mutate + ?Sized),
    collection: Collection,
    owner: &Entity,
    id: ArchiveId,
    entry: &Entry,
    last_day: Option<u32>,
) -> Result<u32> {
    split::insert(out, &entry_key(collection, owner, id), &encode(entry))?;
    let day = id.day();
    if last_day != Some(day) {
        retention::index(out, collection, owner, day);
    }
    Ok(day)
}

/// The entry of that id.
pub async fn get(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    id: ArchiveId,
) -> Result<Option<Entry>> {
    split::get(tx, &entry_key(collection, owner, id), Isolation::Snapshot).await?.map(decode).transpose()
}

/// Whether there is an entry of that id (XEP-0059: paging from an unknown one is an error).
pub async fn contains(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    id: ArchiveId,
) -> Result<bool> {
    let range = Key::of(collection.entries(), owner).fixed(&id.to_bytes()).range();
    Ok(!tx.range(Select::range(range, 1), Isolation::Snapshot).await?.rows.is_empty())
}

/// The id of the oldest entry.
pub async fn first_id(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
) -> Result<Option<ArchiveId>> {
    outermost(tx, collection, owner, false).await
}

/// The id of the newest entry: where a new owner's [`Clock`] starts.
pub async fn last_id(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
) -> Result<Option<ArchiveId>> {
    outermost(tx, collection, owner, true).await
}

/// Removes one entry.
pub fn remove(out: &mut (impl Mutate + ?Sized), collection: Collection, owner: &Entity, id: ArchiveId) {
    split::remove(out, &entry_key(collection, owner, id));
}

/// Removes all entries up to and including `id`: what a device has acknowledged leaves the queue.
pub fn remove_through(
    out: &mut (impl Mutate + ?Sized),
    collection: Collection,
    owner: &Entity,
    id: ArchiveId,
) {
    let begin = Key::of(collection.entries(), owner).finish();
    let end = Key::of(collection.entries(), owner).fixed(&id.to_bytes()).range().end;
    out.delete_range(begin, end);
}

async fn outermost(
    tx: &mut dyn Transaction,
    collection: Collection,
    owner: &Entity,
    newest: bool,
) -> Result<Option<ArchiveId>> {
    let prefix = Key::of(collection.entries(), owner);
    let mut select = Select::range(prefix.clone().range(), 1);
    select.reverse = newest;
    let page = tx.range(select, Isolation::Snapshot).await?;
    page.rows.first().map(|row| id_of(&prefix.finish(), row)).transpose()
}

fn entry_key(collection: Collection, owner: &Entity, id: ArchiveId) -> Bytes {
    Key::of(collection.entries(), owner).fixed(&id.to_bytes()).finish()
}

/// The id in the key of an entry's row.
fn id_of(prefix: &[u8], (key, _): &Row) -> Result<ArchiveId> {
    Ok(ArchiveId::from_bytes(Parts::after(prefix, key)?.fixed()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Ops;
    use crate::tables::double::{Double, still_decodes};

    fn entry(stanza: impl Into<Bytes>) -> Entry {
        Entry {
            with: "romeo@b".into(),
            with_full: "romeo@b/x".into(),
            direction: Direction::Out as i32,
            stanza: stanza.into(),
            stored_at: 1_700_000_000_000_000,
            flags: 5,
            sent: Vec::new(),
            origin: Bytes::new(),
        }
    }

    #[test]
    fn old_records_decode_and_debug_shows_no_message() {
        still_decodes(
            "0a07726f6d656f40621209726f6d656f40622f781802220a3c6d6573736167652f3e288080f9c0c1c482033005",
            &entry("<message/>"),
        );
        assert_eq!(format!("{:?}", entry("<message/>")), "Entry(Out, 10 bytes, flags 0x5)");
    }

    #[tokio::test]
    async fn entries_are_found_by_id_whatever_their_size() {
        let mut tx = Double::new();
        let owner = Entity::new("juliet@a");
        let mut clock = Clock::default();
        let mut ops = Ops::new();
        let mut day = None;
        let mut ids = Vec::new();
        for size in [10, 256_000, 20] {
            let id = clock.next(1_700_000_000_000_000, 3);
            day = Some(
                append(&mut ops, Collection::Archive, &owner, id, &entry(vec![b'x'; size]), day).unwrap(),
            );
            ids.push(id);
        }
        ops.iter().for_each(|op| op.apply(&mut tx));
        // Two index rows for the day, 1 + 26 + 1 parts.
        assert_eq!(tx.rows.len(), 30);
        assert_eq!(first_id(&mut tx, Collection::Archive, &owner).await.unwrap(), Some(ids[0]));
        assert_eq!(last_id(&mut tx, Collection::Archive, &owner).await.unwrap(), Some(ids[2]));
        assert_eq!(last_id(&mut tx, Collection::Queue, &owner).await.unwrap(), None);
        assert_eq!(last_id(&mut tx, Collection::Archive, &Entity::new("juliet@")).await.unwrap(), None);
        let large = get(&mut tx, Collection::Archive, &owner, ids[1]).await.unwrap();
        assert_eq!(large, Some(entry(vec![b'x'; 256_000])));
        assert!(contains(&mut tx, Collection::Archive, &owner, ids[1]).await.unwrap());
        assert!(!contains(&mut tx, Collection::Queue, &owner, ids[1]).await.unwrap());
        remove_through(&mut tx as &mut dyn Transaction, Collection::Archive, &owner, ids[1]);
        assert_eq!(get(&mut tx, Collection::Archive, &owner, ids[1]).await.unwrap(), None);
        assert_eq!(first_id(&mut tx, Collection::Archive, &owner).await.unwrap(), Some(ids[2]));
        remove(&mut tx as &mut dyn Transaction, Collection::Archive, &owner, ids[2]);
        assert_eq!(first_id(&mut tx, Collection::Archive, &owner).await.unwrap(), None);
    }
}
