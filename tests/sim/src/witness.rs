//! What the store sees: which node commits what, and whether that was its right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rookery_cluster::entity::SHARDS;
use rookery_cluster::store::keys::{Kind, NO_SHARD, Scope};
use rookery_cluster::store::{
    Class, Committed, Database, Fut, Isolation, Page, Result, Select, Transaction, Version,
};
use rookery_cluster::tables::nodes::Owner;
use xxhash_rust::xxh3::xxh3_64;

use crate::chance::now;
use crate::client::Came;
use crate::log::Log;

/// Which node owns which shard by the commits so far.
pub(crate) struct Witness {
    owners: Mutex<BTreeMap<u16, Owner>>,
    /// When a shard came to an epoch, and when something of its sessions was written in which.
    epochs: Mutex<BTreeMap<u16, Vec<(Duration, u32)>>>,
    sessions: Mutex<BTreeMap<u16, Vec<(Duration, u32)>>>,
    log: Log,
}

impl Witness {
    pub(crate) fn new(log: Log) -> Arc<Self> {
        Arc::new(Self { owners: Mutex::default(), epochs: Mutex::default(), sessions: Mutex::default(), log })
    }

    /// Whether every shard has an owner, of which `lives` is true.
    pub(crate) fn is_whole(&self, lives: impl Fn(&str) -> bool) -> bool {
        let owners = self.owners.lock();
        owners.len() == usize::from(SHARDS)
            && owners.values().all(|owner| !owner.released && lives(&owner.node))
    }

    pub(crate) fn owner(&self, shard: u16) -> Option<String> {
        self.owners.lock().get(&shard).filter(|owner| !owner.released).map(|owner| owner.node.clone())
    }

    /// Whether something that came to a client may be known to nobody at `to`: the home that had sent it wrote nothing of its sessions any more,
    /// for it did not reach the store, and it is another home by then. A client may read late what it was sent: by then the store may have
    /// another home already, and the one that does not reach the store does not know.
    pub(crate) fn forgets(&self, shard: u16, came: Came, to: Duration) -> bool {
        let epochs = self.epochs.lock();
        let at = |time| epochs.get(&shard)?.iter().rev().find(|(since, _)| *since <= time).map(|(_, e)| *e);
        let Some(now) = at(to) else { return false };
        let sessions = self.sessions.lock();
        let writes = sessions.get(&shard).into_iter().flatten();
        let last = writes.filter(|(time, epoch)| *time < to && *epoch < now).map(|(time, _)| *time).max();
        let sent = came.since.max(last.unwrap_or_default());
        last.is_none_or(|last| last < came.at) && at(sent).is_some_and(|before| before < now)
    }

    /// A node has committed these.
    fn committed(&self, node: &str, writes: &[(Bytes, Option<Bytes>)]) {
        let mut owners = self.owners.lock();
        // A subscription is committed for both sides at once, by the home of one.
        let is_roster = |kind| matches!(kind, Kind::Roster | Kind::RosterVersion | Kind::RosterChange);
        let one_side = writes.iter().filter_map(|(key, _)| read(key)).any(|(kind, shard)| {
            is_roster(kind) && owners.get(&shard).is_some_and(|owner| owner.node == node && !owner.released)
        });
        for (key, value) in writes {
            let Some((kind, shard)) = read(key) else { continue };
            if one_side && is_roster(kind) {
                continue;
            }
            if kind == Kind::ShardOwner {
                let Some(owner) = value.as_ref().and_then(|value| Owner::decode(value.clone()).ok()) else {
                    self.log.wrong(format!("{node} removed the owner of shard {shard}"));
                    continue;
                };
                let before = owners.insert(shard, owner.clone());
                self.epochs.lock().entry(shard).or_default().push((now(), owner.epoch));
                let Some(before) = before else { continue };
                let same = (&before.node, before.generation) == (&owner.node, owner.generation);
                let fits = if before.epoch == owner.epoch {
                    same && (owner.released || !before.released)
                } else {
                    owner.epoch > before.epoch
                };
                if !fits {
                    self.log.wrong(format!("{node} made {owner:?} of {before:?} (shard {shard})"));
                }
            } else if shard != NO_SHARD && kind != Kind::Operation {
                match owners.get(&shard) {
                    Some(owner) if owner.node == node && !owner.released => {
                        if kind == Kind::Session {
                            self.sessions.lock().entry(shard).or_default().push((now(), owner.epoch));
                        }
                    }
                    owner => self.log.wrong(format!("{node} wrote {kind:?} in shard {shard}, of {owner:?}")),
                }
            }
        }
    }

    /// A node's commit failed.
    fn refused(&self, node: &str, class: Class, writes: &[(Bytes, Option<Bytes>)]) {
        let owners = self.owners.lock();
        let lost = |(key, _): &(Bytes, Option<Bytes>)| {
            let Some((kind, shard)) = read(key) else { return false };
            matches!(kind, Kind::Archive | Kind::Session)
                && owners.get(&shard).is_some_and(|owner| owner.node != node || owner.released)
        };
        if class == Class::Conflict && writes.iter().any(lost) {
            self.log.count("takeover during append");
        }
    }
}

fn read(key: &[u8]) -> Option<(Kind, u16)> {
    let number = u16::from_be_bytes(*key.first_chunk()?);
    let shard = u16::from_be_bytes(*key.get(2..)?.first_chunk()?);
    let kind = Kind::ALL.iter().copied().find(|kind| kind.number() == number)?;
    let shard = if kind.scope() == Scope::Deployment { NO_SHARD } else { shard };
    Some((kind, shard))
}

/// The database as one node writes to it.
pub(crate) struct Watched {
    pub(crate) node: String,
    pub(crate) inner: Arc<dyn Database>,
    pub(crate) witness: Arc<Witness>,
}

impl Database for Watched {
    fn begin(&self) -> Box<dyn Transaction> {
        let (node, witness) = (self.node.clone(), self.witness.clone());
        Box::new(Watching { inner: self.inner.begin(), node, witness, writes: Vec::new() })
    }

    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn close(&self) -> Fut<'_, Result<()>> {
        self.inner.close()
    }
}

struct Watching {
    inner: Box<dyn Transaction>,
    node: String,
    witness: Arc<Witness>,
    writes: Vec<(Bytes, Option<Bytes>)>,
}

impl Watching {
    fn wrote(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.writes.push((Bytes::copy_from_slice(key), value.map(Bytes::copy_from_slice)));
    }
}

impl Transaction for Watching {
    fn get<'a>(&'a mut self, key: &'a [u8], isolation: Isolation) -> Fut<'a, Result<Option<Bytes>>> {
        self.inner.get(key, isolation)
    }

    fn range(&mut self, select: Select, isolation: Isolation) -> Fut<'_, Result<Page>> {
        self.inner.range(select, isolation)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.wrote(key, Some(value));
        self.inner.set(key, value);
    }

    fn clear(&mut self, key: &[u8]) {
        self.wrote(key, None);
        self.inner.clear(key);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.wrote(begin, None);
        self.inner.clear_range(begin, end);
    }

    fn add(&mut self, key: &[u8], delta: i64) {
        self.inner.add(key, delta);
    }

    fn set_versionstamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]) {
        self.wrote(key, Some(value));
        self.inner.set_versionstamped_key(key, offset, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: usize) {
        self.wrote(key, Some(value));
        self.inner.set_versionstamped_value(key, value, offset);
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.add_read_conflict(begin, end);
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.add_write_conflict(begin, end);
    }

    fn set_read_version(&mut self, version: Version, judged: Version) {
        self.inner.set_read_version(version, judged);
    }

    fn read_version(&mut self) -> Fut<'_, Result<Version>> {
        self.inner.read_version()
    }

    fn watch(&mut self, key: &[u8]) -> Fut<'static, Result<()>> {
        self.inner.watch(key)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn commit(self: Box<Self>) -> Fut<'static, Result<Committed>> {
        let Self { inner, node, witness, writes } = *self;
        Box::pin(async move {
            // The memory engine commits without waiting: nothing comes between a commit and what is noted of it.
            let outcome = inner.commit().await;
            match &outcome {
                Ok(_) if writes.is_empty() => {}
                Ok(committed) => {
                    let mut bytes = Vec::new();
                    for (key, value) in &writes {
                        bytes.extend_from_slice(key);
                        bytes.extend_from_slice(value.as_deref().unwrap_or_default());
                    }
                    let hash = xxh3_64(&bytes);
                    witness.log.note(&node, format_args!("commits {} {hash:016x}", committed.version.0));
                    witness.committed(&node, &writes);
                }
                Err(error) => {
                    witness.log.note(&node, format_args!("is refused: {:?}", error.class));
                    witness.refused(&node, error.class, &writes);
                }
            }
            outcome
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_home_had_sent_that_could_write_nothing_more_is_forgotten() {
        let witness = Witness::new(Log::default());
        let s = Duration::from_secs;
        witness.epochs.lock().insert(1, vec![(s(0), 1), (s(10), 2)]);
        witness.sessions.lock().insert(1, vec![(s(5), 1), (s(11), 2)]);
        let came = |since, at| Came { since: s(since), at: s(at), connection: 1 };
        let forgets = |since, at, to| witness.forgets(1, came(since, at), s(to));
        assert!(forgets(6, 7, 20));
        assert!(!forgets(6, 7, 9), "the home is the same");
        assert!(!forgets(3, 4, 20), "the home has written since");
        // A client that reads late: the home may have sent it before it wrote last, or after.
        assert!(forgets(3, 12, 20));
        assert!(!forgets(10, 12, 20), "the next home has sent it");
    }
}
