//! vCards (XEP-0054): one element for each user.

use bytes::Bytes;

use crate::entity::Entity;
use crate::store::keys::{Key, Kind};
use crate::store::{Isolation, Mutate, Result, Transaction, split};

/// The vCard of `user` as it was written.
pub async fn get(tx: &mut dyn Transaction, user: &Entity) -> Result<Option<Bytes>> {
    split::get(tx, &key(user), Isolation::Serializable).await
}

/// Stores a vCard in place of the one before. [`Class::TooLarge`](crate::store::Class::TooLarge) above
/// [`split::MAX`] bytes; a smaller limit is the caller's.
pub fn put(out: &mut (impl Mutate + ?Sized), user: &Entity, xml: &Bytes) -> Result<()> {
    split::replace(out, &key(user), xml)
}

/// Removes the vCard.
pub fn clear(out: &mut (impl Mutate + ?Sized), user: &Entity) {
    split::remove(out, &key(user));
}

fn key(user: &Entity) -> Bytes {
    Key::of(Kind::Vcard, user).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::double::Double;

    #[tokio::test]
    async fn a_card_takes_the_place_of_the_one_before() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        put(&mut tx as &mut dyn Transaction, &Entity::new("juliet@aa"), &Bytes::from_static(b"other"))
            .unwrap();
        for size in [150_000, 3, 0] {
            let xml: Bytes = vec![b'x'; size].into();
            put(&mut tx as &mut dyn Transaction, &user, &xml).unwrap();
            assert_eq!(get(&mut tx, &user).await.unwrap(), Some(xml));
        }
        clear(&mut tx as &mut dyn Transaction, &user);
        assert_eq!(get(&mut tx, &user).await.unwrap(), None);
        assert_eq!(tx.rows.len(), 1);
    }
}
