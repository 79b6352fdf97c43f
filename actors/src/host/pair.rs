//! Pairs of domains: one of this deployment and one of another server. A pair is what a link is for.

use rookery_proto::xmpp::jid::BareJid;

/// A domain of this deployment and a domain elsewhere, both normalised (RFC 7622 section 3.2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    local: BareJid,
    remote: BareJid,
    entity: BareJid,
}

impl Pair {
    /// The pair of two domains. `None` if one of the JIDs has a local part, or if the local domain cannot stand in the name of an
    /// entity, as an IPv6 address cannot.
    #[must_use]
    pub fn new(local: &BareJid, remote: &BareJid) -> Option<Self> {
        if local.local().is_some() || remote.local().is_some() {
            return None;
        }
        let entity = BareJid::new(Some(local.domain()), remote.domain()).ok()?;
        let pair = Self { local: local.clone(), remote: remote.clone(), entity };
        // Local parts are normalised by rules of their own.
        (pair.entity.local() == Some(local.domain())).then_some(pair)
    }

    /// The pair whose link has that name; see [`Pair::entity`].
    #[must_use]
    pub fn of_entity(entity: &BareJid) -> Option<Self> {
        let local = BareJid::new(None, entity.local()?).ok()?;
        Self::new(&local, &entity.to_domain())
    }

    /// The domain of this deployment.
    #[must_use]
    pub fn local(&self) -> &BareJid {
        &self.local
    }

    /// The other server's domain.
    #[must_use]
    pub fn remote(&self) -> &BareJid {
        &self.remote
    }

    /// The name of the pair's link among all entities: `local@remote`.
    #[must_use]
    pub fn entity(&self) -> &BareJid {
        &self.entity
    }
}

/// As in a log: `ours.example to theirs.example`.
impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.local, self.remote)
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pair({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_and_the_name_of_its_link_say_the_same() {
        let jid = |text: &str| BareJid::parse(text).unwrap();
        let pair = Pair::new(&jid("ours.example"), &jid("theirs.example")).unwrap();
        assert_eq!(pair.entity().as_str(), "ours.example@theirs.example");
        assert_eq!(Pair::of_entity(pair.entity()), Some(pair.clone()));
        assert_eq!(pair.to_string(), "ours.example to theirs.example");
        assert_eq!(Pair::new(&jid("romeo@ours.example"), &jid("theirs.example")), None);
        assert_eq!(Pair::new(&jid("[::1]"), &jid("theirs.example")), None);
        assert!(Pair::new(&jid("bücher.example"), &jid("[::1]")).is_some());
        assert_eq!(Pair::of_entity(&jid("theirs.example")), None);
    }
}
