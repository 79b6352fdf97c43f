//! SASL (RFC 4422) as RFC 6120 section 6 uses it, as state machines without I/O, clock or randomness.
//!
//! - SCRAM-SHA-1, -256, -512 (RFC 5802, RFC 7677), each with and without channel binding (`-PLUS`): `tls-exporter` (RFC 9266)
//!   and `tls-server-end-point` (RFC 5929). XEP-0440 0.4.2 announces the bindings, XEP-0474 0.5.0 proves the announcement.
//! - PLAIN (RFC 4616), under TLS only.
//!
//! A connection keeps one [`Server`] while it authenticates. The machine asks for what it cannot know ([`Step`]): the keys of a
//! user, or the verdict on a password, both of which take time and belong elsewhere. What a client learns from text and
//! amount of work is the same whether a user exists or not: see [`keys::Fakes`].

pub mod client;
pub mod encoding;
pub mod features;
mod hash;
pub mod keys;
pub mod mechanism;
mod message;
pub mod password;
mod plain;
mod server;
#[cfg(test)]
mod tests;

pub use hash::Hash;
pub use keys::{Credentials, Fakes, ScramKeys};
pub use mechanism::{ChannelBindings, Mechanism, offered};
pub use plain::PlainVerify;
pub use server::{Context, Server, Step};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The largest message of a mechanism in bytes, after base64 is undone. Larger ones are `<malformed-request/>`.
pub const MESSAGE_BYTES: usize = 4096;

/// A nonce of our own: 144 random bits as text (RFC 5802 5.1 allows printable ASCII without the comma).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// Makes a nonce of bytes that the caller drew from a cryptographic source, fresh for each exchange.
    #[must_use]
    pub fn from_random(random: [u8; 18]) -> Self {
        Self(STANDARD.encode(random))
    }
}
