//! The bytes of a stream between servers: a socket in the clear, or TLS on it as either side of the handshake.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client;

use crate::dns::Begin;
use crate::net::Stream;
use crate::tls::remote::{self, Secured};
use crate::tls::{Tls, TlsStream};

/// A socket, whatever it is.
pub(super) type Raw = Box<dyn Stream>;

/// The socket, before and after TLS.
enum Layer {
    /// In the clear.
    Plain(Raw),
    /// The other server has called.
    Accepted(Box<TlsStream<Raw>>),
    /// We have called.
    Called(Box<client::TlsStream<Raw>>),
    /// In the hands of a handshake that did not come back.
    Gone,
}

/// The bytes of a stream, and what its TLS says of the other side.
pub(super) struct Wire {
    layer: Layer,
    /// TLS's version; empty before TLS.
    pub(super) tls: &'static str,
    /// The certificates of the other side, its own first; empty if it sent none.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl Wire {
    /// A socket in the clear.
    pub(super) fn new(raw: Raw) -> Self {
        Self { layer: Layer::Plain(raw), tls: "", chain: Vec::new() }
    }

    /// A socket of another server that has called by direct TLS, after the handshake.
    pub(super) fn accepted(secured: Secured<TlsStream<Raw>>) -> Self {
        let (layer, tls, chain) = (Layer::Gone, "", Vec::new());
        let mut own = Self { layer, tls, chain };
        own.secured(secured, Layer::Accepted);
        own
    }

    /// Whether TLS has begun.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.layer, Layer::Accepted(_) | Layer::Called(_))
    }

    fn release(&mut self) -> io::Result<Raw> {
        match std::mem::replace(&mut self.layer, Layer::Gone) {
            Layer::Plain(raw) => Ok(raw),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn secured<S>(&mut self, secured: Secured<S>, layer: impl FnOnce(Box<S>) -> Layer) {
        (self.tls, self.chain) = (secured.version, secured.chain);
        self.layer = layer(Box::new(secured.stream));
    }

    /// TLS as the server of a connection. With STARTTLS the certificate is that of the SNI, else of `to`.
    pub(super) async fn accept(&mut self, tls: &Tls, begin: Begin, to: &str) -> io::Result<()> {
        let raw = self.release()?;
        let secured = match begin {
            Begin::Starttls => remote::accept_starttls(tls, raw, to).await?,
            Begin::Direct => remote::accept_direct(tls, raw).await?,
        };
        self.secured(secured, Layer::Accepted);
        Ok(())
    }

    /// TLS as the client of a connection to `remote`, with the certificate of `local`.
    pub(super) async fn call(
        &mut self,
        tls: &Tls,
        local: &str,
        remote: &str,
        begin: Begin,
    ) -> io::Result<()> {
        let raw = self.release()?;
        let secured = remote::connect(tls, raw, local, remote, begin).await?;
        self.secured(secured, Layer::Called);
        Ok(())
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().layer {
            Layer::Plain(raw) => Pin::new(raw).poll_read(cx, buf),
            Layer::Accepted(tls) => Pin::new(tls).poll_read(cx, buf),
            Layer::Called(tls) => Pin::new(tls).poll_read(cx, buf),
            Layer::Gone => gone(),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().layer {
            Layer::Plain(raw) => Pin::new(raw).poll_write(cx, buf),
            Layer::Accepted(tls) => Pin::new(tls).poll_write(cx, buf),
            Layer::Called(tls) => Pin::new(tls).poll_write(cx, buf),
            Layer::Gone => gone(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().layer {
            Layer::Plain(raw) => Pin::new(raw).poll_flush(cx),
            Layer::Accepted(tls) => Pin::new(tls).poll_flush(cx),
            Layer::Called(tls) => Pin::new(tls).poll_flush(cx),
            Layer::Gone => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().layer {
            Layer::Plain(raw) => Pin::new(raw).poll_shutdown(cx),
            Layer::Accepted(tls) => Pin::new(tls).poll_shutdown(cx),
            Layer::Called(tls) => Pin::new(tls).poll_shutdown(cx),
            Layer::Gone => gone(),
        }
    }
}
