//! HTTP to an authority: HTTPS only, a connection for each request, with limits of time and size.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rookery_cluster::seams::Seams;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::schedule::PATIENCE;
use crate::dns::connect_to;
use crate::https::{self, Failed, Server};

/// How long a request may take, from the connection to the end of the answer.
const REQUEST: Duration = Duration::from_secs(30);
/// The most bytes of an answer's body.
const BODY: usize = 1 << 20;

/// The client of one order.
#[derive(Clone)]
pub(super) struct Client {
    config: Arc<ClientConfig>,
    seams: Seams,
    /// How many seconds the last refusal asked to wait; 0: it did not.
    after: Arc<AtomicU64>,
}

impl Client {
    /// Trusts the certificates in `ca`, or those of the operating system. Reads files.
    ///
    /// # Errors
    /// If there are none.
    pub(super) fn new(ca: Option<&PathBuf>, seams: Seams) -> Result<Self, String> {
        let all: Vec<CertificateDer<'static>> = match ca {
            Some(path) => CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|e| format!("acme.ca: {} cannot be read: {e}", path.display()))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(all);
        if roots.is_empty() {
            return Err(match ca {
                Some(path) => format!("acme.ca: {} holds no certificate", path.display()),
                None => "this system trusts no certificate authority: install the package ca-certificates, or set acme.ca".to_owned(),
            });
        }
        let config = https::config(roots).map_err(|e| e.to_string())?;
        Ok(Self { config: Arc::new(config), seams, after: Arc::default() })
    }

    /// How many seconds the last refusal asked to wait.
    pub(super) fn after(&self) -> Option<i64> {
        i64::try_from(self.after.load(Ordering::Acquire)).ok().filter(|after| *after > 0)
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Failed> {
        let server = Server::of(request.uri())?;
        let socket = connect_to(&server.host, server.port).await;
        let socket = socket.map_err(|error| format!("no connection to {server}: {error}"))?;
        let answer = server.exchange(self.config.clone(), socket, request, BODY).await?;
        let (mut parts, body) = answer.into_parts();
        if let Some(after) = parts.headers.remove(RETRY_AFTER) {
            let seconds = self.seconds(&after);
            // The next reader need not understand dates, nor fear large numbers.
            parts.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            if parts.status.is_client_error() || parts.status.is_server_error() {
                self.after.store(seconds, Ordering::Release);
            }
        }
        Ok(BytesResponse::from(Response::from_parts(parts, Full::new(body))))
    }

    /// `Retry-After` (RFC 9110 section 10.2.3) in seconds from now, within what is sensible.
    fn seconds(&self, value: &HeaderValue) -> u64 {
        let (text, most) = (value.to_str().unwrap_or_default().trim(), PATIENCE.unsigned_abs());
        let date = || {
            let at = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(at.as_secs().saturating_sub(self.seams.clock.now_micros() / 1_000_000))
        };
        text.parse().ok().or_else(date).unwrap_or(0).min(most)
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let sent = timeout(REQUEST, self.clone().send(request));
        Box::pin(async move {
            let late = |_| -> Failed { "the authority did not answer in time".into() };
            sent.await.map_err(late).flatten().map_err(instant_acme::Error::Other)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(u64);

    impl rookery_cluster::seams::Clock for At {
        fn now_micros(&self) -> u64 {
            self.0 * 1_000_000
        }
    }

    #[test]
    fn retry_after_is_a_number_or_a_date_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap();
        std::fs::write(&ca, params.self_signed(&key).unwrap().pem()).unwrap();
        // 2026-11-29 12:00:00 UTC
        let seams = Seams { clock: Arc::new(At(1_795_953_600)), ..Seams::system() };
        let client = Client::new(Some(&ca), seams).unwrap();
        let seconds = |text: &'static str| client.seconds(&HeaderValue::from_static(text));
        assert_eq!((seconds("120"), seconds(" 7 "), seconds("-5"), seconds("soon")), (120, 7, 0, 0));
        assert_eq!(seconds("Sun, 29 Nov 2026 12:01:40 GMT"), 100);
        assert_eq!(seconds("Sun, 29 Nov 2020 12:01:40 GMT"), 0);
        assert_eq!(seconds("18446744073709551615"), PATIENCE.unsigned_abs());
        assert_eq!(seconds("Sun, 29 Nov 2099 12:01:40 GMT"), PATIENCE.unsigned_abs());
        assert!(Client::new(Some(&folder.path().join("none.pem")), Seams::system()).is_err());
    }

    /// An authority that answers one request so, and what the client makes of it.
    async fn answered(answer: &[u8]) -> (Result<BytesResponse, String>, Option<i64>, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::config::Config::development();
        config.data_dir = folder.path().to_owned();
        let tls = crate::tls::Tls::load(&config, Seams::system()).unwrap();
        let listener = crate::net::Net::bind(&crate::net::Tcp, "127.0.0.1:0".parse().unwrap()).unwrap();
        let at = listener.local_addr().unwrap();
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = crate::tls::accept_http(&tls, socket).await.unwrap().stream;
            let mut asked = vec![0; 1_000];
            let read = stream.read(&mut asked).await.unwrap();
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        let client = Client::new(Some(&folder.path().join("tls/ca.pem")), Seams::system()).unwrap();
        let request = Request::post(format!("https://localhost:{}/new-order?x", at.port()));
        let request = request.body(BodyWrapper::from(b"{}".to_vec())).unwrap();
        let (asked, got) = tokio::join!(serve, client.request(request));
        (got.map_err(|e| e.to_string()), client.after(), asked)
    }

    #[tokio::test]
    async fn a_refusal_with_retry_after_is_kept() {
        let (got, after, asked) =
            answered(b"HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\nContent-Length: 2\r\n\r\n{}").await;
        assert_eq!((got.unwrap().parts.status.as_u16(), after), (429, Some(3_600)));
        assert!(asked.starts_with("POST /new-order?x HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_ascii_lowercase().contains("\r\nhost: localhost:"), "{asked}");
        // That of a success is about something else.
        let (got, after, _) =
            answered(b"HTTP/1.1 200 OK\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n")
                .await;
        let got = got.unwrap();
        assert_eq!((got.parts.headers[RETRY_AFTER].to_str().unwrap(), after), ("0", None));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_an_error() {
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(BODY + 1_000_000, b'x');
        let (got, ..) = answered(&endless).await;
        assert!(got.err().unwrap().contains("length limit"));
        let (got, ..) = answered(b"SSH-2.0-x\r\n").await;
        assert!(got.is_err());
    }
}
