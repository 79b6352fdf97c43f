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
struct Cursor {
    /// The archive id, 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    after: Bytes,
}

/// Notes that everything incoming after `id` was delivered to no device.
pub fn set(out: &mut (impl Mutate + ?Sized), user: &Entity, id: ArchiveId) {
    let record = Cursor { after: Bytes::copy_from_slice(&id.to_bytes()) };
    out.put(key(user), encode(&record));
}

/// Notes that nothing waits for a device.
pub fn clear(out: &mut (impl Mutate + ?Sized), user: &Entity) {
    out.delete(key(user));
}

/// The id after which everything incoming was delivered to no device; `None` if nothing waits.
pub async fn get(tx: &mut dyn Transaction, user: &Entity) -> Result<Option<ArchiveId>> {
    let found = tx.get(&key(user), Isolation::Serializable).await?;
    found.map(|value| ArchiveId::read(&decode::<Cursor>(value)?.after)).transpose()
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
            &Cursor { after: Bytes::from_static(&[7; 16]) },
        );
    }

    #[tokio::test]
    async fn the_cursor_comes_back() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        let id = ArchiveId { micros: 1, epoch: 2, counter: 3 };
        let mut ops = Ops::new();
        set(&mut ops, &user, id);
        ops[0].apply(&mut tx);
        assert_eq!(get(&mut tx, &user).await.unwrap(), Some(id));
        assert_eq!(get(&mut tx, &Entity::new("juliet@aa")).await.unwrap(), None);
        clear(&mut tx as &mut dyn Transaction, &user);
        assert_eq!(get(&mut tx, &user).await.unwrap(), None);
        tx.set(&key(&user), b"\x0a\x01\x07");
        assert_eq!(get(&mut tx, &user).await.unwrap_err().class, Class::Corrupt);
    }
}
