//! The development store: any engine of this crate served over gRPC, and its client. The development store makes a cluster of one machine,
//! with the semantics of FoundationDB and none of its safety: one process, no copies, no login, no encryption.
//!
//! A transaction lives in the client ([`super::buffered`]); the server runs each read and each commit as a transaction of its
//! engine at the client's version, so conflicts, ages, versionstamps and watches are the engine's own.

mod client;
mod server;
mod wire;

pub use client::Remote;
pub use server::serve;

/// The largest message: a transaction of [`super::limits::TRANSACTION`] and what frames it.
const MESSAGE: usize = 32 * 1024 * 1024;
/// What may be under way unread on a connection, so that one large page does not wait for acknowledgements.
const WINDOW: u32 = 16 * 1024 * 1024;
/// Calls, watches among them, that may be open at a time on one connection.
const STREAMS: u32 = 20_000;
/// How often a connection is asked whether it lives, and how long it may take to say so.
const ALIVE: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_secs(2), std::time::Duration::from_secs(5));
