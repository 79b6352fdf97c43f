//! What all actors of a node share: options, store, clock, timers, budgets, and the list of kinds of actors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Batcher, Store};
use rookery_cluster::tables::archive::IdCipher;
use rookery_cluster::tables::secrets;
use rookery_proto::sasl::Fakes;
use tokio::time::Instant;

use crate::connection::budget::Budget;
use crate::placement::Placement;
use crate::runtime::wheel::Wheel;
use kind::Kinds;
use options::Options;
use state::State;

pub(crate) use state::Entered;

pub mod components;
#[cfg_attr(not(feature = "toys"), allow(dead_code))]
// rooms will be such entities; until then the toy room is
pub(crate) mod entity;
pub mod federation;
mod home;
pub(crate) mod kind;
pub(crate) mod names;
pub mod options;
pub(crate) mod pair;
mod state;

/// The server could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not answer as it must.
    #[error("the store refused: {0}")]
    Store(#[from] store::Error),
}

/// Why a session was not resumed (XEP-0198 section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotResumed {
    /// An id that never was, one of another user, one that has expired: the client binds a new session.
    #[error("there is no session to resume under that id")]
    NotFound,
    /// Nobody could say: the store or the session's home did not answer. The session may well be there, so the client must
    /// not be told that it is lost.
    #[error("it is not known now whether there is a session under that id")]
    Unable,
}

struct Inner {
    options: RwLock<Arc<Options>>,
    store: Store,
    batcher: Batcher,
    seams: Seams,
    kinds: Kinds,
    wheel: Wheel,
    ids: IdCipher,
    dialback: secrets::Secret<32>,
    fakes: RwLock<Fakes>,
    state: State,
    budget: Budget,
    started: Instant,
    stopping: AtomicBool,
    placement: Option<Arc<Placement>>,
}

/// A [`Host`] that does not keep it.
pub(crate) struct WeakHost(std::sync::Weak<Inner>);

impl WeakHost {
    pub(crate) fn upgrade(&self) -> Option<Host> {
        self.0.upgrade().map(Host)
    }
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

impl Host {
    /// A server on which nothing runs yet.
    ///
    /// # Errors
    /// [`Error::Store`] if the store can't be read.
    pub(crate) async fn make(
        options: Options,
        store: Store,
        seams: Seams,
        placement: Option<Arc<Placement>>,
        kinds: Kinds,
    ) -> Result<Self, Error> {
        let random = seams.random.clone();
        let (archive_key, salt, dialback) = store
            .write(store::Options::default(), |tx| {
                let random = random.clone();
                Box::pin(async move {
                    let archive: secrets::Secret<16> =
                        secrets::get_or_make(&mut **tx, secrets::ARCHIVE_KEY, &*random).await?;
                    let salt: secrets::Secret<32> =
                        secrets::get_or_make(&mut **tx, secrets::FAKE_SALT, &*random).await?;
                    let dialback: secrets::Secret<32> =
                        secrets::get_or_make(&mut **tx, secrets::DIALBACK, &*random).await?;
                    Ok((archive, salt, dialback))
                })
            })
            .await?;
        let host = Self(Arc::new(Inner {
            fakes: RwLock::new(Fakes::new(*salt.expose(), options.iterations)),
            state: State::default(),
            budget: Budget::default(),
            options: RwLock::new(Arc::new(options)),
            batcher: Batcher::start(store.clone(), store::BatcherSettings::default()),
            store,
            seams,
            kinds,
            wheel: Wheel::new(),
            ids: IdCipher::new(archive_key.expose()),
            dialback,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            placement,
        }));
        host.budget().set(host.options().limits.waiting(), host.placement().is_some());
        Ok(host)
    }

    /// Changes the keys that are shown for users that do not exist.
    pub(crate) fn change_fakes(&self, change: impl FnOnce(&Fakes) -> Fakes) {
        let mut fakes = self.0.fakes.write();
        *fakes = change(&fakes);
    }

    /// Takes over new options (SIGHUP).
    pub fn reload(&self, options: Options) {
        self.budget().set(options.limits.waiting(), self.placement().is_some());
        self.change_fakes(|fakes| fakes.with_iterations(options.iterations));
        *self.0.options.write() = Arc::new(options);
    }

    /// The options in force.
    pub fn options(&self) -> Arc<Options> {
        self.0.options.read().clone()
    }

    /// Whether users of this domain live here.
    pub fn serves(&self, domain: &str) -> bool {
        self.0.options.read().domain(domain).is_some()
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// Clock and randomness.
    pub fn seams(&self) -> &Seams {
        &self.0.seams
    }

    /// The cipher of archive ids.
    pub fn ids(&self) -> &IdCipher {
        &self.0.ids
    }

    /// What keys of server dialback are made of.
    pub(crate) fn dialback_secret(&self) -> &[u8] {
        self.0.dialback.expose()
    }

    /// How long this process has served.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Keys that look real, for users that do not exist.
    pub fn fakes(&self) -> Fakes {
        self.0.fakes.read().clone()
    }

    /// How many bytes wait for clients of this node: not yet written, or not confirmed.
    pub fn waiting_bytes(&self) -> usize {
        self.budget().waiting()
    }

    /// How much waits for clients.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    pub(crate) fn batcher(&self) -> &Batcher {
        &self.0.batcher
    }

    pub(crate) fn wheel(&self) -> &Wheel {
        &self.0.wheel
    }

    /// What lives elsewhere; nothing does if this node is alone.
    pub(crate) fn placement(&self) -> Option<&Arc<Placement>> {
        self.0.placement.as_ref()
    }

    pub(crate) fn downgrade(&self) -> WeakHost {
        WeakHost(Arc::downgrade(&self.0))
    }

    /// An id for a stanza or a resource: 16 characters, unpredictable.
    pub fn random_id(&self) -> String {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0.seams.bytes::<12>())
    }

    /// A name for a change to somebody else's roster that is remembered until its home has heard of it; 0 where nobody can
    /// miss it, since there is one node.
    pub(crate) fn change_name(&self) -> u64 {
        self.placement().map_or(0, |_| u64::from_le_bytes(self.0.seams.bytes()).max(1))
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(work);
    }

    /// The kinds of actors that have homes.
    pub(crate) fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    /// What a part of the server remembers in this process. What messages need is entered at the start ([`Host::enter`]); the rest is
    /// made when somebody first asks, and looked up behind a lock.
    pub(crate) fn state<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        self.0.state.get()
    }

    /// Enters what messages need of [`Host::state`].
    pub(crate) fn enter(&self, values: Entered) {
        self.0.state.enter(values);
    }

    /// Whether the server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// From now on nothing new is begun.
    pub(crate) fn set_stopping(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }
}
