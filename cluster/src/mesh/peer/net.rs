//! The network under the channel, as a seam: a simulation gives its own sockets.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection's bytes.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// A connection to come.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Io>>> + Send + 'a>>;

/// Where connections to other nodes are made. Small writes must not wait for more (no Nagle).
pub trait Network: Send + Sync + 'static {
    /// Connects to `address` (`host:port`). May be given up at any time.
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a>;
}

/// Where connections from other nodes are accepted. Small writes must not wait for more (no Nagle).
pub trait Accept: Send + 'static {
    /// What is accepted.
    type Io: Io;

    /// The next connection. Cancel safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// The operating system's TCP. Names are looked up each time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a> {
        Box::pin(async move {
            #[allow(clippy::disallowed_methods)] // this file owns the sockets between nodes
            let stream = TcpStream::connect(address).await?;
            tune(&stream)?;
            Ok(Box::new(stream) as Box<dyn Io>)
        })
    }
}

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        tune(&stream)?;
        Ok(stream)
    }
}

/// HTTP/2 pings find a dead peer while the process runs; the kernel's keepalive is for sockets that nobody reads.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
