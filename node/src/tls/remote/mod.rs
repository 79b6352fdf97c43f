//! Proving other servers: TLS with any well-formed certificate, in both directions, and a judgement of what the certificate
//! proves.

use std::io;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client};

use super::accept::{Hello, SPACE, count, none_yet};
use super::{Tls, TlsStream, version};
use crate::dns::{Begin, names};

mod configs;
mod dane;
pub mod either;
mod judge;
mod names_of;
pub mod posh;
mod verifier;

pub use configs::Configs;
pub use judge::{BadAuthorities, Judge, NotProved, Proof};

/// The protocol's name in ALPN (XEP-0368 version 1.1.0).
pub const ALPN: &[u8] = b"xmpp-server";

/// A stream to or from another server after its handshake.
pub struct Secured<S> {
    /// The encrypted stream.
    pub stream: S,
    /// The certificates that the other side sent, its own first; empty if none.
    pub chain: Vec<CertificateDer<'static>>,
    /// TLS's version: `1.2` or `1.3`.
    pub version: &'static str,
    /// The name that the other side asked for by SNI (incoming streams only).
    pub sni: Option<String>,
}

/// TLS towards `remote` from `local` (both domains as in JIDs): SNI is `remote` (XEP-0368), the certificate that is offered is
/// that of `local`, and any well-formed certificate whose key the other side has is accepted; [`Judge`] says what it proves.
pub async fn connect<S>(
    tls: &Tls,
    stream: S,
    local: &str,
    remote: &str,
    begin: Begin,
) -> io::Result<Secured<client::TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        let identity = tls.identity(Some(local)).ok_or_else(none_yet)?;
        let config = match begin {
            Begin::Starttls => identity.remote.to_starttls.clone(),
            Begin::Direct => identity.remote.to_direct.clone(),
        };
        let stream = TlsConnector::from(config).connect(server_name(remote)?, stream).await?;
        let state = stream.get_ref().1;
        let (chain, version) = (chain(state), version(state));
        Ok(Secured { chain, version, sni: None, stream })
    };
    let done: io::Result<Secured<_>> = handshake.await;
    let (version, outcome) = done.as_ref().map_or(("none", "failed"), |done| (done.version, "ok"));
    metrics::counter!("rookery_tls_outgoing_handshakes_total", "version" => version, "outcome" => outcome)
        .increment(1);
    done
}

/// TLS with a server that connected, after `<proceed/>`: our certificate is that of the SNI, else of `to`. A certificate is asked
/// for, and none is needed.
pub async fn accept_starttls<S>(tls: &Tls, stream: S, to: &str) -> io::Result<Secured<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (hello, identity) = count(Hello::read(stream, SPACE).await)?.identity(tls, Some(to)).await?;
    finish(hello, identity.remote.starttls.clone()).await
}

/// Direct TLS with a server that connected. If it offers ALPN, it must offer `xmpp-server`.
pub async fn accept_direct<S>(tls: &Tls, stream: S) -> io::Result<Secured<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = count(Hello::read(stream, 0).await)?.unless_challenge(tls).await?;
    let (hello, identity) = hello.identity(tls, None).await?;
    finish(hello, identity.remote.direct.clone()).await
}

async fn finish<S>(
    hello: Hello<S>,
    config: std::sync::Arc<rustls::ServerConfig>,
) -> io::Result<Secured<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let done = hello.secure(config).await?;
    let chain = chain(done.stream.get_ref().1);
    Ok(Secured { chain, version: done.protocol, sni: done.sni, stream: done.stream })
}

fn chain(state: &rustls::CommonState) -> Vec<CertificateDer<'static>> {
    state.peer_certificates().unwrap_or_default().to_vec()
}

/// For SNI, which addresses have not.
fn server_name(domain: &str) -> io::Result<ServerName<'static>> {
    match names::address(domain) {
        Some(address) => Ok(ServerName::from(address)),
        None => names::ascii(domain)
            .and_then(|name| ServerName::try_from(name).ok())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a name for TLS")),
    }
}

#[cfg(test)]
mod tests;
