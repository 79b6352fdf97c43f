//! Sessions that can be resumed (XEP-0198) after their home and their connection are both gone.
//!
//! A session has two rows: what changes rarely ([`Record`]), and the small [`Cursor`] that moves with the stanzas.
//!
//! Length: with tests of every row that a session has.

use bytes::Bytes;

use super::archive::ArchiveId;
use super::roster::RosterVersion;
use super::{Rows, Sid, decode, encode, join};
use crate::entity::{Entity, Shard};
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Isolation, Mutate, Result, Row, Transaction, split};

/// Bits of [`Record::flags`].
pub mod flags {
    /// Carbons are enabled (XEP-0280).
    pub const CARBONS: u32 = 1;
    /// The client asked for the roster and gets pushes (RFC 6121 section 2.2).
    pub const ROSTER: u32 = 1 << 1;
    /// The client asked for the block list and gets pushes (XEP-0191 section 3.6).
    pub const BLOCKLIST: u32 = 1 << 2;
    /// The client says it is inactive (XEP-0352).
    pub const INACTIVE: u32 = 1 << 3;
    /// The session may be resumed (XEP-0198 `resume='true'`).
    pub const RESUMABLE: u32 = 1 << 4;
}

/// What is needed to bring a session back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Record {
    /// The resource.
    #[prost(string, tag = "1")]
    pub resource: String,
    /// A hash of the resumption token that the client holds.
    #[prost(bytes = "bytes", tag = "2")]
    pub token_hash: Bytes,
    /// When the session was bound, microseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub created_at: u64,
    /// How long after the loss of its connection it may be resumed, seconds.
    #[prost(uint32, tag = "4")]
    pub max_resume_s: u32,
    /// The last available presence that it broadcast; empty if it is unavailable.
    #[prost(bytes = "bytes", tag = "5")]
    pub presence: Bytes,
    /// The priority in that presence.
    #[prost(sint32, tag = "6")]
    pub priority: i32,
    /// What the client enabled: bits of [`flags`].
    #[prost(uint32, tag = "7")]
    pub flags: u32,
    /// Where the client came from, for the operator.
    #[prost(string, tag = "8")]
    pub address: String,
    /// What the client says it is, for the operator.
    #[prost(string, tag = "9")]
    pub user_agent: String,
    /// The name of the numbers that its stanzas have: random, and another one after each return from the store, when
    /// counting begins anew. Zero if there is none.
    #[prost(fixed64, tag = "10")]
    pub numbering: u64,
    /// The entities that the client sent directed presence to (RFC 6121 section 4.6).
    #[prost(string, repeated, tag = "11")]
    pub directed: Vec<String>,
    /// The version of the roster that its client has: 10 bytes, or none. See [`roster`].
    #[prost(bytes = "bytes", tag = "12")]
    pub roster: Bytes,
    /// The newest entry of the archive when it was bound: 16 bytes, or none in a record from before this was kept.
    #[prost(bytes = "bytes", tag = "13")]
    pub bound: Bytes,
    /// Where in the archive it took messages to the bare JID: behind one id, up to another or zeros; 32 bytes each.
    #[prost(bytes = "bytes", repeated, tag = "14")]
    pub takes: Vec<Bytes>,
    /// The same of carbons.
    #[prost(bytes = "bytes", repeated, tag = "15")]
    pub copies: Vec<Bytes>,
}

/// The version of the roster that a session's client has; zeros if it is not known.
pub fn roster(record: &Record) -> RosterVersion {
    record.roster[..].try_into().unwrap_or_default()
}

/// Without the token and the presence.
impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record(created at {}, flags {:#x})", self.created_at, self.flags)
    }
}

/// How far a session has come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// How many stanzas of the client are durable: the `h` that it may be told. Wraps (XEP-0198 section 4).
    pub up_handled: u32,
    /// How many stanzas the client has acknowledged: its last `h`. Wraps.
    pub down_acked: u32,
    /// Everything in the archive up to this has been acknowledged by the client, or was delivered elsewhere.
    pub acked: Option<ArchiveId>,
    /// Which requests and answers it was sent last, and when: what that is, the writer knows.
    pub recent: Bytes,
    /// What it was sent by rooms, one each: what that is, the writer knows.
    pub rooms: Vec<Bytes>,
}

/// The cursor's record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Progress {
    /// See [`Cursor::up_handled`].
    #[prost(uint32, tag = "1")]
    up_handled: u32,
    /// See [`Cursor::down_acked`].
    #[prost(uint32, tag = "2")]
    down_acked: u32,
    /// See [`Cursor::acked`]: 16 bytes, or none.
    #[prost(bytes = "bytes", tag = "3")]
    acked: Bytes,
    /// See [`Cursor::recent`].
    #[prost(bytes = "bytes", tag = "4")]
    recent: Bytes,
    /// See [`Cursor::rooms`].
    #[prost(bytes = "bytes", repeated, tag = "5")]
    rooms: Vec<Bytes>,
}

/// What a session is being sent from the store: the stanzas of one page have numbers one after the other. Written
/// before they are sent; the next page, in its place, when the client has them all.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sending {
    /// See [`Record::numbering`].
    #[prost(fixed64, tag = "1")]
    pub numbering: u64,
    /// The number of the first.
    #[prost(uint32, tag = "2")]
    pub first: u32,
    /// They come from the offline queue, not from the archive.
    #[prost(bool, tag = "3")]
    pub queue: bool,
    /// What the client confirms of them is no longer offline for any device.
    #[prost(bool, tag = "4")]
    pub offline: bool,
    /// Their ids, 16 bytes each; none for what lies nowhere.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    ids: Vec<Bytes>,
    /// Everything before them is confirmed up to here: 16 bytes, or none.
    #[prost(bytes = "bytes", tag = "6")]
    confirmed: Bytes,
}

impl Sending {
    /// A page with these entries.
    pub fn new(numbering: u64, first: u32, ids: &[ArchiveId], confirmed: Option<ArchiveId>) -> Self {
        let bytes = |id: &ArchiveId| Bytes::copy_from_slice(&id.to_bytes());
        let confirmed = confirmed.as_ref().map(bytes).unwrap_or_default();
        let ids = ids.iter().map(bytes).collect();
        Self { numbering, first, queue: false, offline: false, ids, confirmed }
    }

    /// What a client was sent last by another home: what lies in the archive of it, in order.
    pub fn tail(numbering: u64, first: u32, ids: &[Option<ArchiveId>], confirmed: Option<ArchiveId>) -> Self {
        let page = Self::new(numbering, first, &[], confirmed);
        let bytes = |id: &Option<ArchiveId>| {
            id.as_ref().map(|id| Bytes::copy_from_slice(&id.to_bytes())).unwrap_or_default()
        };
        Self { ids: ids.iter().map(bytes).collect(), ..page }
    }

    /// What was confirmed when the page was made.
    pub fn confirmed(&self) -> Result<Option<ArchiveId>> {
        Some(&self.confirmed[..]).filter(|id| !id.is_empty()).map(ArchiveId::read).transpose()
    }

    /// The entries that a client has which counts `h` stanzas, in order.
    pub fn covered_by(&self, h: u32) -> Result<Vec<ArchiveId>> {
        let numbers = (0..u32::MAX).map(|n| self.first.wrapping_add(n));
        let covered = |n: u32| h.wrapping_sub(n) < u32::MAX / 2;
        numbers
            .zip(&self.ids)
            .take_while(|(n, _)| covered(*n))
            .filter(|(_, id)| !id.is_empty())
            .map(|(_, id)| ArchiveId::read(id))
            .collect()
    }
}

/// A stored session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The user of the session.
    pub user: Entity,
    /// Its name.
    pub sid: Sid,
    /// What is needed to bring it back.
    pub record: Record,
    /// How far it has come; zero if its cursor was never written.
    pub cursor: Cursor,
}

const RECORD: u8 = 0;
const CURSOR: u8 = 1;
const SENDING: u8 = 2;

/// Writes a session's record; its cursor stays. [`Class::TooLarge`](crate::store::Class::TooLarge) above
/// [`split::MAX`] bytes.
pub fn put(out: &mut (impl Mutate + ?Sized), user: &Entity, sid: &Sid, record: &Record) -> Result<()> {
    split::replace(out, &key(user, sid).u8(RECORD).finish(), &encode(record))
}

/// Writes how far a session has come. Its record must be stored, or be stored with it.
pub fn put_cursor(out: &mut (impl Mutate + ?Sized), user: &Entity, sid: &Sid, cursor: &Cursor) {
    let acked = cursor.acked.map(|id| Bytes::copy_from_slice(&id.to_bytes())).unwrap_or_default();
    let Cursor { up_handled, down_acked, .. } = *cursor;
    let (recent, rooms) = (cursor.recent.clone(), cursor.rooms.clone());
    let record = Progress { up_handled, down_acked, acked, recent, rooms };
    // A cursor has one part always, so there is nothing to clear first.
    out.put(key(user, sid).u8(CURSOR).fixed(&[0; split::SUFFIX]).finish(), encode(&record));
}

/// Writes which page a session is sent.
pub fn put_sending(out: &mut (impl Mutate + ?Sized), user: &Entity, sid: &Sid, page: &Sending) -> Result<()> {
    split::replace(out, &key(user, sid).u8(SENDING).finish(), &encode(page))
}

/// The page that a session was sent last.
pub async fn sending(tx: &mut dyn Transaction, user: &Entity, sid: &Sid) -> Result<Option<Sending>> {
    let key = key(user, sid).u8(SENDING).finish();
    split::get(tx, &key, Isolation::Serializable).await?.map(decode).transpose()
}

/// Removes a session.
pub fn clear(out: &mut (impl Mutate + ?Sized), user: &Entity, sid: &Sid) {
    let range = key(user, sid).range();
    out.delete_range(range.start, range.end);
}

/// Removes the sessions of a user, without `keep`.
pub async fn clear_others(tx: &mut dyn Transaction, user: &Entity, keep: Option<&Sid>) -> Result<()> {
    let range = Key::of(Kind::Session, user).range();
    let Some(keep) = keep else {
        tx.delete_range(range.start, range.end);
        return Ok(());
    };
    let kept = key(user, keep).range();
    tx.delete_range(range.start, kept.start);
    tx.delete_range(kept.end, range.end);
    Ok(())
}

/// One session.
pub async fn get(tx: &mut dyn Transaction, user: &Entity, sid: &Sid) -> Result<Option<Stored>> {
    let found = read(tx, key(user, sid).range(), 1, Isolation::Serializable).await?;
    Ok(found.rows.into_iter().next())
}

/// The sessions of a user, at most `max`.
pub async fn load(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Rows<Stored>> {
    read(tx, Key::of(Kind::Session, user).range(), max, Isolation::Serializable).await
}

/// The sessions of a shard, at most `limit`, from the one behind `after`: what a node reads when it takes a shard
/// over. Conflicts with nothing.
pub async fn page(
    tx: &mut dyn Transaction,
    shard: Shard,
    after: Option<(&Entity, &Sid)>,
    limit: usize,
) -> Result<Rows<Stored>> {
    let mut range = Key::shard(Kind::Session, shard).range();
    if let Some((user, sid)) = after {
        range.start = key(user, sid).range().end;
    }
    read(tx, range, limit, Isolation::Snapshot).await
}

fn key(user: &Entity, sid: &Sid) -> Key {
    Key::of(Kind::Session, user).fixed(sid)
}

async fn read(
    tx: &mut dyn Transaction,
    range: std::ops::Range<Bytes>,
    limit: usize,
    isolation: Isolation,
) -> Result<Rows<Stored>> {
    // Three values a session at most, and one to see that the last session is whole.
    let values = join(tx, range, limit.saturating_mul(3).saturating_add(1), isolation).await?;
    let mut rows: Vec<Stored> = Vec::new();
    for (key, value) in values.rows {
        let (user, sid, field) = parse(&(key, Bytes::new()))?;
        match field {
            RECORD => rows.push(Stored { user, sid, record: decode(value)?, cursor: Cursor::default() }),
            // A cursor whose session was cleared before it is of no use; nor is what a later version knows.
            CURSOR => match rows.last_mut() {
                Some(last) if last.user == user && last.sid == sid => last.cursor = progress(value)?,
                _ => {}
            },
            _ => {}
        }
    }
    let more = values.more || rows.len() > limit;
    rows.truncate(limit);
    Ok(Rows { rows, more })
}

fn parse((key, _): &Row) -> Result<(Entity, Sid, u8)> {
    let mut parts = Parts::of(Kind::Session, key)?;
    let found = (parts.entity()?, parts.fixed()?, parts.u8()?);
    parts.end().map(|()| found)
}

fn progress(value: Bytes) -> Result<Cursor> {
    let record: Progress = decode(value)?;
    let acked = match &record.acked[..] {
        [] => None,
        bytes => Some(ArchiveId::read(bytes)?),
    };
    let Progress { up_handled, down_acked, recent, rooms, .. } = record;
    Ok(Cursor { up_handled, down_acked, acked, recent, rooms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Ops, Select};
    use crate::tables::double::{Double, still_decodes};

    fn record(resource: &str) -> Record {
        Record {
            resource: resource.into(),
            token_hash: Bytes::from_static(&[1, 2]),
            created_at: 300,
            max_resume_s: 600,
            presence: Bytes::from_static(b"<presence/>"),
            priority: -1,
            flags: flags::CARBONS | flags::RESUMABLE,
            address: "::1".into(),
            user_agent: "Test".into(),
            numbering: 0,
            directed: Vec::new(),
            roster: Bytes::new(),
            bound: Bytes::new(),
            takes: Vec::new(),
            copies: Vec::new(),
        }
    }

    #[test]
    fn old_records_decode_and_debug_shows_no_token() {
        still_decodes(
            "0a01781202010218ac0220d8042a0b3c70726573656e63652f3e3001381142033a3a314a0454657374",
            &record("x"),
        );
        still_decodes(
            "080110021a1007070707070707070707070707070707",
            &Progress {
                up_handled: 1,
                down_acked: 2,
                acked: Bytes::from_static(&[7; 16]),
                recent: Bytes::new(),
                rooms: Vec::new(),
            },
        );
        assert_eq!(format!("{:?}", record("x")), "Record(created at 300, flags 0x11)");
    }

    #[tokio::test]
    async fn sessions_come_back_with_their_cursors() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        let id = ArchiveId { micros: 1, epoch: 2, counter: 3 };
        let recent = Bytes::from_static(&[8; 16]);
        let cursor = Cursor {
            up_handled: u32::MAX,
            down_acked: 2,
            acked: Some(id),
            recent,
            rooms: vec![Bytes::from_static(&[9; 28])],
        };
        let mut ops = Ops::new();
        put(&mut ops, &user, &[1; 16], &record("one")).unwrap();
        put(&mut ops, &user, &[0xff; 16], &record("two")).unwrap();
        put_cursor(&mut ops, &user, &[0xff; 16], &cursor);
        // What comes late for a session that was cleared shows nowhere.
        put_cursor(&mut ops, &user, &[2; 16], &cursor);
        ops.iter().for_each(|op| op.apply(&mut tx));
        let all = load(&mut tx, &user, 9).await.unwrap();
        assert_eq!(all.rows.iter().map(|s| &*s.record.resource).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!((&all.rows[0].cursor, &all.rows[1].cursor), (&Cursor::default(), &cursor));
        let larger = Record { presence: vec![b'x'; 100_000].into(), ..record("two") };
        put(&mut tx as &mut dyn Transaction, &user, &[0xff; 16], &larger).unwrap();
        let two = get(&mut tx, &user, &[0xff; 16]).await.unwrap().unwrap();
        assert_eq!((&two.record, two.cursor), (&larger, cursor));
        clear(&mut tx as &mut dyn Transaction, &user, &[0xff; 16]);
        assert_eq!(get(&mut tx, &user, &[0xff; 16]).await.unwrap(), None);
        assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows.len(), 1);
    }

    #[tokio::test]
    async fn a_shard_is_read_in_pages() {
        let mut tx = Double::new();
        let shard = Entity::new("a@b").shard();
        let mut ops = Ops::new();
        let mut expected = Vec::new();
        for user in (0..).map(|n| Entity::new(format!("x{n}@b"))).filter(|e| e.shard() == shard).take(4) {
            for n in 0..3u8 {
                put(&mut ops, &user, &[n; 16], &record("x")).unwrap();
                if n != 1 {
                    put_cursor(&mut ops, &user, &[n; 16], &Cursor { up_handled: 9, ..Cursor::default() });
                }
                expected.push((user.clone(), [n; 16]));
            }
        }
        ops.iter().for_each(|op| op.apply(&mut tx));
        expected.sort();
        for limit in [1, 2, 3, 5, 12, 13] {
            let mut found: Vec<(Entity, Sid)> = Vec::new();
            loop {
                let after = found.last().cloned();
                let page = page(&mut tx, shard, after.as_ref().map(|(u, s)| (u, s)), limit).await.unwrap();
                assert!(page.rows.len() <= limit);
                assert!(page.rows.iter().all(|s| (s.cursor.up_handled == 9) == (s.sid[0] != 1)));
                found.extend(page.rows.into_iter().map(|s| (s.user, s.sid)));
                if !page.more {
                    break;
                }
            }
            assert_eq!(found, expected, "pages of {limit}");
        }
        let all = Key::shard(Kind::Session, shard).range();
        assert_eq!(tx.range(Select::range(all, 2), Isolation::Snapshot).await.unwrap().rows.len(), 2);
    }
}
