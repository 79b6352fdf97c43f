//! Challenges of an authority in a TLS handshake (RFC 8737): a client that offers nothing but `acme-tls/1` gets a certificate made
//! for the challenge, and no stream.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, NoServerSessionStorage};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::TlsStream;

/// The protocol's name in ALPN (RFC 8737 section 6.2).
pub const ALPN: &[u8] = b"acme-tls/1";

/// How long finding the answer and the rest of the handshake may take each.
const PATIENCE: Duration = Duration::from_secs(10);

/// Knows the answers to challenges.
pub trait Challenges: Send + Sync + 'static {
    /// The key authorization for the challenge of `name` (A-labels, lower case), if there is one.
    fn answer<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;
}

/// Whether the client wants to see the answer to a challenge: it offers this protocol alone (RFC 8737 section 3).
pub(super) fn asks(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ALPN) && offered.next().is_none())
}

/// Completes the handshake with the answer to the challenge of `name` and closes the connection. Always an error: there is no
/// stream.
pub(super) async fn answer<S>(
    challenges: Option<&Arc<dyn Challenges>>,
    name: Option<&str>,
    stream: S,
    hello: Vec<u8>,
) -> io::Error
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let outcome = match answered(challenges, name, stream, hello).await {
        Ok(()) => "answered",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "unknown",
        Err(_) => "failed",
    };
    metrics::counter!("rookery_acme_challenges_total", "challenge" => "tls-alpn-01", "outcome" => outcome)
        .increment(1);
    io::Error::other(format!("a challenge for a certificate: {outcome}"))
}

async fn answered<S>(
    challenges: Option<&Arc<dyn Challenges>>,
    name: Option<&str>,
    mut stream: S,
    hello: Vec<u8>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let found = match (challenges, name) {
        (Some(challenges), Some(name)) => timeout(PATIENCE, challenges.answer(name)).await.ok().flatten(),
        _ => None,
    };
    let (Some(name), Some(authorization)) = (name, found) else {
        refuse(&mut stream, NO_APPLICATION_PROTOCOL).await;
        return Err(io::ErrorKind::NotFound.into());
    };
    let config = config(name, &authorization).map_err(io::Error::other)?;
    let handshake = async {
        let (mut stream, _) = TlsStream::accept(stream, Arc::new(config), hello).await?;
        stream.shutdown().await
    };
    timeout(PATIENCE, handshake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// RFC 7301 section 3.2.
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// RFC 6066 section 3.
pub(super) const UNRECOGNIZED_NAME: u8 = 112;

/// Sends a fatal alert before a handshake. The reason matters more than whether the client hears it.
pub(super) async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, alert: u8) {
    let record = [21, 3, 3, 0, 2, 2, alert];
    let _ = timeout(PATIENCE, async {
        stream.write_all(&record).await?;
        stream.flush().await
    })
    .await;
}

/// A certificate for `name` with the digest of the key authorization in it (RFC 8737 section 3), and what serves it.
fn config(name: &str, authorization: &str) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    let digest = Sha256::digest(authorization);
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&digest)];
    let certificate = params.self_signed(&key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let der = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der.into())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
