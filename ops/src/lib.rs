//! What an operator sees and touches: metrics, logs, health, the admin socket and the command line.
//!
//! - [`metrics`]: the one list of everything that is measured, and its Prometheus text.
//! - [`logging`]: events as lines for people or as JSON; the level changes while the node runs.
//! - [`health`]: whether the node is alive and ready.
//! - [`http`]: the HTTP service that features mount routes on; metrics and health are its first users.
//! - [`cli`]: the words of the command line, as clap definitions.
//! - [`admin`]: one trait for everything an operator asks of a node, its server and client over a Unix socket.
//! - [`commands`]: the command line's verbs, run against that trait.
//! - [`secret`]: passwords on their way from an operator to a node.
//!
//! Deliberately absent: this crate knows no XMPP wire format, no actor and no store. JIDs are text here; the
//! implementation of [`admin::Admin`] parses them.

pub mod admin;
pub mod cli;
pub mod commands;
pub mod health;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod secret;

/// The version of this program, such as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
