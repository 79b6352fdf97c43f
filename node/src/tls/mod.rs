//! TLS of client connections: rustls with aws-lc-rs, TLS 1.2 and 1.3 (RFC 7590, RFC 9325), one certificate for each
//! domain, found by SNI or by the stream's `to`, replaced without a restart.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rookery_cluster::seams::Seams;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ProducesTickets};

use crate::config::{self, Config};

pub mod accept;
mod binding;
pub mod development;
mod files;
mod identity;
pub mod remote;
pub mod stream;

pub use accept::{Accepted, accept_direct, accept_http, accept_starttls, version};
pub use identity::Identity;
pub use stream::TlsStream;

/// Why TLS can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be read, written or understood.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A certificate could not be made.
    #[error("a certificate for {domain} could not be created: {source}")]
    Make {
        /// For which domain.
        domain: String,
        /// Why.
        source: rcgen::Error,
    },
    /// rustls refused.
    #[error("the certificate of {domain} cannot be used: {source}")]
    Unusable {
        /// Of which domain.
        domain: String,
        /// Why.
        source: rustls::Error,
    },
    /// No domain.
    #[error("no domain has a certificate")]
    Nothing,
}

/// Seconds before the end of a certificate from which every start and reload warns.
const WARN: i64 = 14 * 86_400;

/// The certificates of all domains and what they are served with. Shared by all listeners.
pub struct Tls {
    current: ArcSwap<Set>,
    seams: Seams,
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
}

/// What became of certificates that were loaded again: a line for each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Those that are new.
    pub taken: Vec<String>,
    /// Those that are no good, and why.
    pub refused: Vec<String>,
}

/// What is served now.
struct Set {
    /// By the domain and by each name in its certificate, as SNI writes names.
    by_name: HashMap<String, Arc<Identity>>,
    first: Arc<Identity>,
}

impl Tls {
    /// Loads all certificates, and makes those that the configuration leaves to the node.
    pub fn load(config: &Config, seams: Seams) -> Result<Self, Error> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        // AES-128 first: as safe for this use, and its SHA-256 makes a handshake a tenth cheaper.
        provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
        let provider = Arc::new(provider);
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|source| Error::Unusable { domain: "session tickets".to_owned(), source })?;
        let mut all = Vec::new();
        for domain in &config.domains {
            all.push(load_one(config, domain, &seams, &provider, &tickets)?);
        }
        let current = ArcSwap::from_pointee(Set::new(all)?);
        Ok(Self { current, seams, provider, tickets })
    }

    /// Loads all certificates again. A domain whose new certificate is no good keeps its old one.
    pub fn reload(&self, config: &Config) -> Reloaded {
        let old = self.current.load_full();
        let (mut all, mut reloaded) = (Vec::new(), Reloaded::default());
        for domain in &config.domains {
            let before =
                old.by_name.get(&development::ascii(&domain.name)).filter(|i| i.domain == domain.name);
            match load_one(config, domain, &self.seams, &self.provider, &self.tickets) {
                Ok(new) => {
                    if before.is_none_or(|old| old.chain() != new.chain()) {
                        reloaded.taken.push(format!("{}: new certificate", domain.name));
                    }
                    all.push(new);
                }
                Err(error) => {
                    tracing::error!(domain = %domain.name, %error, "certificate refused");
                    let name = &domain.name;
                    reloaded.refused.push(match before {
                        Some(_) => format!("{name}: the old certificate stays, because {error}"),
                        None => format!("{name}: no certificate, because {error}"),
                    });
                    all.extend(before.cloned());
                }
            }
        }
        match Set::new(all) {
            Ok(set) => self.current.store(Arc::new(set)),
            Err(error) => reloaded.refused.push(format!("no certificate changed: {error}")),
        }
        reloaded
    }

    /// What to serve to a client that asked for `name` (by SNI, else by the stream's `to`); the first domain's if it
    /// asked for nothing we know.
    pub fn identity(&self, name: Option<&str>) -> Arc<Identity> {
        let set = self.current.load();
        let Some(name) = name else { return set.first.clone() };
        let name = development::ascii(name);
        let wildcard = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let found = set.by_name.get(&name).or_else(|| set.by_name.get(&wildcard()?));
        found.unwrap_or(&set.first).clone()
    }

    /// Sets the gauge of each certificate's time to live.
    pub fn measure(&self) {
        self.current.load().by_name.values().for_each(|identity| measure(identity));
    }

    /// Whether a certificate is so old that it should be read, or made, again.
    pub fn wants_renewal(&self) -> bool {
        let now = now_seconds(&self.seams);
        self.current.load().by_name.values().any(|identity| identity.not_after - now < development::RENEW)
    }

    /// A line for each certificate: whose, from where, until when. For `rookery check`.
    pub fn describe(&self) -> Vec<String> {
        let set = self.current.load();
        let mut all: Vec<&Arc<Identity>> = set.by_name.values().collect();
        all.sort_by(|a, b| a.domain.cmp(&b.domain));
        all.dedup_by(|a, b| a.domain == b.domain);
        let now = now_seconds(&self.seams);
        all.iter()
            .map(|i| format!("{}: valid for {} more days", i.domain, (i.not_after - now) / 86_400))
            .collect()
    }
}

impl Set {
    fn new(all: Vec<Arc<Identity>>) -> Result<Self, Error> {
        let first = all.first().cloned().ok_or(Error::Nothing)?;
        let mut by_name = HashMap::new();
        for identity in &all {
            by_name.insert(development::ascii(&identity.domain), identity.clone());
        }
        // A name that a certificate also holds, such as the host behind the SRV record; domains go first.
        for identity in &all {
            for name in &identity.names {
                by_name.entry(name.clone()).or_insert_with(|| identity.clone());
            }
        }
        Ok(Self { by_name, first })
    }
}

fn measure(identity: &Identity) {
    #[allow(clippy::cast_precision_loss)] // seconds are exact in an f64
    let until = identity.not_after as f64;
    metrics::gauge!("rookery_certificate_expiry_seconds", "domain" => identity.domain.clone()).set(until);
}

fn now_seconds(seams: &Seams) -> i64 {
    i64::try_from(seams.clock.now_micros() / 1_000_000).unwrap_or(i64::MAX)
}

fn load_one(
    config: &Config,
    domain: &config::Domain,
    seams: &Seams,
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<Arc<Identity>, Error> {
    let now = now_seconds(seams);
    let files = match &domain.certificate {
        Some(files) => files.clone(),
        None => {
            let ours = config.domains.iter().filter(|d| d.certificate.is_none());
            let served: Vec<&str> = ours.map(|d| d.name.as_str()).collect();
            development::certificate(&config.data_dir.join("tls"), &domain.name, &served, now)?
        }
    };
    let (chain, key) = files::load(&files)?;
    let unusable = |source| Error::Unusable { domain: domain.name.clone(), source };
    let build = |alpn: Vec<Vec<u8>>| -> Result<Arc<ServerConfig>, Error> {
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(unusable)?;
        server.alpn_protocols = alpn;
        server.ticketer = tickets.clone();
        server.ignore_client_order = true;
        server.key_log = Arc::new(binding::Exporter);
        server.send_tls13_tickets = 1;
        // Tickets resume; nothing is kept per client.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(server))
    };
    let identity = Identity::new(
        domain.name.clone(),
        chain.clone(),
        build(Vec::new())?,
        build(vec![accept::ALPN.to_vec()])?,
        build(vec![accept::HTTP.to_vec()])?,
        remote::Configs::new(provider, &chain, &key).map_err(unusable)?,
    )
    .map_err(|what| Error::File { path: files.certificate.clone(), what })?;
    let left = identity.not_after - now;
    if left <= 0 {
        tracing::error!(domain = %domain.name, file = %files.certificate.display(), "the certificate has expired");
    } else if left < WARN {
        tracing::warn!(domain = %domain.name, days = left / 86_400, "the certificate expires soon");
    }
    if !identity.covers(&domain.name) {
        tracing::warn!(domain = %domain.name, names = ?identity.names, "the certificate does not name the domain");
    }
    measure(&identity);
    Ok(Arc::new(identity))
}

#[cfg(test)]
mod tests;
