//! The network seam: where sockets are made, and what is refused before a byte of XMPP is read.
//!
//! Everything above sees the traits [`Net`], [`Listener`] and [`Stream`]; a simulation implements them over its own
//! network.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

pub mod accept;
pub mod gate;
pub mod guesses;
pub mod origin;
pub(crate) mod places;
pub mod proxy;
mod reserve;
pub mod seldom;
pub(crate) mod tcp;

pub use gate::{Gate, Pass, Refusal, Standing};
pub use guesses::Guesses;
pub use origin::Origin;
pub use tcp::Tcp;

/// A connection's bytes.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A network: makes listeners.
pub trait Net: Send + Sync + 'static {
    /// What its listeners are.
    type Listener: Listener;

    /// Listens at `at`; port 0 takes any free one.
    fn bind(&self, at: SocketAddr) -> io::Result<Self::Listener>;
}

/// Accepts connections.
pub trait Listener: Send + 'static {
    /// What it accepts.
    type Stream: Stream;

    /// The next connection and the address it comes from. Cancel safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Where it really listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}
