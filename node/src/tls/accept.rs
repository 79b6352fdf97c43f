//! The TLS handshake of one connection.

use std::io;
use std::sync::Arc;

use rookery_proto::sasl::ChannelBindings;
use rookery_proto::xml::chars::is_space;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::stream::{TlsStream, read_some};
use super::{Identity, Tls, ascii, challenge, remote};

/// The protocol's name in ALPN (XEP-0368).
pub const ALPN: &[u8] = b"xmpp-client";

/// The protocol's name in ALPN (RFC 7301 section 6).
pub const HTTP: &[u8] = b"http/1.1";

/// How much white space may follow `<starttls/>`.
pub(super) const SPACE: usize = 256;

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

/// Direct TLS. A client that offers ALPN must offer `xmpp-client`. An authority's challenge is answered, and ends as an error.
pub async fn accept_direct<S>(tls: &Tls, stream: S) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = count(Hello::read(stream, 0).await)?.unless_challenge(tls).await?;
    let (hello, identity) = hello.identity(tls, None).await?;
    hello.finish(identity.direct.clone(), identity).await
}

/// TLS for HTTP. A client that offers ALPN must offer `http/1.1`. An authority's challenge is answered, and ends as an error.
pub async fn accept_http<S>(tls: &Tls, stream: S) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = count(Hello::read(stream, 0).await)?.unless_challenge(tls).await?;
    let (hello, identity) = hello.identity(tls, None).await?;
    hello.finish(identity.http.clone(), identity).await
}

/// After `<proceed/>`: the certificate is that of the SNI, else of `to`, the domain in the stream header. White space that
/// the client sent behind `<starttls/>` may still come before its hello; it means nothing, and is dropped.
pub async fn accept_starttls<S>(tls: &Tls, stream: S, to: &str) -> io::Result<Accepted<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (hello, identity) = count(Hello::read(stream, SPACE).await)?.identity(tls, Some(to)).await?;
    hello.finish(identity.starttls.clone(), identity).await
}

/// A connection whose client has said hello: it is known which certificate it wants.
pub(super) struct Hello<S> {
    stream: S,
    /// All that was read: it is read again, by the connection with that certificate.
    bytes: Vec<u8>,
    pub(super) sni: Option<String>,
    /// Whether an authority asks for the answer to a challenge.
    challenge: bool,
    /// Which protocols the client offers by ALPN.
    pub(super) offers: Offers,
}

/// The protocols that a client offers by ALPN.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Offers {
    /// `xmpp-client`.
    pub(super) client: bool,
    /// `xmpp-server`.
    pub(super) server: bool,
    /// Anything at all.
    pub(super) any: bool,
}

impl Offers {
    fn of(hello: &ClientHello<'_>) -> Self {
        let mut own = Self::default();
        for name in hello.alpn().into_iter().flatten() {
            own.any = true;
            own.client |= name == ALPN;
            own.server |= name == remote::ALPN;
        }
        own
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Hello<S> {
    /// `space`: so many bytes of white space may come first.
    pub(super) async fn read(mut stream: S, mut space: usize) -> io::Result<Self> {
        let (mut acceptor, mut bytes, mut seen) = (Acceptor::default(), Vec::new(), 0);
        loop {
            if read_some(&mut stream, &mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if space > 0 {
                let blank = bytes.iter().take(space).take_while(|b| is_space(**b)).count();
                bytes.drain(..blank);
                space = if bytes.is_empty() { space - blank } else { 0 };
            }
            while let Some(mut rest) = bytes.get(seen..).filter(|rest| !rest.is_empty()) {
                seen += acceptor.read_tls(&mut rest)?;
                match acceptor.accept() {
                    Ok(None) => {}
                    Ok(Some(accepted)) => {
                        let hello = accepted.client_hello();
                        let sni = hello.server_name().map(str::to_owned);
                        let challenge = challenge::asks(&hello);
                        let offers = Offers::of(&hello);
                        return Ok(Self { stream, bytes, sni, challenge, offers });
                    }
                    Err((error, mut alert)) => {
                        let mut out = Vec::new();
                        alert.write_all(&mut out)?;
                        // The reason matters more than whether the client hears it.
                        let _ = stream.write_all(&out).await;
                        let _ = stream.flush().await;
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
            }
        }
    }

    /// Answers the challenge of an authority, and gives an error then.
    pub(super) async fn unless_challenge(self, tls: &Tls) -> io::Result<Self> {
        if !self.challenge {
            return Ok(self);
        }
        let name = self.sni.as_deref().map(ascii);
        Err(challenge::answer(tls.challenges.get(), name.as_deref(), self.stream, self.bytes).await)
    }

    /// The certificate that the client wants: by SNI, else by `to`.
    pub(super) async fn identity(mut self, tls: &Tls, to: Option<&str>) -> io::Result<(Self, Arc<Identity>)> {
        match tls.identity(self.sni.as_deref().or(to)) {
            Some(identity) => Ok((self, identity)),
            None => {
                challenge::refuse(&mut self.stream, challenge::UNRECOGNIZED_NAME).await;
                count(Err(none_yet()))
            }
        }
    }

    /// The handshake with a domain's certificate.
    pub(super) async fn finish(
        self,
        config: Arc<ServerConfig>,
        identity: Arc<Identity>,
    ) -> io::Result<Accepted<S>> {
        let mut accepted = self.secure(config).await?;
        accepted.bindings.server_end_point.clone_from(&identity.end_point);
        Ok(accepted)
    }

    /// The same without the binding to the certificate, which other servers have no use for.
    pub(super) async fn secure(self, config: Arc<ServerConfig>) -> io::Result<Accepted<S>> {
        let begun = Instant::now();
        let (stream, exporter) = count(TlsStream::accept(self.stream, config, self.bytes).await)?;
        metrics::histogram!("rookery_tls_handshake_seconds").record(begun.elapsed().as_secs_f64());
        let protocol = version(stream.get_ref().1);
        metrics::counter!("rookery_tls_handshakes_total", "version" => protocol, "outcome" => "ok")
            .increment(1);
        let bindings = ChannelBindings { exporter, server_end_point: None };
        Ok(Accepted { stream, sni: self.sni, bindings, protocol })
    }
}

/// The version of TLS of a connection after its handshake: `1.2` or `1.3`.
pub fn version(connection: &rustls::CommonState) -> &'static str {
    match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    }
}

pub(super) fn count<T>(result: io::Result<T>) -> io::Result<T> {
    if result.is_err() {
        metrics::counter!("rookery_tls_handshakes_total", "version" => "none", "outcome" => "failed")
            .increment(1);
    }
    result
}

/// There is no certificate to show yet.
pub(super) fn none_yet() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no certificate has been issued yet")
}
