//! Finding the servers of other domains: SRV records (RFC 6120 section 3.2, XEP-0368), addresses, and whether DNSSEC has
//! validated them.

mod connect;
mod target;

pub use connect::{Connected, Unreachable, connect};
pub use target::{Begin, NotFound, Target, Targets, Tlsa};

/// Finds the servers of other domains. Shared by all streams of a node; its caches are within.
#[derive(Debug, Default)]
pub struct Finder {}

impl Finder {
    /// The targets of `domain` (normalised, as in a JID; a U-label or an A-label), in the order of attempts. Takes 20 s at
    /// most.
    pub async fn find(&self, domain: &str) -> Result<Targets, NotFound> {
        Err(NotFound::NoAnswer(domain.to_owned(), "not asked yet".to_owned()))
    }
}
