//! XML streams (RFC 6120 section 4), one folder per kind of peer. A stream runs over any [`Transport`](crate::transport::Transport).
//!
//! - [`c2s`]: a client's stream, from its first byte to its last.
//! - [`component`]: a component's stream.

pub mod c2s;
pub mod component;
