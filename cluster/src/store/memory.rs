//! The memory engine: a sorted map of versioned values, with FoundationDB's rules and limits. For tests, for simulation
//! (it commits in the committing task: no threads), and for relays that keep nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::engine::{Backend, Changes, Engine, Handle, Visit};
use super::{Database, Fut, Result, Transaction, Version};

/// A database in memory. Everything is gone with the last handle and transaction.
pub struct Memory(Handle<Versions>);

impl Memory {
    /// An empty database.
    #[allow(clippy::new_without_default)] // a database is a thing one opens, not a default
    pub fn new() -> Self {
        Self::starting_at(Version(1))
    }

    /// The same, with versions from `first` on: a server of one store after another to clients that stay must not give them a
    /// version twice.
    pub fn starting_at(first: Version) -> Self {
        Self(Handle::in_place(Engine::new(Versions::default(), first, first)))
    }

    /// Lets time pass for the age of transactions, for tests.
    #[doc(hidden)]
    pub fn pass(&self, time: Duration) {
        self.0.pass(time);
    }
}

impl Database for Memory {
    fn begin(&self) -> Box<dyn Transaction> {
        self.0.begin()
    }

    fn engine(&self) -> &'static str {
        self.0.engine()
    }

    fn close(&self) -> Fut<'_, Result<()>> {
        self.0.close()
    }
}

/// A key's values, oldest first; `None` from the version on in which it was removed.
type History = VecDeque<(Version, Option<Bytes>)>;

#[derive(Default)]
struct Data {
    rows: BTreeMap<Bytes, History>,
    /// What was superseded, in order: at the version the older values of the key can go.
    superseded: VecDeque<(Version, Bytes)>,
}

/// All versions that someone may still read.
#[derive(Default)]
pub(crate) struct Versions(RwLock<Data>);

/// How many values were there at `version`: the last of them is the one that it sees.
fn until(history: &History, version: Version) -> usize {
    history.partition_point(|(since, _)| *since <= version)
}

fn value_at(history: &History, version: Version) -> Option<&Bytes> {
    // Mostly the newest is asked for.
    match history.back() {
        Some((since, value)) if *since <= version => value.as_ref(),
        _ => history.get(until(history, version).checked_sub(1)?)?.1.as_ref(),
    }
}

impl Backend for Versions {
    type View = Version;
    const NAME: &'static str = "memory";

    fn get(&self, view: &Version, key: &[u8]) -> Result<Option<Bytes>> {
        let data = self.0.read();
        Ok(data.rows.get(key).and_then(|history| value_at(history, *view)).cloned())
    }

    fn scan(
        &self,
        view: &Version,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        use std::ops::Bound::{Excluded, Included};
        if begin >= end {
            return Ok(());
        }
        let data = self.0.read();
        let mut rows = data.rows.range::<[u8], _>((Included(begin), Excluded(end)));
        while let Some((key, history)) = if reverse { rows.next_back() } else { rows.next() } {
            if let Some(value) = value_at(history, *view)
                && visit(key.clone(), value.clone()).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn apply(&self, version: Version, changes: Changes) -> Result<Version> {
        let mut data = self.0.write();
        let Data { rows, superseded } = &mut *data;
        for (key, value) in changes {
            if value.is_none() && !rows.contains_key(&key) {
                continue;
            }
            let history = rows.entry(key.clone()).or_default();
            if !history.is_empty() {
                superseded.push_back((version, key));
            }
            history.push_back((version, value));
        }
        Ok(version)
    }

    fn forget(&self, oldest: Version) {
        if self.0.read().superseded.front().is_none_or(|(version, _)| *version > oldest) {
            return;
        }
        let mut data = self.0.write();
        while data.superseded.front().is_some_and(|(version, _)| *version <= oldest) {
            let Some((_, key)) = data.superseded.pop_front() else {
                break;
            };
            let Some(history) = data.rows.get_mut(&key) else {
                continue;
            };
            // The newest value that `oldest` sees stays, and all after it.
            history.drain(..until(history, oldest).saturating_sub(1));
            let gone = history.len() == 1
                && history.front().is_some_and(|(since, value)| *since <= oldest && value.is_none());
            if gone {
                data.rows.remove(&key);
            }
        }
    }

    fn close(&self) -> Result<()> {
        *self.0.write() = Data::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(versions: &Versions, version: u64, value: Option<&'static [u8]>) {
        let changes = Changes::from([(Bytes::from_static(b"k"), value.map(Bytes::from_static))]);
        versions.apply(Version(version), changes).unwrap();
    }

    #[test]
    fn old_values_go_when_nobody_may_read_them() {
        let versions = Versions::default();
        change(&versions, 2, Some(b"a"));
        change(&versions, 3, Some(b"b"));
        change(&versions, 5, None);
        versions.forget(Version(4));
        assert_eq!(versions.get(&Version(4), b"k").unwrap().unwrap(), b"b".as_slice());
        assert_eq!(versions.0.read().rows.values().next().unwrap().len(), 2);
        versions.forget(Version(5));
        assert!(versions.0.read().rows.is_empty());
        assert!(versions.0.read().superseded.is_empty());
    }
}
