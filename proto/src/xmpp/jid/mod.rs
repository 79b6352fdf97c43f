//! Addresses: RFC 7622 (`local@domain/resource`), canonical from the moment they exist.
//!
//! Parsing enforces PRECIS once; afterwards two addresses are equal exactly if their texts are, so comparing, hashing and
//! ordering are those of `str`. A text that is already canonical ASCII, which is nearly every one on the wire, costs a scan and
//! one allocation. The three types share that allocation: taking the bare JID of a full one copies no bytes.

mod convert;
mod prep;
#[cfg(test)]
mod tests;

use std::sync::Arc;

/// The largest size of a localpart, a domainpart and a resourcepart each, in bytes of UTF-8 (RFC 7622 3.2 to 3.4).
pub const PART_BYTES: usize = 1023;
/// The largest size of an address in bytes: three parts and two separators.
pub const MAX_BYTES: usize = 3 * PART_BYTES + 2;

/// Which part of an address is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What stands before the `@`.
    Local,
    /// The host.
    Domain,
    /// What stands after the first `/`.
    Resource,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "localpart",
            Self::Domain => "domainpart",
            Self::Resource => "resourcepart",
        })
    }
}

/// Why a text is not an address. To a client all of these are `<jid-malformed/>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A part, or the separator that promises it, is there, but holds nothing.
    #[error("the {0} is empty")]
    Empty(Part),
    /// A part has more than [`PART_BYTES`] bytes, as it came or once it is canonical.
    #[error("the {0} is longer than 1023 bytes")]
    TooLong(Part),
    /// A part has a character or a form that RFC 7622 excludes.
    #[error("the {0} has a character or a form that is not allowed")]
    Illegal(Part),
    /// A bare JID was wanted, and this has a resource.
    #[error("a resource is not allowed here")]
    NotBare,
    /// A full JID was wanted, and this has no resource.
    #[error("a resource is missing")]
    NotFull,
}

/// An address of any shape: `domain`, `local@domain`, each with or without `/resource`.
#[derive(Clone)]
pub struct Jid {
    /// Canonical; `end` bytes of it are this address (a bare JID may share the text of the full one it was taken from).
    text: Arc<str>,
    /// Length of the localpart; 0 = there is none.
    local: u16,
    /// Length of `local@domain`.
    bare: u16,
    /// Length of the whole address.
    end: u16,
}

/// An address without a resource: `domain` or `local@domain`.
#[derive(Clone)]
pub struct BareJid(Jid);

/// An address with a resource: `domain/resource` or `local@domain/resource`.
#[derive(Clone)]
pub struct FullJid(Jid);

/// A text as its parts, not yet judged: localpart, domainpart, resourcepart.
type Split<'a> = (Option<&'a str>, &'a str, Option<&'a str>);

/// RFC 7622 3.1: the first `/` ends the bare JID, the first `@` before it ends the localpart.
fn split(text: &str) -> Split<'_> {
    let (bare, resource) = match text.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (text, None),
    };
    match bare.split_once('@') {
        Some((local, domain)) => (Some(local), domain, resource),
        None => (None, bare, resource),
    }
}

fn length(text: &str) -> u16 {
    // Parts were measured before: MAX_BYTES fits.
    u16::try_from(text.len()).unwrap_or(u16::MAX)
}

impl Jid {
    /// Parses and canonicalises an address.
    ///
    /// # Errors
    /// [`Error`] says which part is empty, too long or illegal (RFC 7622 3). Never [`Error::NotBare`] or [`Error::NotFull`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (local, domain, resource) = split(text);
        let canonical = local.is_none_or(prep::is_plain_local)
            && prep::is_plain_domain(domain)
            && resource.is_none_or(prep::is_plain_resource);
        if canonical {
            return Ok(Self {
                text: Arc::from(text),
                local: local.map_or(0, length),
                bare: length(text) - resource.map_or(0, |r| length(r) + 1),
                end: length(text),
            });
        }
        let local = local.map(prep::local).transpose()?;
        let domain = prep::domain(domain)?;
        let resource = resource.map(prep::resource).transpose()?;
        Ok(Self::join(local.as_deref(), &domain, resource.as_deref()))
    }

    /// Puts canonical parts together.
    fn join(local: Option<&str>, domain: &str, resource: Option<&str>) -> Self {
        let mut text = String::with_capacity(
            local.map_or(0, |l| l.len() + 1) + domain.len() + resource.map_or(0, |r| r.len() + 1),
        );
        if let Some(local) = local {
            text.push_str(local);
            text.push('@');
        }
        text.push_str(domain);
        let bare = length(&text);
        if let Some(resource) = resource {
            text.push('/');
            text.push_str(resource);
        }
        Self { local: local.map_or(0, length), bare, end: length(&text), text: text.into() }
    }

    /// The whole address as canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.text.get(..usize::from(self.end)).unwrap_or_default()
    }

    /// `local@domain` or `domain`, without allocating: compare and look up with this.
    #[must_use]
    pub fn bare_str(&self) -> &str {
        self.text.get(..usize::from(self.bare)).unwrap_or_default()
    }

    /// The localpart, if there is one: never empty.
    #[must_use]
    pub fn local(&self) -> Option<&str> {
        if self.local == 0 { None } else { self.text.get(..usize::from(self.local)) }
    }

    /// The domainpart: lower case, U-labels, no dot at the end; an IPv6 address keeps its brackets.
    #[must_use]
    pub fn domain(&self) -> &str {
        let start = if self.local == 0 { 0 } else { usize::from(self.local) + 1 };
        self.text.get(start..usize::from(self.bare)).unwrap_or_default()
    }

    /// The resourcepart, if there is one: never empty. A resourcepart may hold any character but controls: escape it.
    #[must_use]
    pub fn resource(&self) -> Option<&str> {
        if self.is_bare() { None } else { self.text.get(usize::from(self.bare) + 1..usize::from(self.end)) }
    }

    /// Whether there is no resource.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.bare == self.end
    }

    /// The address without its resource; shares the text.
    #[must_use]
    pub fn to_bare(&self) -> BareJid {
        BareJid(Self { text: Arc::clone(&self.text), end: self.bare, ..*self })
    }

    /// The address as a full JID, or `None` if it has no resource. Shares the text.
    #[must_use]
    pub fn try_full(&self) -> Option<FullJid> {
        if self.is_bare() { None } else { Some(FullJid(self.clone())) }
    }
}

impl BareJid {
    /// Parses and canonicalises an address without a resource.
    ///
    /// # Errors
    /// As [`Jid::parse`], and [`Error::NotBare`] if there is a resource.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Jid::parse(text)?.try_into()
    }

    /// Makes an address of its parts, each canonicalised by itself (so a `@` in `local` is an error, not a separator).
    ///
    /// # Errors
    /// [`Error`] says which part is at fault.
    pub fn new(local: Option<&str>, domain: &str) -> Result<Self, Error> {
        let local = local.map(prep::local).transpose()?;
        Ok(Self(Jid::join(local.as_deref(), &prep::domain(domain)?, None)))
    }

    /// The same address with a resource, canonicalised.
    ///
    /// # Errors
    /// If the resource is empty, too long or has an illegal character.
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, Error> {
        let resource = prep::resource(resource)?;
        Ok(FullJid(Jid::join(self.local(), self.domain(), Some(&resource))))
    }

    /// The address of the host alone.
    #[must_use]
    pub fn to_domain(&self) -> Self {
        if self.local().is_none() { self.clone() } else { Self(Jid::join(None, self.domain(), None)) }
    }

    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The localpart, if there is one.
    #[must_use]
    pub fn local(&self) -> Option<&str> {
        self.0.local()
    }

    /// The domainpart.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The same address as the type that may have a resource.
    #[must_use]
    pub fn as_jid(&self) -> &Jid {
        &self.0
    }
}

impl FullJid {
    /// Parses and canonicalises an address with a resource.
    ///
    /// # Errors
    /// As [`Jid::parse`], and [`Error::NotFull`] if there is no resource.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Jid::parse(text)?.try_into()
    }

    /// The address without its resource; shares the text.
    #[must_use]
    pub fn to_bare(&self) -> BareJid {
        self.0.to_bare()
    }

    /// `local@domain` without allocating.
    #[must_use]
    pub fn bare_str(&self) -> &str {
        self.0.bare_str()
    }

    /// The whole address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The localpart, if there is one.
    #[must_use]
    pub fn local(&self) -> Option<&str> {
        self.0.local()
    }

    /// The domainpart.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.domain()
    }

    /// The resourcepart.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.0.resource().unwrap_or_default()
    }

    /// The same address as the type that need not have a resource.
    #[must_use]
    pub fn as_jid(&self) -> &Jid {
        &self.0
    }
}
