//! What is stored instead of a password: RFC 5802 section 3, once for each hash.

use super::{Hash, password};
use crate::xmpp::BareJid;
use std::{collections::BTreeMap, fmt, sync::Arc};
use subtle::ConstantTimeEq;

/// The fewest iterations that RFC 5802 5.1 advises.
pub const MIN_ITERATIONS: u32 = 4096;
/// The most iterations: seconds of work. A stored or offered count above it is refused.
pub const MAX_ITERATIONS: u32 = 5_000_000;
/// Bytes of the salts that this server makes.
pub const SALT_BYTES: usize = 16;

/// Why keys cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text cannot be a password.
    #[error(transparent)]
    Password(#[from] password::Error),
    /// The count is not between [`MIN_ITERATIONS`] and [`MAX_ITERATIONS`].
    #[error("{0} iterations are too few or too many")]
    Iterations(u32),
    /// No salt, or one of more than 1024 bytes.
    #[error("the salt is empty or too long")]
    Salt,
}

/// The keys of one password for one hash. A thief of the keys can pose as the server, and search for the password, but not log in.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// Random, per password and hash.
    pub salt: Vec<u8>,
    /// `H(ClientKey)`; proves a client.
    pub stored_key: Vec<u8>,
    /// Proves the server to the client.
    pub server_key: Vec<u8>,
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Makes the keys of a password. Milliseconds of work: do it on a thread that may block.
///
/// # Errors
/// [`Error`] if password, salt or count are out of bounds.
pub fn derive(hash: Hash, password: &str, salt: &[u8], iterations: u32) -> Result<ScramKeys, Error> {
    let password = password::prepare(password)?;
    if !(MIN_ITERATIONS..=MAX_ITERATIONS).contains(&iterations) {
        return Err(Error::Iterations(iterations));
    }
    if !(1..=1024).contains(&salt.len()) {
        return Err(Error::Salt);
    }
    let salted = hash.stretch(password.as_bytes(), salt, iterations);
    let client_key = hash.hmac(&salted, &[b"Client Key"]);
    Ok(ScramKeys {
        iterations,
        salt: salt.to_vec(),
        stored_key: hash.digest(&client_key),
        server_key: hash.hmac(&salted, &[b"Server Key"]),
    })
}

/// All that is stored of a password: keys for each hash, so that every client finds a mechanism. An account that was brought
/// from another server may have keys for some of the hashes only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// For SCRAM-SHA-1.
    pub sha1: Option<ScramKeys>,
    /// For SCRAM-SHA-256; PLAIN is judged by it too, if there is one.
    pub sha256: Option<ScramKeys>,
    /// For SCRAM-SHA-512.
    pub sha512: Option<ScramKeys>,
}

impl Credentials {
    /// Makes the keys of a password for every hash: three times the work of [`derive()`]. `seed` is fresh and random; each hash gets a
    /// salt of its own from it.
    ///
    /// # Errors
    /// [`Error`] if password or count are out of bounds.
    pub fn derive(password: &str, seed: &[u8; 32], iterations: u32) -> Result<Self, Error> {
        Self::default().completed(password, seed, iterations)
    }

    /// The same with the keys that are missing, made of `password`, which the caller has verified. Otherwise like
    /// [`Credentials::derive`].
    ///
    /// # Errors
    /// [`Error`] if password or count are out of bounds.
    pub fn completed(&self, password: &str, seed: &[u8; 32], iterations: u32) -> Result<Self, Error> {
        let make = |hash: Hash| match self.get(hash) {
            Some(keys) => Ok(Some(keys.clone())),
            None => {
                let salt = salt(seed, &[b"salt", hash.name().as_bytes()]);
                derive(hash, password, &salt, iterations).map(Some)
            }
        };
        Ok(Self { sha1: make(Hash::Sha1)?, sha256: make(Hash::Sha256)?, sha512: make(Hash::Sha512)? })
    }

    /// The keys for one hash.
    #[must_use]
    pub const fn get(&self, hash: Hash) -> Option<&ScramKeys> {
        match hash {
            Hash::Sha1 => self.sha1.as_ref(),
            Hash::Sha256 => self.sha256.as_ref(),
            Hash::Sha512 => self.sha512.as_ref(),
        }
    }

    /// Whether there are keys for every hash.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        Hash::ALL.iter().all(|hash| self.get(*hash).is_some())
    }

    /// The keys that a password is judged by.
    fn judge(&self) -> Option<(Hash, &ScramKeys)> {
        [Hash::Sha256, Hash::Sha512, Hash::Sha1].into_iter().find_map(|hash| Some((hash, self.get(hash)?)))
    }

    /// Whether this is the password, in time that does not depend on how wrong it is. Milliseconds of work. Without any keys
    /// nothing is.
    #[must_use]
    pub fn verify_password(&self, password: &str) -> bool {
        let Some((hash, keys)) = self.judge() else { return false };
        // A text that cannot be a password costs as much as one that is wrong.
        let prepared = password::prepare(password);
        let text = prepared.as_deref().unwrap_or("-");
        let rounds = keys.iterations.clamp(1, MAX_ITERATIONS);
        let salted = hash.stretch(text.as_bytes(), &keys.salt, rounds);
        let stored = hash.digest(&hash.hmac(&salted, &[b"Client Key"]));
        let same = bool::from(stored.ct_eq(&keys.stored_key));
        same & prepared.is_ok()
    }
}

/// Answers for users that do not exist, so that trying does not tell which users exist.
///
/// A client that asks twice gets the same salt, as from a real user, and none that another server would give. The secret belongs
/// to the deployment: every node has the same, and it stays the same over restarts.
///
/// SCRAM tells the count of iterations. Real accounts have different ones, from before it was changed or from another server;
/// so the answers follow what a sample of real accounts has.
#[derive(Clone)]
pub struct Fakes {
    secret: Arc<[u8; 32]>,
    /// What new passwords get.
    iterations: u32,
    /// How many real accounts have each count.
    sample: Arc<BTreeMap<u32, u64>>,
}

impl fmt::Debug for Fakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fakes").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

impl Fakes {
    /// `iterations` is the count that new passwords get. No other is known yet.
    #[must_use]
    pub fn new(secret: [u8; 32], iterations: u32) -> Self {
        Self { secret: Arc::new(secret), iterations, sample: Arc::default() }
    }

    /// The same where new passwords get that count.
    #[must_use]
    pub fn with_iterations(&self, iterations: u32) -> Self {
        Self { iterations, ..self.clone() }
    }

    /// The same where so many real accounts have each count.
    #[must_use]
    pub fn with_sample(&self, sample: BTreeMap<u32, u64>) -> Self {
        Self { sample: Arc::new(sample), ..self.clone() }
    }

    /// The count for a user: by chance, but always the same as long as real accounts have the same ones. When these change from
    /// one count to another over time, so do the counts of users that do not exist, each once. The newest count always has a share: the first
    /// real account that has it must not be the only one.
    fn count(&self, user: &BareJid) -> u32 {
        let draw = Hash::Sha256.hmac(self.secret.as_slice(), &[b"fake count\0", user.as_str().as_bytes()]);
        let draw = draw.iter().take(8).fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        let total = self.sample.values().sum::<u64>().saturating_add(1);
        let mut left = u64::try_from((draw * u128::from(total)) >> 64).unwrap_or(0);
        let new = (!self.sample.contains_key(&self.iterations)).then_some((self.iterations, 0));
        let mut counts: Vec<(u32, u64)> = self.sample.iter().map(|(c, n)| (*c, *n)).chain(new).collect();
        counts.sort_unstable();
        for (count, accounts) in counts {
            let share = accounts.saturating_add(u64::from(count == self.iterations));
            if left < share {
                return count;
            }
            left -= share;
        }
        self.iterations
    }

    /// Keys that no password fits, always the same for the same user. Costs microseconds.
    #[must_use]
    pub fn keys(&self, hash: Hash, user: &BareJid) -> ScramKeys {
        let name = user.as_str().as_bytes();
        // The NUL cannot occur in a JID: no two (user, hash) make the same text.
        let tail = [b"\0", hash.name().as_bytes()].concat();
        let key = |label: &[u8]| hash.hmac(self.secret.as_slice(), &[label, name, &tail]);
        ScramKeys {
            iterations: self.count(user),
            salt: salt(&self.secret, &[b"fake salt\0", name, &tail]),
            stored_key: key(b"fake stored key\0"),
            server_key: key(b"fake server key\0"),
        }
    }

    /// [`Fakes::keys`] for every hash.
    #[must_use]
    pub fn credentials(&self, user: &BareJid) -> Credentials {
        Credentials {
            sha1: Some(self.keys(Hash::Sha1, user)),
            sha256: Some(self.keys(Hash::Sha256, user)),
            sha512: Some(self.keys(Hash::Sha512, user)),
        }
    }

    /// The rounds that a wrong password for these credentials has cost less than the most that one can cost: keys from another
    /// server, or from before the count was raised.
    pub(super) fn make_up(&self, credentials: &Credentials) {
        let spent = credentials.judge().map_or(0, |(_, keys)| keys.iterations);
        let most = self.sample.keys().copied().max().unwrap_or(0).max(self.iterations).min(MAX_ITERATIONS);
        let rest = most.saturating_sub(spent);
        if rest > 0 {
            std::hint::black_box(Hash::Sha256.stretch(b"-", self.secret.as_slice(), rest));
        }
    }
}

fn salt(secret: &[u8; 32], parts: &[&[u8]]) -> Vec<u8> {
    let mut salt = Hash::Sha256.hmac(secret, parts);
    salt.truncate(SALT_BYTES);
    salt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifies_the_password_and_no_other() {
        let credentials = Credentials::derive("pencil", &[7; 32], 4096).unwrap();
        assert!(credentials.verify_password("pencil"));
        assert!(credentials.verify_password("pen\u{ad}cil"), "prepared alike");
        for wrong in ["Pencil", "pencil ", "", "-", "\u{0}", "pencilpencil"] {
            assert!(!credentials.verify_password(wrong), "{wrong:?}");
        }
        let salts = Hash::ALL.map(|h| credentials.get(h).unwrap().salt.clone());
        assert!(salts[0] != salts[1] && salts[1] != salts[2] && salts.iter().all(|s| s.len() == SALT_BYTES));
    }

    #[test]
    fn who_does_not_exist_has_the_counts_of_those_who_do() {
        let users: Vec<_> =
            (0..2_000).map(|n| BareJid::parse(&format!("u{n}@example.org")).unwrap()).collect();
        let counts = |fakes: &Fakes| -> Vec<u32> {
            users.iter().map(|user| fakes.keys(Hash::Sha256, user).iterations).collect()
        };
        let share = |counts: &[u32], of: u32| counts.iter().filter(|count| **count == of).count();
        let new = Fakes::new([1; 32], 20_000);
        assert_eq!(share(&counts(&new), 20_000), 2_000);
        // The count was raised, and one of four has set a password since.
        let some = counts(&new.with_sample([(10_000, 75), (20_000, 24)].into()));
        assert!(
            (400..600).contains(&share(&some, 20_000))
                && share(&some, 10_000) + share(&some, 20_000) == 2_000
        );
        // Then half of them: nobody goes back.
        let more = counts(&new.with_sample([(10_000, 50), (20_000, 49)].into()));
        assert!((900..1_100).contains(&share(&more, 20_000)));
        assert!(some.iter().zip(&more).all(|(some, more)| some <= more));
        // The count was raised just now: the first user to have the new count is not alone.
        let raised = counts(&new.with_sample([(10_000, 99)].into()));
        assert!((5..50).contains(&share(&raised, 20_000)));
        assert_eq!(counts(&new.with_sample([(10_000, 99)].into()).with_iterations(10_000)), [10_000; 2_000]);
    }

    /// As other servers have them.
    #[test]
    fn one_key_will_do_and_the_others_can_be_made() {
        for hash in Hash::ALL {
            let one = derive(hash, "pencil", b"salt", 4097).unwrap();
            let mut some = Credentials::default();
            match hash {
                Hash::Sha1 => some.sha1 = Some(one.clone()),
                Hash::Sha256 => some.sha256 = Some(one.clone()),
                Hash::Sha512 => some.sha512 = Some(one.clone()),
            }
            assert!(some.verify_password("pencil") && !some.verify_password("Pencil"), "{hash:?}");
            let whole = some.completed("pencil", &[7; 32], 4096).unwrap();
            assert!(whole.is_complete() && !some.is_complete() && whole.get(hash) == Some(&one), "{hash:?}");
            let rounds = Hash::ALL.map(|h| whole.get(h).unwrap().iterations);
            assert_eq!(rounds.iter().sum::<u32>(), 3 * 4096 + 1);
            assert!(whole.verify_password("pencil") && !whole.verify_password("Pencil"), "{hash:?}");
        }
        assert!(!Credentials::default().verify_password("pencil"));
    }

    #[test]
    fn bounds_are_kept() {
        let made = |password, iterations| Credentials::derive(password, &[0; 32], iterations);
        assert_eq!(made("", 4096), Err(Error::Password(password::Error::Empty)));
        assert_eq!(made("x", 4095), Err(Error::Iterations(4095)));
        assert_eq!(made("x", u32::MAX), Err(Error::Iterations(u32::MAX)));
        assert_eq!(derive(Hash::Sha1, "x", b"", 4096), Err(Error::Salt));
    }

    #[test]
    fn fakes_are_stable_and_look_real() {
        let user = |name: &str| BareJid::parse(name).unwrap();
        let fakes = Fakes::new([1; 32], 10_000);
        let real = Credentials::derive("x", &[0; 32], 10_000).unwrap();
        for hash in Hash::ALL {
            let (fake, real) = (fakes.keys(hash, &user("a@b")), real.get(hash).unwrap());
            assert_eq!(fake, fakes.clone().keys(hash, &user("A@b")));
            assert_eq!((fake.iterations, fake.salt.len()), (real.iterations, real.salt.len()));
            assert_eq!(fake.stored_key.len(), real.stored_key.len());
            assert_ne!(fake.salt, fakes.keys(hash, &user("c@b")).salt);
            assert_ne!(fake.salt, Fakes::new([2; 32], 10_000).keys(hash, &user("a@b")).salt);
        }
        assert_ne!(fakes.keys(Hash::Sha1, &user("a@b")).salt, fakes.keys(Hash::Sha256, &user("a@b")).salt);
    }

    #[test]
    fn debug_tells_no_secret() {
        let credentials = Credentials::derive("pencil", &[7; 32], 4096).unwrap();
        let text = format!("{credentials:?} {:?}", Fakes::new([201; 32], 4096));
        assert!(!text.contains("key") && !text.contains("salt") && !text.contains("201"), "{text}");
    }
}
