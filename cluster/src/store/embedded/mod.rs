//! The embedded engine: one process, one folder, crash-safe. fjall 3.1 keeps the rows; versions, conflicts and group commit
//! are ours (see the engine module).
//!
//! The folder holds `rows/` (fjall's), `lock` (two processes cannot open one folder) and, if the journal was ever found
//! damaged, `damaged/` with what was cut out of it.
//!
//! fjall's own ways that matter here: a batch is written to the journal, synced, and only then visible, so readers never
//! see what a crash could take back; when compaction lags behind, writes sleep, which hits our commit thread and no task;
//! clearing a range writes a tombstone per key, so very large ranges are better cleared in pieces.

mod journal;
mod lock;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use fjall::{KeyspaceCreateOptions, PersistMode, Readable as _};
use parking_lot::{Mutex, RwLock};

use super::engine::{Backend, CLOSED, Changes, Engine, Handle, Visit};
use super::{Class, Database, Error, Fut, Result, Transaction, Version};
use lock::Lock;

/// When a commit counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// It is on the disk: survives a power cut.
    #[default]
    Sync,
    /// The operating system has it: survives the end of the process, not of the machine.
    Buffered,
}

/// The layout of what is stored, kept in the folder. Never changes without a way to convert.
const FORMAT: u64 = 1;
/// Versions are handed out from blocks that are reserved on disk, so that none comes twice after a crash.
const BLOCK: u64 = 1_000_000;
/// Rows wait in memory up to this size; a restart reads them from the journal again.
const MEMTABLE: u64 = 16 * 1024 * 1024;
/// fjall's least. What lies in journals must be read at every start.
const JOURNAL: u64 = 64 * 1024 * 1024;
/// Blocks of tables that stay in memory.
const CACHE: u64 = 64 * 1024 * 1024;

/// A database in a folder.
pub struct Embedded(Handle<Tables>);

impl Embedded {
    /// Opens or makes the database in `folder`. Repairs a damaged journal (and says so in the log).
    ///
    /// # Errors
    /// [`Class::Unavailable`] if another process has it open or the folder cannot be used; [`Class::Corrupt`] if it
    /// is damaged beyond the journal or was written by a newer version.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self> {
        let (tables, version) = Tables::open(folder, durability)?;
        let view = tables.with(|open| Ok(open.database.snapshot()))?;
        Ok(Self(Handle::threaded(Engine::new(tables, version, view))?))
    }

    /// Lets time pass for the age of transactions, for tests.
    #[doc(hidden)]
    pub fn pass(&self, time: Duration) {
        self.0.pass(time);
    }
}

impl Database for Embedded {
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

/// fjall's handles; dropping them closes the files. The lock goes last.
struct Open {
    rows: fjall::Keyspace,
    meta: fjall::Keyspace,
    database: fjall::Database,
    _lock: Lock,
}

/// The rows on disk.
pub(crate) struct Tables {
    open: RwLock<Option<Open>>,
    durability: Durability,
    /// The end of the reserved versions.
    reserved: Mutex<u64>,
}

impl Tables {
    fn open(folder: &Path, durability: Durability) -> Result<(Self, Version)> {
        std::fs::create_dir_all(folder).map_err(|e| disk(e).with(folder.display()))?;
        let lock = Lock::take(folder)?;
        let rows = folder.join("rows");
        journal::repair(&rows, &folder.join("damaged"))?;
        let database = guarded(|| {
            fjall::Database::builder(&rows)
                .max_journaling_size(JOURNAL)
                .cache_size(CACHE)
                .worker_threads(1)
                .manual_journal_persist(true)
                .open()
        })?;
        let meta = guarded(|| database.keyspace("meta", KeyspaceCreateOptions::default))?;
        let rows = guarded(|| {
            database.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE))
        })?;
        let format = number(&meta, "format")?;
        if format.is_some_and(|format| format != FORMAT) {
            let error = Error::new(Class::Corrupt, "the store was written by another version of rookery");
            return Err(error.with(format!("format {format:?}, this version reads {FORMAT}")));
        }
        let first = number(&meta, "versions")?.unwrap_or(1);
        let reserved = first.saturating_add(BLOCK);
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&meta, "format", FORMAT.to_be_bytes());
        batch.insert(&meta, "versions", reserved.to_be_bytes());
        batch.commit().map_err(broken)?;
        let open = RwLock::new(Some(Open { rows, meta, database, _lock: lock }));
        Ok((Self { open, durability, reserved: Mutex::new(reserved) }, Version(first)))
    }

    fn with<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        work(self.open.read().as_ref().ok_or(CLOSED)?)
    }
}

impl Backend for Tables {
    type View = fjall::Snapshot;
    const NAME: &'static str = "embedded";

    fn get(&self, view: &fjall::Snapshot, key: &[u8]) -> Result<Option<Bytes>> {
        self.with(|open| Ok(view.get(&open.rows, key).map_err(broken)?.map(Bytes::from)))
    }

    fn scan(
        &self,
        view: &fjall::Snapshot,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        if begin >= end {
            return Ok(());
        }
        self.with(|open| {
            let mut rows = view.range(&open.rows, begin..end);
            while let Some(row) = if reverse { rows.next_back() } else { rows.next() } {
                let (key, value) = row.into_inner().map_err(broken)?;
                if visit(key.into(), value.into()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&self, version: Version, changes: Changes) -> Result<fjall::Snapshot> {
        self.with(|open| {
            let mode = match self.durability {
                Durability::Sync => PersistMode::SyncData,
                Durability::Buffered => PersistMode::Buffer,
            };
            let room = changes.len() + 1;
            let mut batch =
                fjall::OwnedWriteBatch::with_capacity(open.database.clone(), room).durability(Some(mode));
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(&open.rows, key, value),
                    None => batch.remove(&open.rows, key),
                }
            }
            let mut reserved = self.reserved.lock();
            if version.0 >= *reserved {
                *reserved = version.0.saturating_add(BLOCK);
                batch.insert(&open.meta, "versions", reserved.to_be_bytes());
            }
            drop(reserved);
            batch.commit().map_err(broken)?;
            Ok(open.database.snapshot())
        })
    }

    fn forget(&self, _: Version) {} // a snapshot that is dropped is forgotten

    fn close(&self) -> Result<()> {
        let Some(open) = self.open.write().take() else {
            return Ok(());
        };
        open.database.persist(PersistMode::SyncAll).map_err(broken)
    }
}

fn number(meta: &fjall::Keyspace, name: &str) -> Result<Option<u64>> {
    let Some(value) = meta.get(name).map_err(broken)? else {
        return Ok(None);
    };
    let bytes = value.as_ref().try_into().map_err(|_| {
        Error::new(Class::Corrupt, "a number of the store is not eight bytes long").with(name)
    })?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// Runs what reads files. fjall asserts some of its invariants while it recovers; a damaged file shall be an error
/// that says so, and not the end of the process.
fn guarded<T>(work: impl FnOnce() -> fjall::Result<T>) -> Result<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(broken),
        Err(_) => Err(Error::new(Class::Corrupt, "the store is damaged; restore the folder from a backup")),
    }
}

fn disk(error: std::io::Error) -> Error {
    Error::new(Class::Unavailable, "the store's folder cannot be used").with(error)
}

fn broken(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(error) => disk(error),
        fjall::Error::Locked => Error::LOCKED,
        fjall::Error::Poisoned => Error::new(Class::Corrupt, "a write to disk failed before"),
        other => Error::new(Class::Corrupt, "the store is damaged").with(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_never_come_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (tables, first) = Tables::open(folder.path(), Durability::Buffered).unwrap();
        let beyond = Version(first.0 + BLOCK);
        tables.apply(beyond, Changes::new()).unwrap();
        tables.close().unwrap();
        let (_, second) = Tables::open(folder.path(), Durability::Buffered).unwrap();
        assert!(second > beyond);
    }

    #[test]
    fn one_folder_opens_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = Embedded::open(folder.path(), Durability::Sync).unwrap();
        let error = Embedded::open(folder.path(), Durability::Sync).err().unwrap();
        assert_eq!(error.class, Class::Unavailable);
        assert!(error.is_locked(), "{error}");
        drop(first);
    }

    #[test]
    fn an_unknown_format_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (tables, _) = Tables::open(folder.path(), Durability::Sync).unwrap();
        tables.with(|open| open.meta.insert("format", 2u64.to_be_bytes()).map_err(broken)).unwrap();
        tables.close().unwrap();
        let error = Tables::open(folder.path(), Durability::Sync).err().unwrap();
        assert_eq!(error.class, Class::Corrupt);
    }
}
