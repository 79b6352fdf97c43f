//! PLAIN: RFC 4616.

use super::{Credentials, Fakes, message, password::PASSWORD_BYTES};
use crate::xmpp::{BareJid, SaslFailure};
use std::fmt;

/// A password that someone claims to have, waiting for its verdict.
#[derive(Clone)]
pub struct PlainVerify {
    /// The user whose password it is said to be.
    pub user: BareJid,
    password: String,
}

impl fmt::Debug for PlainVerify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainVerify").field("user", &self.user).finish_non_exhaustive()
    }
}

impl PlainVerify {
    /// Judges the password: `found` are the user's credentials, or `None` if there is no such user, which costs the same and
    /// is always false. Milliseconds of work: do it on a thread that may block, and limit how many do.
    #[must_use]
    pub fn check(&self, found: Option<&Credentials>, fakes: &Fakes) -> bool {
        match found {
            Some(credentials) => {
                let right = credentials.verify_password(&self.password);
                if !right {
                    fakes.make_up(credentials);
                }
                right
            }
            None => {
                // The same work, kept from the optimiser, for the same time.
                let fake = fakes.credentials(&self.user);
                std::hint::black_box(fake.verify_password(&self.password));
                fakes.make_up(&fake);
                false
            }
        }
    }

    /// The credentials of an account whose password this has proved to be ([`PlainVerify::check`]), with the keys that `found`
    /// lacks; `None` if it lacks none. Milliseconds of work for each. `seed` is fresh and random.
    #[must_use]
    pub fn completed(&self, found: &Credentials, seed: &[u8; 32], iterations: u32) -> Option<Credentials> {
        if found.is_complete() {
            return None;
        }
        found.completed(&self.password, seed, iterations).ok()
    }

    /// Reads `[authzid] NUL authcid NUL passwd`.
    pub(super) fn parse(data: &[u8], domain: &BareJid) -> Result<Self, SaslFailure> {
        let text = std::str::from_utf8(data).map_err(|_| SaslFailure::MalformedRequest)?;
        let mut parts = text.split('\0');
        let (Some(authzid), Some(authcid), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(SaslFailure::MalformedRequest);
        };
        if authcid.is_empty() || password.is_empty() || password.len() > PASSWORD_BYTES {
            return Err(SaslFailure::MalformedRequest);
        }
        let user = message::identify(authcid, Some(authzid).filter(|a| !a.is_empty()), domain)?;
        Ok(Self { user, password: password.to_owned() })
    }
}
