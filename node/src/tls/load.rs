//! From a certificate and its key to all that is served with it.

use std::sync::Arc;

use rookery_cluster::seams::Seams;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};

use super::identity::Origin;
use super::{Error, Identity, Issued, accept, binding, development, files, remote};
use crate::config::{self, Config, Source};

/// What all certificates are served with.
pub(super) struct Loader {
    pub(super) seams: Seams,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

impl Loader {
    pub(super) fn new(seams: Seams) -> Result<Self, Error> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // AES-128 first: as safe for this use, and its SHA-256 makes a handshake a tenth cheaper.
        provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|source| Error::Unusable { domain: "session tickets".to_owned(), source })?;
        Ok(Self { seams, provider: Arc::new(provider), tickets })
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        i64::try_from(self.seams.clock.now_micros() / 1_000_000).unwrap_or(i64::MAX)
    }

    /// The certificate of `domain` from files, which are made if they are the node's own. `None` if an authority issues it.
    pub(super) fn of_domain(
        &self,
        config: &Config,
        domain: &config::Domain,
    ) -> Result<Option<Arc<Identity>>, Error> {
        let (files, origin) = match config.source(domain) {
            Source::Files(files) => (files.clone(), Origin::File(files.certificate.clone())),
            Source::Ordered => return Ok(None),
            Source::SelfSigned => {
                let ours = config.domains.iter().filter(|d| config.source(d) == Source::SelfSigned);
                let served: Vec<&str> = ours.map(|d| d.name.as_str()).collect();
                let folder = config.data_dir.join("tls");
                let files = development::certificate(&folder, &domain.name, &served, self.now())?;
                (files, Origin::SelfSigned)
            }
        };
        let (chain, key) = files::load(&files)?;
        self.identity(&domain.name, origin, chain, &key).map(Some)
    }

    /// The certificate of `name` that an authority issued.
    ///
    /// # Errors
    /// [`Error::Issued`] if it is broken, is not for that name, or not for that key.
    pub(super) fn issued(&self, name: &str, issued: &Issued) -> Result<Arc<Identity>, Error> {
        let origin = Origin::Authority(issued.directory.clone());
        let identity = self.identity(name, origin, issued.chain.clone(), &issued.key)?;
        if !identity.covers(name) {
            return Err(Error::Issued { name: name.to_owned(), what: "does not name it".to_owned() });
        }
        Ok(identity)
    }

    fn identity(
        &self,
        domain: &str,
        origin: Origin,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<Arc<Identity>, Error> {
        let unusable = |source| Error::Unusable { domain: domain.to_owned(), source };
        let build = |alpn: Vec<Vec<u8>>| -> Result<Arc<ServerConfig>, Error> {
            let mut server = ServerConfig::builder_with_provider(self.provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .map_err(unusable)?
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.clone_key())
                .map_err(unusable)?;
            server.alpn_protocols = alpn;
            server.ticketer = self.tickets.clone();
            server.ignore_client_order = true;
            server.key_log = Arc::new(binding::Exporter);
            server.send_tls13_tickets = 1;
            // Tickets resume; nothing is kept per client.
            server.session_storage = Arc::new(NoServerSessionStorage {});
            Ok(Arc::new(server))
        };
        let served =
            [build(Vec::new())?, build(vec![accept::ALPN.to_vec()])?, build(vec![accept::HTTP.to_vec()])?];
        let broken = |what| match &origin {
            Origin::File(path) => Error::File { path: path.clone(), what },
            _ => Error::Issued { name: domain.to_owned(), what },
        };
        let remote = remote::Configs::new(&self.provider, &chain, key).map_err(unusable)?;
        let identity =
            Identity::new(domain.to_owned(), origin.clone(), chain, served, remote).map_err(broken)?;
        identity.warn(self.now());
        if !identity.covers(domain) {
            tracing::warn!(%domain, names = ?identity.names, "the certificate does not name the domain");
        }
        identity.measure();
        Ok(Arc::new(identity))
    }
}
