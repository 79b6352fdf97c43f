//! What carries an XML stream: bytes in and out, how elements lie in them, and what is known of the other side.
//!
//! A transport has two lives. While the stream is negotiated, it is a [`Transport`], which names the peer and says what
//! protects the connection, and may begin TLS. Once there is a session, it is [settled](Transport::settle) into a
//! [`Carrier`], which keeps nothing but what reading and writing need: thousands of those are idle.
//!
//! - [`tcp`]: TCP with STARTTLS or direct TLS; the stream is one XML document (`xml`, RFC 6120).
//!
//! The trait also fits transports that carry one element in each of their messages and have no stream header (WebSocket,
//! RFC 7395): their [`Frames`] reads `<open/>` as the header and declares in each element what a header would declare.
//! `framed` among the tests of [`c2s`](crate::streams::c2s) is one. Everything is generic, so the first transport pays
//! nothing for the others.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use rookery_proto::sasl::ChannelBindings;
use rookery_proto::xml::framer::Step;
use rookery_proto::xml::header::{Opening, StreamHeader};
use rookery_proto::xml::{Error, Limits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::config::Network;
use crate::tls::Tls;

pub mod tcp;
mod xml;

/// The bytes of a stream in both directions. What is written must be whole elements, each made by
/// [`Frames::element`].
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// How elements lie in the bytes.
    type Frames: Frames;
}

/// A connection whose stream is being negotiated.
pub trait Transport: Carrier {
    /// The same after the negotiation. As small as can be.
    type Settled: Carrier<Frames = Self::Frames>;

    /// The name of the listener in metrics, logs and the admin socket, such as `c2s_tls`.
    fn via(&self) -> &'static str;

    /// Where the peer is, once proxies have been asked. `proxies` are the networks from which a PROXY header must come,
    /// if the protocol is on. Called once, before anything else. `None`: the connection is refused, and why is logged.
    fn locate(&mut self, proxies: Option<&[Network]>) -> impl Future<Output = Option<SocketAddr>> + Send;

    /// Since when the peer could log in, if that is known: others may have looked at the connection before the negotiation begins.
    fn since(&self) -> Option<Instant> {
        None
    }

    /// What stands in front of the first byte of XML: the handshake of direct TLS; nothing for others. The caller limits
    /// the time.
    ///
    /// # Errors
    /// If the handshake fails. The connection is of no use then.
    fn begin(&mut self, tls: &Tls) -> impl Future<Output = io::Result<()>> + Send;

    /// TLS inside the stream, behind `<proceed/>` (RFC 6120 section 5), with the certificate of `domain` if the peer does not
    /// name another one. Only called where [`security`](Self::security) says `None`.
    ///
    /// # Errors
    /// If the handshake fails, or this transport knows no such thing.
    fn encrypt(&mut self, tls: &Tls, domain: &str) -> impl Future<Output = io::Result<()>> + Send;

    /// What protects the connection; `None`: it is in the clear, and no password may pass.
    fn security(&self) -> Option<Security>;

    /// What SCRAM-*-PLUS may bind to. Empty where there is no TLS, or where TLS ends at a proxy.
    fn bindings(&self) -> &ChannelBindings;

    /// The negotiation is over. `None` if the connection is not encrypted, or was lost in a handshake.
    fn settle(self) -> Option<Self::Settled>;
}

/// The encryption of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Security {
    /// TLS's version: `1.2` or `1.3`; empty where TLS ends at a proxy.
    pub version: &'static str,
    /// The cipher suite, without the prefix `TLS_`; empty where it is not known.
    pub suite: &'static str,
}

/// Where elements begin and end in the bytes of a transport, in both directions.
pub trait Frames: Send + 'static {
    /// At the start of a stream.
    fn new(limits: Limits) -> Self;

    /// What `bytes` begin with: all that was not consumed yet.
    ///
    /// # Errors
    /// At the first byte that can't belong to a stream or passes a limit. The stream is over then.
    fn next(&mut self, bytes: &[u8]) -> Result<Step, Error>;

    /// Expects a new header: the stream restarts (RFC 6120 section 4.3.3).
    fn restart(&mut self);

    /// The limits in force.
    fn limits(&self) -> &Limits;

    /// Changes the limits, from the next byte on.
    fn set_limits(&mut self, limits: Limits);

    /// Reads a header that [`next`](Self::next) has called [`Step::Open`], on a stream whose content namespace should be
    /// `content`.
    ///
    /// # Errors
    /// Those of [`StreamHeader::parse`].
    fn header(frame: &[u8], limits: &Limits, content: &'static str) -> Result<StreamHeader, Error>;

    /// Appends our header.
    fn open(out: &mut Vec<u8>, opening: &Opening<'_>);

    /// Appends one element of the first level, which `write` appends as it stands in a stream with the usual header:
    /// the content namespace is the default, and `stream:` is bound.
    fn element(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>));

    /// Appends the end of the stream.
    fn close(out: &mut Vec<u8>);
}
