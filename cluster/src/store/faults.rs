//! Fault injection: wraps any database and gives it FoundationDB's bad days, by script or by a seeded die.
//!
//! Faults strike commits that write, one each; [`Faults::set_reachable`] and latency strike reads too. The same seed and
//! the same order of commits give the same faults.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Class, Committed, Database, Error, Fut, Isolation, Page, Result, Select, Standing, Transaction, Version,
};

/// What happens to one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing; it goes through.
    None,
    /// Refused as a conflict.
    Conflict,
    /// Refused as too old.
    TooOld,
    /// Refused as too large.
    Refused,
    /// Done, and reported as unknown.
    UnknownDone,
    /// Not done, and reported as unknown.
    UnknownLost,
    /// Reported as unknown, and done only at [`Faults::release`] (if it does not conflict by then).
    UnknownLate,
    /// Not done: the store cannot be reached.
    Unreachable,
    /// Done after this time.
    Latency(Duration),
    /// Never answered, never done.
    Hang,
    /// Done, and never answered.
    Mute,
}

impl Fault {
    /// The word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Conflict => "conflict",
            Self::TooOld => "too old",
            Self::Refused => "refused as too large",
            Self::UnknownDone => "unknown result that was done",
            Self::UnknownLost => "unknown result that was not done",
            Self::UnknownLate => "unknown result that came late",
            Self::Unreachable => "unreachable",
            Self::Latency(_) => "latency",
            Self::Hang => "hang",
            Self::Mute => "done and not answered",
        }
    }
}

/// How often in a thousand commits each fault strikes.
#[derive(Clone, Copy, Default, Debug)]
#[allow(missing_docs)] // each is the fault of its name
pub struct Chances {
    pub conflict: u16,
    pub too_old: u16,
    pub unknown_done: u16,
    pub unknown_lost: u16,
    pub unknown_late: u16,
    pub unreachable: u16,
    pub latency: u16,
    /// The latency when it strikes, at most.
    pub longest: Duration,
}

struct State {
    script: VecDeque<Fault>,
    chances: Chances,
    die: u64,
    late: Vec<Box<dyn Transaction>>,
    /// How often each fault struck, by its name.
    tally: BTreeMap<&'static str, u64>,
}

struct Shared {
    state: Mutex<State>,
    reachable: AtomicBool,
    /// Calls that failed because the store could not be reached.
    failed: AtomicU64,
    /// How many faults struck so far.
    struck: watch::Sender<u64>,
}

/// A database with faults.
pub struct Faults {
    inner: Arc<dyn Database>,
    shared: Arc<Shared>,
}

impl Faults {
    /// No faults until a script is set.
    pub fn new(inner: Arc<dyn Database>) -> Self {
        Self::random(inner, 0, Chances::default())
    }

    /// Faults by chance.
    pub fn random(inner: Arc<dyn Database>, seed: u64, chances: Chances) -> Self {
        let state =
            State { script: VecDeque::new(), chances, die: seed, late: Vec::new(), tally: BTreeMap::new() };
        Self {
            inner,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                reachable: AtomicBool::new(true),
                failed: AtomicU64::new(0),
                struck: watch::Sender::new(0),
            }),
        }
    }

    /// The next commits get these faults, in this order, before chance decides again.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.state.lock().script.extend(faults);
    }

    /// Faults by chance from now on.
    pub fn set_chances(&self, chances: Chances, seed: u64) {
        let mut state = self.shared.state.lock();
        (state.chances, state.die) = (chances, seed);
    }

    /// Whether the store can be reached.
    pub fn set_reachable(&self, reachable: bool) {
        self.shared.reachable.store(reachable, Ordering::Release);
    }

    /// How many calls failed so far because the store could not be reached.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// How many faults struck so far.
    pub fn struck(&self) -> u64 {
        *self.shared.struck.borrow()
    }

    /// Waits until more faults than that have struck.
    pub async fn strikes_after(&self, before: u64) {
        let mut struck = self.shared.struck.subscribe();
        // The sender lives as long as this.
        let _ = struck.wait_for(|struck| *struck > before).await;
    }

    /// How often each fault struck so far.
    pub fn tally(&self) -> BTreeMap<&'static str, u64> {
        self.shared.state.lock().tally.clone()
    }

    /// Lets the late commits arrive, the oldest first, and returns what became of each.
    pub async fn release(&self) -> Vec<Result<Committed>> {
        let late = std::mem::take(&mut self.shared.state.lock().late);
        let mut outcomes = Vec::new();
        for transaction in late {
            outcomes.push(transaction.commit().await);
        }
        outcomes
    }
}

impl Database for Faults {
    fn begin(&self) -> Box<dyn Transaction> {
        Box::new(Faulty { inner: self.inner.begin(), shared: Arc::clone(&self.shared) })
    }

    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn close(&self) -> Fut<'_, Result<()>> {
        self.inner.close()
    }

    fn standing(&self) -> watch::Receiver<Standing> {
        self.inner.standing()
    }
}

impl State {
    /// The next number below `bound`: splitmix64.
    fn roll(&mut self, bound: u64) -> u64 {
        self.die = self.die.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.die;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    fn next(&mut self) -> Fault {
        let fault = self.script.pop_front().unwrap_or_else(|| self.chance());
        if fault != Fault::None {
            *self.tally.entry(fault.name()).or_default() += 1;
        }
        fault
    }

    fn chance(&mut self) -> Fault {
        let mut rolled = self.roll(1000);
        let chances = self.chances;
        let latency = Duration::from_micros(
            self.roll(u64::try_from(chances.longest.as_micros()).unwrap_or(u64::MAX).saturating_add(1)),
        );
        for (chance, fault) in [
            (chances.conflict, Fault::Conflict),
            (chances.too_old, Fault::TooOld),
            (chances.unknown_done, Fault::UnknownDone),
            (chances.unknown_lost, Fault::UnknownLost),
            (chances.unknown_late, Fault::UnknownLate),
            (chances.unreachable, Fault::Unreachable),
            (chances.latency, Fault::Latency(latency)),
        ] {
            match rolled.checked_sub(chance.into()) {
                Some(rest) => rolled = rest,
                None => return fault,
            }
        }
        Fault::None
    }
}

fn unreachable() -> Error {
    Error::new(Class::Unavailable, "the store cannot be reached")
}

fn unknown() -> Error {
    Error::new(Class::MaybeCommitted, "whether the commit happened is not known")
}

struct Faulty {
    inner: Box<dyn Transaction>,
    shared: Arc<Shared>,
}

impl Faulty {
    /// Whether the store cannot be reached; then the call that asks fails.
    fn cut_off(&self) -> bool {
        let cut_off = !self.shared.reachable.load(Ordering::Acquire);
        self.shared.failed.fetch_add(u64::from(cut_off), Ordering::AcqRel);
        cut_off
    }
}

/// A call that fails at once.
fn failed<'a, T: Send + 'a>(error: Error) -> Fut<'a, Result<T>> {
    Box::pin(std::future::ready(Err(error)))
}

impl Transaction for Faulty {
    fn get<'a>(&'a mut self, key: &'a [u8], isolation: Isolation) -> Fut<'a, Result<Option<Bytes>>> {
        if self.cut_off() {
            return failed(unreachable());
        }
        self.inner.get(key, isolation)
    }

    fn range(&mut self, select: Select, isolation: Isolation) -> Fut<'_, Result<Page>> {
        if self.cut_off() {
            return failed(unreachable());
        }
        self.inner.range(select, isolation)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.inner.set(key, value);
    }

    fn set_owned(&mut self, key: Bytes, value: Bytes) {
        self.inner.set_owned(key, value);
    }

    fn clear(&mut self, key: &[u8]) {
        self.inner.clear(key);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.clear_range(begin, end);
    }

    fn add(&mut self, key: &[u8], delta: i64) {
        self.inner.add(key, delta);
    }

    fn set_versionstamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]) {
        self.inner.set_versionstamped_key(key, offset, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: usize) {
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
        if self.cut_off() {
            return failed(unreachable());
        }
        self.inner.read_version()
    }

    fn watch(&mut self, key: &[u8]) -> Fut<'static, Result<()>> {
        self.inner.watch(key)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn commit(self: Box<Self>) -> Fut<'static, Result<Committed>> {
        if self.cut_off() {
            return failed(unreachable());
        }
        let Self { mut inner, shared } = *self;
        if inner.size() == 0 {
            return inner.commit();
        }
        Box::pin(async move {
            let fault = shared.state.lock().next();
            if fault != Fault::None {
                shared.struck.send_modify(|struck| *struck += 1);
            }
            match fault {
                Fault::None => inner.commit().await,
                Fault::Conflict => Err(Error::new(Class::Conflict, "an injected conflict")),
                Fault::TooOld => Err(Error::new(Class::Retry, "an injected old age")),
                Fault::Refused => Err(Error::new(Class::TooLarge, "an injected size")),
                Fault::UnknownDone => inner.commit().await.and(Err(unknown())),
                Fault::UnknownLost => Err(unknown()),
                Fault::UnknownLate => {
                    // A commit under way has its read version already.
                    inner.read_version().await?;
                    shared.state.lock().late.push(inner);
                    Err(unknown())
                }
                Fault::Unreachable => Err(unreachable()),
                Fault::Latency(time) => {
                    tokio::time::sleep(time).await;
                    inner.commit().await
                }
                Fault::Hang => std::future::pending().await,
                Fault::Mute => {
                    inner.commit().await?;
                    std::future::pending().await
                }
            }
        })
    }
}
