//! Between the SCRAM keys of the SASL machines and the record in the store.

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::accounts::{self, Account};
use rookery_cluster::tables::{Sid, sessions};
use rookery_proto::sasl::{Credentials, Hash, ScramKeys};

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
