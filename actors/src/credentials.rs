//! Between the SCRAM keys of the SASL machines and the record in the store.

use bytes::Bytes;
use rookery_cluster::tables::accounts::{self, Account};
use rookery_proto::sasl::{Credentials, Hash, ScramKeys};

fn stored_hash(hash: Hash) -> accounts::Hash {
    match hash {
        Hash::Sha1 => accounts::Hash::Sha1,
        Hash::Sha256 => accounts::Hash::Sha256,
        Hash::Sha512 => accounts::Hash::Sha512,
    }
}

/// An account's credentials; `None` if the record lacks one of the three.
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
    Some(Credentials { sha1: keys(Hash::Sha1)?, sha256: keys(Hash::Sha256)?, sha512: keys(Hash::Sha512)? })
}

/// The record of an account with these credentials.
pub fn to_account(credentials: &Credentials, created_at: u64) -> Account {
    let keys = |hash: Hash| {
        let keys = credentials.get(hash);
        accounts::ScramKeys {
            hash: stored_hash(hash).into(),
            iterations: keys.iterations,
            salt: Bytes::copy_from_slice(&keys.salt),
            stored_key: Bytes::copy_from_slice(&keys.stored_key),
            server_key: Bytes::copy_from_slice(&keys.server_key),
        }
    };
    Account { credentials: Hash::ALL.map(keys).to_vec(), created_at, ..Account::default() }
}
