//! Certificates from an ACME authority (RFC 8555), for the names that no certificate file covers.
//!
//! - [`names`]: which names these are.
//! - [`job`]: the node that owns [`shard`] orders for all; when it dies, the next owner goes on with its orders.
//! - [`order`]: one order from its beginning to its end; [`account`], [`client`] and [`hook`] are its tools.
//! - [`answers`]: every node answers challenges, out of the store.
//! - [`keep`]: every node serves what was issued, as soon as it is stored.
//! - [`schedule`]: when to renew, and how long to wait after a failure: arithmetic.
//! - [`operator`]: what the commands ask for.
//!
//! Account, orders, certificates and keys are in the store (`rookery_cluster::tables::certificates`).

use std::sync::Arc;

use arc_swap::ArcSwap;
use rookery_cluster::entity::{Entity, Shard};
use rookery_cluster::mesh::Mesh;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Store, Transaction};
use rookery_cluster::tables::certificates;
use tokio::sync::watch;

use crate::config::Config;
use crate::tls::Tls;

mod account;
mod answers;
mod client;
mod hook;
mod job;
mod keep;
mod names;
mod operator;
mod order;
mod schedule;

/// The node's part in ordering, answering and serving.
pub struct Acme {
    store: Store,
    seams: Seams,
    tls: Arc<Tls>,
    mesh: Option<Arc<Mesh>>,
    config: ArcSwap<Config>,
    /// Counts the changes of the configuration.
    changed: watch::Sender<u64>,
    /// One account is made at a time.
    account: tokio::sync::Mutex<()>,
    /// Challenges that are looked up at a time.
    asked: tokio::sync::Semaphore,
}

/// The shard whose owner orders certificates.
pub(crate) fn shard() -> Shard {
    Entity::new("certificates").shard()
}

/// What tells of the next change of certificates.
type Changed = store::Fut<'static, store::Result<()>>;

impl Acme {
    /// Serves what is stored already, and answers challenges from now on. Orders begin with [`Acme::run`].
    ///
    /// # Errors
    /// If the store can't be read.
    pub async fn start(
        store: Store,
        seams: Seams,
        tls: Arc<Tls>,
        mesh: Option<Arc<Mesh>>,
        config: &Config,
    ) -> store::Result<Arc<Self>> {
        let acme = Arc::new(Self {
            store,
            seams,
            tls: tls.clone(),
            mesh,
            config: ArcSwap::from_pointee(config.clone()),
            changed: watch::Sender::new(0),
            account: tokio::sync::Mutex::default(),
            asked: tokio::sync::Semaphore::new(answers::AT_ONCE),
        });
        tls.set_challenges(acme.clone());
        if config.acme.is_some() {
            acme.install().await?;
        }
        Ok(acme)
    }

    /// Orders when it is this node's turn, and serves what is issued. Never ends.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.keep(), self.clone().job());
    }

    /// The configuration is another.
    pub fn configure(&self, config: &Config) {
        self.config.store(Arc::new(config.clone()));
        self.changed.send_modify(|count| *count += 1);
    }

    /// Seconds since 1970.
    fn now(&self) -> i64 {
        i64::try_from(self.seams.clock.now_micros() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// Between 0 and 1, in parts of 65,535.
    fn chance(&self) -> u16 {
        u16::from_be_bytes(self.seams.bytes())
    }

    /// A future that ends with the next change of certificates after this call.
    async fn watch(&self) -> store::Result<Changed> {
        let mut tx = self.store.database().begin();
        let key = certificates::version_key();
        let watch = tx.watch(&key);
        tx.get(&key, store::Isolation::Snapshot).await?;
        tx.commit().await?;
        Ok(watch)
    }

    /// Runs `change` on the state of `name` and stores what it leaves. Only the node that orders may.
    async fn update(
        &self,
        name: &str,
        change: impl Fn(&mut certificates::State) + Send + Sync,
    ) -> store::Result<certificates::State> {
        self.edit(store::Options { shards: vec![shard()], ..store::Options::default() }, name, change).await
    }

    async fn edit(
        &self,
        options: store::Options,
        name: &str,
        change: impl Fn(&mut certificates::State) + Send + Sync,
    ) -> store::Result<certificates::State> {
        let change = &change;
        self.store
            .write(options, |tx| {
                Box::pin(async move {
                    let mut state = certificates::state(&mut **tx, name).await?;
                    change(&mut state);
                    certificates::put_state(&mut **tx as &mut dyn Transaction, name, &state)?;
                    Ok(state)
                })
            })
            .await
    }
}
