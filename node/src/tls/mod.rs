//! TLS of client connections: rustls with aws-lc-rs, TLS 1.2 and 1.3 (RFC 7590, RFC 9325), one certificate for each
//! domain, found by SNI or by the stream's `to`, replaced without a restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rookery_cluster::seams::Seams;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{Config, Source};

pub mod accept;
mod binding;
pub mod challenge;
pub mod development;
mod files;
mod identity;
mod load;
pub mod remote;
pub mod stream;

pub use accept::{Accepted, accept_direct, accept_http, accept_starttls, version};
pub use challenge::Challenges;
pub use development::ascii;
pub use identity::{Identity, Origin};
pub use remote::either::{Kind, accept_either};
pub use stream::TlsStream;

use load::Loader;

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
    /// A certificate that an authority issued.
    #[error("the certificate that was issued for {name} cannot be used: it {what}")]
    Issued {
        /// For which name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// No domain.
    #[error("no domain has a certificate")]
    Nothing,
}

/// The certificates of all domains and what they are served with. Shared by all listeners.
pub struct Tls {
    current: ArcSwap<Set>,
    loader: Loader,
    /// What authorities issued. Its lock is held while a new set is made.
    stored: Mutex<Stored>,
    challenges: OnceLock<Arc<dyn Challenges>>,
}

/// A certificate that an authority issued.
pub struct Issued {
    /// The certificate and its chain.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The directory URL of the authority.
    pub directory: String,
}

/// What authorities issued, by name (A-labels, lower case).
pub type Stored = BTreeMap<String, Arc<Issued>>;

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
    /// For clients that ask for no name that we know. `None` only until an authority has issued the first certificate.
    first: Option<Arc<Identity>>,
}

impl Tls {
    /// Loads all certificates from files, and makes those that the configuration leaves to the node. What authorities issued comes
    /// by [`Tls::install`].
    pub fn load(config: &Config, seams: Seams) -> Result<Self, Error> {
        let loader = Loader::new(seams)?;
        let mut all = Vec::new();
        for domain in &config.domains {
            all.extend(loader.of_domain(config, domain)?);
        }
        if all.is_empty() && config.acme.is_none() {
            return Err(Error::Nothing);
        }
        let current = ArcSwap::from_pointee(Set::new(all));
        Ok(Self { current, loader, stored: Mutex::default(), challenges: OnceLock::new() })
    }

    /// Loads all certificates from files again. A domain whose new certificate is no good keeps its old one.
    pub fn reload(&self, config: &Config) -> Reloaded {
        let stored = self.stored.lock();
        self.renew(config, &stored, true)
    }

    /// Serves what authorities issued instead of what they issued before. Files are not read again.
    pub fn install(&self, config: &Config, new: Stored) -> Reloaded {
        let mut stored = self.stored.lock();
        *stored = new;
        self.renew(config, &stored, false)
    }

    /// Sets what answers the challenges of authorities. The first call counts.
    pub fn set_challenges(&self, challenges: Arc<dyn Challenges>) {
        let _ = self.challenges.set(challenges);
    }

    fn renew(&self, config: &Config, stored: &Stored, files: bool) -> Reloaded {
        let old = self.current.load_full();
        let (mut all, mut reloaded) = (Vec::new(), Reloaded::default());
        for domain in &config.domains {
            let before = old.of(&domain.name).filter(|i| i.is_from(config.source(domain)));
            match (before, files, config.source(domain)) {
                (_, _, Source::Ordered) => {}
                (Some(before), false, _) => all.push(before.clone()),
                (before, ..) => {
                    let new = self.loader.of_domain(config, domain);
                    all.extend(reloaded.take(&domain.name, before.or(old.of(&domain.name)), new.transpose()));
                }
            }
        }
        let own = all.len();
        for (name, issued) in stored {
            let covers =
                |identity: &Arc<Identity>| *ascii(&identity.domain) == **name || identity.covers(name);
            if all.iter().take(own).any(covers) {
                continue; // the operator's own comes first
            }
            let before = old.of(name).filter(|i| matches!(i.origin, Origin::Authority(_)));
            match before.filter(|before| before.chain() == issued.chain) {
                Some(same) => all.push(same.clone()),
                None => all.extend(reloaded.take(name, before, Some(self.loader.issued(name, issued)))),
            }
        }
        // A domain whose certificate is ordered from now on keeps what it has until then.
        for domain in config.domains.iter().filter(|domain| config.source(domain) == Source::Ordered) {
            let before = old.of(&domain.name).filter(|_| !stored.contains_key(&ascii(&domain.name)));
            all.extend(before.cloned());
        }
        if all.is_empty() && config.acme.is_none() {
            reloaded.refused.push(format!("no certificate changed: {}", Error::Nothing));
        } else {
            self.current.store(Arc::new(Set::new(all)));
        }
        reloaded
    }

    /// What to serve to a client that asked for `name` (by SNI, else by the stream's `to`); the first domain's if it
    /// asked for nothing we know. `None` if there is no certificate yet.
    pub fn identity(&self, name: Option<&str>) -> Option<Arc<Identity>> {
        let set = self.current.load();
        let Some(name) = name else { return set.first.clone() };
        let name = ascii(name);
        let wildcard = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let found = set.by_name.get(&name).or_else(|| set.by_name.get(&wildcard()?));
        found.or(set.first.as_ref()).cloned()
    }

    /// Whether the configuration has a certificate for `name` that no authority issues.
    pub fn has_own(&self, config: &Config, name: &str) -> bool {
        let set = self.current.load();
        let own = config.domains.iter().filter(|domain| config.source(domain) != Source::Ordered);
        own.filter_map(|domain| set.of(&domain.name)).any(|identity| identity.covers(name))
    }

    /// Whether a certificate that was issued for `name` can be served.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, name: &str, issued: &Issued) -> Result<Arc<Identity>, Error> {
        self.loader.issued(name, issued)
    }

    /// Sets the gauge of each certificate's time to live.
    pub fn measure(&self) {
        self.list().iter().for_each(|identity| identity.measure());
    }

    /// Says in the log which certificates expire soon.
    pub fn warn(&self) {
        self.list().iter().for_each(|identity| identity.warn(self.loader.now()));
    }

    /// Whether a certificate of the node's own making, or from a file, is so old that it should be read, or made, again.
    pub fn wants_renewal(&self) -> bool {
        let now = self.loader.now();
        let is_own = |identity: &&Arc<Identity>| !matches!(identity.origin, Origin::Authority(_));
        self.list().iter().filter(is_own).any(|identity| identity.not_after - now < development::RENEW)
    }

    /// The certificates, each once, in the order of their domains.
    pub fn list(&self) -> Vec<Arc<Identity>> {
        let mut all: Vec<Arc<Identity>> = self.current.load().by_name.values().cloned().collect();
        all.sort_by(|a, b| a.domain.cmp(&b.domain));
        all.dedup_by(|a, b| a.domain == b.domain);
        all
    }

    /// A line for each certificate: whose, from where, until when. For `rookery check`.
    pub fn describe(&self) -> Vec<String> {
        let now = self.loader.now();
        let left = |i: &Arc<Identity>| (i.not_after - now) / 86_400;
        self.list().iter().map(|i| format!("{}: valid for {} more days", i.domain, left(i))).collect()
    }
}

impl Set {
    fn new(all: Vec<Arc<Identity>>) -> Self {
        let first = all.first().cloned();
        let mut by_name = HashMap::new();
        for identity in &all {
            by_name.insert(ascii(&identity.domain), identity.clone());
        }
        // A name that a certificate also holds, such as the host behind the SRV record; domains go first.
        for identity in &all {
            for name in &identity.names {
                by_name.entry(name.clone()).or_insert_with(|| identity.clone());
            }
        }
        Self { by_name, first }
    }

    /// The certificate of a domain itself.
    fn of(&self, domain: &str) -> Option<&Arc<Identity>> {
        self.by_name.get(&ascii(domain)).filter(|identity| ascii(&identity.domain) == ascii(domain))
    }
}

impl Reloaded {
    /// Notes what became of the certificate of `name`, and gives the one that is to be served.
    fn take(
        &mut self,
        name: &str,
        before: Option<&Arc<Identity>>,
        new: Option<Result<Arc<Identity>, Error>>,
    ) -> Option<Arc<Identity>> {
        match new? {
            Ok(new) => {
                if before.is_none_or(|old| old.chain() != new.chain()) {
                    self.taken.push(format!("{name}: new certificate"));
                }
                Some(new)
            }
            Err(error) => {
                tracing::error!(domain = %name, %error, "certificate refused");
                self.refused.push(match before {
                    Some(_) => format!("{name}: the old certificate stays, because {error}"),
                    None => format!("{name}: no certificate, because {error}"),
                });
                before.cloned()
            }
        }
    }
}

#[cfg(test)]
mod tests;
