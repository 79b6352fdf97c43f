//! A connection to a node: address, TCP, TLS, HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::net::Io;
use super::node::NodeId;
use super::shared::{Shared, WINDOW_CONNECTION, WINDOW_STREAM};

/// Why there is no stream to a node.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the address of the node is not known")]
    NoAddress,
    #[error("cannot connect to {0}: {1}")]
    Connect(String, String),
    #[error("{0} timed out")]
    Late(&'static str),
    #[error("refused: {0}")]
    Refused(String),
    /// This node was declared dead, or has a successor. The node hears that by other ways, and says so once.
    #[error("refused: {0}")]
    Over(String),
    #[error("the peer violates the protocol: {0}")]
    Rules(&'static str),
    #[error("the stream failed: {0}")]
    Broken(String),
    #[error("generation {0} is dead")]
    Dead(u64),
}

/// Connects to `node` at `address`.
pub(super) async fn connect(shared: &Arc<Shared>, node: &NodeId, address: &str) -> Result<Channel, Error> {
    let failed = |error: tonic::transport::Error| Error::Connect(address.to_owned(), root(&error));
    let options = &shared.options;
    // The name is for the headers; the connector knows where to go and does TLS.
    let endpoint = Endpoint::from_shared(format!("http://{node}"))
        .map_err(failed)?
        .initial_stream_window_size(WINDOW_STREAM)
        .initial_connection_window_size(WINDOW_CONNECTION)
        .http2_keep_alive_interval(options.keepalive)
        .keep_alive_timeout(options.keepalive_timeout)
        .keep_alive_while_idle(true);
    let connector = Connector { shared: Arc::clone(shared), node: node.clone(), address: address.to_owned() };
    let connected = timeout(options.connect * 2, endpoint.connect_with_connector(connector)).await;
    connected.map_err(|_| Error::Late("the connection"))?.map_err(failed)
}

/// What an error is about, without the layers around it.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Makes the connection that tonic speaks HTTP/2 on.
struct Connector {
    shared: Arc<Shared>,
    node: NodeId,
    address: String,
}

impl tonic::codegen::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (shared, node, address) = (Arc::clone(&self.shared), self.node.clone(), self.address.clone());
        Box::pin(async move {
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            let connect = shared.options.connect;
            let io = timeout(connect, shared.network.connect(&address)).await.map_err(late)??;
            let security = shared.security();
            Ok(TokioIo::new(
                timeout(connect, security.connect(io, &node, shared.denied.subscribe()))
                    .await
                    .map_err(late)??,
            ))
        })
    }
}
