//! What is open of fjall's, and how it is opened.

use std::path::{Path, PathBuf};

use fjall::{KeyspaceCreateOptions, PersistMode};

use super::mark::{Mark, Said};
use super::{active, journal};
use crate::store::{Class, Error, Result, Version};

/// The layout of what is stored, kept in the folder. Never changes without a way to convert.
const FORMAT: u64 = 1;
/// Versions are handed out from blocks that are reserved on disk, so that none comes twice after a crash.
pub(super) const BLOCK: u64 = 1_000_000;
/// Rows wait in memory up to this size; a restart reads them from the journal again.
const MEMTABLE: u64 = 16 * 1024 * 1024;
/// fjall's least. What lies in journals must be read at every start.
const JOURNAL: u64 = 64 * 1024 * 1024;
/// Blocks of tables that stay in memory.
const CACHE: u64 = 64 * 1024 * 1024;
/// Tables that stay open, at most; in a process that may open few files, an eighth of those.
const TABLES: u64 = 900;

/// In `meta`: the layout.
const LAYOUT: &str = "format";
/// In `meta`: the end of the reserved versions.
pub(super) const VERSIONS: &str = "versions";
/// In `meta`: the last version that changed something.
pub(super) const LAST: &str = "last";

/// fjall's handles; dropping them closes the files.
pub(super) struct Open {
    pub(super) rows: fjall::Keyspace,
    pub(super) meta: fjall::Keyspace,
    pub(super) database: fjall::Database,
    /// Which opening in this process it is.
    pub(super) opening: u64,
    /// The end of the reserved versions.
    pub(super) reserved: u64,
}

/// The folder of fjall's in that of the store.
pub(super) fn rows(folder: &Path) -> PathBuf {
    folder.join("rows")
}

impl Open {
    /// Opens or makes the rows in `folder`, and reserves versions: all from the one returned on are new.
    pub(super) fn at(folder: &Path, opening: u64) -> Result<(Self, Version)> {
        let said = Mark::read(folder).map_err(|e| disk_at(&Mark::path(folder), e))?;
        let place = rows(folder);
        if said != Said::Nothing && !(place.join("version").exists() && active::exists(&place)) {
            return Err(lost(folder));
        }
        journal::repair(&place, &folder.join("damaged"))?;
        let database = guarded(|| {
            fjall::Database::builder(&place)
                .max_journaling_size(JOURNAL)
                .cache_size(CACHE)
                .max_cached_files(Some(descriptors()))
                .worker_threads(1)
                .manual_journal_persist(true)
                .open()
        })?;
        let meta = guarded(|| database.keyspace("meta", KeyspaceCreateOptions::default))?;
        let rows = guarded(|| {
            database.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE))
        })?;
        match number(&meta, LAYOUT)? {
            Some(FORMAT) => {}
            // Written with the first opening: it is gone, and all with it that was written since.
            None if said != Said::Nothing => return Err(lost(folder)),
            None => {}
            format => {
                let error = Error::new(Class::Corrupt, "the store was written by another version of rookery");
                return Err(error.with(format!("format {format:?}, this version reads {FORMAT}")));
            }
        }
        let first = number(&meta, VERSIONS)?.unwrap_or(1);
        let reserved = first.saturating_add(BLOCK);
        let open = Self { rows, meta, database, opening, reserved };
        if open.is_behind(said)? {
            tracing::error!(
                last = open.last()?.0,
                mark = ?said,
                "the store's journal is truncated: acknowledged commits are lost, at least up to the one that the mark file names \
                 (with durability \"buffered\", a power cut causes this)"
            );
        }
        let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&open.meta, LAYOUT, FORMAT.to_be_bytes());
        batch.insert(&open.meta, VERSIONS, reserved.to_be_bytes());
        batch.commit().map_err(broken)?;
        Ok((open, Version(first)))
    }

    /// Whether something is missing that the mark knew to be committed.
    pub(super) fn is_behind(&self, said: Said) -> Result<bool> {
        Ok(matches!(said, Said::Store(known) if self.last()? < known))
    }

    /// The last version that changed something; 0 if none has, or it was written before that was noted.
    pub(super) fn last(&self) -> Result<Version> {
        number(&self.meta, LAST).map(|last| Version(last.unwrap_or_default()))
    }

    /// Whether it still takes writes: a thread of fjall's may have failed to write a table.
    pub(super) fn check(&self) -> Result<()> {
        self.database.persist(PersistMode::Buffer).map_err(broken)
    }
}

/// How many tables may stay open.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let tables = limit.map_or(TABLES, |limit| (limit / 8).clamp(16, TABLES));
    usize::try_from(tables).unwrap_or(usize::MAX)
}

/// There was a store, and there is not.
fn lost(folder: &Path) -> Error {
    let remedy = format!(
        "restore {} from a backup; to begin anew with what is left, and without the accounts that are not, remove {}",
        folder.display(),
        Mark::path(folder).display()
    );
    Error::new(Class::Corrupt, "the store has lost its journal, and what was in it").with(remedy)
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

/// EIO: what was written may be gone although the next call succeeds, so nothing is built on such a disk.
const EIO: i32 = 5;

pub(super) fn disk(error: std::io::Error) -> Error {
    if error.raw_os_error() == Some(EIO) {
        return Error::new(Class::Corrupt, "the disk of the store reports errors").with(error);
    }
    Error::new(Class::Unavailable, "the store's folder cannot be used").with(error)
}

/// The same, with the place.
pub(super) fn disk_at(path: &Path, error: std::io::Error) -> Error {
    let detail = format!("{}: {error}", path.display());
    disk(error).with(detail)
}

pub(super) fn broken(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(error) => disk(error),
        // The operating system's word (no descriptors, no room) is no damage; an end of file that comes too early is.
        fjall::Error::Storage(fjall::LsmError::Io(error))
            if error.raw_os_error().is_some() && error.kind() != std::io::ErrorKind::NotFound =>
        {
            disk(error)
        }
        fjall::Error::Locked => Error::LOCKED,
        fjall::Error::Poisoned => Error::new(Class::Unavailable, "a write to disk failed before"),
        other => Error::new(Class::Corrupt, "the store is damaged").with(format!("{other:?}")),
    }
}
