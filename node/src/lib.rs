//! The node: configuration, TLS, listeners and connections. The program `rookery` puts them together.
//!
//! - [`config`]: `rookery.toml`, validated into types.
//! - [`tls`]: certificates by domain, handshakes, channel bindings, and a development authority.
//! - [`net`]: the network seam, and what is refused before a byte of XMPP is read.
//!
//! Deliberately absent: anything about a user. A connection is a reliable pipe to its session (`rookery-actors`).

pub mod config;
pub mod net;
pub mod tls;
