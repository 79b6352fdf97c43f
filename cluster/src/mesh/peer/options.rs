//! What can be set about the channel.

use std::time::Duration;

/// How much may be on its way, or wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Envelopes.
    pub envelopes: usize,
    /// Bytes, by [`Envelope::size`](super::Envelope::size).
    pub bytes: usize,
}

/// The settings of the channel to and from all other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What may wait for one node, sent or not, until its outcome is known. At the limit sends are refused.
    pub queue: Limit,
    /// What one node may have here without an outcome: the credit that this node gives to each other.
    pub window: Limit,
    /// The most envelopes, and bytes of them unless one alone is larger, in one gRPC message.
    pub batch: Limit,
    /// How long an outcome may wait for others when it is nothing but "taken". Any other one takes those that wait along
    /// at once; so does a quarter of the window. A message of outcomes for each envelope would cost as much as the
    /// envelope.
    pub delay: Duration,
    /// How long a connection, its handshakes and the greeting may take, each.
    pub connect: Duration,
    /// The first wait before a new attempt to connect; each further one is twice as long, up to `backoff_max`. What is
    /// waited is drawn between the half and the whole.
    pub backoff: Duration,
    /// The longest wait between two attempts.
    pub backoff_max: Duration,
    /// How often a silent connection is asked for a sign of life (HTTP/2 PING).
    pub keepalive: Duration,
    /// How long the sign may take; then the connection is dead.
    pub keepalive_timeout: Duration,
    /// How long a node may be out of reach until what waits for it is lost, if nobody says earlier that it is dead.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: Limit { envelopes: 16_384, bytes: 16 * 1024 * 1024 },
            window: Limit { envelopes: 4_096, bytes: 4 * 1024 * 1024 },
            batch: Limit { envelopes: 256, bytes: 64 * 1024 },
            delay: Duration::from_millis(2),
            connect: Duration::from_secs(3),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            keepalive: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(2),
            patience: Duration::from_secs(30),
        }
    }
}
