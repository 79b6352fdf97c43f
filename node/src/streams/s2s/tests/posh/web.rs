//! A web server of a few words, by TLS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::super::{Authority, Port};

/// The answer to one URL.
#[derive(Clone)]
pub(super) enum Answer {
    /// These bytes, and the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing, for as long as the client waits.
    Silence,
    /// The same answer as the first kind, when somebody says so.
    Late(Arc<Notify>, Vec<u8>),
}

/// `200 OK` with a body.
pub(super) fn ok(body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// A redirect.
pub(super) fn to(location: &str) -> Answer {
    let head = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    Answer::Bytes(head.into_bytes())
}

/// By host and path; and all that was asked for.
#[derive(Default)]
struct Pages {
    answers: HashMap<String, Answer>,
    asked: Vec<String>,
    /// Told when somebody asks.
    come: Arc<Notify>,
}

pub(super) struct Web {
    pub(super) at: SocketAddr,
    pages: Arc<Mutex<Pages>>,
    _serving: JoinSet<()>,
}

impl Web {
    /// With a certificate for `names`.
    pub(super) fn start(authority: &Authority, names: &[&str]) -> Self {
        let params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let key = KeyPair::generate().unwrap();
        let certificate = params.unwrap().signed_by(&key, &authority.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        let (acceptor, Port { listener, at }) = (TlsAcceptor::from(Arc::new(config)), Port::new());
        let pages = Arc::<Mutex<Pages>>::default();
        let mut serving = JoinSet::new();
        let served = pages.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(one(socket, acceptor.clone(), served.clone()));
            }
        });
        Self { at, pages, _serving: serving }
    }

    /// Sets the answer of `url`, which stands without `https://`, from now on.
    pub(super) fn answer(&self, url: &str, answer: Answer) {
        self.pages.lock().answers.insert(url.to_owned(), answer);
    }

    /// Waits until a request has come since the last time.
    pub(super) async fn comes(&self) {
        let come = self.pages.lock().come.clone();
        come.notified().await;
    }

    /// The URLs that were asked for since the last call.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.pages.lock().asked)
    }
}

async fn one(socket: TcpStream, acceptor: TlsAcceptor, pages: Arc<Mutex<Pages>>) {
    let Ok(mut stream) = acceptor.accept(socket).await else { return };
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap();
    let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let url = format!("{host}{path}");
    let answer = {
        let mut pages = pages.lock();
        pages.asked.push(url.clone());
        pages.come.notify_one();
        pages.answers.get(&url).cloned()
    };
    let none = || b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    match answer {
        Some(Answer::Silence) => drop(stream.read(&mut [0]).await),
        Some(Answer::Bytes(bytes)) => drop(stream.write_all(&bytes).await),
        Some(Answer::Late(now, bytes)) => {
            now.notified().await;
            drop(stream.write_all(&bytes).await);
        }
        None => drop(stream.write_all(&none()).await),
    }
    let _ = stream.shutdown().await;
}
