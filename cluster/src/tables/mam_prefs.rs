//! Archiving preferences (XEP-0441).

use super::{decode, encode};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind};
use crate::store::{Isolation, Mutate, Result, Transaction, split};

/// What is archived when neither list decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Policy {
    /// What the operator says.
    Unset = 0,
    /// Everything.
    Always = 1,
    /// Nothing.
    Never = 2,
    /// What comes from and goes to contacts in the roster.
    Roster = 3,
}

/// A user's preferences.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Preferences {
    /// What is archived when neither list decides.
    #[prost(enumeration = "Policy", tag = "1")]
    pub policy: i32,
    /// JIDs whose messages are always archived.
    #[prost(string, repeated, tag = "2")]
    pub always: Vec<String>,
    /// JIDs whose messages are never archived.
    #[prost(string, repeated, tag = "3")]
    pub never: Vec<String>,
}

/// The preferences of `user`, if they were ever set.
pub async fn get(tx: &mut dyn Transaction, user: &Entity) -> Result<Option<Preferences>> {
    split::get(tx, &Key::of(Kind::MamPrefs, user).finish(), Isolation::Serializable)
        .await?
        .map(decode)
        .transpose()
}

/// Stores preferences in place of those before. [`Class::TooLarge`](crate::store::Class::TooLarge) above
/// [`split::MAX`] bytes; how long the lists may be is the caller's to say.
pub fn put(out: &mut (impl Mutate + ?Sized), user: &Entity, preferences: &Preferences) -> Result<()> {
    split::replace(out, &Key::of(Kind::MamPrefs, user).finish(), &encode(preferences))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::double::{Double, still_decodes};

    fn preferences() -> Preferences {
        Preferences {
            policy: Policy::Roster as i32,
            always: vec!["romeo@b".into()],
            never: vec!["paris@b".into(), "c".into()],
        }
    }

    #[test]
    fn old_records_decode() {
        still_decodes("08031207726f6d656f40621a07706172697340621a0163", &preferences());
    }

    #[tokio::test]
    async fn preferences_come_back_whatever_their_size() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        assert_eq!(get(&mut tx, &user).await.unwrap(), None);
        let long = Preferences { always: vec!["romeo@example.org".into(); 2_000], ..preferences() };
        for preferences in [long, preferences()] {
            put(&mut tx as &mut dyn Transaction, &user, &preferences).unwrap();
            assert_eq!(get(&mut tx, &user).await.unwrap(), Some(preferences));
        }
        assert_eq!(tx.rows.len(), 1);
    }
}
