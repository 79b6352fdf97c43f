//! Users, sessions and the features that act on them.
//!
//! - [`host`]: what they share, and the way to them. [`directory`](crate::host::Host): the placement seam.
//! - [`user`]: the actor of a bare JID, the one place where things about it are decided. [`session`]: a bound resource.
//! - [`pipe`] and [`link`]: between a session and its connection, which lives in the program and knows the socket.
//! - `far`: sessions and connections on other nodes.
//! - [`feature`] and [`features`]: one file per XEP, each one `const` that declares everything.
//!
//! Nothing in here opens a socket, reads a file or knows TLS. Nothing in here blocks or waits inside an actor.

mod among;
pub mod auth;
mod budget;
mod directory;
pub mod export;
mod far;
pub mod feature;
pub mod features;
mod had;
pub mod host;
mod kept;
mod ledger;
pub mod link;
mod maintenance;
mod operator;
pub mod options;
pub mod pipe;
mod quota;
mod resident;
pub mod session;
mod spread;
mod stored;
pub mod user;
mod wheel;

pub use among::Among;
pub use budget::Charged;
pub use host::{Host, NotResumed};
pub use ledger::{Ledger, Receipt};
pub use link::{Authenticated, ConnInfo, Link};
pub use operator::SessionInfo;
pub use options::Options;
pub use pipe::{Close, Down, ELSEWHERE, Outgoing, Pipe};
