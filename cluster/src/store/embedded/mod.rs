//! The embedded engine: one process, one folder, crash-safe. fjall 3.1 keeps the rows; versions, conflicts and group commit
//! are ours (see the engine module).
//!
//! The folder holds `rows/` (fjall's), `lock` (two processes cannot open one folder), `mark` (there was a store, and how far it had
//! come) and, if the journal was ever found damaged, `damaged/` with what was cut out of it.
//!
//! fjall's own ways that matter here: a batch is written to the journal, synced, and only then visible, so readers never
//! see what a crash could take back; when compaction lags behind, writes sleep, which hits our commit thread and no task;
//! clearing a range writes a tombstone per key, so very large ranges are better cleared in pieces.
//!
//! After a write that failed, of the journal or of a table, fjall takes no other for good. The rows are still read then. When the
//! disk takes writes again, everything of fjall's is dropped and opened anew in the same process ([`Backend::mend`]).

mod active;
mod files;
mod journal;
mod lock;
mod mark;
mod opened;
mod space;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Stopwatch};

use bytes::Bytes;
use fjall::{AbstractTree as _, PersistMode, Readable as _};
use parking_lot::{Mutex, RwLock};

use super::engine::{Backend, CLOSED, Changes, Engine, Handle, Visit};
use super::{Class, Database, Error, Fut, Result, Standing, Transaction, Version};
use lock::Lock;
use mark::Mark;
use opened::{BLOCK, LAST, Open, VERSIONS, broken, disk, disk_at};
use space::Space;

/// When a commit counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// A commit is on the disk: it survives a power cut.
    #[default]
    Sync,
    /// The operating system has it: survives the end of the process, not of the machine.
    Buffered,
}

/// How the engine is to behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// When a commit counts as durable.
    pub durability: Durability,
    /// Bytes that must be free on the disk: with less, only what removes is taken. 0 = no matter.
    pub free: u64,
}

/// Without a guard for free space.
impl From<Durability> for Settings {
    fn from(durability: Durability) -> Self {
        Self { durability, free: 0 }
    }
}

/// Writes wait while so many full memtables of a keyspace wait to be written to tables. fjall waits at one more, without an end if
/// the thread that writes them has died.
const SEALED: usize = 3;
/// The same for tables that wait to be merged; fjall waits at 30.
const RUNS: usize = 28;
/// How often a write that waits looks again, and how long it waits before the store counts as broken.
const LOOK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(60);

/// A database in a folder.
pub struct Embedded(Handle<Tables>);

impl Embedded {
    /// Opens or makes the database in `folder`, for the owner of the process alone. Repairs a damaged journal (and says so in the
    /// log).
    ///
    /// # Errors
    /// [`Class::Unavailable`] if another process has it open or the folder cannot be used; [`Class::Corrupt`] if it
    /// is damaged beyond the journal, has lost its journal, or was written by a newer version.
    pub fn open(folder: &Path, settings: impl Into<Settings>) -> Result<Self> {
        let (tables, version) = Tables::open(folder, settings.into())?;
        let view = tables.view()?;
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

    fn standing(&self) -> tokio::sync::watch::Receiver<Standing> {
        self.0.standing()
    }
}

/// The error of reads while the rows are opened again.
const OPENING: Error = Error::new(Class::Unavailable, "the store is being opened again");

/// The rows on disk.
pub(crate) struct Tables {
    folder: PathBuf,
    settings: Settings,
    state: RwLock<State>,
    /// How often the rows were opened again.
    openings: AtomicU64,
    /// The end of the reserved versions.
    reserved: Mutex<u64>,
    mark: Mark,
    space: Space,
    /// Until the store is closed. Goes last.
    lock: Mutex<Option<Lock>>,
}

/// Whether there is something to read.
enum State {
    Open(Open),
    /// A write failed, and the rows could not be opened again yet.
    Broken,
    Closed,
}

/// The data at one version, as one opening sees it.
pub(crate) struct View {
    snapshot: fjall::Snapshot,
    opening: u64,
}

impl Tables {
    fn open(folder: &Path, settings: Settings) -> Result<(Self, Version)> {
        files::make(folder).map_err(|e| disk_at(folder, e))?;
        let lock = Lock::take(folder)?;
        files::own(folder).map_err(|e| disk_at(folder, e))?;
        let (open, first) = Open::at(folder, 0)?;
        let mark = Mark::open(folder, open.last()?).map_err(|e| disk_at(folder, e))?;
        let space = Space::new(settings.free);
        space.look(folder);
        let tables = Self {
            folder: folder.to_owned(),
            settings,
            reserved: Mutex::new(open.reserved),
            state: RwLock::new(State::Open(open)),
            openings: AtomicU64::new(0),
            mark,
            space,
            lock: Mutex::new(Some(lock)),
        };
        Ok((tables, first))
    }

    fn with<T>(&self, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        match &*self.state.read() {
            State::Open(open) => work(open),
            State::Broken => Err(OPENING),
            State::Closed => Err(CLOSED),
        }
    }

    /// The same for reads at a view, which must be of this opening.
    fn at<T>(&self, view: &View, work: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        self.with(|open| if view.opening == open.opening { work(open) } else { Err(Error::too_old()) })
    }

    /// The data as it is.
    fn view(&self) -> Result<View> {
        self.with(|open| Ok(View { snapshot: open.database.snapshot(), opening: open.opening }))
    }
}

/// Waits as fjall would, but not for a thread that has died.
fn wait_for_tables(open: &Open) -> Result<()> {
    let began = Stopwatch::now();
    for keyspace in [&open.rows, &open.meta] {
        while keyspace.tree.sealed_memtable_count() >= SEALED || keyspace.tree.l0_run_count() >= RUNS {
            open.check()?;
            if began.elapsed() > PATIENCE {
                return Err(Error::new(Class::Unavailable, "the tables of the store are not written"));
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

impl Backend for Tables {
    type View = View;
    const NAME: &'static str = "embedded";

    fn get(&self, view: &View, key: &[u8]) -> Result<Option<Bytes>> {
        self.at(view, |open| Ok(view.snapshot.get(&open.rows, key).map_err(broken)?.map(Bytes::from)))
    }

    fn scan(
        &self,
        view: &View,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        if begin >= end {
            return Ok(());
        }
        self.at(view, |open| {
            let mut rows = view.snapshot.range(&open.rows, begin..end);
            while let Some(row) = if reverse { rows.next_back() } else { rows.next() } {
                let (key, value) = row.into_inner().map_err(broken)?;
                if visit(key.into(), value.into()).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn apply(&self, version: Version, changes: Changes) -> Result<View> {
        self.with(|open| {
            wait_for_tables(open)?;
            let mode = match self.settings.durability {
                Durability::Sync => PersistMode::SyncData,
                Durability::Buffered => PersistMode::Buffer,
            };
            let (room, empty) = (changes.len() + 2, changes.is_empty());
            let mut batch =
                fjall::OwnedWriteBatch::with_capacity(open.database.clone(), room).durability(Some(mode));
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(&open.rows, key, value),
                    None => batch.remove(&open.rows, key),
                }
            }
            if !empty {
                batch.insert(&open.meta, LAST, version.0.to_be_bytes());
            }
            let mut reserved = self.reserved.lock();
            if version.0 >= *reserved {
                *reserved = version.0.saturating_add(BLOCK);
                batch.insert(&open.meta, VERSIONS, reserved.to_be_bytes());
            }
            drop(reserved);
            batch.commit().map_err(broken)?;
            if !empty {
                self.mark.note(version);
            }
            Ok(View { snapshot: open.database.snapshot(), opening: open.opening })
        })
    }

    fn room(&self) -> Result<()> {
        self.space.check()
    }

    fn tend(&self) -> Result<()> {
        self.space.look(&self.folder);
        if let Err(error) = self.mark.write() {
            tracing::debug!(%error, "the mark file of the store could not be written");
        }
        self.with(Open::check)
    }

    fn mend(&self) -> Result<(Version, View)> {
        let rows = opened::rows(&self.folder);
        // What can be read is read on until there is hope.
        match self.with(|_| active::bytes(&rows).map_err(disk)) {
            Ok(needed) => files::probe(&self.folder, needed).map_err(disk)?,
            Err(error) if error.message == OPENING.message => {}
            Err(error) => return Err(error),
        }
        let before = std::mem::replace(&mut *self.state.write(), State::Broken);
        drop(before); // and with it what fjall has open
        active::renew(&rows).map_err(disk)?;
        let opening = self.openings.fetch_add(1, Ordering::Relaxed) + 1;
        let (open, first) = Open::at(&self.folder, opening)?;
        *self.reserved.lock() = open.reserved;
        self.mark.note(open.last()?);
        let view = View { snapshot: open.database.snapshot(), opening };
        *self.state.write() = State::Open(open);
        self.space.look(&self.folder);
        Ok((first, view))
    }

    fn forget(&self, _: Version) {} // a snapshot that is dropped is forgotten

    fn close(&self) -> Result<()> {
        let before = std::mem::replace(&mut *self.state.write(), State::Closed);
        let State::Open(open) = before else {
            self.lock.lock().take();
            return Ok(());
        };
        let durable = open.database.persist(PersistMode::SyncAll).map_err(broken);
        if durable.is_ok() {
            self.mark.close();
        }
        drop(open);
        self.lock.lock().take();
        durable
    }
}

#[cfg(test)]
mod tests;
