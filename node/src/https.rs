//! HTTPS as a client: one request on a connection of its own, with limits of size. The caller says which authorities prove the server, how
//! its address is found, and how long a request may take.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// The most header fields of an answer.
const FIELDS: usize = 64;
/// The most bytes of an answer's head.
const HEAD: usize = 32 * 1024;
/// The port of a URL that names none.
const PORT: u16 = 443;

/// Why a request failed, for people.
pub type Failed = Box<dyn StdError + Send + Sync>;

/// TLS with servers whose certificates one of `roots` has signed for their names (RFC 2818, RFC 9525).
///
/// # Errors
/// Never with the cryptography that is built in.
pub fn config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The server of a URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// A name, or an address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    authority: Authority,
}

impl Server {
    /// The server of `uri`.
    ///
    /// # Errors
    /// If it does not begin with `https://`, has no host, or has a user's name.
    pub fn of(uri: &Uri) -> Result<Self, Failed> {
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(format!("{uri} does not begin with https://").into());
        }
        let authority = uri.authority().ok_or("a URL without a host")?.clone();
        if authority.as_str().contains('@') {
            return Err(format!("{uri} has a user's name").into());
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Ok(Self { host: bare.to_owned(), port: authority.port_u16().unwrap_or(PORT), authority })
    }

    /// Sends `request`, whose URL is of this server, on `socket`, which leads to it, and reads the answer: a body of `most` bytes at most. The
    /// connection is closed. The caller limits the time.
    ///
    /// # Errors
    /// Without TLS that proves the server's name, and for what is no answer or is too large.
    pub async fn exchange<B>(
        &self,
        config: Arc<ClientConfig>,
        socket: TcpStream,
        mut request: Request<B>,
        most: usize,
    ) -> Result<Response<Bytes>, Failed>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Failed>,
    {
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(config).connect(name, socket).await;
        let stream = stream.map_err(|error| format!("no TLS with {self}: {error}"))?;
        let mut builder = http1::Builder::new();
        builder.max_headers(FIELDS).max_buf_size(HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // Ends with this function, whatever becomes of it.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        request.headers_mut().insert(HOST, HeaderValue::from_str(self.authority.as_str())?);
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from(path);
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, most).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.authority.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_that_of_a_url() {
        let of = |text: &str| Server::of(&text.parse().unwrap());
        let known = |text: &str| {
            of(text).map(|server| (server.host.clone(), server.port, server.to_string())).unwrap()
        };
        assert_eq!(known("https://a.example/x"), ("a.example".to_owned(), 443, "a.example".to_owned()));
        assert_eq!(known("https://[::1]:8443"), ("::1".to_owned(), 8_443, "[::1]:8443".to_owned()));
        for bad in
            ["http://a.example/", "/x", "ftp://a.example/", "https://u:p@a.example/", "https://a@[::1]/"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
