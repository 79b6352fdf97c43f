//! The engine that memory and embedded share: versions, snapshots, conflicts, versionstamps, watches.
//!
//! Transactions ([`super::buffered`]) buffer their writes and read at a version. A commit is a request; requests are taken in groups: each is
//! checked against what was committed since its read version, the group gets one version, is applied at once (one fsync), and
//! then all are answered. The embedded engine does this on a thread of its own, the memory engine in the committing task, so
//! that a simulation stays deterministic.

mod backend;
mod commit;
mod local;
mod mend;
#[cfg(test)]
mod tests;
mod thread;
mod watch;
mod window;

pub(crate) use backend::{Backend, Changes, Visit};

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch as channel;
use tokio::time::Instant;

use super::buffered::Buffered;
use super::{Class, Database, Error, Fut, Result, Standing, Transaction, Version, limits};
use commit::Committer;
use thread::Lane;
use watch::Watches;

/// The error of everything after the end.
pub(crate) const CLOSED: Error = Error::new(Class::Unavailable, "the store is closed");

/// The data at one version.
pub(crate) struct Snapshot<V> {
    version: Version,
    view: V,
}

/// What readers find.
struct Published<V> {
    current: Arc<Snapshot<V>>,
    /// Those before, oldest first, each with the moment when the next came.
    past: VecDeque<(Instant, Arc<Snapshot<V>>)>,
}

/// One database.
pub(crate) struct Engine<B: Backend> {
    backend: B,
    published: RwLock<Option<Published<B::View>>>,
    /// The oldest version that may still be read.
    oldest: AtomicU64,
    committer: Mutex<Committer>,
    watches: Mutex<Watches>,
    /// After a commit has failed in the backend its outcome is unknown, and nothing goes on before that is mended.
    standing: channel::Sender<Standing>,
    /// Microseconds that tests have let pass.
    passed: AtomicU64,
}

impl<B: Backend> Engine<B> {
    /// An engine whose last version was `version`, with the data of `view`.
    pub(crate) fn new(backend: B, version: Version, view: B::View) -> Self {
        let current = Arc::new(Snapshot { version, view });
        Self {
            backend,
            published: RwLock::new(Some(Published { current, past: VecDeque::new() })),
            oldest: AtomicU64::new(version.0),
            committer: Mutex::new(Committer::starting_at(version)),
            watches: Mutex::new(Watches::default()),
            standing: channel::Sender::default(),
            passed: AtomicU64::new(0),
        }
    }

    /// Now, as ages are counted.
    fn now(&self) -> Instant {
        Instant::now() + Duration::from_micros(self.passed.load(Ordering::Relaxed))
    }

    /// The newest data.
    fn latest(&self) -> Result<Arc<Snapshot<B::View>>> {
        let published = self.published.read();
        published.as_ref().map(|p| Arc::clone(&p.current)).ok_or(CLOSED)
    }

    /// The data at a version that someone saw before.
    fn at(&self, version: Version, now: Instant) -> Result<Arc<Snapshot<B::View>>> {
        let published = self.published.read();
        let published = published.as_ref().ok_or(CLOSED)?;
        if version == published.current.version {
            return Ok(Arc::clone(&published.current));
        }
        if version > published.current.version {
            return Err(Error::new(Class::Retry, "a read version from the future"));
        }
        let past = &published.past;
        let place = past.binary_search_by_key(&version, |(_, snapshot)| snapshot.version);
        match place.ok().and_then(|i| past.get(i)) {
            Some((superseded, snapshot)) if *superseded + limits::AGE >= now => Ok(Arc::clone(snapshot)),
            _ => Err(Error::too_old()),
        }
    }

    /// Whether who began at `began` may still use `version`.
    fn check_age(&self, version: Version, began: Instant, now: Instant) -> Result<()> {
        let forgotten = version.0 < self.oldest.load(Ordering::Acquire);
        if forgotten || began + limits::AGE < now { Err(Error::too_old()) } else { Ok(()) }
    }

    /// Makes a new version visible; forgets those that are too old.
    fn publish(&self, snapshot: Snapshot<B::View>, now: Instant) -> Version {
        let version = snapshot.version;
        let mut guard = self.published.write();
        let Some(published) = guard.as_mut() else {
            return version;
        };
        let before = std::mem::replace(&mut published.current, Arc::new(snapshot));
        published.past.push_back((now, before));
        let mut gone = Vec::new();
        while published.past.front().is_some_and(|(superseded, _)| *superseded + limits::AGE < now) {
            gone.extend(published.past.pop_front());
        }
        let oldest = published.past.front().map_or(version, |(_, snapshot)| snapshot.version);
        self.oldest.store(oldest.0, Ordering::Release);
        drop(guard); // what is gone is dropped outside the lock
        oldest
    }

    /// Lets go of everything; no commit may be running.
    fn shut(&self) -> Result<()> {
        self.published.write().take();
        self.watches.lock().close();
        self.backend.close()
    }
}

/// A database over an engine, as the rest of the program sees it.
pub(crate) struct Handle<B: Backend>(Arc<Shared<B>>);

/// What a database and its transactions hold on to. When the last of them goes, the commit thread ends and the engine closes.
struct Shared<B: Backend> {
    engine: Arc<Engine<B>>,
    lane: Lane<B>,
}

impl<B: Backend> Handle<B> {
    /// Commits in the tasks that commit.
    pub(crate) fn in_place(engine: Engine<B>) -> Self {
        Self(Arc::new(Shared { engine: Arc::new(engine), lane: Lane::in_place() }))
    }

    /// Commits on a thread of its own.
    pub(crate) fn threaded(engine: Engine<B>) -> Result<Self> {
        engine.tend(); // the first look at it must see how it is
        let engine = Arc::new(engine);
        let lane = Lane::threaded(Arc::clone(&engine))?;
        Ok(Self(Arc::new(Shared { engine, lane })))
    }

    /// Lets time pass for the age of transactions, for tests.
    pub(crate) fn pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.engine.passed.fetch_add(micros, Ordering::Relaxed);
    }
}

impl<B: Backend> Database for Handle<B> {
    fn begin(&self) -> Box<dyn Transaction> {
        Box::new(Buffered::new(local::Local::new(Arc::clone(&self.0))))
    }

    fn engine(&self) -> &'static str {
        B::NAME
    }

    fn close(&self) -> Fut<'_, Result<()>> {
        Box::pin(self.0.lane.close(&self.0.engine))
    }

    fn standing(&self) -> channel::Receiver<Standing> {
        self.0.engine.standing.subscribe()
    }
}
