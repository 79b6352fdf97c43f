//! The HTTP service of a node. Features mount [`Routes`]; the service does the rest: connections and their limits, TLS, which address
//! is the client's, and the end.
//!
//! - [`routes`]: what is mounted: a method, a path or all below one, a handler.
//! - [`serve`]: the service: accepts, limits, ends gracefully.
//! - [`client`]: the real address of a client, also behind proxies.
//! - [`pages`]: the routes of every node: `/metrics`, `/healthz`, `/readyz` and a page of links.
//!
//! The service is hard to hold up: connections are few, in all and for each address, and the oldest idle one makes room for the
//! next; heads and bodies have limits of size and time.

use std::time::Duration;

mod body;
pub mod client;
pub mod pages;
mod places;
pub mod routes;
pub mod serve;
#[cfg(test)]
mod tests;

pub use client::{Client, Tls, Trusted};
pub use pages::{health, operator};
pub use routes::Routes;
pub use serve::{Plain, Secure, Service};

/// What clients may take from the service.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; the next takes the place of the oldest that is not being answered.
    pub connections: usize,
    /// The same for one address (an IPv6 /64). Trusted proxies are not counted: behind them are many.
    pub connections_per_address: usize,
    /// How long TLS's handshake and a request's head may take, and how long a connection may say nothing between two requests.
    pub head: Duration,
    /// The most header fields of a request.
    pub fields: usize,
    /// The most bytes of a request's head.
    pub head_bytes: usize,
    /// How long a request's body may stand still. How large it may be is said by the route: [`Routes::new`].
    pub body: Duration,
    /// How long a connection may live, over all its requests. The one that is being answered then is answered.
    pub connection: Duration,
    /// How long open requests may go on after the stop, or after the end of their connection's time.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_per_address: 32,
            head: Duration::from_secs(10),
            fields: 64,
            head_bytes: 16 * 1024,
            body: Duration::from_secs(20),
            connection: Duration::from_secs(300),
            grace: Duration::from_secs(2),
        }
    }
}
