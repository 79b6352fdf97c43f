//! The TLS handshake of one connection.

use std::io;
use std::sync::Arc;

use rookery_proto::sasl::ChannelBindings;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::{Identity, Tls, binding};

/// The protocol's name in ALPN (XEP-0368).
pub const ALPN: &[u8] = b"xmpp-client";

/// A connection after its handshake.
pub struct Accepted<S> {
    /// The encrypted stream.
    pub stream: TlsStream<S>,
    /// The name that the client asked for.
    pub sni: Option<String>,
    /// What SCRAM-*-PLUS may bind to.
    pub bindings: ChannelBindings,
    /// TLS's version: `1.2` or `1.3`.
    pub protocol: &'static str,
}

/// Direct TLS. A client that offers ALPN must offer `xmpp-client`.
pub async fn accept_direct<S>(tls: &Tls, stream: S) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (start, sni) = hello(stream).await?;
    let identity = tls.identity(sni.as_deref());
    finish(start, identity.direct.clone(), identity, sni).await
}

/// After `<proceed/>`: the certificate is that of the SNI, else of `to`, the domain in the stream header.
pub async fn accept_starttls<S>(tls: &Tls, stream: S, to: &str) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (start, sni) = hello(stream).await?;
    let identity = tls.identity(Some(sni.as_deref().unwrap_or(to)));
    finish(start, identity.starttls.clone(), identity, sni).await
}

async fn hello<S>(stream: S) -> io::Result<(StartHandshake<S>, Option<String>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let start = count(LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await)?;
    let sni = start.client_hello().server_name().map(str::to_owned);
    Ok((start, sni))
}

async fn finish<S>(
    start: StartHandshake<S>,
    config: Arc<rustls::ServerConfig>,
    identity: Arc<Identity>,
    sni: Option<String>,
) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let begun = Instant::now();
    let stream = count(start.into_stream(config).await)?;
    metrics::histogram!("rookery_tls_handshake_seconds").record(begun.elapsed().as_secs_f64());
    let connection = stream.get_ref().1;
    let protocol = version(connection);
    metrics::counter!("rookery_tls_handshakes_total", "version" => protocol, "outcome" => "ok").increment(1);
    let bindings = ChannelBindings {
        exporter: binding::exporter(connection),
        server_end_point: identity.end_point.clone(),
    };
    Ok(Accepted { stream, sni, bindings, protocol })
}

/// The version of TLS of a connection after its handshake: `1.2` or `1.3`.
pub fn version(connection: &rustls::ServerConnection) -> &'static str {
    match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    }
}

fn count<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        metrics::counter!("rookery_tls_handshakes_total", "version" => "none", "outcome" => "failed")
            .increment(1);
    }
    result
}
