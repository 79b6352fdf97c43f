//! Which user's stanzas go to which connection of a component: always the same one, as long as it lives.

use std::collections::HashMap;

use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;
use sha2::Digest as _;

use crate::host::Host;

/// How many users a home remembers with their connections, and a connection with its home. Beyond, a user's connection follows from
/// the user's name and the connections that there are.
pub(super) const USERS: usize = 65_536;

/// A user, in eight bytes: two users of one name share a connection, which does no harm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct UserKey(pub(super) u64);

impl UserKey {
    /// Of a stanza's sender, by bare JID.
    pub(super) fn of(user: &Jid) -> Self {
        Self(hash(&[user.bare_str().as_bytes()]))
    }
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = sha2::Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// In whose share of a component's queue a stanza is: an account's, or another server's for all who live there.
pub(super) fn sender(host: &Host, component: &BareJid, stanza: &Stanza) -> BareJid {
    match &stanza.from {
        Some(from) if host.serves(from.domain()) => from.to_bare(),
        Some(from) => from.to_bare().to_domain(),
        None => component.clone(),
    }
}

/// Users and their connections.
#[derive(Default)]
pub(super) struct Balance(HashMap<UserKey, u64>);

impl Balance {
    /// The connection of a user, among those that there are. A user who has none is given one.
    pub(super) fn of(&mut self, user: UserKey, conns: &[u64]) -> Option<u64> {
        if let Some(conn) = self.0.get(&user).filter(|conn| conns.contains(conn)) {
            return Some(*conn);
        }
        // The highest score wins: when a connection goes, only its own users move.
        let score = |conn: &u64| hash(&[&user.0.to_le_bytes(), &conn.to_le_bytes()]);
        let conn = conns.iter().copied().max_by_key(score)?;
        if self.0.len() < USERS {
            self.0.insert(user, conn);
        }
        Some(conn)
    }

    /// What a connection says: it serves these users. A user whom another connection has by now stays there.
    pub(super) fn learn(&mut self, conn: u64, users: impl Iterator<Item = UserKey>) {
        for user in users {
            if self.0.len() >= USERS {
                return;
            }
            self.0.entry(user).or_insert(conn);
        }
    }

    /// The connection is gone: its users are given others.
    pub(super) fn forget(&mut self, conn: u64) {
        self.0.retain(|_, own| *own != conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_stays_with_a_connection_as_long_as_it_lives() {
        let mut balance = Balance::default();
        let users: Vec<UserKey> = (0..1_000).map(UserKey).collect();
        let first: Vec<u64> = users.iter().map(|user| balance.of(*user, &[1, 2]).unwrap()).collect();
        let ones = first.iter().filter(|conn| **conn == 1).count();
        assert!((300..700).contains(&ones), "{ones}");
        // A third connection takes new users only.
        for (user, conn) in users.iter().zip(&first) {
            assert_eq!(balance.of(*user, &[1, 2, 3]), Some(*conn));
        }
        assert!((1_000..2_000).any(|n| balance.of(UserKey(n), &[1, 2, 3]) == Some(3)));
        // The users of one that is gone are spread over the others; nobody else moves.
        balance.forget(1);
        for (user, conn) in users.iter().zip(&first) {
            let now = balance.of(*user, &[2, 3]);
            assert!(if *conn == 2 { now == Some(2) } else { now.is_some() });
        }
        assert_eq!(balance.of(UserKey(5), &[]), None);
    }

    #[test]
    fn the_next_home_learns_what_connections_know() {
        let (mut balance, user) = (Balance::default(), UserKey(7));
        balance.learn(2, [user].into_iter());
        balance.learn(1, [user].into_iter());
        assert_eq!(balance.of(user, &[1, 2]), Some(2));
    }
}
