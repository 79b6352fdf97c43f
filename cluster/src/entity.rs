//! What is placed on nodes, and the shard it belongs to.

use std::fmt;
use std::sync::Arc;

/// How many shards there are. Fixed for ever: keys carry the shard.
pub const SHARDS: u16 = 1024;

/// One of the 1024 fixed slices of all entities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of the entity of that name, which must be in its normal form: FNV-1a over the name, folded. Stable for ever;
    /// see the test.
    pub fn of(name: &str) -> Self {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in name.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // The low bits of FNV are its weakest; fold the high half in before taking ten of them.
        let folded = (hash >> 32) ^ hash;
        Self(u16::try_from(folded % u64::from(SHARDS)).unwrap_or(0))
    }
}

/// The name of something that is placed: a user (with its sessions), a room, a link or a component. For users
/// it is the bare JID as text (`juliet@example.org`), normalised by its maker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity(Arc<str>);

impl Entity {
    /// The entity of that name, which must be in its normal form.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard this entity lies on.
    pub fn shard(&self) -> Shard {
        Shard::of(&self.0)
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entity({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_a_name_never_changes() {
        let names = ["", "a@b", "juliet@localhost", "romeo@localhost", "müller@example.org"];
        assert_eq!(names.map(|name| Entity::new(name).shard().0), [961, 875, 952, 724, 350]);
    }

    #[test]
    fn names_spread_evenly() {
        let mut counts = vec![0u32; usize::from(SHARDS)];
        for n in 0..102_400 {
            counts[usize::from(Entity::new(format!("user{n}@example.org")).shard().0)] += 1;
        }
        assert!(counts.iter().all(|c| (40..=180).contains(c)), "{counts:?}");
    }
}
