//! The node: configuration, TLS, listeners and connections. The program `rookery` puts them together.
//!
//! - [`config`]: `rookery.toml`, validated into types. [`check`](mod@check) says what it would do.
//! - [`program`]: the commands of `rookery`.
//! - [`serve`]: a node from its start to its end; [`start`], [`listeners`], [`signals`], [`reload`] are its parts.
//! - [`cluster`]: the same among others: joining, and leaving so that nobody notices.
//! - [`transport`]: what carries a stream: TCP and TLS.
//! - [`streams`]: XML streams; [`streams::c2s`] is a client's, from its first byte to its last.
//! - [`http`]: the routes of the node, and TLS for them. [`https`] is the client's side.
//! - [`tls`]: certificates by domain, handshakes, channel bindings, and a development authority.
//! - [`dns`]: where the servers of other domains are.
//! - [`posh`]: fingerprints of our certificates, for web sites to show.
//! - [`acme`]: certificates from an authority: one node orders them, all serve them.
//! - [`net`]: the network seam, and what is refused before a byte of XMPP is read.
//! - [`dev_store`]: a store for several nodes on one machine.
//! - [`storage`]: what the store says of itself, and what readiness makes of it.
//! - [`admin`]: what an operator can ask of a node, or of its data folder.
//!
//! Deliberately absent: anything about a user. A connection is a reliable pipe to its session (`rookery-actors`).

pub mod acme;
pub mod admin;
pub mod check;
pub mod cluster;
pub mod config;
pub mod dev_store;
pub mod dns;
pub mod greeting;
pub mod http;
pub mod https;
pub mod listeners;
pub mod net;
pub mod options;
pub mod ports;
pub mod posh;
pub mod program;
pub mod reload;
pub mod serve;
pub mod signals;
pub mod start;
pub mod storage;
pub mod streams;
pub mod tls;
pub mod transport;
