//! FoundationDB, by its official client library (API 7.3). Nothing else in the workspace knows it but the crate that starts
//! the library's network thread.
//!
//! A transaction buffers its writes and remembers its reads here, as for the other engines ([`super::buffered`]); FoundationDB
//! sees snapshot reads, and one commit with all writes and conflict ranges. So what a transaction sees of its own
//! writes, what it conflicts with and what counts for its size are the same on every engine, and the library's own cache of a
//! transaction is off. No retry limit is set, because nothing here retries: that is the runner's business.
//!
//! Watches are set after the commit, each in a transaction of its own that first compares the value with what the
//! committed one saw or wrote.
//!
//! Length: all use of the client library in one place, so that nothing else depends on it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Stopwatch};

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_fdb::foundationdb::options::{
    ConflictRangeType, MutationType, NetworkOption, StreamingMode, TransactionOption,
};
use rookery_fdb::foundationdb::{
    Database as Client, FdbError, FdbResult, KeySelector, RangeOption, Transaction as Trx,
};
use rookery_fdb::{Network, Refused};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::buffered::pending::{Pending, StampedKey, Step, Write, filled};
use super::buffered::span::{Span, next_key};
use super::buffered::{Base, Buffered, Commit, Watched};
use super::engine::CLOSED;
use super::{
    Class, Committed, Database, Error, FdbSettings, Fut, Page, Result, Select, Transaction, Version,
    Versionstamp, limits, meter,
};

/// Commits that may be under way at a time; the end of the store waits for them.
const COMMITS: u32 = 65_536;

/// A FoundationDB cluster.
#[derive(Clone)]
pub struct Fdb(Arc<Inner>);

struct Inner {
    client: Client,
    timeout: Duration,
    commits: Semaphore,
    closed: watch::Sender<bool>,
    /// Microseconds that tests have let pass.
    passed: AtomicU64,
    network: Mutex<Option<Network>>,
}

impl Fdb {
    /// The cluster that `file` names. Does not wait for it: a cluster that cannot be reached makes transactions fail after
    /// their time.
    ///
    /// # Errors
    /// [`Class::Unavailable`] if the file cannot be read, or the client library does not start.
    pub fn open(file: &Path, settings: &FdbSettings) -> Result<Self> {
        let path = file.to_str().ok_or_else(|| {
            Error::new(Class::Misuse, "the path of the cluster file is not text").with(file.display())
        })?;
        let text = std::fs::read_to_string(file).map_err(|error| {
            let detail = format!("{}: {error}", file.display());
            Error::new(Class::Unavailable, "the cluster file cannot be read").with(detail)
        })?;
        // The library finds out on its own thread, and then only answers every transaction that it is unavailable.
        if !names_a_cluster(&text) {
            let said = "the cluster file has no line `description:id@address:port`";
            return Err(Error::new(Class::Unavailable, said).with(file.display()));
        }
        let network = Network::join(options(settings)).map_err(|refused| match refused {
            Refused::Over => {
                Error::new(Class::Unavailable, "FoundationDB's client has ended in this process")
            }
            Refused::Library(error) => broken(error, "FoundationDB's client does not start"),
        })?;
        let client =
            Client::from_path(path).map_err(|error| broken(error, "the cluster file cannot be used"))?;
        Ok(Self(Arc::new(Inner {
            client,
            timeout: settings.timeout,
            commits: Semaphore::new(usize::try_from(COMMITS).unwrap_or(usize::MAX)),
            closed: watch::Sender::new(false),
            passed: AtomicU64::new(0),
            network: Mutex::new(Some(network)),
        })))
    }

    /// Lets time pass for the age of transactions on this side, for tests.
    #[doc(hidden)]
    pub fn pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.passed.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Whether the first line that says something has the form of a connection string.
fn names_a_cluster(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let parts = lines.next().and_then(|line| line.split_once('@'));
    parts.is_some_and(|(name, addresses)| name.contains(':') && addresses.contains(':'))
}

fn options(settings: &FdbSettings) -> Vec<NetworkOption> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut options = Vec::new();
    if let Some(folder) = &settings.trace {
        options.push(NetworkOption::TraceEnable(text(folder)));
        options.push(NetworkOption::TraceFormat("json".to_owned()));
    }
    options.extend(settings.knobs.iter().cloned().map(NetworkOption::Knob));
    options.extend(settings.tls_certificate.as_deref().map(text).map(NetworkOption::TLSCertPath));
    options.extend(settings.tls_key.as_deref().map(text).map(NetworkOption::TLSKeyPath));
    options.extend(settings.tls_ca.as_deref().map(text).map(NetworkOption::TLSCaPath));
    let verify = settings.tls_verify_peers.as_deref().map(|rules| rules.as_bytes().to_vec());
    options.extend(verify.map(NetworkOption::TLSVerifyPeers));
    options
}

impl Database for Fdb {
    fn begin(&self) -> Box<dyn Transaction> {
        Box::new(Buffered::new(Held { inner: self.0.clone(), trx: None, began: None, wanted: None }))
    }

    fn engine(&self) -> &'static str {
        "fdb"
    }

    /// Waits for the commits under way, each of which ends within its time, ends reads and watches, and then the library's
    /// network thread if this is the last store.
    fn close(&self) -> Fut<'_, Result<()>> {
        Box::pin(async {
            self.0.closed.send_replace(true);
            let _ = timeout(self.0.timeout * 2, self.0.commits.acquire_many(COMMITS)).await;
            self.0.commits.close(); // nobody begins another while the network stops
            let network = self.0.network.lock().take();
            let _ = tokio::task::spawn_blocking(move || drop(network)).await;
            Ok(())
        })
    }
}

impl Inner {
    fn now(&self) -> Instant {
        Instant::now() + Duration::from_micros(self.passed.load(Ordering::Relaxed))
    }

    /// A transaction with our limits.
    fn create(&self, wanted: Option<Version>) -> Result<Trx> {
        if *self.closed.borrow() {
            return Err(CLOSED);
        }
        let trx = self.client.create_trx().map_err(refuse)?;
        let millis = i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX);
        trx.set_option(TransactionOption::Timeout(millis)).map_err(refuse)?;
        trx.set_option(TransactionOption::ReadYourWritesDisable).map_err(refuse)?;
        if let Some(version) = wanted {
            trx.set_read_version(i64::try_from(version.0).unwrap_or(i64::MAX));
        }
        Ok(trx)
    }

    /// Waits for an answer, unless the store is closed meanwhile: the library forgets whom it owes one then.
    async fn ask<T>(&self, answer: impl Future<Output = FdbResult<T>>) -> Result<T> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            answer = answer => answer.map_err(refuse),
            _ = closed.wait_for(|closed| *closed) => Err(CLOSED),
        }
    }

    /// The same for a read.
    async fn read<T>(&self, answer: impl Future<Output = FdbResult<T>>) -> Result<T> {
        let since = Stopwatch::now();
        let outcome = self.ask(answer).await;
        match &outcome {
            Ok(_) => meter::read(since),
            Err(error) => meter::refused(error),
        }
        outcome
    }
}

/// A transaction's hold on the cluster.
struct Held {
    inner: Arc<Inner>,
    /// Made with the first call.
    trx: Option<Trx>,
    /// When that was.
    began: Option<Instant>,
    /// At which version to read, and by which to be judged.
    wanted: Option<(Version, Version)>,
}

impl Held {
    /// The library's transaction, if it is not too old.
    fn trx(&mut self) -> Result<&Trx> {
        let now = self.inner.now();
        if *self.began.get_or_insert(now) + limits::AGE < now {
            let error = Error::too_old();
            meter::refused(&error);
            return Err(error);
        }
        match &mut self.trx {
            Some(trx) => Ok(trx),
            none => Ok(none.insert(self.inner.create(self.wanted.map(|(version, _)| version))?)),
        }
    }
}

impl Base for Held {
    fn pin(&mut self, version: Version, judged: Version) {
        self.wanted = Some((version, judged));
    }

    async fn version(&mut self) -> Result<Version> {
        let answer = self.trx()?.get_read_version();
        version(self.inner.read(answer).await?)
    }

    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        let answer = self.trx()?.get(key, true);
        let value = self.inner.read(answer).await?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    async fn page(&mut self, select: &Select) -> Result<Page> {
        let (mut rest, mut rows, mut bytes) = (select.clone(), Vec::new(), 0);
        // A read with a byte limit ends after one storage server's answer: 80 kB, or where its shard ends.
        while rest.begin < rest.end {
            // One row more than asked for tells whether there is more.
            let limit = (select.limit - rows.len()).saturating_add(1).min(i32::MAX as usize);
            let range = RangeOption {
                begin: KeySelector::first_greater_or_equal(&rest.begin[..]),
                end: KeySelector::first_greater_or_equal(&rest.end[..]),
                limit: Some(limit),
                target_bytes: limits::PAGE - bytes,
                mode: StreamingMode::Exact,
                reverse: select.reverse,
                ..RangeOption::default()
            };
            let answer = self.trx()?.get_range(&range, 1, true);
            let values = self.inner.read(answer).await?;
            for row in values.iter() {
                if rows.len() == select.limit {
                    return Ok(Page { rows, more: true });
                }
                bytes += row.key().len() + row.value().len();
                rows.push((Bytes::copy_from_slice(row.key()), Bytes::copy_from_slice(row.value())));
            }
            let more = values.more();
            drop(values);
            let Some((last, _)) = rows.last().filter(|_| more) else { break };
            if bytes >= limits::PAGE {
                return Ok(Page { rows, more: true });
            }
            rest = rest.after(last);
        }
        Ok(Page { rows, more: false })
    }

    async fn commit(mut self, mut commit: Commit) -> Result<Committed> {
        let expected = self.expected(&commit).await?;
        let watches = std::mem::take(&mut commit.watches);
        let committed = if commit.pending.is_empty() {
            Committed { version: self.version().await?, versionstamp: [0; 10] }
        } else {
            let (since, bytes) = (Stopwatch::now(), commit.pending.size());
            let outcome = self.write(commit).await;
            match &outcome {
                Ok(_) => meter::committed(since, bytes),
                Err(error) => meter::refused(error),
            }
            outcome?
        };
        for (watched, expected) in watches.into_iter().zip(expected) {
            tokio::spawn(wait(self.inner.clone(), watched, expected.at(&committed.versionstamp)));
        }
        Ok(committed)
    }
}

impl Held {
    /// What each watch of `commit` waits for the end of.
    async fn expected(&mut self, commit: &Commit) -> Result<Vec<Expected>> {
        let mut all = Vec::with_capacity(commit.watches.len());
        for watched in &commit.watches {
            all.push(match Expected::written(&commit.pending, &watched.key) {
                Some(expected) => expected,
                None => Expected::Value(self.get(&watched.key).await?),
            });
        }
        Ok(all)
    }

    async fn write(&mut self, mut commit: Commit) -> Result<Committed> {
        self.trx()?;
        let Some(mut trx) = self.trx.take() else {
            return Err(CLOSED);
        };
        if let Some((_, judged)) = self.wanted.filter(|(version, judged)| version != judged) {
            // All that it has read is in its conflict set by hand, so another may be judged in its place.
            trx = self.inner.create(Some(judged))?;
        }
        for span in &commit.reads {
            conflict(&trx, span, ConflictRangeType::Read)?;
        }
        for span in &commit.pending.conflicts {
            conflict(&trx, span, ConflictRangeType::Write)?;
        }
        for step in commit.pending.take_steps() {
            write(&trx, step);
        }
        let permit = self.inner.commits.acquire().await.map_err(|_| CLOSED)?;
        // The stamp must be asked for before the commit, and is answered after it.
        let stamp = trx.get_versionstamp();
        let done = trx.commit().await.map_err(|error| outcome(*error))?;
        drop(permit);
        let version = version(done.committed_version().map_err(outcome)?)?;
        let stamp = stamp.await.map_err(outcome)?;
        let versionstamp = stamp.first_chunk().copied().unwrap_or_default();
        Ok(Committed { version, versionstamp })
    }
}

fn version(version: i64) -> Result<Version> {
    let negative = |_| Error::new(Class::Unavailable, "FoundationDB answered with a version below 0");
    Ok(Version(u64::try_from(version).map_err(negative)?))
}

fn conflict(trx: &Trx, span: &Span, kind: ConflictRangeType) -> Result<()> {
    match span {
        Span::Key(key) => trx.add_conflict_range(key, &next_key(key), kind),
        Span::Range(begin, end) => trx.add_conflict_range(begin, end, kind),
    }
    .map_err(refuse)
}

fn write(trx: &Trx, step: Step) {
    match step {
        Step::ClearRange(begin, end) => trx.clear_range(&begin, &end),
        Step::StampedKey(StampedKey { key, offset, value, .. }) => {
            trx.atomic_op(&placed(&key, offset), &value, MutationType::SetVersionstampedKey);
        }
        Step::Key(key, Write::Set(value)) => trx.set(&key, &value),
        Step::Key(key, Write::Clear) => trx.clear(&key),
        Step::Key(key, Write::Add(delta)) => trx.atomic_op(&key, &delta.to_le_bytes(), MutationType::Add),
        Step::Key(key, Write::Stamped(value, offset)) => {
            trx.atomic_op(&key, &placed(&value, offset), MutationType::SetVersionstampedValue);
        }
    }
}

/// `bytes`, and behind them where the versionstamp goes, as the API has it since version 5.2.
fn placed(bytes: &[u8], offset: usize) -> Vec<u8> {
    [bytes, &u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes()].concat()
}

/// What a watcher takes for the present value.
enum Expected {
    /// This; `None`: there is no such key.
    Value(Option<Bytes>),
    /// This with the versionstamp of the commit at the offset.
    Stamped(Bytes, usize),
    /// Only the database knows: the watch ends at once, and its owner reads again.
    Unknown,
}

impl Expected {
    /// What the transaction wrote there, if it did.
    fn written(pending: &Pending, key: &Bytes) -> Option<Self> {
        match pending.writes.get(key) {
            Some(Write::Set(value)) => Some(Self::Value(Some(value.clone()))),
            Some(Write::Clear) => Some(Self::Value(None)),
            Some(Write::Stamped(value, offset)) => Some(Self::Stamped(value.clone(), *offset)),
            Some(Write::Add(_)) => Some(Self::Unknown),
            None => pending.is_cleared(key).then_some(Self::Value(None)),
        }
    }

    /// The value, once the versionstamp is known; `None`: nobody can tell.
    fn at(self, stamp: &Versionstamp) -> Option<Option<Bytes>> {
        match self {
            Self::Value(value) => Some(value),
            Self::Stamped(value, offset) => Some(Some(filled(&value, offset, stamp))),
            Self::Unknown => None,
        }
    }
}

/// Waits until the key has another value, or nobody waits any more.
async fn wait(inner: Arc<Inner>, watched: Watched, expected: Option<Option<Bytes>>) {
    let Watched { key, mut wake } = watched;
    let changed = async {
        let Some(expected) = expected else {
            return Ok(());
        };
        let late = |_| Error::new(Class::Unavailable, "a watch could not be set in time");
        if *inner.closed.borrow() {
            return Err(CLOSED);
        }
        // No timeout of the library's own: it must not end the watch. Its cache cannot be off for watches.
        let trx = inner.client.create_trx().map_err(refuse)?;
        let now = timeout(inner.timeout, inner.ask(trx.get(&key, true))).await.map_err(late)??;
        if now.as_deref() != expected.as_deref() {
            return Ok(());
        }
        let change = trx.watch(&key);
        let set = async { trx.commit().await.map(drop).map_err(FdbError::from) };
        timeout(inner.timeout, inner.ask(set)).await.map_err(late)??;
        inner.ask(change).await
    };
    tokio::select! {
        outcome = changed => drop(wake.send(outcome)),
        () = wake.closed() => {}
    }
}

/// An error of the library's start.
fn broken(error: FdbError, message: &'static str) -> Error {
    Error::new(Class::Unavailable, message).with(format_args!("{} ({})", error.message(), error.code()))
}

/// An error of anything but a commit.
fn refuse(error: FdbError) -> Error {
    classify(error, false)
}

/// An error of a commit that was sent.
fn outcome(error: FdbError) -> Error {
    classify(error, true)
}

/// The class of an error by FoundationDB's predicates and, where those say nothing, by its code. What a commit ends with is
/// "maybe committed" unless it is known that it was not: a timeout says nothing about it, for one.
#[doc(hidden)] // public for the tests, which need the library
pub fn classify(error: FdbError, commit: bool) -> Error {
    let new = |class, message| {
        Error::new(class, message).with(format_args!("{} ({})", error.message(), error.code()))
    };
    match error.code() {
        1007 => Error::too_old(),
        1020 => new(Class::Conflict, "another transaction wrote what this one read"),
        1032 => new(Class::TooLarge, "too many watches"),
        1038 => new(Class::Unavailable, "the database is locked"),
        2101..=2103 => new(Class::TooLarge, "a key, a value or the transaction is too large"),
        // Of versions of the protocol, client and API, addresses, TLS, and tenants, which the cluster may insist on.
        2100 | 2104..=2107 | 2123..=2125 | 2130..=2136 | 2200..=2204 => {
            new(Class::Unavailable, "the cluster cannot be used")
        }
        // The client's own checks, before anything is sent.
        2000..=2999 => new(Class::Misuse, "the transaction broke a rule of FoundationDB"),
        _ if error.is_retryable_not_committed() => new(Class::Retry, "the cluster asks to begin again"),
        _ if commit => new(Class::MaybeCommitted, "whether the commit happened is not known"),
        _ if error.is_retryable() => new(Class::Retry, "the cluster asks to begin again"),
        1031 => new(Class::Unavailable, "the cluster did not answer in time"),
        _ => new(Class::Unavailable, "the cluster cannot be used"),
    }
}
