//! XML streams (RFC 6120 section 4), one folder per kind of peer. A stream runs over any [`Transport`](crate::transport::Transport).
//!
//! - [`c2s`]: a client's stream, from its first byte to its last.
//! - [`component`]: a component's stream.
//! - [`s2s`]: streams from other servers and to them.
//! - [`either`]: which of a client and a server has called, on a port for both.

mod acks;
pub mod c2s;
pub mod component;
pub mod either;
mod goodbye;
mod rate;
pub mod s2s;

pub use rate::Rates;
