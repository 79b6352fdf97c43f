//! Logins: an [`Authenticator`] knows the users of a domain and their passwords. SASL and in-band registration ask the authenticator,
//! and never the store.
//!
//! - [`store`]: the first one: accounts in the store, with SCRAM keys.
//! - [`credentials`]: between the keys of the SASL machines and the record in the store; for code that writes accounts.
//!
//! No answer may say whether a user exists, neither by its content nor by its time: see each method.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use rookery_cluster::store as database;
use rookery_proto::sasl::{Credentials, Fakes, PlainVerify, password};
use rookery_proto::xmpp::jid::BareJid;

use crate::host::Host;
use crate::session::SessionId;

pub mod credentials;
pub(crate) mod spread;
pub mod store;

pub use self::store::Stored;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not answer as it must.
    #[error("the store refused: {0}")]
    Store(#[from] database::Error),
    /// The text can be no password: it is empty, too long, or has control characters.
    #[error(transparent)]
    Password(#[from] password::Error),
    /// The work was not done; what is wrong is logged.
    #[error("the password could not be worked on")]
    Failed,
}

/// What can be done with a password besides logging in with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Abilities {
    /// There are SCRAM keys: those mechanisms can be offered.
    pub scram: bool,
    /// A user may change the password.
    pub change: bool,
    /// Accounts can be made.
    pub create: bool,
}

/// What became of the wish for an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// The account was made.
    Yes,
    /// The name is taken or reserved.
    Taken,
}

/// An answer on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// The users of a domain and their passwords.
pub trait Authenticator: Send + Sync {
    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// The keys of users that do not exist. SCRAM makes them for every login, so that a challenge costs the same and looks the
    /// same for everybody (RFC 5802 section 9).
    fn fakes(&self) -> Fakes;

    /// The SCRAM keys of a user; `None` if there is no such user, or it may not log in or has none. The caller goes on with
    /// those of [`fakes`](Self::fakes) then, and says nothing.
    fn keys<'a>(&'a self, user: &'a BareJid) -> Answer<'a, Option<Credentials>>;

    /// Whether this is the user's password. A user that does not exist takes as long as one that does. Waits while too many
    /// are judged.
    fn verify(&self, attempt: PlainVerify) -> Answer<'_, bool>;

    /// Whether there is such a user. Only for callers that may know: registration counts the addresses that ask.
    fn exists<'a>(&'a self, user: &'a BareJid) -> Answer<'a, bool>;

    /// Makes an account. Milliseconds of processor time, also where the name is taken.
    fn create<'a>(&'a self, user: &'a BareJid, password: String) -> Answer<'a, Created>;

    /// Gives a user another password, and ends on record all sessions but `keep`. `false`: there is no such user.
    fn change<'a>(&'a self, user: &'a BareJid, password: String, keep: Option<SessionId>)
    -> Answer<'a, bool>;
}

impl Host {
    /// The authenticator that knows the users of `domain`: for all domains that is the store.
    pub fn authenticator(&self, _domain: &str) -> Arc<dyn Authenticator> {
        Arc::new(Stored::new(self.clone()))
    }
}
