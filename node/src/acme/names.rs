//! Which names certificates are ordered for.

use std::collections::BTreeSet;

use crate::config::{Config, Source};
use crate::tls::{Tls, ascii};

/// The names that are left to an authority, as certificates write them. None without `[acme]`.
pub(super) fn configured(config: &Config) -> BTreeSet<String> {
    let Some(acme) = &config.acme else { return BTreeSet::new() };
    let domains = config.domains.iter().filter(|domain| config.source(domain) == Source::Ordered);
    domains
        .map(|domain| domain.name.as_str())
        .chain(acme.names.iter().map(String::as_str))
        .map(ascii)
        .collect()
}

/// Those of them that no certificate file covers.
pub(super) fn wanted(config: &Config, tls: &Tls) -> BTreeSet<String> {
    configured(config).into_iter().filter(|name| !tls.has_own(config, name)).collect()
}
