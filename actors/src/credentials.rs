//! Between the SCRAM keys of the SASL machines and the record in the store.

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::accounts::{self, Account};
use rookery_cluster::tables::{Sid, sessions};
use rookery_proto::sasl::{Credentials, Hash, ScramKeys};
use rookery_proto::xmpp::jid::BareJid;

use crate::host::{Error, Host};

fn stored_hash(hash: Hash) -> accounts::Hash {
    match hash {
        Hash::Sha1 => accounts::Hash::Sha1,
        Hash::Sha256 => accounts::Hash::Sha256,
        Hash::Sha512 => accounts::Hash::Sha512,
    }
}

/// An account's credentials, as many as the record has; `None` if it has none.
pub fn from_account(account: &Account) -> Option<Credentials> {
    let keys = |hash: Hash| {
        let stored = account.keys(stored_hash(hash))?;
        Some(ScramKeys {
            iterations: stored.iterations,
            salt: stored.salt.to_vec(),
            stored_key: stored.stored_key.to_vec(),
            server_key: stored.server_key.to_vec(),
        })
    };
    let found =
        Credentials { sha1: keys(Hash::Sha1), sha256: keys(Hash::Sha256), sha512: keys(Hash::Sha512) };
    (found != Credentials::default()).then_some(found)
}

/// The record of an account with these credentials.
pub fn to_account(credentials: &Credentials, created_at: u64) -> Account {
    let keys = |hash: Hash| {
        let keys = credentials.get(hash)?;
        Some(accounts::ScramKeys {
            hash: stored_hash(hash).into(),
            iterations: keys.iterations,
            salt: Bytes::copy_from_slice(&keys.salt),
            stored_key: Bytes::copy_from_slice(&keys.stored_key),
            server_key: Bytes::copy_from_slice(&keys.server_key),
        })
    };
    Account {
        credentials: Hash::ALL.into_iter().filter_map(keys).collect(),
        created_at,
        ..Account::default()
    }
}

/// Writes these keys in place of an account's, and ends on record what was opened with the old ones: all sessions but `keep`
/// can't be resumed any more, whatever becomes of the node that they are on. `now` is in microseconds since 1970. `false` if there is
/// no such account.
///
/// # Errors
/// Those of the store.
pub async fn replace(
    tx: &mut dyn Transaction,
    user: &Entity,
    keys: &[accounts::ScramKeys],
    keep: Option<&Sid>,
    now: u64,
) -> store::Result<bool> {
    let Some(old) = accounts::get(tx, user).await? else { return Ok(false) };
    accounts::put(tx, user, &Account { credentials: keys.to_vec(), password_at: now, ..old });
    sessions::clear_others(tx, user, keep).await?;
    Ok(true)
}

impl Host {
    /// The SCRAM keys of a user, `None` if there is no such user, it is disabled or has none.
    ///
    /// # Errors
    /// [`Error::Store`]
    pub async fn credentials(&self, user: &BareJid) -> Result<Option<Credentials>, Error> {
        let user = Entity::new(user.as_str());
        let user = &user;
        let account =
            self.store().read(|tx| Box::pin(async move { accounts::get(&mut **tx, user).await })).await?;
        Ok(account.filter(|account| !account.disabled).and_then(|account| from_account(&account)))
    }

    /// Writes `whole` in place of an account's credentials, if these are still `found`: the keys that other servers did not
    /// have, made of a password that was right. Says whether it did.
    ///
    /// # Errors
    /// [`Error::Store`]
    pub async fn complete_credentials(
        &self,
        user: &BareJid,
        found: &Credentials,
        whole: &Credentials,
    ) -> Result<bool, Error> {
        let user = Entity::new(user.as_str());
        let user = &user;
        let written = self.store().write(store::Options::default(), |tx| {
            Box::pin(async move {
                let now = accounts::get(&mut **tx, user).await?;
                let Some(old) = now.filter(|now| from_account(now).as_ref() == Some(found)) else {
                    return Ok(false);
                };
                let credentials = to_account(whole, old.created_at).credentials;
                accounts::put(&mut **tx, user, &Account { credentials, ..old });
                Ok(true)
            })
        });
        Ok(written.await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::Scene;

    #[tokio::test]
    async fn what_another_server_had_is_kept_and_completed_once() {
        let scene = Scene::new(&[]).await;
        let jid = BareJid::parse("old@localhost").unwrap();
        let whole = Credentials::derive("secret", &[1; 32], 4_096).unwrap();
        let some = Credentials { sha256: None, sha512: None, ..whole.clone() };
        let account = &to_account(&some, 7);
        assert_eq!(account.credentials.len(), 1);
        let user = &Entity::new(jid.as_str());
        let made = scene.host.store().write(store::Options::default(), |tx| {
            Box::pin(async move { accounts::create(&mut **tx, user, account, 7).await })
        });
        made.await.unwrap();
        assert_eq!(scene.host.credentials(&jid).await.unwrap().as_ref(), Some(&some));
        assert!(scene.host.complete_credentials(&jid, &some, &whole).await.unwrap());
        assert_eq!(scene.host.credentials(&jid).await.unwrap().as_ref(), Some(&whole));
        let stored =
            scene.host.store().read(|tx| Box::pin(async move { accounts::get(&mut **tx, user).await }));
        assert_eq!(stored.await.unwrap().map(|a| a.created_at), Some(7));
        // A password that was changed meanwhile is not brought back.
        let late = Credentials::derive("late", &[2; 32], 4_096).unwrap();
        assert!(!scene.host.complete_credentials(&jid, &some, &late).await.unwrap());
        assert_eq!(scene.host.credentials(&jid).await.unwrap(), Some(whole));
        let nobody = BareJid::parse("nobody@localhost").unwrap();
        assert!(!scene.host.complete_credentials(&nobody, &some, &late).await.unwrap());
        assert_eq!(scene.host.credentials(&nobody).await.unwrap(), None);
    }
}
