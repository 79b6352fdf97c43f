//! The one way to run transactions: error classes, repetition with jittered pauses, a budget, a deadline, the fence, and
//! the answer to "commit unknown".
//!
//! A commit whose outcome is unknown may still be on its way. So every transaction that writes reads and writes (as
//! conflicts only) a key of its own that all attempts share: once a later attempt is committed, an earlier one that is
//! late must fail. A body whose writes are the same every time is then simply repeated. Any other body names an
//! [`OperationId`]: the mark of that operation is set in the same transaction, and looked for before a repetition. A call
//! that ended without knowing leaves its key behind, and the next commit of this store writes it (as a conflict): what is late
//! cannot undo what was written after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use metrics::counter;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::keys::{Key, Kind};
use super::{Class, Database, Error, Fut, Isolation, Result, Transaction, Tx, Version, Versionstamp, awake};
use crate::entity::{Entity, Shard};
use crate::seams::Seams;

/// A transaction may write that many bytes; the engines allow ten times as much.
pub const BUDGET: usize = 1_000_000;
/// How long a transaction may take, all attempts together, unless its options say otherwise.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The pause before the first repetition, on average; doubles from one to the next …
const PAUSE: Duration = Duration::from_millis(2);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Marks of operations that are over, to be cleared with the next; more are left to [`Store::sweep`].
const FINISHED: usize = 64;

/// Calls that ended in doubt and are to be overtaken.
const DOUBTFUL: usize = 64;

/// Names one operation that must not be done twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OperationId(pub [u8; 16]);

/// How a transaction is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Given if the body does more when it is done twice (adds, versionstamped keys, fresh ids). Made anew for each
    /// call by [`Store::operation`].
    pub operation: Option<OperationId>,
    /// All attempts together, in time in which this process runs; the answer is [`Class::Unavailable`] then, or [`Class::MaybeCommitted`] if a commit was
    /// under way.
    pub deadline: Duration,
    /// The shards whose ownership the fence must prove. None = the transaction needs no owner.
    pub shards: Vec<Shard>,
}

impl Default for Options {
    fn default() -> Self {
        Self { operation: None, deadline: DEADLINE, shards: Vec::new() }
    }
}

impl Options {
    /// The defaults, for a write of the owner of `entity`.
    pub fn owner(entity: &Entity) -> Self {
        Self { shards: vec![entity.shard()], ..Self::default() }
    }

    /// The same, as that operation.
    pub fn operation(mut self, id: OperationId) -> Self {
        self.operation = Some(id);
        self
    }

    /// The same with another deadline.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Ties writes to the right to write: gives them the read version of the node's last beat and puts the rows of node
/// and shards in their conflict set. There is none on a node that is alone.
pub trait Fence: Send + Sync + 'static {
    /// Prepares an attempt before its body runs. The first attempt (`attempt` 0) for shards may read at a cached version. From the
    /// second on the cached version may be what failed, so a fresh one is needed. Fails with [`Class::Fenced`].
    fn join<'a>(
        &'a self,
        tx: &'a mut dyn Transaction,
        shards: &'a [Shard],
        attempt: u32,
    ) -> Fut<'a, Result<()>>;

    /// A transaction that this fence prepared, and that wrote, was committed at `version`. So at that version the node had
    /// the right to write, and the next may read there: it sees what was written here before.
    fn committed(&self, version: Version) {
        let _ = version;
    }

    /// Since which epoch the node owns the shard, if it does, as far as it knows. Says nothing about the store.
    fn epoch(&self, shard: Shard) -> Option<u32> {
        let _ = shard;
        Some(0)
    }

    /// Whether the node owns the shard, as far as it knows.
    fn owns(&self, shard: Shard) -> bool {
        self.epoch(shard).is_some()
    }
}

/// What runs in a transaction: `|tx| Box::pin(async move { … })`. It may be called more than once.
pub trait Body<'env, T>: for<'a> FnMut(&'a mut Tx<'env>) -> Fut<'a, Result<T>> + Send {}

impl<'env, T, F: for<'a> FnMut(&'a mut Tx<'env>) -> Fut<'a, Result<T>> + Send> Body<'env, T> for F {}

/// The store as the program sees it. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    db: Arc<dyn Database>,
    seams: Seams,
    fence: Option<Arc<dyn Fence>>,
    closed: AtomicBool,
    /// Marks to be cleared.
    finished: Mutex<Vec<Bytes>>,
    /// Keys of calls that ended without knowing whether they are committed.
    doubtful: Mutex<Vec<Bytes>>,
}

impl Store {
    /// A store over `db`, without a fence.
    pub fn new(db: Arc<dyn Database>, seams: Seams) -> Self {
        Self::build(db, seams, None)
    }

    /// A store whose writes are fenced.
    pub fn fenced(db: Arc<dyn Database>, seams: Seams, fence: Arc<dyn Fence>) -> Self {
        Self::build(db, seams, Some(fence))
    }

    fn build(db: Arc<dyn Database>, seams: Seams, fence: Option<Arc<dyn Fence>>) -> Self {
        let closed = AtomicBool::new(false);
        let (finished, doubtful) = Default::default();
        Self(Arc::new(Inner { db, seams, fence, closed, finished, doubtful }))
    }

    /// The engine beneath.
    pub fn database(&self) -> &Arc<dyn Database> {
        &self.0.db
    }

    /// Whether this node owns the shard, as far as it knows. A node that is alone owns all.
    pub fn owns(&self, shard: Shard) -> bool {
        self.0.fence.as_ref().is_none_or(|fence| fence.owns(shard))
    }

    /// Since which epoch this node owns the shard, if it does, as far as it knows. A node that is alone owns all, since 0.
    pub fn epoch(&self, shard: Shard) -> Option<u32> {
        self.0.fence.as_ref().map_or(Some(0), |fence| fence.epoch(shard))
    }

    /// What can be done with it now, and whatever becomes of that.
    pub fn standing(&self) -> tokio::sync::watch::Receiver<super::Standing> {
        self.0.db.standing()
    }

    /// The seams it was made with.
    pub fn seams(&self) -> &Seams {
        &self.0.seams
    }

    /// A fresh id for an operation that must not be done twice.
    pub fn operation(&self) -> OperationId {
        OperationId(self.0.seams.bytes())
    }

    /// Waits until everything committed is on disk, then closes. Transactions that run end as unavailable.
    ///
    /// # Errors
    /// Those of the disk.
    pub async fn close(&self) -> Result<()> {
        self.0.closed.store(true, Ordering::Release);
        self.0.db.close().await
    }

    /// Runs a body that only reads, at one version. It is repeated on passing trouble.
    ///
    /// # Errors
    /// Those of the body and the engine; [`Class::Unavailable`] at the default deadline.
    pub async fn read<'env, T>(&self, mut body: impl Body<'env, T>) -> Result<T> {
        let last = Last::default();
        let work = async {
            for attempt in 0.. {
                let mut tx = Tx::new(self.0.db.begin());
                match body(&mut tx).await {
                    Err(error) if error.class.repeats() => {
                        last.lock().replace(error.clone());
                        self.pause(attempt, &error).await?;
                    }
                    outcome => return outcome,
                }
            }
            Err(late(&last))
        };
        awake::within(DEADLINE, work).await.unwrap_or_else(|| Err(late(&last)))
    }

    /// The value of `key` right now.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.read(|tx| Transaction::get(&mut **tx, key, Isolation::Snapshot)).await
    }

    /// Runs a body and commits what it wrote; repeats both on conflicts and passing trouble. The body must not do anything
    /// that cannot be done again, and its writes must be the same each time unless the options name an operation.
    ///
    /// # Errors
    /// Those of the body and the engine; [`Class::TooLarge`] above [`BUDGET`]; at the deadline as [`Options`] says.
    pub async fn write<'env, T: Send>(&self, options: Options, body: impl Body<'env, T>) -> Result<T> {
        self.write_stamped(options, body).await.map(|(value, _)| value)
    }

    /// The same, with the versionstamp of the commit: what the body's versionstamped keys and values have got. Zero if
    /// the body wrote nothing.
    ///
    /// # Errors
    /// Those of [`Store::write`].
    pub async fn write_stamped<'env, T: Send>(
        &self,
        options: Options,
        mut body: impl Body<'env, T>,
    ) -> Result<(T, Versionstamp)> {
        let (doubt, last) = (AtomicBool::new(false), Last::default());
        let id = options.operation.unwrap_or_else(|| self.operation());
        let run = Run { store: self, options: &options, own: own_key(id), doubt: &doubt, last: &last };
        let outcome = awake::within(options.deadline, run.repeat(&mut body)).await;
        match outcome.unwrap_or_else(|| Err(late(&last))) {
            Err(error) if doubt.load(Ordering::Acquire) => {
                run.leave_behind();
                Err(Error { class: Class::MaybeCommitted, ..error })
            }
            outcome => outcome,
        }
    }

    /// Removes marks of operations set before `before` (microseconds since 1970), at most `limit`. A node does this
    /// at its start and now and then; only crashes leave marks.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn sweep(&self, before: u64, limit: usize) -> Result<usize> {
        self.write(Options::default(), |tx| {
            Box::pin(async move {
                let page = tx.scan(marks(), limit).await?;
                let is_old = |mark: &Bytes| read_mark(mark).is_none_or(|mark| mark.at < before);
                let old: Vec<&Bytes> =
                    page.rows.iter().filter(|(_, mark)| is_old(mark)).map(|(key, _)| key).collect();
                old.iter().for_each(|key| tx.clear(key));
                Ok(old.len())
            })
        })
        .await
    }

    /// Waits before attempt `attempt + 1`; gives the error back if there is no point.
    async fn pause(&self, attempt: u32, error: &Error) -> Result<()> {
        counter!("rookery_store_retries_total", "class" => error.class.name()).increment(1);
        if self.0.closed.load(Ordering::Acquire) {
            return Err(error.clone());
        }
        let average = PAUSE.saturating_mul(1 << attempt.min(16)).min(LONGEST_PAUSE);
        let chance = u32::from(u16::from_be_bytes(self.0.seams.bytes()));
        // Between half and one and a half of the average.
        sleep(average / 2 + average * chance / u32::from(u16::MAX)).await;
        Ok(())
    }
}

/// What a transaction does for calls before it, if it is committed.
#[derive(Default)]
struct Claimed {
    overtaken: Vec<Bytes>,
    cleared: Vec<Bytes>,
}

impl Claimed {
    fn settle(&self, inner: &Inner) {
        for (list, done) in [(&inner.doubtful, &self.overtaken), (&inner.finished, &self.cleared)] {
            if !done.is_empty() {
                list.lock().retain(|key| !done.contains(key));
            }
        }
    }
}

/// An attempt at a cached version came to an end that no commit judges: it runs again on what is stored now.
const UNPROVEN: Error = Error::new(Class::Retry, "nothing was written at a cached version");

fn is_unproven(error: &Error) -> bool {
    (error.class, error.message) == (UNPROVEN.class, UNPROVEN.message)
}

/// One call of [`Store::write`].
struct Run<'a> {
    store: &'a Store,
    options: &'a Options,
    own: Bytes,
    /// Whether a commit is, or may be, under way.
    doubt: &'a AtomicBool,
    /// Why the attempt before did not succeed.
    last: &'a Last,
}

impl Run<'_> {
    async fn repeat<'env, T: Send>(&self, body: &mut impl Body<'env, T>) -> Result<(T, Versionstamp)> {
        // What attempts of unknown outcome would have returned.
        let mut unknown: Vec<(u32, T)> = Vec::new();
        for attempt in 0.. {
            let error = match self.attempt(attempt, &mut unknown, body).await {
                Err(error) if is_unproven(&error) => continue,
                Err(error) if error.class.repeats() => error,
                outcome => return outcome,
            };
            self.last.lock().replace(error.clone());
            self.store.pause(attempt, &error).await?;
        }
        Err(late(self.last))
    }

    async fn attempt<'env, T: Send>(
        &self,
        attempt: u32,
        unknown: &mut Vec<(u32, T)>,
        body: &mut impl Body<'env, T>,
    ) -> Result<(T, Versionstamp)> {
        let inner = &self.store.0;
        let mut tx = Tx::new(inner.db.begin());
        if let Some(fence) = &inner.fence {
            fence.join(&mut *tx, &self.options.shards, attempt).await?;
        }
        let named = self.options.operation.is_some();
        if named
            && !unknown.is_empty()
            && let Some(mark) = tx.get(&self.own).await?
        {
            if let Some(mark) = read_mark(&mark)
                && let Some(place) = unknown.iter().position(|(attempt, _)| *attempt == mark.attempt)
            {
                self.settle(named);
                return Ok((unknown.swap_remove(place).1, mark.stamp));
            }
            return Err(Error::new(Class::Misuse, "the id of another operation was used again"));
        }
        // What it reads may be older than what another node has written. A commit with writes is judged; this would not be.
        let cached = attempt == 0 && inner.fence.is_some() && !self.options.shards.is_empty();
        let value = match body(&mut tx).await {
            Err(error) if cached && !error.class.repeats() => return Err(UNPROVEN),
            outcome => outcome?,
        };
        if tx.size() > BUDGET {
            return Err(Error::new(Class::TooLarge, "the transaction is larger than 1 MB"));
        }
        let writes = tx.size() > 0;
        if cached && !writes {
            return Err(UNPROVEN);
        }
        let claimed = if writes { self.claim(&mut tx, attempt, named) } else { Claimed::default() };
        self.doubt.store(writes || !unknown.is_empty(), Ordering::Release);
        match tx.into_inner().commit().await {
            Ok(committed) => {
                self.settle(named && writes);
                claimed.settle(inner);
                if let Some(fence) = inner.fence.as_ref().filter(|_| writes) {
                    fence.committed(committed.version);
                }
                Ok((value, committed.versionstamp))
            }
            Err(error) if error.class == Class::MaybeCommitted => {
                unknown.push((attempt, value));
                Err(error)
            }
            Err(error) => {
                self.doubt.store(!unknown.is_empty(), Ordering::Release);
                Err(error)
            }
        }
    }

    /// Puts the key of this call in the conflict sets, and the mark of a named operation in the store; overtakes doubtful
    /// calls, clears marks, and says which.
    fn claim(&self, tx: &mut Tx<'_>, attempt: u32, named: bool) -> Claimed {
        let overtaken = self.store.0.doubtful.lock().clone();
        let mut cleared = Vec::new();
        for key in &overtaken {
            tx.add_write_conflict(key, &behind(key));
        }
        let end = behind(&self.own);
        tx.add_read_conflict(&self.own, &end);
        if named {
            let mut mark = BytesMut::with_capacity(22);
            mark.put_u32(attempt);
            mark.put_u64(self.store.0.seams.clock.now_micros());
            mark.put_bytes(0, size_of::<Versionstamp>());
            tx.set_versionstamped_value(&self.own, &mark, 12);
            cleared.clone_from(&self.store.0.finished.lock());
            cleared.iter().for_each(|key| tx.clear(key));
        } else {
            tx.add_write_conflict(&self.own, &end);
        }
        Claimed { overtaken, cleared }
    }

    /// The call ends in doubt.
    fn leave_behind(&self) {
        let mut doubtful = self.store.0.doubtful.lock();
        if doubtful.len() >= DOUBTFUL {
            doubtful.remove(0); // the oldest is the least likely to be still on its way
        }
        doubtful.push(self.own.clone());
    }

    /// The call is over; its mark may go.
    fn settle(&self, named: bool) {
        self.doubt.store(false, Ordering::Release);
        let mut finished = self.store.0.finished.lock();
        if named && finished.len() < FINISHED {
            finished.push(self.own.clone());
        }
    }
}

fn behind(key: &[u8]) -> Bytes {
    let mut end = BytesMut::with_capacity(key.len() + 1);
    end.extend_from_slice(key);
    end.put_u8(0);
    end.freeze()
}

/// Marks belong to no entity.
fn own_key(id: OperationId) -> Bytes {
    Key::of(Kind::Operation, &Entity::new("")).fixed(&id.0).finish()
}

fn marks() -> std::ops::Range<Bytes> {
    Key::of(Kind::Operation, &Entity::new("")).range()
}

/// What a mark says.
struct Mark {
    /// The attempt that set it.
    attempt: u32,
    /// When, microseconds since 1970.
    at: u64,
    /// The versionstamp of the commit.
    stamp: Versionstamp,
}

fn read_mark(mark: &[u8]) -> Option<Mark> {
    let (attempt, rest) = mark.split_first_chunk()?;
    let (at, rest) = rest.split_first_chunk()?;
    let stamp = *rest.first_chunk()?;
    Some(Mark { attempt: u32::from_be_bytes(*attempt), at: u64::from_be_bytes(*at), stamp })
}

/// The error of the last attempt, for who reads the log.
type Last = Mutex<Option<Error>>;

fn late(last: &Last) -> Error {
    let late = Error::new(Class::Unavailable, "the store did not answer in time");
    match last.lock().take() {
        Some(Error { message, detail: Some(detail), .. }) => late.with(format_args!("{message}: {detail}")),
        Some(Error { message, .. }) => late.with(message),
        None => late,
    }
}
