//! How far a user's incoming stanzas have been delivered: a cursor into the archive (or, where archiving is off,
//! into the queue).

use bytes::Bytes;

use super::archive::ArchiveId;
use super::{decode, encode};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind};
use crate::store::{Isolation, Mutate, Result, Transaction};

/// The cursor's record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Record {
    /// The archive id, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    after: Bytes,
    /// See [`Cursor::drained`]: 16 bytes, or none.
    #[prost(bytes = "bytes", tag = "2")]
    drained: Bytes,
}

/// Where what waits for a device begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// Nothing up to here waits for a device.
    pub after: ArchiveId,
    /// The cursor has gone back: a session had left behind what nobody else had got. Of what waited for a device when it
    /// came, everything up to here has been given to one since.
    pub drained: Option<ArchiveId>,
}

impl Cursor {
    /// Everything that waits for a device came after `id`.
    pub const fn at(id: ArchiveId) -> Self {
        Self { after: id, drained: None }
    }

    /// A cursor before `first`, which a session has left behind; `drained` is where everything that came for any device has
    /// been given to one.
    pub fn before(first: ArchiveId, drained: Option<ArchiveId>) -> Self {
        Self { after: first.before(), drained: drained.filter(|drained| first <= *drained) }
    }

    /// The same cursor, once a session has left `first` behind. A cursor that is before that already stays.
    pub fn back(self, first: ArchiveId) -> Self {
        match self.after < first {
            true => self,
            false => Self::before(first, self.drained.max(Some(self.after))),
        }
    }

    /// The same cursor, once a device has everything up to `upto`.
    pub fn on(self, upto: ArchiveId) -> Self {
        let after = self.after.max(upto);
        Self { after, drained: self.drained.filter(|drained| after < *drained) }
    }

    /// The same cursor, once a device has what came for any up to `upto`; of what sessions have left behind since that is not
    /// said.
    pub fn given(self, upto: ArchiveId) -> Self {
        match self.drained {
            Some(drained) => Self { drained: Some(drained.max(upto)), ..self },
            None => self.on(upto),
        }
    }

    /// Whether an entry that came for any device has been given to one.
    pub fn is_given(&self, id: ArchiveId) -> bool {
        id <= self.after || self.drained.is_some_and(|drained| !id.comes_after(drained))
    }
}

/// Notes where what waits for a device begins.
pub fn set(out: &mut (impl Mutate + ?Sized), user: &Entity, cursor: Cursor) {
    let bytes = |id: ArchiveId| Bytes::copy_from_slice(&id.to_bytes());
    let record =
        Record { after: bytes(cursor.after), drained: cursor.drained.map(bytes).unwrap_or_default() };
    out.put(key(user), encode(&record));
}

/// Notes that nothing waits for a device.
pub fn clear(out: &mut (impl Mutate + ?Sized), user: &Entity) {
    out.delete(key(user));
}

/// Where what waits for a device begins; `None` if nothing waits.
pub async fn get(tx: &mut dyn Transaction, user: &Entity) -> Result<Option<Cursor>> {
    let Some(value) = tx.get(&key(user), Isolation::Serializable).await? else { return Ok(None) };
    let Record { after, drained } = decode(value)?;
    let drained = (!drained.is_empty()).then(|| ArchiveId::read(&drained)).transpose()?;
    Ok(Some(Cursor { after: ArchiveId::read(&after)?, drained }))
}

fn key(user: &Entity) -> Bytes {
    Key::of(Kind::Offline, user).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Class, Ops};
    use crate::tables::double::{Double, still_decodes};

    #[test]
    fn old_records_decode() {
        still_decodes(
            "0a1007070707070707070707070707070707",
            &Record { after: Bytes::from_static(&[7; 16]), ..Record::default() },
        );
    }

    #[test]
    fn what_was_given_to_a_device_is_known_when_the_cursor_goes_back() {
        let id = |micros| ArchiveId { micros, epoch: 1, counter: 0 };
        let cursor = Cursor::at(id(50)).back(id(20));
        assert_eq!(cursor, Cursor { after: id(20).before(), drained: Some(id(50)) });
        assert!(cursor.is_given(id(50)) && !cursor.is_given(id(51)) && cursor.is_given(id(10)));
        assert_eq!(cursor.back(id(30)), cursor);
        assert!(!cursor.is_given(ArchiveId { epoch: 2, ..id(40) }), "of a home with a slower clock");
        assert_eq!(cursor.on(id(30)).back(id(10)).drained, Some(id(50)));
        assert_eq!(cursor.on(id(50)), Cursor::at(id(50)));
        assert_eq!(cursor.given(id(60)), Cursor { drained: Some(id(60)), ..cursor });
        assert_eq!(Cursor::at(id(50)).given(id(60)), Cursor::at(id(60)));
        assert_eq!(Cursor::before(id(20), Some(id(10))), Cursor::at(id(20).before()));
    }

    #[tokio::test]
    async fn the_cursor_comes_back() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        let id = ArchiveId { micros: 1, epoch: 2, counter: 3 };
        let mut ops = Ops::new();
        let later = ArchiveId { micros: 9, ..id };
        for cursor in [Cursor::at(id), Cursor { after: id, drained: Some(later) }] {
            ops.clear();
            set(&mut ops, &user, cursor);
            ops[0].apply(&mut tx);
            assert_eq!(get(&mut tx, &user).await.unwrap(), Some(cursor));
        }
        assert_eq!(get(&mut tx, &Entity::new("juliet@aa")).await.unwrap(), None);
        clear(&mut tx as &mut dyn Transaction, &user);
        assert_eq!(get(&mut tx, &user).await.unwrap(), None);
        tx.set(&key(&user), b"\x0a\x01\x07");
        assert_eq!(get(&mut tx, &user).await.unwrap_err().class, Class::Corrupt);
    }
}
