//! The names that this deployment answers, with the kind of service behind each: one table, changed by a reload.

use rookery_proto::xmpp::jid::{BareJid, Jid};

use super::Host;
use super::kind::{KindId, USER};
use super::options::Options;

/// What lives on a name that is not a domain of users.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name, normalised (RFC 7622 section 3.2).
    pub name: String,
    /// The kind of actors behind the name.
    pub kind: &'static str,
    /// Every address of the name leads to one actor, that of the name itself, as with a component. Otherwise each address with
    /// a local part is an actor of its own, as with rooms.
    pub whole: bool,
}

/// What a JID addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Address {
    /// A domain of users, or the name of a service, itself.
    Host,
    /// Something that has a home: a user, a room, a component.
    Entity(KindId, BareJid),
    /// Another server's.
    Remote,
}

impl Options {
    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}

impl Host {
    /// The first domain of users: the name of the server where no other is asked for.
    pub(crate) fn first_domain(&self) -> Option<Jid> {
        self.options().domains.first().and_then(|domain| Jid::parse(&domain.name).ok())
    }

    /// Whether a domain is none whose users live here: another server's, or a service's. An entity there keeps a contact's state
    /// without this deployment.
    pub(crate) fn is_foreign(&self, domain: &str) -> bool {
        !self.serves(domain)
    }

    /// Whether stanzas can be sent to `jid`: it is not at another server, or this deployment speaks with that.
    pub(crate) fn reaches(&self, jid: &Jid) -> bool {
        self.resolve(jid) != Address::Remote || self.federates(jid.domain())
    }

    /// What `jid` addresses.
    pub(crate) fn resolve(&self, jid: &Jid) -> Address {
        if self.serves(jid.domain()) {
            return if jid.local().is_some() { Address::Entity(USER, jid.to_bare()) } else { Address::Host };
        }
        let options = self.options();
        let Some(service) = options.service(jid.domain()) else { return Address::Remote };
        let Some(kind) = self.kinds().named(service.kind) else { return Address::Remote };
        match jid.local() {
            _ if service.whole => match BareJid::new(None, jid.domain()) {
                Ok(name) => Address::Entity(kind, name),
                Err(_) => Address::Remote,
            },
            Some(_) => Address::Entity(kind, jid.to_bare()),
            None => Address::Host,
        }
    }
}
