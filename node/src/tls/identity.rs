//! A domain's certificate with everything that is served from it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{binding, development, remote};
use crate::config::Source;

/// The longest time before the end of a certificate from which every day a line in the log warns, seconds: three weeks.
const WARN: i64 = 21 * 86_400;

/// Where a certificate comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// From this file.
    File(PathBuf),
    /// From the authority of this directory URL.
    Authority(String),
    /// From the node itself.
    SelfSigned,
}

/// One domain's certificate, ready to serve.
pub struct Identity {
    /// The domain.
    pub domain: String,
    /// Where it comes from.
    pub origin: Origin,
    /// The DNS names that the certificate is for, in lower case.
    pub names: Vec<String>,
    /// The name of its issuer, as X.509 writes it.
    pub issuer: String,
    /// From when it is valid, seconds since 1970.
    pub not_before: i64,
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
    /// Reads the first certificate of `chain`; `served` are the three configurations in the order of the fields. The error says
    /// what is wrong with it.
    pub(super) fn new(
        domain: String,
        origin: Origin,
        chain: Vec<CertificateDer<'static>>,
        [starttls, direct, http]: [Arc<ServerConfig>; 3],
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
        let issuer = certificate.issuer().to_string();
        let validity = certificate.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let end_point = binding::server_end_point(der, &certificate);
        Ok(Self {
            domain,
            origin,
            names,
            issuer,
            not_before,
            not_after,
            end_point,
            starttls,
            direct,
            http,
            remote,
            chain,
        })
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

    /// Whether the configuration still says that it comes from there.
    pub(super) fn is_from(&self, source: Source<'_>) -> bool {
        match (&self.origin, source) {
            (Origin::File(path), Source::Files(files)) => *path == files.certificate,
            (Origin::Authority(_), Source::Ordered) | (Origin::SelfSigned, Source::SelfSigned) => true,
            _ => false,
        }
    }

    /// Whether it expires so soon that somebody should look: three weeks before, or in the last quarter of a shorter life.
    pub(super) fn is_old(&self, now: i64) -> bool {
        self.not_after - now < WARN.min((self.not_after - self.not_before) / 4)
    }

    /// Says in the log that it expires soon, or has expired.
    pub(super) fn warn(&self, now: i64) {
        let (domain, left) = (&self.domain, self.not_after - now);
        if left <= 0 {
            tracing::error!(%domain, origin = %self.origin, "the certificate has expired");
        } else if self.is_old(now) {
            tracing::warn!(%domain, origin = %self.origin, days = left / 86_400, "the certificate expires soon");
        }
    }

    /// Sets the gauge of its end.
    pub(super) fn measure(&self) {
        #[allow(clippy::cast_precision_loss)] // seconds are exact in an f64
        let until = self.not_after as f64;
        metrics::gauge!("rookery_certificate_expiry_seconds", "domain" => self.domain.clone()).set(until);
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Authority(directory) => f.write_str(directory),
            Self::SelfSigned => f.write_str("generated by the node"),
        }
    }
}
