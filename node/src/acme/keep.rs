//! Every node serves what was issued for its names: it reads the store whenever a certificate changes there.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store;
use rookery_cluster::tables::certificates::{self, Certificate};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::time::sleep;

use super::{Acme, names};
use crate::tls::{Issued, Stored};

/// The store is read this often, even if it tells of no change: the watch may have been lost with a connection.
const REFRESH: Duration = Duration::from_secs(300);
/// When the store could not be read.
const AGAIN: Duration = Duration::from_secs(5);
/// Certificates that one transaction reads.
pub(super) const PAGE: usize = 100;

impl Acme {
    /// Serves what is issued, for ever.
    pub(super) async fn keep(&self) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            // Before the rows are read: what changes meanwhile ends the wait.
            let watched = match self.watch().await {
                Ok(watch) => self.install().await.map(|()| watch),
                Err(error) => Err(error),
            };
            let watch = match watched {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::debug!(%error, "certificates could not be read from the store");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            tokio::select! {
                _ = watch => {}
                _ = changed.changed() => {}
                () = sleep(REFRESH) => {}
            }
        }
    }

    /// Serves what is stored now.
    pub(super) async fn install(&self) -> store::Result<()> {
        let config = self.config.load_full();
        let names = names::configured(&config);
        let mut all = Stored::new();
        let mut after = String::new();
        while !names.is_empty() {
            let from = after.as_str();
            let page = self
                .store
                .read(|tx| Box::pin(async move { certificates::list(&mut **tx, from, PAGE).await }))
                .await?;
            let Some((last, _)) = page.rows.last() else { break };
            let last = last.clone();
            let ours = page.rows.into_iter().filter(|(name, _)| names.contains(name));
            all.extend(ours.map(|(name, certificate)| (name, Arc::new(issued(&certificate)))));
            if !page.more {
                break;
            }
            after = last;
        }
        for line in self.tls.install(&config, all).taken {
            tracing::info!("{line}");
        }
        Ok(())
    }
}

/// As TLS takes it.
pub(super) fn issued(certificate: &Certificate) -> Issued {
    Issued {
        chain: certificate.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect(),
        key: PrivatePkcs8KeyDer::from(certificate.key.to_vec()).into(),
        directory: certificate.directory.clone(),
    }
}
