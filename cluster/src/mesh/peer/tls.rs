//! Mutual TLS between nodes: both ends show a certificate of the cluster's authority that is for their name.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::denied::{Denied, Guarded};
use super::net::Io;
use super::node::NodeId;

/// What is spoken inside, for ALPN.
const H2: &[u8] = b"h2";

/// What is wrong with certificates or keys. Nothing of a key is in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Certificate, key and authority do not fit together.
    #[error("the certificate {path} cannot be used: {what}")]
    Unfit {
        /// The file of the certificate.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// A certificate could not be made.
    #[error("no certificate could be created for {name}: {source}")]
    Make {
        /// The node that it is for.
        name: String,
        /// Why not.
        source: rcgen::Error,
    },
}

/// The files that a node needs to talk to others, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The cluster's authority; several while one takes the place of another.
    pub authority: PathBuf,
    /// The node's certificate, with what is between it and the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How nodes know each other.
#[derive(Clone)]
pub enum Security {
    /// By certificates.
    Tls(Tls),
    /// They do not, and everybody on the network can read and write everything. For development only, and only where
    /// the operator says so.
    PlainText,
}

/// Both ends' settings for mutual TLS 1.3.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls(_) => "Tls",
            Self::PlainText => "PlainText",
        })
    }
}

impl Tls {
    /// Reads the files of `node`. A key that everybody may read is used, with a warning.
    ///
    /// # Errors
    /// What is wrong with the files; also if the certificate is not for `node` or not by the authority, which the other
    /// nodes would find out later.
    pub fn read(files: &Files, node: &NodeId) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.authority)? {
            let bad = |e: rustls::Error| content(&files.authority, &e);
            roots.add(authority).map_err(bad)?;
        }
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| pem(&files.key, e))?;
        if fs::metadata(&files.key).is_ok_and(|at| at.permissions().mode() & 0o007 != 0) {
            tracing::warn!(file = %files.key.display(), "other users can read the private key; run chmod 600 on the file");
        }
        let unfit =
            |e: &dyn fmt::Display| Error::Unfit { path: files.certificate.clone(), what: e.to_string() };
        let first = chain.first().ok_or_else(|| unfit(&"there is none in the file"))?;
        Certified::By(first.clone()).is(node).map_err(|e| unfit(&e))?;

        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots);
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|e| unfit(&e))?;
        let versions = &[&rustls::version::TLS13];
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|e| unfit(&e))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| unfit(&e))?;
        server.alpn_protocols = vec![H2.to_vec()];
        // Connections are few and long: each shows its certificate anew, so that one that expired is found.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| unfit(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| unfit(&e))?;
        client.alpn_protocols = vec![H2.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}

impl Security {
    /// The caller's handshake, with `node`.
    pub(super) async fn connect(
        &self,
        io: Box<dyn Io>,
        node: &NodeId,
        denied: watch::Receiver<Denied>,
    ) -> io::Result<Box<dyn Io>> {
        let Self::Tls(tls) = self else { return Ok(io) };
        let name = ServerName::try_from(node.as_str().to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(&tls.client)).connect(name, io).await?;
        let shown = shown(stream.get_ref().1)?;
        Ok(Box::new(Guarded::new(stream, &shown, denied)?))
    }

    /// The handshake of the one called.
    pub(super) async fn accept(
        &self,
        io: impl Io,
        denied: watch::Receiver<Denied>,
    ) -> io::Result<(Box<dyn Io>, Certified)> {
        let Self::Tls(tls) = self else { return Ok((Box::new(io), Certified::PlainText)) };
        let stream = TlsAcceptor::from(Arc::clone(&tls.server)).accept(io).await?;
        let shown = shown(stream.get_ref().1)?;
        Ok((Box::new(Guarded::new(stream, &shown, denied)?), Certified::By(shown)))
    }
}

/// The certificate of the other end.
fn shown(connection: &rustls::CommonState) -> io::Result<CertificateDer<'static>> {
    let first = connection.peer_certificates().and_then(|chain| chain.first());
    Ok(first.ok_or_else(|| io::Error::other("no certificate"))?.clone().into_owned())
}

/// What is known of a caller before it says a word.
#[derive(Debug, Clone)]
pub(super) enum Certified {
    /// The caller has this certificate, which the authority signed.
    By(CertificateDer<'static>),
    /// Nothing.
    PlainText,
}

impl Certified {
    /// Whether it may be `node`; the error says why not.
    pub(super) fn is(&self, node: &NodeId) -> Result<(), String> {
        let Self::By(certificate) = self else { return Ok(()) };
        let name = ServerName::try_from(node.as_str()).map_err(|e| e.to_string())?;
        let parsed = ParsedCertificate::try_from(certificate).map_err(|e| e.to_string())?;
        verify_server_name(&parsed, &name).map_err(|_| format!("the certificate is not for {node}"))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| pem(path, e))?.collect();
    let all = all.map_err(|e| pem(path, e))?;
    if all.is_empty() { Err(content(path, &"there is no certificate in it")) } else { Ok(all) }
}

fn content(path: &Path, what: &dyn fmt::Display) -> Error {
    Error::Content { path: path.to_owned(), what: what.to_string() }
}

fn pem(path: &Path, error: rustls::pki_types::pem::Error) -> Error {
    match error {
        rustls::pki_types::pem::Error::Io(source) => Error::File { path: path.to_owned(), source },
        other => content(path, &other),
    }
}
