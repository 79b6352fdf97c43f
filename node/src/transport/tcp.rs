//! TCP, and TLS on it: by STARTTLS (RFC 6120 section 5) or from the first byte (XEP-0368). In front of either, where the
//! operator says so, a load balancer's PROXY header.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rookery_proto::sasl::ChannelBindings;
use rookery_proto::xml::framer::Framer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use super::{Carrier, Security, Transport};
use crate::config::Network;
use crate::net::seldom::Seldom;
use crate::net::{Stream, proxy};
use crate::tls::{Accepted, Tls, TlsStream, accept_direct, accept_starttls, version};

/// How long a load balancer has to send its PROXY header.
const PROXY_HEADER: Duration = Duration::from_secs(5);

/// Which listener a connection came from: where its TLS begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With STARTTLS, inside the stream.
    InTheStream,
    /// With the first byte: direct TLS.
    Direct,
}

impl Start {
    /// The name of a client's listener in metrics, logs and the admin socket.
    pub const fn c2s(self) -> &'static str {
        match self {
            Self::InTheStream => "c2s",
            Self::Direct => "c2s_tls",
        }
    }
}

/// An accepted connection on its way through the negotiation. `S` is a TCP socket, or what a test puts in its place.
pub struct Socket<S> {
    wire: Wire<S>,
    start: Start,
    peer: SocketAddr,
    /// Since when it is known where the peer is: proxies were asked.
    located: Option<Instant>,
    bindings: ChannelBindings,
}

/// The socket, before and after TLS.
enum Wire<S> {
    /// In the clear.
    Plain(S),
    /// Encrypted.
    Tls(Box<TlsStream<S>>),
    /// In the hands of a handshake that did not come back.
    Gone,
}

impl<S: Stream> Socket<S> {
    /// A connection that was accepted from `peer`.
    pub fn new(stream: S, start: Start, peer: SocketAddr) -> Self {
        let bindings = ChannelBindings::default();
        Self { wire: Wire::Plain(stream), start, peer, located: None, bindings }
    }

    /// The same, where it is known since `since` that the peer is at `peer`: proxies are not asked.
    pub(crate) fn located(stream: S, start: Start, peer: SocketAddr, since: Instant) -> Self {
        Self { located: Some(since), ..Self::new(stream, start, peer) }
    }

    /// A connection by direct TLS, after its handshake, from a peer of which it is known since `since` that it is at `peer`.
    pub(crate) fn secured(accepted: Accepted<S>, peer: SocketAddr, since: Instant) -> Self {
        let (bindings, located) = (ChannelBindings::default(), Some(since));
        let mut own = Self { wire: Wire::Gone, start: Start::Direct, peer, located, bindings };
        own.encrypted(accepted);
        own
    }

    /// The socket, if it is in the clear, for a handshake.
    fn release(&mut self) -> io::Result<S> {
        match std::mem::replace(&mut self.wire, Wire::Gone) {
            Wire::Plain(stream) => Ok(stream),
            Wire::Tls(_) | Wire::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn encrypted(&mut self, accepted: Accepted<S>) {
        (self.wire, self.bindings) = (Wire::Tls(Box::new(accepted.stream)), accepted.bindings);
    }
}

/// Any stranger can come to a port that is for load balancers.
static UNTRUSTED: Seldom = Seldom::new();

/// Where the peer of a connection from `peer` is: reads the PROXY header, if `proxies` says from which networks one must come. `None`: the
/// connection is refused, and why is logged.
pub(crate) async fn locate<S: AsyncRead + Unpin>(
    stream: &mut S,
    peer: SocketAddr,
    proxies: Option<&[Network]>,
) -> Option<SocketAddr> {
    let Some(trusted) = proxies else { return Some(peer) };
    if !trusted.iter().any(|network| network.contains(peer.ip())) {
        metrics::counter!("rookery_limits_hit_total", "limit" => "proxy_trusted").increment(1);
        if let Some(others) = UNTRUSTED.now() {
            tracing::warn!(%peer, others, "connection refused: the address is not in listen.proxy_trusted");
        }
        return None;
    }
    match timeout(PROXY_HEADER, proxy::read(stream)).await {
        Ok(Ok(source)) => Some(source.unwrap_or(peer)),
        Ok(Err(proxy::Error::Nothing)) => {
            tracing::debug!(%peer, "the load balancer looked whether this port is open");
            None
        }
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "connection refused: invalid PROXY header");
            None
        }
        Err(_) => {
            tracing::warn!(%peer, "connection refused: no PROXY header arrived in time");
            None
        }
    }
}

impl<S: Stream> Transport for Socket<S> {
    type Settled = Box<TlsStream<S>>;

    fn via(&self) -> &'static str {
        self.start.c2s()
    }

    async fn locate(&mut self, proxies: Option<&[Network]>) -> Option<SocketAddr> {
        if self.located.is_none() {
            let peer = self.peer;
            self.peer = locate(self, peer, proxies).await?;
            self.located = Some(Instant::now());
        }
        Some(self.peer)
    }

    fn since(&self) -> Option<Instant> {
        self.located
    }

    async fn begin(&mut self, tls: &Tls) -> io::Result<()> {
        if self.start == Start::Direct && !matches!(self.wire, Wire::Tls(_)) {
            let stream = self.release()?;
            self.encrypted(accept_direct(tls, stream).await?);
        }
        Ok(())
    }

    async fn encrypt(&mut self, tls: &Tls, domain: &str) -> io::Result<()> {
        let stream = self.release()?;
        self.encrypted(accept_starttls(tls, stream, domain).await?);
        Ok(())
    }

    fn security(&self) -> Option<Security> {
        let Wire::Tls(stream) = &self.wire else { return None };
        let tls = stream.get_ref().1;
        let suite =
            tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        let suite = suite.trim_start_matches("TLS13_").trim_start_matches("TLS_");
        Some(Security { version: version(tls), suite })
    }

    fn bindings(&self) -> &ChannelBindings {
        &self.bindings
    }

    fn settle(self) -> Option<Box<TlsStream<S>>> {
        match self.wire {
            Wire::Tls(stream) => Some(stream),
            Wire::Plain(_) | Wire::Gone => None,
        }
    }
}

impl<S: Stream> Carrier for Socket<S> {
    type Frames = Framer;
}

impl<S: Stream> Carrier for Box<TlsStream<S>> {
    type Frames = Framer;
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl<S: Stream> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Gone => gone(),
        }
    }
}

impl<S: Stream> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Wire::Gone => gone(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Gone => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Gone => gone(),
        }
    }
}
