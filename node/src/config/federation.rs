//! `[federation]` and `[[route]]`: which other servers this one talks to, how they prove themselves, and how they are reached.

use std::time::Duration;

use rookery_actors::options::DomainPattern;
use toml::de::DeTable;

use super::Traffic;
use super::address::is_host_and_port;
use super::read::{Found, Reader, Section};
use super::values::{count, secs, size, traffic};

/// How another server proves its domain. Later ones are stricter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Policy {
    /// By a certificate, or else by server dialback (XEP-0220).
    Dialback,
    /// By a certificate that is valid for the domain.
    Certificate,
    /// By DANE (RFC 7673).
    Dane,
}

/// `[federation]` with the routes.
#[derive(Clone, PartialEq, Debug)]
pub struct Federation {
    /// Whether there are other servers at all.
    pub enabled: bool,
    /// Whether only servers on this machine are talked to: where things are tried out.
    pub loopback: bool,
    /// The policy of most domains.
    pub policy: Policy,
    /// Domains with another policy.
    pub policies: Vec<(DomainPattern, Policy)>,
    /// Domains with a policy of at least [`Policy::Certificate`].
    pub require_secure: Vec<DomainPattern>,
    /// Whether a POSH file (RFC 7711) proves a certificate that no authority and no DANE record proves.
    pub posh: bool,
    /// Whether this server answers requests for the POSH files of its own domains.
    pub posh_publish: bool,
    /// Domains that are not talked to.
    pub refuse: Vec<DomainPattern>,
    /// If not empty, the only ones that are talked to.
    pub allow: Vec<DomainPattern>,
    /// Where certain domains are.
    pub routes: Vec<Route>,
    /// How long a stanza waits.
    pub queue: Duration,
    /// How many stanzas, and bytes of them, wait for one domain.
    pub queue_stanzas: usize,
    /// The same in bytes.
    pub queue_bytes: usize,
    /// How many pairs of domains one node speaks for.
    pub links: usize,
    /// What one link holds in memory, bytes.
    pub memory_bytes: usize,
    /// The limits of streams.
    pub limits: StreamLimits,
}

/// The limits of `[federation]`; the list of options documents each.
#[allow(missing_docs)] // documented once, in `OPTIONS`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamLimits {
    pub stanza_bytes: usize,
    pub streams: usize,
    pub streams_per_address: usize,
    pub streams_per_domain: usize,
    pub streams_unproved: usize,
    pub streams_unproved_per_address: usize,
    pub new_streams_per_minute: u32,
    pub domains_per_stream: usize,
    pub verifications: usize,
    pub traffic: Traffic,
    pub negotiation: Duration,
    pub idle: Duration,
    pub resume: Duration,
}

/// `[[route]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// For which domains; `None`: for all.
    pub domain: Option<DomainPattern>,
    /// The host, a name or an address (without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS begins with the first byte.
    pub direct: bool,
}

impl Route {
    /// Of several that match, the closest holds: a domain itself before what is below it, and more labels before fewer.
    fn closeness(&self) -> (bool, usize) {
        let text = self.domain.as_ref().map(ToString::to_string).unwrap_or_default();
        (!text.is_empty() && !text.starts_with("*."), text.len())
    }
}

impl Federation {
    /// The policy for `domain`, normalised as in a JID.
    pub fn policy(&self, domain: &str) -> Policy {
        let own = self.policies.iter().filter(|(pattern, _)| pattern.matches(domain));
        let policy = own.map(|(_, policy)| *policy).max().unwrap_or(self.policy);
        let secure = self.require_secure.iter().any(|pattern| pattern.matches(domain));
        if secure { policy.max(Policy::Certificate) } else { policy }
    }

    /// Whether `domain` is talked to.
    pub fn admits(&self, domain: &str) -> bool {
        let among = |list: &[DomainPattern]| list.iter().any(|pattern| pattern.matches(domain));
        self.enabled && !among(&self.refuse) && (self.allow.is_empty() || among(&self.allow))
    }

    /// Whether the list of refused domains has `host`, which may be the host of a URL.
    pub fn refuses(&self, host: &str) -> bool {
        self.refuse.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether `domain` is talked to if it was proved by `proof` (`certificate`, `dane`, `posh` or `dialback`).
    pub fn takes(&self, domain: &str, proof: &str) -> bool {
        let enough = match self.policy(domain) {
            Policy::Dialback => true,
            Policy::Certificate => proof != "dialback" && (self.posh || proof != "posh"),
            Policy::Dane => proof == "dane",
        };
        enough && self.admits(domain)
    }

    /// The route to `domain`, if there is one.
    pub fn route(&self, domain: &str) -> Option<&Route> {
        let fits = |route: &&Route| route.domain.as_ref().is_none_or(|pattern| pattern.matches(domain));
        self.routes.iter().filter(fits).max_by_key(|route| route.closeness())
    }
}

/// Reads both. `listening`: `listen.s2s` or `listen.s2s_tls` is in the file and not empty.
pub(super) fn read(r: &mut Reader<'_>, file: &DeTable<'_>, listening: bool) -> Federation {
    let s = r.section(file, "federation");
    let enabled = r.flag(&s, "enabled");
    let mut policies = Vec::new();
    for (name, policy) in
        [("certificate", Policy::Certificate), ("dane", Policy::Dane), ("dialback", Policy::Dialback)]
    {
        policies.extend(patterns(r, &s, name).into_iter().map(|pattern| (pattern, policy)));
    }
    let limits = StreamLimits {
        stanza_bytes: size(r, &s, "stanza_bytes"),
        streams: size(r, &s, "streams"),
        streams_per_address: size(r, &s, "streams_per_address"),
        streams_per_domain: size(r, &s, "streams_per_domain"),
        streams_unproved: size(r, &s, "streams_unproved"),
        streams_unproved_per_address: size(r, &s, "streams_unproved_per_address"),
        new_streams_per_minute: count(r, &s, "new_streams_per_minute"),
        domains_per_stream: size(r, &s, "domains_per_stream"),
        verifications: size(r, &s, "verifications"),
        traffic: traffic(r, &s),
        negotiation: secs(r, &s, "negotiation_seconds"),
        idle: secs(r, &s, "idle_seconds"),
        resume: secs(r, &s, "resume_seconds"),
    };
    Federation {
        enabled: if enabled.line > 0 { enabled.value } else { listening },
        loopback: false,
        policy: match r.text(&s, "policy").value.as_str() {
            "dane" => Policy::Dane,
            "dialback" => Policy::Dialback,
            _ => Policy::Certificate,
        },
        policies,
        require_secure: patterns(r, &s, "require_secure"),
        posh: r.flag(&s, "posh").value,
        posh_publish: r.flag(&s, "posh_publish").value,
        refuse: patterns(r, &s, "refuse"),
        allow: patterns(r, &s, "allow"),
        routes: routes(r, file),
        queue: secs(r, &s, "queue_seconds"),
        queue_stanzas: size(r, &s, "queue_stanzas"),
        queue_bytes: size(r, &s, "queue_bytes"),
        links: size(r, &s, "links"),
        memory_bytes: size(r, &s, "memory_bytes"),
        limits,
    }
}

fn patterns(r: &mut Reader<'_>, section: &Section<'_, '_>, name: &str) -> Vec<DomainPattern> {
    let mut all = Vec::new();
    for Found { value, line } in r.list(section, name) {
        match DomainPattern::parse(&value) {
            Some(pattern) => all.push(pattern),
            None => {
                let remedy = "write a domain as in \"example.net\", or \"*.example.net\" for all below it";
                r.problem(line, format!("federation.{name}"), format!("is {value:?}"), remedy);
            }
        }
    }
    all
}

fn routes(r: &mut Reader<'_>, file: &DeTable<'_>) -> Vec<Route> {
    let mut all: Vec<Route> = Vec::new();
    for (section, _) in r.sections(file, "route") {
        let (domain, via) = (r.text(&section, "domain"), r.text(&section, "via"));
        let direct = r.text(&section, "tls").value == "direct";
        let line = |found: &Found<String>| if found.line > 0 { found.line } else { section.line };
        let pattern = match domain.value.as_str() {
            "*" => Some(None),
            text => DomainPattern::parse(text).map(Some),
        };
        if pattern.is_none() {
            let remedy = "write a domain as in \"example.net\", or \"*.example.net\" for all below it";
            r.problem(line(&domain), "route.domain", format!("is {:?}", domain.value), remedy);
        }
        if pattern.is_some() && all.iter().any(|route| Some(&route.domain) == pattern.as_ref()) {
            let what = format!("{} is listed twice", domain.value);
            r.problem(line(&domain), "route.domain", what, "remove one of the two");
        }
        let at = is_host_and_port(&via.value).then(|| via.value.rsplit_once(':')).flatten();
        let at = at.and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)));
        if at.is_none() {
            let remedy = "write host:port, as in via = \"relay.example:5269\"";
            r.problem(line(&via), "route.via", format!("is {:?}", via.value), remedy);
        }
        if let (Some(domain), Some((host, port))) = (pattern, at) {
            all.push(Route { domain, host: host.to_owned(), port, direct });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, parse};

    const DOMAIN: &str = "[[domain]]\nname = 'a.example'\nself_signed = true\n";

    fn read(text: &str) -> Config {
        parse(&format!("{text}\n{DOMAIN}"), Path::new("/")).unwrap_or_else(|problems| panic!("{problems:#?}"))
    }

    #[test]
    fn is_on_where_it_listens_or_where_the_file_says_so() {
        assert!(!read("").federation.enabled);
        assert!(read("").listen.s2s.is_empty());
        let on = read("[listen]\ns2s = ['127.0.0.1:5269']");
        assert!(on.federation.enabled && on.listen.s2s_tls.is_empty());
        let on = read("[federation]\nenabled = true");
        assert_eq!((on.listen.s2s.len(), on.listen.s2s_tls.len()), (1, 1));
        let off = read("[listen]\ns2s = ['127.0.0.1:5269']\n[federation]\nenabled = false");
        assert!(!off.federation.enabled && off.listen.s2s.is_empty());
        assert!(!read("[listen]\ns2s = []").federation.enabled);
        let only_out = read("[listen]\ns2s = []\ns2s_tls = []\n[federation]\nenabled = true");
        assert!(only_out.federation.enabled && only_out.listen.s2s.is_empty());
    }

    #[test]
    fn policies_lists_and_routes() {
        let config = read(
            "[federation]\nenabled = true\npolicy = 'dialback'\ncertificate = ['*.new.example']\n\
             dane = ['x.new.example']\nrequire_secure = ['Bank.example', '*.bank.example']\n\
             refuse = ['spam.example']\n\
             [[route]]\ndomain = '*'\nvia = 'relay.example:5269'\n\
             [[route]]\ndomain = '*.net.example'\nvia = '[::1]:5270'\ntls = 'direct'",
        );
        let federation = config.federation;
        let policy = |domain: &str| federation.policy(domain);
        assert_eq!((policy("old.example"), policy("a.new.example")), (Policy::Dialback, Policy::Certificate));
        assert_eq!((policy("x.new.example"), policy("bank.example")), (Policy::Dane, Policy::Certificate));
        assert!(federation.admits("a.example") && !federation.admits("spam.example"));
        let route = federation.route("a.net.example").unwrap();
        assert_eq!((route.host.as_str(), route.port, route.direct), ("::1", 5_270, true));
        assert_eq!(federation.route("net.example").unwrap().host, "relay.example");
        let few = read("[federation]\nenabled = true\nallow = ['*.ours.example']").federation;
        assert!(few.admits("a.ours.example") && !few.admits("other.example"));
    }

    #[test]
    fn posh_is_a_certificate_where_the_file_says_so() {
        let read = |text: &str| read(&format!("[federation]\nenabled = true\n{text}")).federation;
        let off = read("");
        assert!(!off.posh && !off.posh_publish && !off.takes("b.example", "posh"));
        assert!(off.takes("b.example", "certificate") && !off.takes("b.example", "dialback"));
        let on = read("posh = true\ndane = ['d.example']\nrefuse = ['*.spam.example']");
        assert!(on.takes("b.example", "posh") && !on.takes("d.example", "posh"));
        assert!(on.refuses("www.spam.example") && !on.refuses("b.example"));
        assert!(read("policy = 'dialback'").takes("b.example", "posh"));
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let text = "[federation]\npolicy = 'trust'\nrefuse = ['a@b.example']\nallow = ['*x']\nstreams = 0\n\
                    [[route]]\ndomain = 'a.example'\nvia = 'relay'\n\
                    [[route]]\nvia = 'relay.example:1'\ntls = 'no'\n\
                    [[route]]\ndomain = 'b.example'\nvia = 'r:1'\n\
                    [[route]]\ndomain = 'B.example'\nvia = 'r:1'\n";
        let problems = parse(&format!("{text}{DOMAIN}"), Path::new("/")).unwrap_err();
        let found: Vec<_> = problems.iter().map(|p| (p.line, p.option.as_str())).collect();
        for want in [
            (2, "federation.policy"),
            (3, "federation.refuse"),
            (4, "federation.allow"),
            (5, "federation.streams"),
            (8, "route.via"),
            (9, "route.domain"),
            (11, "route.tls"),
            (16, "route.domain"),
        ] {
            assert!(found.contains(&want), "{want:?} is not in {found:?}");
        }
        assert_eq!(found.len(), 8, "{found:?}");
    }
}
