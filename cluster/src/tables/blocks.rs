//! Block lists (XEP-0191): one row for each blocked JID.

use bytes::Bytes;

use super::{Rows, encode, scan};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Isolation, Mutate, Result, Transaction};

/// A blocked JID's record; the JID is in the key.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Block {
    /// Since when, microseconds since 1970.
    #[prost(uint64, tag = "1")]
    since: u64,
}

/// The blocked JIDs in order, at most `max`. A caller that reads fewer than there are must not take the rest for
/// not blocked.
pub async fn load(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Rows<String>> {
    let prefix = Key::of(Kind::Block, user);
    let page = scan(tx, prefix.clone().range(), max, Isolation::Serializable).await?;
    let prefix = prefix.finish();
    let mut rows = Vec::with_capacity(page.rows.len());
    for (key, _) in page.rows {
        let mut parts = Parts::after(&prefix, &key)?;
        rows.push(parts.text()?);
        parts.end()?;
    }
    Ok(Rows { rows, more: page.more })
}

/// Whether one of these JIDs is in the list. Conflicts with a change of that.
pub async fn any(tx: &mut dyn Transaction, user: &Entity, jids: &[&str]) -> Result<bool> {
    for jid in jids {
        if tx.get(&key(user, jid), Isolation::Serializable).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Blocks a JID, at `now` microseconds since 1970. The caller has loaded the list, and checks the limit.
pub fn add(out: &mut (impl Mutate + ?Sized), user: &Entity, jid: &str, now: u64) {
    out.put(key(user, jid), encode(&Block { since: now }));
}

/// Unblocks a JID.
pub fn remove(out: &mut (impl Mutate + ?Sized), user: &Entity, jid: &str) {
    out.delete(key(user, jid));
}

/// Unblocks all.
pub fn clear(out: &mut (impl Mutate + ?Sized), user: &Entity) {
    let range = Key::of(Kind::Block, user).range();
    out.delete_range(range.start, range.end);
}

fn key(user: &Entity, jid: &str) -> Bytes {
    Key::of(Kind::Block, user).text(jid).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::double::{Double, still_decodes};

    #[test]
    fn old_records_decode() {
        still_decodes("088080f9c0c1c48203", &Block { since: 1_700_000_000_000_000 });
    }

    #[tokio::test]
    async fn jids_are_blocked_and_unblocked() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        let jids = ["paris@b", "b", "c", "d", "b/x"];
        jids.iter().for_each(|jid| add(&mut tx as &mut dyn Transaction, &user, jid, 1));
        add(&mut tx as &mut dyn Transaction, &Entity::new("juliet@aa"), "z", 1);
        assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows, ["b", "b/x", "c", "d", "paris@b"]);
        assert!(load(&mut tx, &user, 4).await.unwrap().more);
        assert!(any(&mut tx, &user, &["nobody", "b/x"]).await.unwrap());
        assert!(!any(&mut tx, &user, &["nobody", "z"]).await.unwrap());
        remove(&mut tx as &mut dyn Transaction, &user, "b");
        assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows, ["b/x", "c", "d", "paris@b"]);
        clear(&mut tx as &mut dyn Transaction, &user);
        assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows, [""; 0]);
        assert_eq!(tx.rows.len(), 1);
    }
}
