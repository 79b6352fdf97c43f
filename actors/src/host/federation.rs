//! What the operator decides about other servers, and with which of them this deployment speaks.

use std::time::Duration;

use rookery_proto::xmpp::jid::BareJid;

use super::Host;

/// A domain, or `*.` and a domain: all names below it, at any depth, but not the domain itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainPattern {
    /// Normalised (RFC 7622 section 3.2).
    domain: String,
    below: bool,
}

impl DomainPattern {
    /// Reads a pattern; `None` if it is no domain, or if a `*` stands elsewhere than for the first labels.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (below, domain) = match text.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, text),
        };
        if domain.contains('*') {
            return None;
        }
        let domain = BareJid::new(None, domain).ok()?;
        Some(Self { domain: domain.domain().to_owned(), below })
    }

    /// Whether a normalised domain is one of these.
    #[must_use]
    pub fn matches(&self, domain: &str) -> bool {
        if !self.below {
            return domain == self.domain;
        }
        let labels = domain.strip_suffix(&self.domain).and_then(|labels| labels.strip_suffix('.'));
        labels.is_some_and(|labels| !labels.is_empty())
    }
}

/// As it is written in the configuration.
impl std::fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.domain)
    }
}

/// How this deployment speaks with other servers. Every limit has a specified error at the limit.
#[derive(Clone, Debug)]
pub struct Federation {
    /// Pairs of domains that one node speaks for at a time; what is sent to more is refused with `<resource-constraint/>`.
    pub links: usize,
    /// How long a stanza waits for a server that cannot be reached before it goes back to its sender as
    /// `<remote-server-timeout/>`.
    pub queue: Duration,
    /// Stanzas that wait for one domain; more are refused with `<resource-constraint/>`, and so are those of a sender who has more there
    /// than is free: one alone gets half.
    pub queue_stanzas: usize,
    /// The same in bytes.
    pub queue_bytes: usize,
    /// Bytes of stanzas that one link holds in memory, sent and not confirmed, or waiting. What is in the store waits there.
    pub memory_bytes: usize,
    /// A stream on which nothing is sent for so long is closed.
    pub idle: Duration,
    /// Domains that are not spoken with, whatever [`Federation::allow`] says.
    pub refuse: Vec<DomainPattern>,
    /// The only domains that are spoken with; if it is empty, all.
    pub allow: Vec<DomainPattern>,
}

impl Default for Federation {
    fn default() -> Self {
        Self {
            links: 10_000,
            queue: Duration::from_secs(300),
            queue_stanzas: 10_000,
            queue_bytes: 32 << 20,
            memory_bytes: 1 << 20,
            idle: Duration::from_secs(600),
            refuse: Vec::new(),
            allow: Vec::new(),
        }
    }
}

impl Federation {
    /// Whether this deployment speaks with a normalised domain.
    #[must_use]
    pub fn permits(&self, domain: &str) -> bool {
        let has = |patterns: &[DomainPattern]| patterns.iter().any(|pattern| pattern.matches(domain));
        !has(&self.refuse) && (self.allow.is_empty() || has(&self.allow))
    }
}

impl Host {
    /// Whether this deployment answers for a normalised domain: one of users, or that of a service.
    pub fn answers(&self, domain: &str) -> bool {
        let options = self.options();
        options.domain(domain).is_some() || options.service(domain).is_some()
    }

    /// Whether this deployment speaks with the server of a normalised domain, which is none of its own.
    pub fn federates(&self, domain: &str) -> bool {
        let options = self.options();
        let permits = options.federation.as_ref().is_some_and(|federation| federation.permits(domain));
        permits && options.domain(domain).is_none() && options.service(domain).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> DomainPattern {
        DomainPattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_covers_a_domain_or_what_is_below_it() {
        assert!(
            pattern("Example.org").matches("example.org") && !pattern("example.org").matches("a.example.org")
        );
        let below = pattern("*.example.org");
        assert!(below.matches("a.example.org") && below.matches("b.a.example.org"));
        for other in ["example.org", ".example.org", "badexample.org", "example.org.evil", ""] {
            assert!(!below.matches(other), "{other}");
        }
        assert_eq!(below.to_string(), "*.example.org");
        for bad in ["*", "a.*.org", "*.*.org", "", "*.", "a@b", "a/b"] {
            assert_eq!(DomainPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_refused_is_refused_even_if_it_is_allowed() {
        let all = Federation::default();
        assert!(all.permits("example.org"));
        let some = Federation {
            refuse: vec![pattern("bad.example.org")],
            allow: vec![pattern("example.org"), pattern("*.example.org")],
            ..all
        };
        assert!(some.permits("example.org") && some.permits("good.example.org"));
        assert!(!some.permits("bad.example.org") && !some.permits("example.com"));
    }
}
