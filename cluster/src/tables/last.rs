//! When a user was last seen, and with which words it left (XEP-0012).

use super::{decode, encode};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind};
use crate::store::{Isolation, Mutate, Result, Transaction, split};

/// A user's last log-out.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Last {
    /// When, microseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub at: u64,
    /// The status text of the unavailable presence; empty if there was none.
    #[prost(string, tag = "2")]
    pub status: String,
}

/// When `user` was last seen, if it ever was.
pub async fn get(tx: &mut dyn Transaction, user: &Entity) -> Result<Option<Last>> {
    split::get(tx, &Key::of(Kind::Last, user).finish(), Isolation::Snapshot).await?.map(decode).transpose()
}

/// Notes when a user was last seen. [`Class::TooLarge`](crate::store::Class::TooLarge) above [`split::MAX`] bytes.
pub fn put(out: &mut (impl Mutate + ?Sized), user: &Entity, last: &Last) -> Result<()> {
    split::replace(out, &Key::of(Kind::Last, user).finish(), &encode(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::double::{Double, still_decodes};

    #[test]
    fn old_records_decode() {
        still_decodes(
            "088080f9c0c1c4820312084661726577656c6c",
            &Last { at: 1_700_000_000_000_000, status: "Farewell".into() },
        );
    }

    #[tokio::test]
    async fn the_last_one_counts() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        assert_eq!(get(&mut tx, &user).await.unwrap(), None);
        for size in [50_000, 1] {
            let last = Last { at: 5, status: "x".repeat(size) };
            put(&mut tx as &mut dyn Transaction, &user, &last).unwrap();
            assert_eq!(get(&mut tx, &user).await.unwrap(), Some(last));
        }
    }
}
