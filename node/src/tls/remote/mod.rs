//! Proving other servers: TLS with any well-formed certificate, in both directions, and a judgement of what the certificate
//! proves.

use std::io;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client;

use super::{Tls, TlsStream};
use crate::dns::{Begin, Target};

/// What a certificate proves a domain by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// A chain to a trusted authority, and the domain's name (RFC 9525).
    Pkix,
    /// A TLSA record (RFC 7673).
    Dane,
}

/// Why a certificate does not prove a domain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotProved {
    /// No certificate was sent.
    #[error("no certificate was sent")]
    NoCertificate,
}

/// Judges certificates of other servers.
#[derive(Debug, Clone)]
pub struct Judge {}

impl Judge {
    /// Whether `chain` (the server's certificate first, as TLS brought it) proves `domain` (normalised, as in a JID).
    /// `targets`: for an outgoing stream the one target that it was connected to; for an incoming stream all targets of
    /// the domain, if DANE is to be tried; else none.
    pub fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        domain: &str,
        targets: &[Target],
    ) -> Result<Proof, NotProved> {
        let _ = (chain, domain, targets);
        Err(NotProved::NoCertificate)
    }
}

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

/// TLS towards `remote` from `local` (both normalised domains): SNI is `remote`, the certificate that is offered is that of
/// `local`, and any well-formed certificate whose key the other side has is accepted; [`Judge`] says what it proves.
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
    let _ = (tls, stream, local, remote, begin);
    Err(io::ErrorKind::Unsupported.into())
}

/// TLS with a server that connected, after `<proceed/>`: our certificate is that of the SNI, else of `to`. A certificate is asked
/// for, and none is needed.
pub async fn accept_starttls<S>(tls: &Tls, stream: S, to: &str) -> io::Result<Secured<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _ = (tls, stream, to);
    Err(io::ErrorKind::Unsupported.into())
}

/// Direct TLS with a server that connected. If it offers ALPN, it must offer `xmpp-server`.
pub async fn accept_direct<S>(tls: &Tls, stream: S) -> io::Result<Secured<TlsStream<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let _ = (tls, stream);
    Err(io::ErrorKind::Unsupported.into())
}
