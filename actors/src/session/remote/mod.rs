//! Sessions and connections that are not on the same node.
//!
//! - `connection_proxy`: stands at the session's node for a connection elsewhere.
//! - `session_proxy`: stands at the connection's node for a session elsewhere.
//! - `reattach`: connections whose session has lost its home find the next.

pub(crate) mod connection_proxy;
pub(crate) mod reattach;
pub(crate) mod session_proxy;

pub(crate) use session_proxy::{Item, SessionProxy, Tail};
