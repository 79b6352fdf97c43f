//! The administration of a data folder that no node uses.

use std::sync::Arc;

use rookery_actors::Host;
use rookery_actors::features::xep_0077_registration;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::Store;
use rookery_ops::admin::{
    self, Certificates, Chunks, ClusterStatus, Error, ImportReport, Progress, S2sStream, Session, ShardGroup,
    Status, User, UserImportLine,
};
use rookery_ops::secret::Password;

use super::{Accounts, documents};
use crate::config::Config;

/// A data folder, opened for this one command. While it is open no node can start on it.
pub struct Folder {
    accounts: Accounts,
    config: Config,
}

impl Folder {
    /// Over the store of `config` ([`crate::start::store_or_node`]).
    pub fn over(store: Store, config: Config, seams: Seams) -> Self {
        let domains = config.domains.iter().map(|d| d.name.clone()).collect();
        let accounts = Accounts::new(store, seams, domains, config.sasl.iterations);
        Self { accounts, config }
    }

    /// Waits until everything is on disk.
    pub async fn close(self) -> Result<(), Error> {
        self.accounts.store.close().await.map_err(|e| super::store(&e))
    }
}

fn needs_node() -> Error {
    Error::unavailable("no node runs")
}

impl admin::Admin for Folder {
    async fn user_add(&self, jid: &str, password: &Password) -> Result<(), Error> {
        self.accounts.add(jid, password).await.map(drop)
    }

    async fn user_passwd(&self, jid: &str, password: &Password) -> Result<(), Error> {
        self.accounts.passwd(jid, password).await.map(drop)
    }

    async fn user_remove(&self, jid: &str) -> Result<(), Error> {
        let jid = self.accounts.parse(jid)?;
        if self.config.cluster.is_some() {
            // The account may be at home on any node, with sessions.
            let why = "in a cluster only a running node removes accounts: run this where a node runs, or start this node";
            return Err(Error::unavailable(why));
        }
        // The rosters of contacts change with it: that is the host's business.
        let Accounts { store, seams, .. } = &self.accounts;
        let host = Host::start(crate::options::host(&self.config), store.clone(), seams.clone()).await;
        let host = host.map_err(|e| Error::unavailable(e.to_string()))?;
        let removed = xep_0077_registration::remove_account(&host, &jid).await;
        host.shutdown().await;
        removed.map_err(|error| super::not_removed(&jid, &error))
    }

    async fn user_list(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<User>, Error> {
        self.accounts.list(domain, after, limit).await
    }

    async fn user_import(&self, batch: Vec<UserImportLine>) -> Result<ImportReport, Error> {
        self.accounts.import(batch).await.map(|(report, _)| report)
    }

    async fn sessions(&self, _: &str, _: &str, _: usize) -> Result<Vec<Session>, Error> {
        Err(needs_node())
    }

    async fn kick(&self, _: &str, _: &str) -> Result<u64, Error> {
        Err(needs_node())
    }

    async fn streams(&self, _: &str, _: &str, _: usize) -> Result<Vec<S2sStream>, Error> {
        Err(needs_node())
    }

    async fn close_streams(&self, _: &str) -> Result<u64, Error> {
        Err(needs_node())
    }

    async fn export(&self, target: &str) -> Result<Chunks, Error> {
        self.accounts.export(target).await
    }

    async fn import(&self, chunks: Chunks, progress: Progress<'_>) -> Result<ImportReport, Error> {
        let options = Arc::new(crate::options::host(&self.config));
        documents::import(&self.accounts.store, options, None, chunks, progress).await
    }

    async fn reload(&self) -> Result<Vec<String>, Error> {
        Err(needs_node())
    }

    async fn status(&self) -> Result<Status, Error> {
        Err(needs_node())
    }

    async fn log_level(&self, _: &str) -> Result<String, Error> {
        Err(needs_node())
    }

    async fn certificates(&self) -> Result<Certificates, Error> {
        Err(needs_node())
    }

    async fn certificate_order(&self, _: &str, _: bool) -> Result<String, Error> {
        Err(needs_node())
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, Error> {
        Err(needs_node())
    }

    async fn cluster_shards(&self) -> Result<Vec<ShardGroup>, Error> {
        Err(needs_node())
    }

    async fn cluster_drain(&self, _: &str) -> Result<String, Error> {
        Err(needs_node())
    }

    async fn cluster_undrain(&self, _: &str) -> Result<String, Error> {
        Err(needs_node())
    }

    async fn cluster_evict(&self, _: &str, _: bool) -> Result<String, Error> {
        Err(needs_node())
    }
}
