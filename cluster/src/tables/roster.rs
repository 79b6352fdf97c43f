//! Rosters (RFC 6121 section 2) and the state of subscriptions (appendix A), one row per contact.
//!
//! Each change sets the roster's version (section 2.6) to the versionstamp of its commit, so versions grow in the
//! order of changes and no two changes share one.

use bytes::Bytes;

use super::{Rows, decode, encode, join};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind};
use crate::store::{Class, Error, Isolation, Result, Transaction, Versionstamp, split};

/// Whose presence is shared (RFC 6121 section 2.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Subscription {
    /// Nobody's.
    None = 0,
    /// The contact's to the user.
    To = 1,
    /// The user's to the contact.
    From = 2,
    /// Each other's.
    Both = 3,
}

/// A contact.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Item {
    /// The contact's bare JID.
    #[prost(string, tag = "1")]
    pub jid: String,
    /// The handle that the user gave.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// The groups that the user put the contact into.
    #[prost(string, repeated, tag = "3")]
    pub groups: Vec<String>,
    /// The state of the subscription.
    #[prost(enumeration = "Subscription", tag = "4")]
    pub subscription: i32,
    /// Whether the user asked for a subscription and waits for the answer ("pending out").
    #[prost(bool, tag = "5")]
    pub ask_subscribe: bool,
    /// Whether the user approved a subscription in advance (RFC 6121 section 3.4).
    #[prost(bool, tag = "6")]
    pub approved: bool,
    /// The contact's request that the user has not answered ("pending in"): the presence stanza, to be delivered
    /// again whenever the user comes online (RFC 6121 section 3.1.3).
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub pending_in: Option<Bytes>,
    /// Whether the row holds only what the server must remember, a request or an approval: it is then not part of
    /// the roster that clients see (RFC 6121 appendix A.1).
    #[prost(bool, tag = "8")]
    pub unlisted: bool,
}

/// How many contacts are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Items that clients see.
    pub listed: usize,
    /// Rows that only the server sees.
    pub unlisted: usize,
    /// Whether counting stopped at the limit.
    pub more: bool,
}

/// All contacts in the order of their JIDs, at most `max`, by one range read.
pub async fn load(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Rows<Item>> {
    let found = join(tx, Key::of(Kind::Roster, user).range(), max, Isolation::Serializable).await?;
    let rows = found.rows.into_iter().map(|(_, value)| decode(value)).collect::<Result<_>>()?;
    Ok(Rows { rows, more: found.more })
}

/// One contact.
pub async fn get(tx: &mut dyn Transaction, user: &Entity, contact: &str) -> Result<Option<Item>> {
    split::get(tx, &key(user, contact), Isolation::Serializable).await?.map(decode).transpose()
}

/// Counts contacts, to `max` rows: what a limit is checked by before [`put`] of a new one, in the same transaction.
pub async fn count(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Count> {
    let found = load(tx, user, max).await?;
    let unlisted = found.rows.iter().filter(|item| item.unlisted).count();
    Ok(Count { listed: found.rows.len() - unlisted, unlisted, more: found.more })
}

/// Writes a contact in place of what is stored, and a new version. [`Class::TooLarge`] above [`split::MAX`] bytes.
pub fn put(tx: &mut dyn Transaction, user: &Entity, item: &Item) -> Result<()> {
    split::replace(tx, &key(user, &item.jid), &encode(item))?;
    touch(tx, user);
    Ok(())
}

/// Removes a contact, and writes a new version.
pub fn remove(tx: &mut dyn Transaction, user: &Entity, contact: &str) {
    split::remove(tx, &key(user, contact));
    touch(tx, user);
}

/// The version of the roster; `None` if it was never changed. Not to be read in a transaction that changes the
/// roster: the version of that change is known after the commit, by [`version_text`].
pub async fn version(tx: &mut dyn Transaction, user: &Entity) -> Result<Option<String>> {
    let key = Key::of(Kind::RosterVersion, user).finish();
    let Some(value) = tx.get(&key, Isolation::Serializable).await? else { return Ok(None) };
    let corrupt = || Error::new(Class::Corrupt, "a roster's version is not a versionstamp");
    let stamp = Versionstamp::try_from(&value[..]).map_err(|_| corrupt())?;
    Ok(Some(version_text(&stamp)))
}

/// The version that a commit gave to the rosters it changed, as clients see it: opaque, 20 hexadecimal digits.
pub fn version_text(stamp: &Versionstamp) -> String {
    stamp.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new version without a change.
pub fn touch(tx: &mut dyn Transaction, user: &Entity) {
    tx.set_versionstamped_value(&Key::of(Kind::RosterVersion, user).finish(), &[0; 10], 0);
}

/// Makes transactions that read this roster conflict with this one although it changes nothing.
pub(super) fn conflict(tx: &mut dyn Transaction, user: &Entity) {
    let range = Key::of(Kind::Roster, user).range();
    tx.add_write_conflict(&range.start, &range.end);
}

fn key(user: &Entity, contact: &str) -> Bytes {
    Key::of(Kind::Roster, user).text(contact).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::double::{Double, still_decodes};

    fn item(jid: &str) -> Item {
        Item {
            jid: jid.into(),
            name: Some("Nurse".into()),
            groups: vec!["Servants".into(), "Friends".into()],
            subscription: Subscription::Both as i32,
            ask_subscribe: true,
            approved: true,
            pending_in: Some(Bytes::from_static(b"<presence/>")),
            unlisted: true,
        }
    }

    #[test]
    fn old_records_decode() {
        still_decodes(
            "0a036e406212054e757273651a0853657276616e74731a07467269656e64732003280130013a0b3c70726573656e63652f3e4001",
            &item("n@b"),
        );
    }

    #[tokio::test]
    async fn contacts_come_back_in_order_and_each_change_has_its_version() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@example.org");
        assert_eq!(version(&mut tx, &user).await.unwrap(), None);
        let mut versions = Vec::new();
        for jid in ["nurse@b", "a@b", "nurse@b"] {
            put(&mut tx, &user, &item(jid)).unwrap();
            versions.push(version(&mut tx, &user).await.unwrap().unwrap());
        }
        put(&mut tx, &Entity::new("juliet@example.orgs"), &item("else@b")).unwrap();
        let all = load(&mut tx, &user, 10).await.unwrap();
        assert_eq!(all, Rows { rows: vec![item("a@b"), item("nurse@b")], more: false });
        assert!(load(&mut tx, &user, 1).await.unwrap().more);
        remove(&mut tx, &user, "a@b");
        versions.push(version(&mut tx, &user).await.unwrap().unwrap());
        assert!(
            versions.is_sorted_by(|a, b| a < b) && versions.iter().all(|v| v.len() == 20),
            "{versions:?}"
        );
        assert_eq!(get(&mut tx, &user, "a@b").await.unwrap(), None);
        assert_eq!(get(&mut tx, &user, "nurse@b").await.unwrap(), Some(item("nurse@b")));
    }

    #[tokio::test]
    async fn rows_of_any_size_are_stored_and_counted() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@example.org");
        let large = Item { pending_in: Some(vec![b'x'; 200_000].into()), ..item("large@b") };
        put(&mut tx, &user, &large).unwrap();
        put(&mut tx, &user, &Item { unlisted: false, ..item("small@b") }).unwrap();
        assert_eq!(get(&mut tx, &user, "large@b").await.unwrap(), Some(large.clone()));
        assert_eq!(count(&mut tx, &user, 9).await.unwrap(), Count { listed: 1, unlisted: 1, more: false });
        assert_eq!(count(&mut tx, &user, 1).await.unwrap(), Count { listed: 0, unlisted: 1, more: true });
        // A smaller record leaves no part of the larger one behind.
        put(&mut tx, &user, &item("large@b")).unwrap();
        assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows.len(), 2);
        let too_large = Item { pending_in: Some(vec![b'x'; split::MAX].into()), ..item("large@b") };
        assert_eq!(put(&mut tx, &user, &too_large).unwrap_err().class, Class::TooLarge);
        assert_eq!(get(&mut tx, &user, "large@b").await.unwrap(), Some(item("large@b")));
    }
}
