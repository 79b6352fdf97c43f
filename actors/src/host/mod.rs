//! The server as the program sees it: what users and sessions share, and the way to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use rookery_cluster::entity::{SHARDS, Shard};
use rookery_cluster::mesh::Cluster;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Batcher, Store};
use rookery_cluster::tables::archive::IdCipher;
use rookery_cluster::tables::secrets;
use rookery_proto::sasl::Fakes;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::connection::budget::Budget;
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Pipe;
use crate::features::xep_0077_registration::{Hourly, Registrations};
use crate::features::xep_0115_caps;
use crate::host::options::Options;
use crate::maintenance;
use crate::maintenance::quota::Quotas;
use crate::placement::Placement;
use crate::runtime::actor::Refused;
use crate::runtime::directory::{Directory, SWEEPS};
use crate::runtime::origin::Origin;
use crate::runtime::wheel::Wheel;
use crate::session::handle::{Authenticated, ConnInfo, Connections, SessionHandle};
use crate::session::{self, Session, SessionId};
use crate::spread;
use crate::user::{self, Change, Inbound, User};

pub mod options;
mod stop;

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
    users: Directory<BareJid, User>,
    sessions: Directory<SessionId, Session>,
    wheel: Wheel,
    ids: IdCipher,
    fakes: RwLock<Fakes>,
    registrations: Registrations,
    password_changes: Hourly,
    quotas: Arc<Quotas>,
    caps: xep_0115_caps::Cache,
    connections: Connections,
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
    /// Starts the server on `store` and brings back the sessions that outlived the last process.
    ///
    /// # Errors
    /// [`Error::Store`] if the store can't be read.
    pub async fn start(options: Options, store: Store, seams: Seams) -> Result<Self, Error> {
        let host = Self::make(options, store, seams, None).await?;
        host.restore().await?;
        Ok(host)
    }

    async fn make(
        options: Options,
        store: Store,
        seams: Seams,
        placement: Option<Arc<Placement>>,
    ) -> Result<Self, Error> {
        let random = seams.random.clone();
        let (archive_key, salt) = store
            .write(store::Options::default(), |tx| {
                let random = random.clone();
                Box::pin(async move {
                    let archive: secrets::Secret<16> =
                        secrets::get_or_make(&mut **tx, secrets::ARCHIVE_KEY, &*random).await?;
                    let salt: secrets::Secret<32> =
                        secrets::get_or_make(&mut **tx, secrets::FAKE_SALT, &*random).await?;
                    Ok((archive, salt))
                })
            })
            .await?;
        let host = Self(Arc::new(Inner {
            fakes: RwLock::new(Fakes::new(*salt.expose(), options.iterations)),
            registrations: Registrations::default(),
            password_changes: Hourly::default(),
            quotas: Arc::default(),
            caps: xep_0115_caps::Cache::default(),
            connections: Connections::default(),
            budget: Budget::default(),
            options: RwLock::new(Arc::new(options)),
            batcher: Batcher::start(store.clone(), store::BatcherSettings::default()),
            store,
            seams,
            // By shard: giving one up looks at no others.
            users: Directory::new(|user| Shard::of(user.as_str()).0.into()),
            sessions: Directory::new(|SessionId([first, second, ..])| {
                u16::from_le_bytes([*first, *second]).into()
            }),
            wheel: Wheel::new(),
            ids: IdCipher::new(archive_key.expose()),
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            placement,
        }));
        host.budget().set(host.options().limits.waiting(), host.placement().is_some());
        tokio::spawn(housekeeping(Arc::downgrade(&host.0)));
        host.maintain();
        // Answers for nobody must not be different for a moment after each start; but nothing depends on it.
        let _ = tokio::time::timeout(spread::PATIENCE, host.look_at_counts()).await;
        tokio::spawn(spread::run(WeakHost(Arc::downgrade(&host.0))));
        Ok(host)
    }

    /// Looks how many rounds the passwords of real accounts have.
    pub(crate) async fn look_at_counts(&self) {
        let domains: Vec<String> = self.options().domains.iter().map(|domain| domain.name.clone()).collect();
        match spread::sample(&self.0.store, &domains).await {
            Ok(sample) => {
                let mut fakes = self.0.fakes.write();
                *fakes = fakes.with_sample(sample);
            }
            Err(error) => tracing::debug!(%error, "the counts of iterations were not read"),
        }
    }

    /// The same for a node among others, whose actors write through `store`, that of the cluster's mesh. What lives on a shard
    /// comes with the shard.
    ///
    /// # Errors
    /// Those of [`Host::start`].
    pub async fn start_in(
        options: Options,
        store: Store,
        seams: Seams,
        cluster: Cluster,
    ) -> Result<Self, Error> {
        let events = cluster.mesh().events();
        let placement = Placement::new(cluster.clone(), u64::from_le_bytes(seams.bytes()));
        let host = Self::make(options, store, seams, Some(placement)).await?;
        cluster.set_handoff(host.handoff());
        host.join(events);
        Ok(host)
    }

    /// Starts the background jobs; they end when the server stops.
    fn maintain(&self) {
        let inner = Arc::downgrade(&self.0);
        let options = move || {
            let inner = inner.upgrade().filter(|inner| !inner.stopping.load(Ordering::Relaxed))?;
            Some(inner.options.read().clone())
        };
        let (store, seams, quotas) = (self.0.store.clone(), self.0.seams.clone(), self.0.quotas.clone());
        tokio::spawn(maintenance::run(store, seams, quotas, options));
    }

    /// Activates every user with a session on record, so that its presence is there and its time runs.
    async fn restore(&self) -> Result<(), Error> {
        let mut restored = 0u64;
        for shard in 0..SHARDS {
            restored += self.restore_shard(Shard(shard), || true).await?;
        }
        if restored > 0 {
            tracing::info!(sessions = restored, "sessions of the last process wait for resumption");
        }
        Ok(())
    }

    pub(crate) fn wake(&self, jid: &BareJid) {
        let _ = self.cast_user(jid, user::Msg::Then(Box::new(|_| {})));
    }

    /// Takes over new options (SIGHUP).
    pub fn reload(&self, options: Options) {
        self.budget().set(options.limits.waiting(), self.placement().is_some());
        {
            let mut fakes = self.0.fakes.write();
            *fakes = fakes.with_iterations(options.iterations);
        }
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

    /// How long this process has served.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// Keys that look real, for users that do not exist.
    pub fn fakes(&self) -> Fakes {
        self.0.fakes.read().clone()
    }

    /// Who has registered lately (XEP-0077).
    pub fn registrations(&self) -> &Registrations {
        &self.0.registrations
    }

    /// Accounts whose password was changed lately (XEP-0077).
    pub(crate) fn password_changes(&self) -> &Hourly {
        &self.0.password_changes
    }

    /// What archives may hold.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.0.quotas
    }

    /// How many bytes wait for clients of this node: not yet written, or not confirmed.
    pub fn waiting_bytes(&self) -> usize {
        self.budget().waiting()
    }

    /// How much waits for clients.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    pub(crate) fn caps(&self) -> &xep_0115_caps::Cache {
        &self.0.caps
    }

    pub(crate) fn batcher(&self) -> &Batcher {
        &self.0.batcher
    }

    pub(crate) fn wheel(&self) -> &Wheel {
        &self.0.wheel
    }

    pub(crate) fn sessions(&self) -> &Directory<SessionId, Session> {
        &self.0.sessions
    }

    pub(crate) fn users(&self) -> &Directory<BareJid, User> {
        &self.0.users
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// What lives elsewhere; nothing does if this node is alone.
    pub(crate) fn placement(&self) -> Option<&Arc<Placement>> {
        self.0.placement.as_ref()
    }

    pub(crate) fn stopping(&self) -> &AtomicBool {
        &self.0.stopping
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

    /// Opens a session (RFC 6120 section 7).
    ///
    /// # Errors
    /// What to answer the bind request with.
    pub async fn bind(
        &self,
        who: Authenticated,
        resource: Option<&str>,
        conn: ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, StanzaError> {
        if self.0.stopping.load(Ordering::Relaxed) {
            return Err(StanzaError::new(Condition::ServiceUnavailable));
        }
        loop {
            if !self.is_home(who.jid()) {
                let link = self.bind_away(&who, resource, &conn, pipe).await?;
                return Ok(link.known(&self.0.connections, conn));
            }
            let (reply, answer) = oneshot::channel();
            let (resource, conn_info, pipe) = (resource.map(str::to_owned), conn.clone(), pipe.clone());
            let bind = user::Bind { resource, conn: conn_info, pipe, reply };
            self.cast_user(who.jid(), user::Msg::Bind(Box::new(bind)))
                .map_err(|_| StanzaError::new(Condition::ResourceConstraint))?;
            match answer.await {
                Ok(link) => return Ok(link?.known(&self.0.connections, conn)),
                Err(_) if !self.is_home(who.jid()) => {} // it has just moved
                Err(_) => return Err(StanzaError::new(Condition::InternalServerError)),
            }
        }
    }

    /// Goes on with a session (XEP-0198 section 5). `<resumed/>` and what the client missed come through the pipe.
    ///
    /// # Errors
    /// [`NotResumed`].
    pub async fn resume(
        &self,
        who: Authenticated,
        previd: &str,
        h: u32,
        conn: ConnInfo,
        pipe: Arc<Pipe>,
    ) -> Result<SessionHandle, NotResumed> {
        let (sid, key) = session::parse_resumption_id(previd).ok_or(NotResumed::NotFound)?;
        let link = loop {
            if !self.is_home(who.jid()) {
                break self.resume_away(&who, (sid, key), h, &conn, pipe).await;
            }
            let (reply, answer) = oneshot::channel();
            let resume = user::Resume { sid, key, h, conn: conn.clone(), pipe: pipe.clone(), reply };
            self.cast_user(who.jid(), user::Msg::Resume(Box::new(resume))).map_err(|_| NotResumed::Unable)?;
            match answer.await {
                Ok(link) => break link,
                Err(_) if !self.is_home(who.jid()) => {} // it has just moved
                Err(_) => break Err(NotResumed::Unable),
            }
        };
        if matches!(link, Err(NotResumed::NotFound)) {
            metrics::counter!("rookery_sm_failed_total").increment(1);
        }
        link.map(|link| link.known(&self.0.connections, conn))
    }

    pub(crate) fn cast_user(&self, jid: &BareJid, msg: user::Msg) -> Result<(), Refused<user::Msg>> {
        self.0.users.cast(jid, msg, || User::new(self.clone(), jid.clone()))
    }

    /// Sends a stanza to where its `to` says. One without `to` goes nowhere.
    pub(crate) fn route(&self, stanza: Stanza, receipt: Receipt, origin: Option<Origin>) {
        self.route_from(Arc::new(stanza), receipt, origin);
    }

    /// The same for a shared stanza.
    pub(crate) fn route_from(&self, stanza: Arc<Stanza>, receipt: Receipt, origin: Option<Origin>) {
        let Some(to) = stanza.to.as_ref() else { return receipt.done() };
        if !self.serves(to.domain()) {
            return self.bounce(&stanza, receipt, Condition::RemoteServerNotFound);
        }
        if to.local().is_none() {
            // A request to the host was answered before it came here; the host takes no messages.
            return self.bounce(&stanza, receipt, Condition::ServiceUnavailable);
        }
        let user = to.to_bare();
        self.to_user(&user, stanza, receipt, origin, None);
    }

    pub(crate) fn to_user(
        &self,
        user: &BareJid,
        stanza: Arc<Stanza>,
        receipt: Receipt,
        origin: Option<Origin>,
        change: Option<Box<Change>>,
    ) {
        if self.is_open(user) {
            self.to_user_here(user, stanza, receipt, origin, change);
        } else {
            self.to_user_away(user, stanza, receipt, origin, change.as_deref());
        }
    }

    /// To the actor of a user whose home this is.
    pub(crate) fn give(&self, user: &BareJid, inbound: Inbound) {
        match self.cast_user(user, user::Msg::In(Box::new(inbound))) {
            Ok(()) => {}
            Err(Refused::Full(user::Msg::In(inbound)) | Refused::Gone(user::Msg::In(inbound))) => {
                metrics::counter!("rookery_limits_hit_total", "limit" => "user_queue").increment(1);
                let Inbound { stanza, receipt, change, .. } = *inbound;
                if change.is_some() {
                    return receipt.leave(); // who sent it tries again
                }
                self.bounce(&stanza, receipt, Condition::ResourceConstraint);
            }
            Err(_) => {}
        }
    }

    /// Sends the error that refuses a stanza to its sender.
    pub(crate) fn refuse(&self, error: Stanza, receipt: Receipt) {
        if let Err(receipt) = receipt.refuse(&error) {
            // Settled when the error has come to its sender: on its way it could be lost with this node.
            self.route(error, receipt, None);
        }
    }

    /// Answers a stanza with an error, if it may be answered, and settles it.
    pub(crate) fn bounce(&self, stanza: &Stanza, receipt: Receipt, condition: Condition) {
        metrics::counter!("rookery_stanza_errors_total", "condition" => condition.name()).increment(1);
        if let Some(reply) = stanza.error_reply(&StanzaError::new(condition))
            && reply.to.as_ref().is_some_and(|to: &Jid| to.local().is_some() && self.serves(to.domain()))
        {
            return self.refuse(reply, receipt);
        }
        receipt.done(); // errors and results have no answer (RFC 6120 section 8.3.1), whatever becomes of them
    }
}

/// Once a second: turns the wheel, and lets those rest that have nothing to do.
async fn housekeeping(inner: std::sync::Weak<Inner>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut turn = 0usize;
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.wheel.tick();
        turn = (turn + 1) % SWEEPS;
        let (users, sessions) = (inner.users.sweep(turn), inner.sessions.sweep(turn));
        metrics::gauge!("rookery_queue_length", "queue" => "users").set(users);
        metrics::gauge!("rookery_queue_length", "queue" => "sessions").set(sessions);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("rookery_waiting_bytes").set(inner.budget.waiting() as f64);
        if turn == 0 {
            #[allow(clippy::cast_precision_loss)] // a gauge
            metrics::gauge!("rookery_users").set(inner.users.len() as f64);
        }
    }
}
