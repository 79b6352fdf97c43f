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
use rustls::sign::{CertifiedKey, SingleCertAndKey};
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
        Err(error) => {
            tracing::debug!(name, %error, "a challenge could not be answered");
            "failed"
        }
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
    // The extension is critical: rustls would not take a certificate with it if it looked into it.
    let key = provider.key_provider.load_private_key(der.into())?;
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, ServerName};
    use tokio::io::AsyncReadExt as _;
    use x509_parser::prelude::{FromDer as _, X509Certificate};

    use super::*;
    use crate::tls::tests::{Anyhow, NOW, config as development, seams};
    use crate::tls::{Tls, accept_direct, accept_http, accept_starttls};

    /// Knows one answer.
    struct One;

    impl Challenges for One {
        fn answer<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>> {
            Box::pin(async move { (name == "a.example").then(|| "token.thumb".to_owned()) })
        }
    }

    /// Shows the certificate and believes it.
    #[derive(Debug)]
    struct Curious(Anyhow);

    impl rustls::client::danger::ServerCertVerifier for Curious {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        // What checks signatures here does not take a certificate with a critical extension that it does not know.
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum By {
        Direct,
        Http,
        StartTls,
    }

    /// What the server says of it, and the certificate that the client got.
    async fn ask(
        name: &str,
        alpn: &[&[u8]],
        by: By,
    ) -> (Result<(), String>, Option<CertificateDer<'static>>) {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls::load(&development(folder.path(), &["localhost"]), seams(NOW)).unwrap();
        tls.set_challenges(Arc::new(One));
        let verifier = Curious(Anyhow::trusting(folder.path()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        client.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let server = async {
            match by {
                By::Direct => accept_direct(&tls, ours).await.map(drop),
                By::Http => accept_http(&tls, ours).await.map(drop),
                By::StartTls => accept_starttls(&tls, ours, "localhost").await.map(drop),
            }
        };
        let client = async {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            let mut stream = connector.connect(name, theirs).await.ok()?;
            let sent = stream.get_ref().1.peer_certificates()?.first()?.clone().into_owned();
            // Nothing comes but the end.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.ok().filter(|read| *read == 0)?;
            Some(sent)
        };
        let (server, client) = tokio::join!(server, client);
        (server.map_err(|e| e.to_string()), client)
    }

    #[tokio::test]
    async fn the_answer_is_in_a_certificate_and_there_is_no_stream() {
        for by in [By::Direct, By::Http] {
            let (said, sent) = ask("a.example", &[ALPN], by).await;
            assert_eq!(said.unwrap_err(), "a challenge for a certificate: answered");
            let sent = sent.expect("a certificate");
            let (_, certificate) = X509Certificate::from_der(&sent).unwrap();
            let names = certificate.subject_alternative_name().unwrap().unwrap();
            assert_eq!(names.value.general_names.len(), 1);
            // RFC 8737 section 6.1: id-pe-acmeIdentifier, critical, an OCTET STRING of 32 bytes.
            let ours =
                |e: &&x509_parser::prelude::X509Extension<'_>| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31";
            let extension = certificate.extensions().iter().find(ours).unwrap();
            assert!(extension.critical);
            let mut wanted = vec![4, 32];
            wanted.extend_from_slice(&Sha256::digest("token.thumb"));
            assert_eq!(extension.value, wanted);
        }
    }

    #[tokio::test]
    async fn who_asks_for_more_or_elsewhere_learns_nothing() {
        let (said, sent) = ask("b.example", &[ALPN], By::Direct).await;
        assert_eq!((said.unwrap_err().as_str(), sent), ("a challenge for a certificate: unknown", None));
        // With another protocol beside it is no challenge: the handshake is the usual one.
        let (said, _) = ask("a.example", &[ALPN, b"xmpp-client"], By::Direct).await;
        assert_eq!(said, Ok(()));
        // Inside a stream nobody asks.
        let (said, _) = ask("a.example", &[ALPN], By::StartTls).await;
        assert!(!said.err().unwrap_or_default().contains("challenge"));
    }
}
