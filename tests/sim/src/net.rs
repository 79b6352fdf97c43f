//! The simulated network under the channel between nodes and under the store.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rookery_cluster::mesh::peer::net::{Accept, Connecting, Io, Network};
use rookery_cluster::store::dev::Remote;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use turmoil::net::{TcpListener, TcpStream};

/// The port on which nodes listen for each other.
pub(crate) const PEERS: u16 = 7200;
/// The store has a port for each node, so that the store knows which node writes.
pub(crate) const STORE: u16 = 7300;

/// Where nodes connect to each other.
pub(crate) struct Simulated;

impl Network for Simulated {
    fn connect<'a>(&'a self, address: &'a str) -> Connecting<'a> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(address).await?) as Box<dyn Io>) })
    }
}

/// Where nodes accept each other.
pub(crate) struct Listener(pub(crate) TcpListener);

impl Accept for Listener {
    type Io = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        Ok(self.0.accept().await?.0)
    }
}

/// A connection of the store.
pub(crate) struct Socket(TcpStream);

impl Connected for Socket {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The store's connections from one node.
pub(crate) async fn incoming(
    node: usize,
) -> io::Result<impl tokio_stream::Stream<Item = io::Result<Socket>> + Send> {
    let listener = TcpListener::bind(("0.0.0.0", port(node))).await?;
    let (tx, rx) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let accepted = listener.accept().await.map(|(stream, _)| Socket(stream));
            if tx.send(accepted).await.is_err() {
                return;
            }
        }
    });
    Ok(tokio_stream::wrappers::ReceiverStream::new(rx))
}

/// A node's way to the store.
pub(crate) fn store(node: usize) -> rookery_cluster::store::Result<Remote> {
    let endpoint = Remote::endpoint(&format!("store:{}", port(node)))?;
    let connector = tower::service_fn(move |_| async move {
        TcpStream::connect(("store", port(node))).await.map(TokioIo::new)
    });
    Ok(Remote::over(endpoint.connect_with_connector_lazy(connector)))
}

fn port(node: usize) -> u16 {
    STORE + u16::try_from(node).unwrap_or(0)
}
