//! External components (XEP-0114): programs that speak for a domain of their own, such as gateways to other networks.
//!
//! - `home`: the placed actor of a component's name. Every stanza for the component comes to the home, which hands it to one of the
//!   component's connections, wherever that is. `balance`: which user has which connection. `hand`: the way there.
//! - `connection`: a connection's end on the node that has its socket: what is to be written, and what the component has taken.
//!   `serve`: how a connection finds the home, and the next one. `send`: what a component sends.
//! - `privilege`: what a component does in the name of users (XEP-0356); the rest of that is `crate::user::behalf`. `announce`: how a
//!   component learns what it may. `presence`: how it learns of the presence that there is. `absence`: how users learn that it is
//!   away; `abroad`: how those of other servers do.
//!
//! # What can be lost
//!
//! XEP-0114 has no acknowledgements. A stanza for a component counts as handled when the component has answered a ping (XEP-0199) that
//! was written behind the stanza, for by then the component has read it. Until then the sender is told nothing, and the home has the
//! stanza: if the connection breaks it goes to another connection, or waits a moment for the next one. So a component may get a
//! stanza twice, after a connection broke. A component that answers no pings is trusted to have read what was written.
//!
//! What a component sends is handed on when it is read; a component is never told that a stanza was kept. While a node dies, what it
//! had read of the component and not handed on is lost.

mod abroad;
mod absence;
mod announce;
mod balance;
mod connection;
mod hand;
mod home;
mod messages;
mod presence;
mod privilege;
mod send;
mod serve;

pub use connection::{ComponentLink, End, Patience};
pub(crate) use home::Component;
pub use send::Refused;
pub use serve::ConnectedComponent;

/// The kind of a component's actor, for [`Service`](crate::options::Service).
pub const KIND: &str = "component";
