//! The account of the deployment at an authority: made once, kept in the store.

use bytes::Bytes;
use instant_acme::{Account, AccountCredentials, NewAccount};
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::certificates::{self, Account as Stored};

use super::client::Client;
use super::order::Failure;
use super::{Acme, shard};
use crate::config;

impl Acme {
    /// The account, which is made if there is none.
    pub(super) async fn account(&self, config: &config::Acme, client: &Client) -> Result<Account, Failure> {
        let _one = self.account.lock().await;
        let directory = config.directory.as_str();
        let stored = self
            .store
            .read(|tx| Box::pin(async move { certificates::account(&mut **tx, directory).await }))
            .await?;
        let builder = Account::builder_with_http(Box::new(client.clone()));
        let contacts: Vec<&str> = config.contacts.iter().map(String::as_str).collect();
        let Some(mut stored) = stored else {
            let new =
                NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
            let (account, credentials) = builder.create(&new, directory.to_owned(), None).await?;
            let credentials = Bytes::from(serde_json::to_vec(&credentials).map_err(Failure::of)?);
            self.put_account(directory, Some(Stored { credentials, contacts: config.contacts.clone() }))
                .await?;
            tracing::info!(directory, account = account.id(), "account made at the certificate authority");
            return Ok(account);
        };
        let credentials: AccountCredentials =
            serde_json::from_slice(&stored.credentials).map_err(Failure::of)?;
        let account = builder.from_credentials(credentials).await?;
        if stored.contacts != config.contacts {
            account.update_contacts(&contacts).await?;
            stored.contacts.clone_from(&config.contacts);
            self.put_account(directory, Some(stored)).await?;
        }
        Ok(account)
    }

    /// The authority does not know the account any more: the next attempt makes one.
    pub(super) async fn forget_account(&self, directory: &str) -> store::Result<()> {
        self.put_account(directory, None).await
    }

    async fn put_account(&self, directory: &str, account: Option<Stored>) -> store::Result<()> {
        let (account, options) =
            (&account, store::Options { shards: vec![shard()], ..store::Options::default() });
        self.store
            .write(options, |tx| {
                Box::pin(async move {
                    let tx = &mut **tx as &mut dyn Transaction;
                    match account {
                        Some(account) => certificates::put_account(tx, directory, account),
                        None => certificates::remove_account(tx, directory),
                    }
                    Ok(())
                })
            })
            .await
    }
}
