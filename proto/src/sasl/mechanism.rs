//! Which mechanisms there are, and which a connection may be offered.

use super::Hash;
use std::fmt;

/// A SASL mechanism of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 5802, RFC 7677. `plus`: bound to the TLS channel.
    Scram {
        /// The hash in its name.
        hash: Hash,
        /// Whether it ends in `-PLUS`.
        plus: bool,
    },
    /// RFC 4616: the password itself, under TLS.
    Plain,
}

impl Mechanism {
    /// All of them, best first.
    pub const ALL: [Self; 7] = [
        Self::Scram { hash: Hash::Sha512, plus: true },
        Self::Scram { hash: Hash::Sha256, plus: true },
        Self::Scram { hash: Hash::Sha1, plus: true },
        Self::Scram { hash: Hash::Sha512, plus: false },
        Self::Scram { hash: Hash::Sha256, plus: false },
        Self::Scram { hash: Hash::Sha1, plus: false },
        Self::Plain,
    ];

    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scram { hash: Hash::Sha512, plus: true } => "SCRAM-SHA-512-PLUS",
            Self::Scram { hash: Hash::Sha256, plus: true } => "SCRAM-SHA-256-PLUS",
            Self::Scram { hash: Hash::Sha1, plus: true } => "SCRAM-SHA-1-PLUS",
            Self::Scram { hash: Hash::Sha512, plus: false } => "SCRAM-SHA-512",
            Self::Scram { hash: Hash::Sha256, plus: false } => "SCRAM-SHA-256",
            Self::Scram { hash: Hash::Sha1, plus: false } => "SCRAM-SHA-1",
            Self::Plain => "PLAIN",
        }
    }

    /// The mechanism of this name; names are upper case (RFC 4422 3.1).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Whether it binds to the TLS channel.
    #[must_use]
    pub const fn is_plus(self) -> bool {
        matches!(self, Self::Scram { plus: true, .. })
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A type of channel binding (RFC 5056), by its registered prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BindingType {
    /// RFC 9266: of this one connection.
    Exporter,
    /// RFC 5929 4: of the server's certificate.
    ServerEndPoint,
}

impl BindingType {
    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exporter => "tls-exporter",
            Self::ServerEndPoint => "tls-server-end-point",
        }
    }

    /// The type with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Exporter, Self::ServerEndPoint].into_iter().find(|t| t.name() == name)
    }
}

/// What a TLS connection has to bind to. Empty without TLS, or where TLS ends before this server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ChannelBindings {
    /// RFC 9266: 32 bytes of keying material, label `EXPORTER-Channel-Binding`, no context; TLS 1.3 only.
    pub exporter: Option<[u8; 32]>,
    /// RFC 5929 4.1: the hash of the certificate that was shown.
    pub server_end_point: Option<Vec<u8>>,
}

impl fmt::Debug for ChannelBindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.types()).finish()
    }
}

impl ChannelBindings {
    /// The types that are there, best first: what XEP-0440 announces.
    pub fn types(&self) -> impl Iterator<Item = BindingType> {
        let exporter = self.exporter.is_some().then_some(BindingType::Exporter);
        let end_point = self.server_end_point.is_some().then_some(BindingType::ServerEndPoint);
        exporter.into_iter().chain(end_point)
    }

    /// The data of a type.
    #[must_use]
    pub fn data(&self, type_: BindingType) -> Option<&[u8]> {
        match type_ {
            BindingType::Exporter => self.exporter.as_ref().map(<[u8; 32]>::as_slice),
            BindingType::ServerEndPoint => self.server_end_point.as_deref(),
        }
    }

    /// Whether there is nothing to bind to.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types().next().is_none()
    }
}

/// What a connection may be offered, best first: `-PLUS` only with something to bind to, PLAIN only under TLS.
#[must_use]
pub fn offered(bindings: &ChannelBindings, tls: bool) -> Vec<Mechanism> {
    Mechanism::ALL
        .into_iter()
        .filter(|m| match m {
            Mechanism::Scram { plus, .. } => !plus || (tls && !bindings.is_empty()),
            Mechanism::Plain => tls,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_what_is_safe() {
        let names = |b: &ChannelBindings, tls| offered(b, tls).iter().map(|m| m.name()).collect::<Vec<_>>();
        let none = ChannelBindings::default();
        let bound = ChannelBindings { exporter: Some([0; 32]), server_end_point: None };
        assert_eq!(names(&none, false), ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"]);
        assert_eq!(names(&none, true), ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"]);
        assert_eq!(names(&bound, true).len(), 7);
        assert_eq!(names(&bound, true)[0], "SCRAM-SHA-512-PLUS");
        assert_eq!(names(&bound, false).len(), 3);
    }

    #[test]
    fn names_lead_back() {
        for mechanism in Mechanism::ALL {
            assert_eq!(Mechanism::from_name(mechanism.name()), Some(mechanism));
        }
        for odd in ["", "plain", "SCRAM-SHA-1-plus", "DIGEST-MD5", "SCRAM-SHA-1 "] {
            assert_eq!(Mechanism::from_name(odd), None);
        }
        assert_eq!(BindingType::from_name("tls-unique"), None);
        assert_eq!(BindingType::from_name("tls-exporter"), Some(BindingType::Exporter));
    }
}
