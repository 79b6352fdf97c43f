//! The registry of key kinds, and how keys are put together and read.
//!
//! A key is `kind u16 ‖ shard u16 ‖ …`, big-endian. Rows of an entity go on with its name; rows of the whole
//! deployment carry [`NO_SHARD`]. Text and bytes of any length are encoded so that no key is the beginning of
//! another's and so that the order of keys is the order of their parts: `00` becomes `00 FF`, the end is `00 01`.
//! Numbers are big-endian and of fixed width.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{Class, Error, Result};
use crate::entity::{Entity, Shard};

/// Stands for the shard in keys that belong to the deployment and not to an entity.
pub const NO_SHARD: u16 = 0xffff;

/// The owner of the rows of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// `kind ‖ NO_SHARD ‖ …`: the deployment's.
    Deployment,
    /// `kind ‖ shard ‖ …`: a shard's; the part behind the shard does not begin with the entity.
    Shard,
    /// `kind ‖ shard ‖ entity ‖ …`: an entity's; not erased with an account.
    Entity,
    /// `kind ‖ shard ‖ user ‖ …`: a user's; erased with the account.
    User,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $scope:ident;)+) => {
        /// What a row is. The numbers are fixed for ever: never change one, never use one again.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Kind { $($(#[doc = $doc])+ $name = $number,)+ }

        impl Kind {
            /// Every kind, in the order of the numbers.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),+];

            /// The number in keys.
            pub const fn number(self) -> u16 {
                match self { $(Kind::$name => $number,)+ }
            }

            /// The owner of these rows.
            pub const fn scope(self) -> Scope {
                match self { $(Kind::$name => Scope::$scope,)+ }
            }
        }
    };
}

// 0x0001.. the deployment, 0x0020.. membership and placement, 0x0100.. users, 0x0200.. kept for rooms, 0x0300.. kept
// for links.
kinds! {
    /// A random secret of the deployment: `name`.
    Secret = 0x0001, Deployment;
    /// The accounts of a domain in the order of their names: `domain ‖ name`.
    AccountIndex = 0x0002, Deployment;
    /// A name that nobody may register: `user`. Outlives the account.
    Reserved = 0x0003, Entity;
    /// The mark of an operation that is done, so that it is not done again: `entity ‖ operation id`.
    Operation = 0x0004, Entity;

    /// An account at an ACME authority, with its private key: `directory`.
    AcmeAccount = 0x0010, Deployment;
    /// A certificate that an ACME authority issued, with its private key: `name ‖ part`.
    Certificate = 0x0011, Deployment;
    /// How far the certificate of a name is: its order, its renewal, what went wrong: `name ‖ part`.
    CertificateState = 0x0012, Deployment;
    /// The answer to a challenge of an ACME authority: `how u8 ‖ name or token`.
    AcmeChallenge = 0x0013, Deployment;
    /// Counts the changes of certificates, to be watched.
    CertificateVersion = 0x0014, Deployment;

    /// What a node is and whether it lives: `node`.
    NodeStatus = 0x0020, Deployment;
    /// A node's sign of life: `node`.
    NodeBeat = 0x0021, Deployment;
    /// That a node saw no sign of life from another: `node ‖ voter`.
    NodeVote = 0x0022, Deployment;
    /// The owner of a shard: nothing behind the shard.
    ShardOwner = 0x0023, Shard;
    /// Counts the changes of nodes and shards, to be watched.
    MeshVersion = 0x0024, Deployment;

    /// Credentials and state of an account: `user`.
    Account = 0x0100, User;
    /// A roster item: `user ‖ contact ‖ part`.
    Roster = 0x0101, User;
    /// The versionstamp of a roster's last change: `user`.
    RosterVersion = 0x0102, User;
    /// An archived stanza: `user ‖ id ‖ part`.
    Archive = 0x0103, User;
    /// Archives with entries of a day: `day u32 ‖ entity`. Retention finds here what to clear.
    ArchiveDay = 0x0104, Shard;
    /// The days with entries of an archive: `user ‖ day u32`. Erasure finds the index rows by it.
    ArchiveDays = 0x0105, User;
    /// A stanza that waits for a device, where archiving is off: `user ‖ id ‖ part`.
    Queue = 0x0106, User;
    /// As `ArchiveDay`, for queues.
    QueueDay = 0x0107, Shard;
    /// As `ArchiveDays`, for queues.
    QueueDays = 0x0108, User;
    /// How far a user's incoming stanzas have been delivered: `user`.
    Offline = 0x0109, User;
    /// A resumable session: `user ‖ sid[16] ‖ field u8 ‖ part`.
    Session = 0x010a, User;
    /// The last number taken from a sender's session: `user ‖ sid[16]`.
    Seen = 0x010b, User;
    /// Private XML: `user ‖ namespace ‖ name ‖ part`.
    Private = 0x010c, User;
    /// The vCard: `user ‖ part`.
    Vcard = 0x010d, User;
    /// A blocked JID: `user ‖ jid`.
    Block = 0x010e, User;
    /// Archiving preferences: `user ‖ part`.
    MamPrefs = 0x010f, User;
    /// When a user was last seen: `user ‖ part`.
    Last = 0x0110, User;
    /// What changed in a roster, and when: `user ‖ what u8 ‖ contact`.
    RosterChange = 0x0111, User;

    /// A link to another server: `link ‖ part`.
    Link = 0x0300, Entity;
    /// A stanza that waits for another server: `link ‖ id[16] ‖ part`.
    LinkQueue = 0x0301, Entity;
}

/// Builds a key.
#[derive(Clone)]
pub struct Key(BytesMut);

impl Key {
    /// A key of an entity's row: `kind ‖ shard ‖ entity`.
    pub fn of(kind: Kind, entity: &Entity) -> Self {
        let name = entity.as_str();
        Self::start(kind, entity.shard().0, name.len() + 26).text(name)
    }

    /// A key of a row that a shard holds: `kind ‖ shard`.
    pub fn shard(kind: Kind, shard: Shard) -> Self {
        Self::start(kind, shard.0, 40)
    }

    /// All rows of a kind.
    pub fn all(kind: Kind) -> Range<Bytes> {
        range_of(&Bytes::copy_from_slice(&kind.number().to_be_bytes()))
    }

    /// A key of a row of the deployment: `kind ‖ NO_SHARD`.
    pub fn deployment(kind: Kind) -> Self {
        Self::start(kind, NO_SHARD, 40)
    }

    fn start(kind: Kind, shard: u16, room: usize) -> Self {
        let mut key = BytesMut::with_capacity(4 + room);
        key.put_u16(kind.number());
        key.put_u16(shard);
        Self(key)
    }

    /// Adds text of any length.
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Adds bytes of any length.
    pub fn bytes(mut self, mut bytes: &[u8]) -> Self {
        while let Some(zero) = bytes.iter().position(|b| *b == 0) {
            let (head, tail) = bytes.split_at(zero + 1);
            self.0.extend_from_slice(head);
            self.0.put_u8(0xff);
            bytes = tail;
        }
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(&[0x00, 0x01]);
        self
    }

    /// Adds bytes whose number is the same in every key of the kind.
    pub fn fixed<const N: usize>(mut self, bytes: &[u8; N]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a byte.
    pub fn u8(mut self, number: u8) -> Self {
        self.0.put_u8(number);
        self
    }

    /// Adds a 32-bit number.
    pub fn u32(mut self, number: u32) -> Self {
        self.0.put_u32(number);
        self
    }

    /// Adds a 64-bit number.
    pub fn u64(mut self, number: u64) -> Self {
        self.0.put_u64(number);
        self
    }

    /// The key.
    pub fn finish(self) -> Bytes {
        self.0.freeze()
    }

    /// All keys that begin with this one, itself included.
    pub fn range(self) -> Range<Bytes> {
        range_of(&self.finish())
    }
}

/// All keys that begin with `prefix`, itself included. The end is the next prefix of the same length or shorter;
/// a prefix of `FF` bytes only (no key of ours) has none, and then ends before `FF FF…`, the system's keys.
pub fn range_of(prefix: &Bytes) -> Range<Bytes> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return prefix.clone()..end.into();
        }
    }
    prefix.clone()..Bytes::from_static(&[0xff])
}

/// Reads a key's parts in the order in which they were added. Every error is [`Class::Corrupt`].
#[derive(Clone, Copy)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The parts behind `kind` and shard; corrupt if the key is not of that kind.
    pub fn of(kind: Kind, key: &'a [u8]) -> Result<Self> {
        let mut parts = Self(key);
        if parts.fixed()? != kind.number().to_be_bytes() {
            return Err(corrupt("a key is not of the kind it was read as"));
        }
        parts.fixed::<2>()?;
        Ok(parts)
    }

    /// The parts behind `prefix`, which the key must begin with.
    pub fn after(prefix: &[u8], key: &'a [u8]) -> Result<Self> {
        key.strip_prefix(prefix).map(Self).ok_or(corrupt("a key lies outside the range that was read"))
    }

    /// The next part, bytes.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            let zero = self.0.iter().position(|b| *b == 0).ok_or(corrupt("a part of a key has no end"))?;
            let (head, tail) = self.0.split_at(zero);
            out.extend_from_slice(head);
            match tail.get(1) {
                Some(0x01) => {
                    self.0 = tail.get(2..).unwrap_or_default();
                    return Ok(out);
                }
                Some(0xff) => {
                    out.push(0);
                    self.0 = tail.get(2..).unwrap_or_default();
                }
                _ => return Err(corrupt("a key has an unknown escape")),
            }
        }
    }

    /// The next part, text.
    pub fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| corrupt("a text in a key is not UTF-8"))
    }

    /// The next part, an entity's name.
    pub fn entity(&mut self) -> Result<Entity> {
        Ok(Entity::new(self.text()?))
    }

    /// The next part, bytes of fixed number.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(corrupt("a key is too short"))?;
        self.0 = tail;
        Ok(*head)
    }

    /// The next part, a byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.fixed().map(u8::from_be_bytes)
    }

    /// The next part, a 32-bit number.
    pub fn u32(&mut self) -> Result<u32> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// The next part, a 64-bit number.
    pub fn u64(&mut self) -> Result<u64> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// Ensures that nothing is left.
    pub fn end(self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(corrupt("a key is too long")) }
    }
}

fn corrupt(message: &'static str) -> Error {
    Error::new(Class::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_unique_and_ascend() {
        assert!(Kind::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        assert!(Kind::ALL.iter().all(|k| *k as u16 == k.number()));
    }

    #[test]
    fn the_layout_never_changes() {
        let key = Key::of(Kind::Roster, &Entity::new("a@b")).text("c\0d").u8(7).u32(1).u64(2).finish();
        // Kind 0x0101, shard 875.
        let mut expected = vec![0x01, 0x01, 3, 107];
        expected.extend_from_slice(b"a@b\x00\x01c\x00\xffd\x00\x01\x07\0\0\0\x01\0\0\0\0\0\0\0\x02");
        assert_eq!(key, expected);
        assert_eq!(Key::deployment(Kind::Secret).finish(), [0, 1, 0xff, 0xff].as_slice());
    }

    #[test]
    fn damaged_keys_are_corrupt_and_do_not_panic() {
        let key = Key::of(Kind::Seen, &Entity::new("a@b")).fixed(&[9; 16]).finish();
        for cut in 0..key.len() {
            let read = || -> Result<()> {
                let mut parts = Parts::of(Kind::Seen, &key[..cut])?;
                parts.entity()?;
                parts.fixed::<16>()?;
                parts.end()
            };
            assert_eq!(read().unwrap_err().class, Class::Corrupt);
        }
        assert!(Parts::of(Kind::Roster, &key).is_err());
        assert!(Parts::after(b"elsewhere", &key).is_err());
        assert!(Parts(&[0, 7]).bytes().is_err());
    }

    #[test]
    fn the_range_of_a_prefix_ends_behind_its_last_key() {
        assert_eq!(
            range_of(&Bytes::from_static(b"a\xff")),
            Bytes::from_static(b"a\xff")..Bytes::from_static(b"b")
        );
        assert_eq!(range_of(&Bytes::from_static(b"\xff")).end, Bytes::from_static(b"\xff"));
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        // Mostly the bytes that the encoding treats specially.
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff), any::<u8>()], 0..6)
    }

    fn encode(tuple: &(Vec<u8>, Vec<u8>, u64)) -> Bytes {
        Key::deployment(Kind::Secret).bytes(&tuple.0).bytes(&tuple.1).u64(tuple.2).finish()
    }

    proptest! {
        #[test]
        fn keys_order_as_their_parts(a in (bytes(), bytes(), any::<u64>()), b in (bytes(), bytes(), any::<u64>())) {
            prop_assert_eq!(encode(&a).cmp(&encode(&b)), a.cmp(&b));
        }

        #[test]
        fn parts_come_back(tuple in (bytes(), bytes(), any::<u64>())) {
            let key = encode(&tuple);
            let mut parts = Parts::of(Kind::Secret, &key).unwrap();
            let back = (parts.bytes().unwrap(), parts.bytes().unwrap(), parts.u64().unwrap());
            parts.end().unwrap();
            prop_assert_eq!(back, tuple);
        }

        #[test]
        fn a_range_holds_what_begins_with_its_prefix_and_nothing_else(
            prefix in bytes(), other in bytes(), rest in bytes()
        ) {
            let range = Key::deployment(Kind::Secret).bytes(&prefix).range();
            let inside = Key::deployment(Kind::Secret).bytes(&prefix).bytes(&rest).finish();
            prop_assert!(range.contains(&inside));
            let elsewhere = Key::deployment(Kind::Secret).bytes(&other).bytes(&rest).finish();
            prop_assert_eq!(range.contains(&elsewhere), prefix == other);
        }
    }
}
