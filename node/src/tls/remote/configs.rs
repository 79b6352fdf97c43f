//! What a domain's certificate is shown with to other servers, in both directions.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, Error, ServerConfig};

use super::ALPN;
use super::verifier::AnyKey;
use crate::tls::binding::Exporter;

/// TLS of streams between servers, with one domain's certificate. Nothing is resumed: links live long, and each handshake
/// shows the certificate of its day.
pub struct Configs {
    /// Incoming, after STARTTLS: without ALPN.
    pub(super) starttls: Arc<ServerConfig>,
    /// Incoming, direct TLS: with ALPN.
    pub(super) direct: Arc<ServerConfig>,
    /// Direct TLS of a peer that may be a client: without ALPN, and with the channel binding that a client's login needs.
    pub(super) either: Arc<ServerConfig>,
    /// Outgoing, after STARTTLS.
    pub(super) to_starttls: Arc<ClientConfig>,
    /// Outgoing, direct TLS.
    pub(super) to_direct: Arc<ClientConfig>,
}

impl Configs {
    pub(in crate::tls) fn new(
        provider: &Arc<CryptoProvider>,
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
    ) -> Result<Self, Error> {
        let verifier = Arc::new(AnyKey(provider.clone()));
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let mut starttls = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(verifier.clone())
            .with_single_cert(chain.to_vec(), key.clone_key())?;
        starttls.ignore_client_order = true;
        starttls.send_tls13_tickets = 0;
        starttls.session_storage = Arc::new(NoServerSessionStorage {});
        let mut direct = starttls.clone();
        direct.alpn_protocols = vec![ALPN.to_vec()];
        let mut either = starttls.clone();
        either.key_log = Arc::new(Exporter);
        let mut to_starttls = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain.to_vec(), key.clone_key())?;
        to_starttls.resumption = Resumption::disabled();
        let mut to_direct = to_starttls.clone();
        to_direct.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self {
            starttls: Arc::new(starttls),
            direct: Arc::new(direct),
            either: Arc::new(either),
            to_starttls: Arc::new(to_starttls),
            to_direct: Arc::new(to_direct),
        })
    }
}
