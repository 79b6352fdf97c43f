//! What was taken already: for each session that sends to a user, the last number taken from it. Written in the
//! transaction that archives what the number stands for, so a repeated envelope does nothing twice.

use bytes::Bytes;

use super::{Rows, Sid, decode, encode, scan};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Isolation, Mutate, Result, Transaction};

/// How far a sender's session was taken.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Seen {
    /// The last number taken; what comes with it or a smaller one comes again.
    #[prost(uint64, tag = "1")]
    pub last: u64,
    /// When it was taken, microseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub at: u64,
    /// Which of the 64 numbers before the last are durable here too, the next one lowest; nothing in a row from before this was
    /// kept: all of them.
    #[prost(fixed64, optional, tag = "3")]
    pub before: Option<u64>,
    /// Numbers before the last that were refused, the newest of them: should one come again, it is refused again, since it would
    /// come behind what was sent later.
    #[prost(uint32, repeated, tag = "4")]
    pub refused: Vec<u32>,
    /// The same as `before` of the numbers before those, 64 in each; where nothing is said, all of them.
    #[prost(fixed64, repeated, tag = "5")]
    pub older: Vec<u64>,
}

/// What [`prune`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pruned {
    /// How many rows were removed.
    pub removed: usize,
    /// Where to go on in another transaction; `None` at the end.
    pub next: Option<Sid>,
}

/// Notes how far `sender`'s session was taken.
pub fn put(out: &mut (impl Mutate + ?Sized), user: &Entity, sender: &Sid, seen: Seen) {
    out.put(key(user, sender), encode(&seen));
}

/// Forgets a sender's session.
pub fn clear(out: &mut (impl Mutate + ?Sized), user: &Entity, sender: &Sid) {
    out.delete(key(user, sender));
}

/// Forgets all senders' sessions: nothing that was taken may come again any more.
pub fn clear_all(out: &mut (impl Mutate + ?Sized), user: &Entity) {
    let range = Key::of(Kind::Seen, user).range();
    out.delete_range(range.start, range.end);
}

/// What was taken from whom, at most `max` senders' sessions, from the one behind `after`.
pub async fn page(
    tx: &mut dyn Transaction,
    user: &Entity,
    after: Option<&Sid>,
    max: usize,
) -> Result<Rows<(Sid, Seen)>> {
    read(tx, user, after, max).await
}

/// What was taken from whom, at most `max` senders' sessions.
pub async fn load(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Rows<(Sid, Seen)>> {
    read(tx, user, None, max).await
}

/// Forgets sessions from which nothing was taken since `before` (microseconds since 1970), looking at no more than
/// `max` rows from the one behind `after`. Choose it longer ago than anything may come again.
pub async fn prune(
    tx: &mut dyn Transaction,
    user: &Entity,
    before: u64,
    after: Option<&Sid>,
    max: usize,
) -> Result<Pruned> {
    let page = read(tx, user, after, max).await?;
    let next = page.rows.last().filter(|_| page.more).map(|(sender, _)| *sender);
    let mut removed = 0;
    for (sender, _) in page.rows.iter().filter(|(_, seen)| seen.at < before) {
        clear(tx, user, sender);
        removed += 1;
    }
    Ok(Pruned { removed, next })
}

async fn read(
    tx: &mut dyn Transaction,
    user: &Entity,
    after: Option<&Sid>,
    max: usize,
) -> Result<Rows<(Sid, Seen)>> {
    let prefix = Key::of(Kind::Seen, user);
    let mut range = prefix.clone().range();
    if let Some(sender) = after {
        range.start = prefix.clone().fixed(sender).range().end;
    }
    let prefix = prefix.finish();
    let page = scan(tx, range, max, Isolation::Serializable).await?;
    let mut rows = Vec::with_capacity(page.rows.len());
    for (key, value) in page.rows {
        let mut parts = Parts::after(&prefix, &key)?;
        let sender = parts.fixed()?;
        parts.end()?;
        rows.push((sender, decode(value)?));
    }
    Ok(Rows { rows, more: page.more })
}

fn key(user: &Entity, sender: &Sid) -> Bytes {
    Key::of(Kind::Seen, user).fixed(sender).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Ops;
    use crate::tables::double::{Double, still_decodes};

    #[test]
    fn old_records_decode() {
        still_decodes(
            "08ac02108080f9c0c1c48203",
            &Seen { last: 300, at: 1_700_000_000_000_000, ..Seen::default() },
        );
    }

    #[tokio::test]
    async fn what_was_taken_comes_back_until_it_is_pruned() {
        let mut tx = Double::new();
        let user = Entity::new("juliet@a");
        let mut ops = Ops::new();
        for n in 0..7u8 {
            put(
                &mut ops,
                &user,
                &[n; 16],
                Seen { last: u64::from(n) + 1, at: u64::from(n % 3), before: None, ..Seen::default() },
            );
        }
        put(&mut ops, &user, &[0; 16], Seen { last: 9, at: 0, before: Some(1), ..Seen::default() });
        put(
            &mut ops,
            &Entity::new("juliet@aa"),
            &[0; 16],
            Seen { last: 1, at: 0, before: None, ..Seen::default() },
        );
        ops.iter().for_each(|op| op.apply(&mut tx));
        let all = load(&mut tx, &user, 99).await.unwrap();
        assert_eq!((all.rows.len(), all.more), (7, false));
        assert_eq!(all.rows[0], ([0; 16], Seen { last: 9, at: 0, before: Some(1), ..Seen::default() }));
        assert!(load(&mut tx, &user, 6).await.unwrap().more);
        let first = prune(&mut tx, &user, 2, None, 4).await.unwrap();
        assert_eq!(first, Pruned { removed: 3, next: Some([3; 16]) });
        let second = prune(&mut tx, &user, 2, first.next.as_ref(), 4).await.unwrap();
        assert_eq!(second, Pruned { removed: 2, next: None });
        let left: Vec<u8> =
            load(&mut tx, &user, 9).await.unwrap().rows.iter().map(|(sid, _)| sid[0]).collect();
        assert_eq!(left, [2, 5]);
        clear_all(&mut tx as &mut dyn Transaction, &user);
        assert_eq!(load(&mut tx, &user, 9).await.unwrap().rows, []);
        assert_eq!(load(&mut tx, &Entity::new("juliet@aa"), 9).await.unwrap().rows.len(), 1);
    }
}
