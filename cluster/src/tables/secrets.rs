//! Secrets of the deployment: random bytes that all nodes share, made by the first node that needs them.

use bytes::Bytes;

use super::{decode, encode};
use crate::seams::Random;
use crate::store::keys::{Key, Kind};
use crate::store::{Class, Error, Isolation, Result, Transaction};

/// The key of [`IdCipher`](super::archive::IdCipher), 16 bytes.
pub const ARCHIVE_KEY: &str = "archive-key";

/// What the salts of users that do not exist are made from, 32 bytes.
pub const FAKE_SALT: &str = "scram-fake-salt";

/// What keys of server dialback are made of (XEP-0185), 32 bytes.
pub const DIALBACK: &str = "dialback";

/// A secret of `N` bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// The bytes. They must not show in a log.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

/// Without the bytes.
impl<const N: usize> std::fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({N} bytes)")
    }
}

/// The stored secret's record.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
struct Stored {
    /// The bytes.
    #[prost(bytes = "bytes", tag = "1")]
    bytes: Bytes,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stored({} bytes)", self.bytes.len())
    }
}

/// The secret of that name, made of `random` if there is none. Of two transactions that make it, one conflicts and
/// then finds the other's. [`Class::Corrupt`] if the stored one has another length.
pub async fn get_or_make<const N: usize>(
    tx: &mut dyn Transaction,
    name: &str,
    random: &dyn Random,
) -> Result<Secret<N>> {
    let key = Key::deployment(Kind::Secret).text(name).finish();
    if let Some(value) = tx.get(&key, Isolation::Serializable).await? {
        let stored: Stored = decode(value)?;
        let corrupt = |_| Error::new(Class::Corrupt, "a secret has not the length it must have");
        return stored.bytes[..].try_into().map(Secret).map_err(corrupt);
    }
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    tx.set(&key, &encode(&Stored { bytes: Bytes::copy_from_slice(&bytes) }));
    Ok(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seams::SystemRandom;
    use crate::tables::double::{Double, still_decodes};

    #[test]
    fn old_records_decode() {
        still_decodes("0a03010203", &Stored { bytes: Bytes::from_static(&[1, 2, 3]) });
    }

    #[tokio::test]
    async fn a_secret_is_made_once_and_not_shown() {
        let mut tx = Double::new();
        let made: Secret<16> = get_or_make(&mut tx, ARCHIVE_KEY, &SystemRandom).await.unwrap();
        assert_eq!(get_or_make::<16>(&mut tx, ARCHIVE_KEY, &SystemRandom).await.unwrap(), made);
        assert_ne!(get_or_make::<16>(&mut tx, "another", &SystemRandom).await.unwrap(), made);
        assert_ne!(made.expose(), &[0; 16]);
        assert_eq!(format!("{made:?}"), "Secret(16 bytes)");
        let wrong = get_or_make::<32>(&mut tx, ARCHIVE_KEY, &SystemRandom).await;
        assert_eq!(wrong.unwrap_err().class, Class::Corrupt);
    }
}
