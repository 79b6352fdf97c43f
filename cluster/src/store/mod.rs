//! The store: one transaction trait in FoundationDB's own verbs, its engines, and the runner.
//!
//! Everything here could be done by FoundationDB, with its limits ([`limits`]): keys to 10 kB, values to 100 kB,
//! transactions to 10 MB and 5 s, serialisable isolation by conflict ranges, versionstamps in commit order.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::watch;

mod awake;
pub mod batcher;
mod buffered;
#[doc(hidden)]
pub mod conformance;
pub mod dev;
pub mod embedded;
mod engine;
mod error;
pub mod faults;
#[cfg(feature = "fdb")]
pub mod fdb;
pub mod keys;
pub mod memory;
mod meter;
pub mod op;
mod open;
pub mod runner;
pub mod split;
mod standing;
mod tx;

pub use batcher::{Batcher, Edit, Line, Settings as BatcherSettings, Writes};
pub use embedded::{Durability, Settings as EmbeddedSettings};
pub use error::{Class, Error};
pub use op::{Mutate, Op, Ops};
pub use open::{FdbSettings, Place, Url, open};
pub use runner::{Fence, OperationId, Options, Store};
pub use standing::Standing;
pub use tx::Tx;

/// What this module returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A position in the order of commits. Grows with every commit; not a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// For who knows only that something was committed at this version: commits of one batch share theirs, and others of that batch may
    /// have come behind it. They count as unseen if one is judged by this.
    pub(crate) fn before(self) -> Self {
        Self(self.0.saturating_sub(1).max(1))
    }
}

/// The ten bytes that order a commit, and what it wrote, among all others: eight of the version, two of the
/// transaction's place within it.
pub type Versionstamp = [u8; 10];

/// The limits that every engine enforces, FoundationDB's.
pub mod limits {
    /// The longest key, bytes.
    pub const KEY: usize = 10_000;
    /// The longest value, bytes.
    pub const VALUE: usize = 100_000;
    /// The largest transaction (keys and values written, and conflict ranges), bytes.
    pub const TRANSACTION: usize = 10_000_000;
    /// A page of a range read ends behind the row with which it reaches this many bytes, whatever its limit.
    pub const PAGE: usize = 1_000_000;
    /// The watches that may wait at one time.
    pub const WATCHES: usize = 10_000;
    /// How long a read version serves.
    pub const AGE: std::time::Duration = std::time::Duration::from_secs(5);
}

/// Whether a read joins the transaction's conflict set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// The commit fails with [`Class::Conflict`] if another transaction wrote what was read.
    Serializable,
    /// The read conflicts with nothing.
    Snapshot,
}

/// One page of a range read.
#[derive(Clone, Debug)]
pub struct Select {
    /// First key, included.
    pub begin: Bytes,
    /// End key, excluded.
    pub end: Bytes,
    /// From the end to the beginning.
    pub reverse: bool,
    /// At most that many rows.
    pub limit: usize,
}

impl Select {
    /// All keys of `range`, ascending, at most `limit` rows.
    pub fn range(range: Range<Bytes>, limit: usize) -> Self {
        Self { begin: range.start, end: range.end, reverse: false, limit }
    }

    /// The same, descending.
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// What remains after `key` in this direction: the way to the next page.
    pub fn after(mut self, key: &[u8]) -> Self {
        if self.reverse {
            self.end = Bytes::copy_from_slice(key);
        } else {
            let mut next = Vec::with_capacity(key.len() + 1);
            next.extend_from_slice(key);
            next.push(0);
            self.begin = next.into();
        }
        self
    }
}

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// What a range read returns.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The rows, in the direction that was asked for.
    pub rows: Vec<Row>,
    /// Whether there is more behind the last row.
    pub more: bool,
}

/// A boxed future, as the object-safe traits below return them.
pub type Fut<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A database: makes transactions. Cheap to clone behind an `Arc`.
pub trait Database: Send + Sync + 'static {
    /// Begins a transaction. Nothing is read before the first read.
    fn begin(&self) -> Box<dyn Transaction>;

    /// The engine's name for logs and metrics: `memory`, `embedded`, `fdb`, `dev`.
    fn engine(&self) -> &'static str;

    /// Waits until everything committed is on disk, then closes. Later transactions fail as unavailable.
    fn close(&self) -> Fut<'_, Result<()>>;

    /// What can be done with it now. An engine that keeps nothing on a disk of this machine is always well.
    fn standing(&self) -> watch::Receiver<Standing> {
        watch::Sender::default().subscribe()
    }
}

/// A transaction. Reads see its own writes; nothing is visible to others before [`Transaction::commit`].
///
/// Keys are 1 to [`limits::KEY`] bytes long and sort before the byte `ff`; what begins with `ff` is the engine's. Writes
/// return nothing: what is wrong with one (too long, outside) is the error of the commit, as in FoundationDB. A read of what
/// depends on a versionstamp that is not known yet is [`Class::Misuse`].
pub trait Transaction: Send {
    /// The value of `key`.
    fn get<'a>(&'a mut self, key: &'a [u8], isolation: Isolation) -> Fut<'a, Result<Option<Bytes>>>;
    /// One page of a range.
    fn range(&mut self, select: Select, isolation: Isolation) -> Fut<'_, Result<Page>>;
    /// Sets `key` to `value`.
    fn set(&mut self, key: &[u8], value: &[u8]);
    /// The same as [`Transaction::set`] for a caller that owns the bytes: an engine in this process need not copy them.
    fn set_owned(&mut self, key: Bytes, value: Bytes) {
        self.set(&key, &value);
    }
    /// Removes `key`.
    fn clear(&mut self, key: &[u8]);
    /// Removes all keys from `begin` (included) to `end` (excluded).
    fn clear_range(&mut self, begin: &[u8], end: &[u8]);
    /// Adds to a little-endian 64-bit integer without reading it; a missing value counts as 0. Wraps.
    fn add(&mut self, key: &[u8], delta: i64);
    /// Sets `key`, in which the ten bytes at `offset` become the commit's versionstamp.
    fn set_versionstamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]);
    /// Sets `key` to `value`, in which the ten bytes at `offset` become the commit's versionstamp.
    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: usize);
    /// Conflict with writes of others to this range although it was not read.
    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]);
    /// Make others that read this range conflict although it was not written.
    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]);
    /// Read at this version, which an earlier transaction saw or had, instead of a fresh one; conflict with what was written after
    /// `judged`, which is that version or an earlier one.
    fn set_read_version(&mut self, version: Version, judged: Version);
    /// The version this transaction reads at.
    fn read_version(&mut self) -> Fut<'_, Result<Version>>;
    /// A future that ends when, after this transaction's commit, the value of `key` is another than this transaction
    /// saw (or wrote). The future may also end without a change, so read again. It fails if the transaction does not commit.
    fn watch(&mut self, key: &[u8]) -> Fut<'static, Result<()>>;
    /// Bytes written so far (keys, values, and the conflict ranges of writes). The commit adds those of reads and compares
    /// with [`limits::TRANSACTION`]. 0 = a read-only transaction.
    fn size(&self) -> usize;
    /// Commits. On success all that was written is durable as the engine is configured.
    fn commit(self: Box<Self>) -> Fut<'static, Result<Committed>>;
}

/// What a commit returns.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The version of the commit; for a read-only transaction its read version.
    pub version: Version,
    /// What was filled in for versionstamps; zero for a read-only transaction.
    pub versionstamp: Versionstamp,
}
