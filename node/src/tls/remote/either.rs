//! Direct TLS on a port where clients and servers call.

use std::io;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};

use super::chain;
use crate::tls::Tls;
use crate::tls::accept::{Accepted, Hello, count};

/// The kinds of peers that call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A client.
    Client,
    /// Another server.
    Server,
}

/// Direct TLS with whoever has connected, the certificates that the peer sent, and its kind as ALPN says it: `xmpp-client` or `xmpp-server`
/// (XEP-0368 version 1.1.0). `None` for a peer that offers no ALPN, or both: it is asked for a certificate and needs none, as a server is,
/// and its stream says what it is. An authority's challenge is answered, and ends as an error.
///
/// # Errors
/// If the handshake fails; for a peer that offers other protocols only.
pub async fn accept_either<S>(
    tls: &Tls,
    stream: S,
) -> io::Result<(Accepted<S>, Vec<CertificateDer<'static>>, Option<Kind>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = count(Hello::read(stream, 0).await)?.unless_challenge(tls).await?;
    let (hello, identity) = hello.identity(tls, None).await?;
    let offers = hello.offers;
    let (config, kind) = match (offers.client, offers.server) {
        (true, false) => (&identity.direct, Some(Kind::Client)),
        (false, true) => (&identity.remote.direct, Some(Kind::Server)),
        // Refused there.
        (false, false) if offers.any => (&identity.direct, Some(Kind::Client)),
        (true, true) | (false, false) => (&identity.remote.either, None),
    };
    let config = config.clone();
    let accepted = hello.finish(config, identity).await?;
    let certificates = chain(accepted.stream.get_ref().1);
    Ok((accepted, certificates, kind))
}
