//! Which names certificates are ordered for.

use std::collections::BTreeSet;

use crate::config::{Config, Domain, Source, can_be_ordered};
use crate::tls::{Tls, ascii};

/// The names that are left to an authority, as certificates write them: domains, their components, and those of `acme.names`. None
/// without `[acme]`.
pub(super) fn configured(config: &Config) -> BTreeSet<String> {
    let Some(acme) = &config.acme else { return BTreeSet::new() };
    let ordered = |domain: &&Domain| config.source(domain) == Source::Ordered;
    let domains = config.domains.iter().filter(ordered).map(|domain| domain.name.as_str());
    let components = config.components.iter().map(|component| component.name.as_str());
    let components = components.filter(|name| is_public(config, name));
    domains.chain(components).chain(acme.names.iter().map(String::as_str)).map(ascii).collect()
}

/// Whether an authority can certify a component: it is not below a domain that does without.
fn is_public(config: &Config, component: &str) -> bool {
    let without = config.domains.iter().filter(|domain| config.source(domain) == Source::SelfSigned);
    let below =
        |name: &str| component.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    can_be_ordered(component) && !without.map(|domain| domain.name.as_str()).any(below)
}

/// Those of them that no certificate file covers.
pub(super) fn wanted(config: &Config, tls: &Tls) -> BTreeSet<String> {
    configured(config).into_iter().filter(|name| !tls.has_own(config, name)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn domains_and_their_components_are_ordered() {
        let text = "[acme]\ndirectory = 'letsencrypt'\nagree = true\nnames = ['xmpp.b.example']\n\
            [[domain]]\nname = 'bücher.example'\n[[domain]]\nname = 'b.example'\n\
            [[domain]]\nname = 'c.example'\nself_signed = true\n[listen]\ncomponent = ['127.0.0.1:0']\n";
        let component = |name: &str| format!("[[component]]\nname = '{name}'\nsecret = '0123456789abcdef'\n");
        let components = ["irc.b.example", "irc.c.example", "gateway"].map(component).concat();
        let config = crate::config::parse(&format!("{text}{components}"), Path::new("/")).unwrap();
        let names: Vec<String> = configured(&config).into_iter().collect();
        assert_eq!(names, ["b.example", "irc.b.example", "xmpp.b.example", "xn--bcher-kva.example"]);
        assert!(configured(&Config::development()).is_empty());
    }
}
