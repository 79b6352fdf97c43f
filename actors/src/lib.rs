//! Users, sessions and the features that act on them.
//!
//! - [`host`]: what they share, and the way to them. [`directory`](crate::host::Host): the placement seam.
//! - [`user`]: the actor of a bare JID, the one place where things about it are decided. [`session`]: a bound resource.
//! - [`pipe`] and [`link`]: between a session and its connection, which lives in the program and knows the socket.
//! - `far`: sessions and connections on other nodes.
//! - [`feature`] and [`features`]: one file per XEP, each one `const` that declares everything.
//!
//! Nothing in here opens a socket, reads a file or knows TLS. Nothing in here blocks or waits inside an actor.

pub mod auth;
pub mod component;
pub mod connection;
pub mod export;
pub mod features;
pub mod host;
pub mod link;
mod maintenance;
mod placement;
mod routing;
mod runtime;
mod server;
pub mod session;
#[cfg(feature = "toys")]
pub mod toys;
pub mod user;

pub use connection::budget::Charged;
pub use connection::ledger::{Ledger, Receipt};
pub use connection::pipe::{Close, Down, ELSEWHERE, Outgoing, Pipe};
pub use connection::shared_delivery::SharedDelivery;
pub use host::options::{self, Options};
pub use host::{Host, NotResumed};
pub use runtime::origin::{Origin, OriginName};
pub use server::{SessionInfo, knows};
pub use session::handle::{Authenticated, ConnInfo, SessionHandle};
