//! What the operator says of external components (XEP-0114): their names, secrets, and what each may do beyond its own name.

use std::fmt;

use subtle::ConstantTimeEq as _;

use super::options::Options;

/// An external component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Component {
    /// The domain that is the component's, normalised (RFC 7622 section 3.2).
    pub name: String,
    /// What the component proves that it knows.
    pub secret: Secret,
    /// The domains of users whose items list the component, and whose users its privileges and delegations concern; empty: all.
    pub domains: Vec<String>,
    /// What the component may do in the name of users (XEP-0356).
    pub privileges: Privileges,
    /// The namespaces that the component answers for the server (XEP-0355).
    pub delegations: Vec<Delegation>,
}

impl Component {
    /// Whether the component is there for the users of this domain.
    pub fn covers(&self, domain: &str) -> bool {
        self.domains.is_empty() || self.domains.iter().any(|own| own == domain)
    }
}

/// The shared secret of a component. Never shown, and compared in constant time.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Of that text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether this is the handshake of XEP-0114 section 3 for a stream of that id: SHA-1 of id and secret in small hexadecimal digits.
    pub fn proves(&self, stream: &str, handshake: &str) -> bool {
        use sha1::Digest as _;
        let mut digest = sha1::Sha1::new();
        digest.update(stream.as_bytes());
        digest.update(self.0.as_bytes());
        let mut wanted = Vec::with_capacity(40);
        for byte in digest.finalize() {
            wanted.extend_from_slice(&hexadecimal(byte));
        }
        bool::from(wanted.ct_eq(handshake.as_bytes()))
    }
}

/// The two digits of a byte.
fn hexadecimal(byte: u8) -> [u8; 2] {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    [digit(byte >> 4), digit(byte & 15)]
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Which requests are allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Access {
    /// Those of type `get`.
    pub get: bool,
    /// Those of type `set`.
    pub set: bool,
}

impl Access {
    /// From the words of XEP-0356: `get`, `set`, `both`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "get" => Some(Self { get: true, set: false }),
            "set" => Some(Self { get: false, set: true }),
            "both" => Some(Self { get: true, set: true }),
            _ => None,
        }
    }

    /// The word of XEP-0356.
    pub fn name(self) -> &'static str {
        match (self.get, self.set) {
            (true, true) => "both",
            (true, false) => "get",
            (false, true) => "set",
            (false, false) => "none",
        }
    }
}

/// What users hear of a component.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// The component is there: if it hears presence (XEP-0356 section 7), it is shown what there is.
    Here,
    /// The component has been away for long.
    Gone,
    /// The component is there again after that.
    Back,
}

/// The users and contacts whose presence a component is told (XEP-0356 section 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PresenceAccess {
    /// Nobody's.
    #[default]
    None,
    /// That of the users.
    ManagedEntity,
    /// That of the users, and of the contacts whose presence users get.
    Roster,
}

impl PresenceAccess {
    /// The word of XEP-0356.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ManagedEntity => "managed_entity",
            Self::Roster => "roster",
        }
    }
}

/// What a component may do in the name of users (XEP-0356, version 0.4.1).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Privileges {
    /// Read and write rosters.
    pub roster: Access,
    /// Whether the component is told changes of rosters.
    pub roster_push: bool,
    /// Send messages in the name of a bare JID or of the server.
    pub message: bool,
    /// Be told presence.
    pub presence: PresenceAccess,
    /// Send requests in the name of a bare JID: by namespace.
    pub iq: Vec<(String, Access)>,
}

impl Privileges {
    /// What requests of a namespace are allowed.
    pub fn iq(&self, ns: &str) -> Access {
        self.iq.iter().find(|(own, _)| own == ns).map(|(_, access)| *access).unwrap_or_default()
    }
}

/// A namespace that a component answers for the server (XEP-0355, version 0.5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delegation {
    /// The namespace of the request's child.
    pub ns: String,
    /// Attributes that the child must have; without them the server answers itself.
    pub attributes: Vec<String>,
}

impl Options {
    /// The component of that name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }
}

impl Options {
    /// The component that answers a namespace for a domain, if one does.
    pub fn delegated(&self, domain: &str, ns: &str) -> Option<(&Component, &Delegation)> {
        let found = |component: &'_ Component| component.delegations.iter().position(|own| own.ns == ns);
        let component = self.components.iter().find(|own| own.covers(domain) && found(own).is_some())?;
        Some((component, component.delegations.get(found(component)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_the_xep() {
        // The example of section 3, whose secret is this.
        let secret = Secret::new("test");
        let digest = "aaee83c26aeeafcbabeabfcbcd50df997e0a2a1e";
        assert!(secret.proves("3BF96D32", digest));
        assert!(!secret.proves("3BF96D33", digest) && !secret.proves("3BF96D32", &digest.to_uppercase()));
        assert!(!secret.proves("3BF96D32", "") && Secret::new("test") != Secret::new("other"));
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
