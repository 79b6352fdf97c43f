//! Writes as data. A batcher commits them together with those of others, and may repeat them: their keys and
//! values are fixed before the first attempt, so doing them twice does nothing more than doing them once.

use bytes::Bytes;
use smallvec::SmallVec;

use super::buffered::pending::{cost_of_key, cost_of_range, outgrows};
use super::{Result, Transaction};

/// One write whose effect does not depend on what is stored.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key.
    Set {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Removes a key.
    Clear {
        /// The key.
        key: Bytes,
    },
    /// Removes all keys of a range.
    ClearRange {
        /// The first key, included.
        begin: Bytes,
        /// The end, excluded.
        end: Bytes,
    },
}

/// Writes in the order in which they are to be done. A message costs two or three.
pub type Ops = SmallVec<[Op; 4]>;

impl Op {
    /// Bytes of keys and values, as the limit of a transaction counts them (without what the engine adds).
    pub fn size(&self) -> usize {
        match self {
            Self::Set { key, value } => key.len() + value.len(),
            Self::Clear { key } => key.len(),
            Self::ClearRange { begin, end } => begin.len() + end.len(),
        }
    }

    /// Bytes that it adds to [`Transaction::size`].
    ///
    /// # Errors
    /// What a commit with it would fail with, whatever else is in it.
    pub fn cost(&self) -> Result<usize> {
        match self {
            Self::Set { key, value } => cost_of_key(key, value),
            Self::Clear { key } => cost_of_key(key, &[]),
            Self::ClearRange { begin, end } => cost_of_range(begin, end),
        }
    }

    /// Does the write in a transaction.
    pub fn apply(&self, tx: &mut dyn Transaction) {
        match self {
            Self::Set { key, value } => tx.set(key, value),
            Self::Clear { key } => tx.clear(key),
            Self::ClearRange { begin, end } => tx.clear_range(begin, end),
        }
    }
}

/// Whether writes add to what is stored more than the little that goes with what they remove: with [`super::Class::Full`] such are
/// refused.
pub fn grow(ops: &[Op]) -> bool {
    let is_set = |op: &&Op| matches!(op, Op::Set { .. });
    let added = ops.iter().filter(is_set).map(Op::size).sum();
    outgrows(added, ops.iter().filter(|op| !is_set(op)).count())
}

/// Shows sizes only: values hold messages and keys of credentials.
impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self {
            Self::Set { .. } => "Set",
            Self::Clear { .. } => "Clear",
            Self::ClearRange { .. } => "ClearRange",
        };
        write!(f, "{verb}({} bytes)", self.size())
    }
}

/// What takes idempotent writes: a transaction at once, [`Ops`] for later. A table's write is written once, over
/// this, and serves both the message path (through the batcher) and transactions.
pub trait Mutate {
    /// Sets `key` to `value`.
    fn put(&mut self, key: Bytes, value: Bytes);
    /// Removes `key`.
    fn delete(&mut self, key: Bytes);
    /// Removes the keys from `begin` (included) to `end` (excluded).
    fn delete_range(&mut self, begin: Bytes, end: Bytes);
}

impl Mutate for Ops {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.push(Op::Set { key, value });
    }

    fn delete(&mut self, key: Bytes) {
        self.push(Op::Clear { key });
    }

    fn delete_range(&mut self, begin: Bytes, end: Bytes) {
        self.push(Op::ClearRange { begin, end });
    }
}

impl Mutate for dyn Transaction + '_ {
    fn put(&mut self, key: Bytes, value: Bytes) {
        self.set_owned(key, value);
    }

    fn delete(&mut self, key: Bytes) {
        self.clear(&key);
    }

    fn delete_range(&mut self, begin: Bytes, end: Bytes) {
        self.clear_range(&begin, &end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Database as _;

    #[test]
    fn costs_are_what_a_transaction_counts() {
        let (key, end) = (Bytes::from_static(b"key"), Bytes::from_static(b"lower"));
        let mut ops = Ops::new();
        ops.put(key.clone(), Bytes::from_static(b"value"));
        ops.delete(key.clone());
        ops.delete_range(key.clone(), end.clone());
        ops.delete_range(key.clone(), key);
        for op in ops {
            let mut tx = crate::store::memory::Memory::new().begin();
            op.apply(&mut *tx);
            assert_eq!(op.cost().unwrap(), tx.size(), "{op:?}");
        }
        assert!(Op::Clear { key: Bytes::new() }.cost().is_err());
        assert!(Op::ClearRange { begin: end, end: Bytes::from_static(b"a") }.cost().is_err());
    }

    #[test]
    fn sizes_count_keys_and_values_and_debug_shows_no_content() {
        let mut ops = Ops::new();
        ops.put(Bytes::from_static(b"key"), Bytes::from_static(b"secret"));
        ops.delete(Bytes::from_static(b"ke"));
        ops.delete_range(Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        assert_eq!(ops.iter().map(Op::size).collect::<Vec<_>>(), [9, 2, 2]);
        assert_eq!(format!("{ops:?}"), "[Set(9 bytes), Clear(2 bytes), ClearRange(2 bytes)]");
    }
}
