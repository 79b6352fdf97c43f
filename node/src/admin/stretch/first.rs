//! What is done once for each password, with the usual crates.

use hmac::{EagerHash, Hmac, KeyInit, Mac};
use rookery_proto::sasl::{Hash, ScramKeys};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};

use super::Job;

fn mac<D: EagerHash>(key: &[u8], parts: &[&[u8]]) -> Vec<u8>
where
    Hmac<D>: KeyInit + Mac,
{
    // Any length of key will do, so there is no error to be had.
    let Ok(mut mac) = <Hmac<D> as KeyInit>::new_from_slice(key) else { return Vec::new() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

pub(super) fn hmac(hash: Hash, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => mac::<Sha1>(key, parts),
        Hash::Sha256 => mac::<Sha256>(key, parts),
        Hash::Sha512 => mac::<Sha512>(key, parts),
    }
}

fn digest(hash: Hash, data: &[u8]) -> Vec<u8> {
    match hash {
        Hash::Sha1 => Sha1::digest(data).to_vec(),
        Hash::Sha256 => Sha256::digest(data).to_vec(),
        Hash::Sha512 => Sha512::digest(data).to_vec(),
    }
}

/// The key of HMAC as one block (RFC 2104 section 2).
pub(super) fn key(hash: Hash, password: &[u8], block: usize) -> Vec<u8> {
    let mut key = if password.len() > block { digest(hash, password) } else { password.to_vec() };
    key.resize(block, 0);
    key
}

/// The first round (RFC 8018 section 5.2) of PBKDF2's first block, which is all that SCRAM uses.
pub(super) fn round(hash: Hash, job: &Job<'_>) -> Vec<u8> {
    hmac(hash, job.password.as_bytes(), &[&job.salt, &1u32.to_be_bytes()])
}

/// What SCRAM keeps of a stretched password (RFC 5802 section 3).
pub(super) fn keys(hash: Hash, salted: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    ScramKeys {
        iterations,
        salt: salt.to_vec(),
        stored_key: digest(hash, &hmac(hash, salted, &[b"Client Key"])),
        server_key: hmac(hash, salted, &[b"Server Key"]),
    }
}
