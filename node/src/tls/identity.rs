//! A domain's certificate with everything that is served from it.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{binding, development, remote};

/// One domain's certificate, ready to serve.
pub struct Identity {
    /// The domain.
    pub domain: String,
    /// The DNS names that the certificate is for, in lower case.
    pub names: Vec<String>,
    /// When it expires, seconds since 1970.
    pub not_after: i64,
    /// The `tls-server-end-point` channel binding (RFC 5929 section 4), where it is defined for this certificate.
    pub end_point: Option<Vec<u8>>,
    /// For STARTTLS: without ALPN.
    pub starttls: Arc<ServerConfig>,
    /// For direct TLS: with ALPN `xmpp-client`.
    pub direct: Arc<ServerConfig>,
    /// For HTTP: with ALPN `http/1.1`.
    pub http: Arc<ServerConfig>,
    /// For streams between servers.
    pub remote: remote::Configs,
    chain: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Reads the first certificate of `chain`. The error says what is wrong with it.
    pub(super) fn new(
        domain: String,
        chain: Vec<CertificateDer<'static>>,
        starttls: Arc<ServerConfig>,
        direct: Arc<ServerConfig>,
        http: Arc<ServerConfig>,
        remote: remote::Configs,
    ) -> Result<Self, String> {
        let der = chain.first().ok_or("holds no certificate")?;
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| format!("is not X.509: {e}"))?;
        let names = certificate
            .subject_alternative_name()
            .ok()
            .flatten()
            .map(|extension| extension.value.general_names.iter())
            .into_iter()
            .flatten()
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        let not_after = certificate.validity().not_after.timestamp();
        let end_point = binding::server_end_point(der, &certificate);
        Ok(Self { domain, names, not_after, end_point, starttls, direct, http, remote, chain })
    }

    /// The certificates that are sent.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether the certificate is for `domain`.
    pub(super) fn covers(&self, domain: &str) -> bool {
        let name = development::ascii(domain);
        let wild = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        domain.parse::<std::net::IpAddr>().is_ok()
            || self.names.iter().any(|n| *n == name || Some(n) == wild.as_ref())
    }
}
