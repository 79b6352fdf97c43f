//! Domains as lists of the configuration write them: one domain, or all below one.

use std::fmt;

use rookery_proto::xmpp::jid::Jid;

/// A domain (`bank.example`), every domain below one (`*.bank.example`, which is not `bank.example` itself), or every domain
/// (`*`). Case and the form of internationalised names do not matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// The domain, normalised as in a JID; empty for `*`.
    domain: String,
    /// Whether it stands for what is below the domain.
    below: bool,
}

impl Pattern {
    /// Reads one. `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self { domain: String::new(), below: true });
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let jid = Jid::parse(name).ok().filter(|_| !name.contains('*'))?;
        (jid.local().is_none() && jid.resource().is_none())
            .then(|| Self { domain: jid.domain().to_owned(), below })
    }

    /// Whether `domain`, normalised as in a JID, is meant.
    pub fn matches(&self, domain: &str) -> bool {
        if !self.below {
            return self.domain == domain;
        }
        self.domain.is_empty()
            || domain.strip_suffix(&self.domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// How closely it describes what it matches: of several that match, the one with the most labels holds, and a domain itself
    /// before what is below it.
    pub fn weight(&self) -> (bool, usize) {
        (!self.below, self.domain.len())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.below, self.domain.as_str()) {
            (true, "") => f.write_str("*"),
            (true, domain) => write!(f, "*.{domain}"),
            (false, domain) => f.write_str(domain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_what_is_below_them() {
        let matches = |pattern: &str, domain: &str| Pattern::parse(pattern).unwrap().matches(domain);
        assert!(matches("Bank.Example", "bank.example") && !matches("bank.example", "a.bank.example"));
        assert!(matches("*.bank.example", "a.bank.example") && matches("*.bank.example", "a.b.bank.example"));
        assert!(!matches("*.bank.example", "bank.example") && !matches("*.bank.example", "robank.example"));
        assert!(!matches("*.bank.example", ".bank.example"));
        assert!(matches("*", "bank.example") && matches("*.example", "bank.example"));
        assert!(matches("*.xn--bcher-kva.example", "www.bücher.example"));
        for bad in ["", "*.", "*x", "a.*.example", "u@bank.example", "bank.example/r", "**"] {
            assert_eq!(Pattern::parse(bad), None, "{bad}");
        }
        for text in ["*", "*.bank.example", "bank.example"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
        let weight = |text: &str| Pattern::parse(text).unwrap().weight();
        assert!(weight("a.example") > weight("*.a.example") && weight("*.a.example") > weight("*.example"));
        assert!(weight("*.example") > weight("*"));
    }
}
