//! Stanzas: a header that was read, and a payload that was only indexed (RFC 6120 section 8).
//!
//! Forwarding copies bytes; a feature reads just its own child. The payload is kept as it may stand in any element
//! whose default namespace is `jabber:client`: children in the content namespace carry no declaration, all others
//! declare what they use. Attributes of the stanza other than the five of RFC 6120 section 8.1 are not kept.

mod index;
mod kinds;
mod parse;
mod payload;
mod reply;
mod write;

#[cfg(test)]
mod tests;

use bytes::Bytes;

pub(crate) use self::parse::{Top, top};
pub use self::{
    kinds::{IqType, Kind, MessageType, PresenceType, Type},
    parse::{Error, Malformed},
    payload::{ChildRef, Payload},
};
use super::{BareJid, Jid, StanzaError, ns};
pub use crate::xml::Text;

/// A message, a presence or an IQ. Cloning copies no payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// What it is, and its `type`.
    pub type_: Type,
    /// To whom; for a client's stanza, none means its own account.
    pub to: Option<Jid>,
    /// From whom.
    pub from: Option<Jid>,
    /// The sender's mark.
    pub id: Option<Text>,
    /// The stanza's `xml:lang`.
    pub lang: Option<Text>,
    payload: Payload,
}

impl Stanza {
    /// An empty stanza without addresses.
    #[must_use]
    pub fn new(type_: impl Into<Type>) -> Self {
        Self { type_: type_.into(), to: None, from: None, id: None, lang: None, payload: Payload::default() }
    }

    /// Sets the recipient.
    #[must_use]
    pub fn to(mut self, to: impl Into<Jid>) -> Self {
        self.to = Some(to.into());
        self
    }

    /// Sets the sender.
    #[must_use]
    pub fn from(mut self, from: impl Into<Jid>) -> Self {
        self.from = Some(from.into());
        self
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<Text>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the language.
    #[must_use]
    pub fn lang(mut self, lang: impl Into<Text>) -> Self {
        self.lang = Some(lang.into());
        self
    }

    /// Sets the payload: bytes of our own making, such as a [`Writer`](crate::xml::Writer)'s.
    #[must_use]
    pub fn payload(mut self, raw: impl Into<Bytes>) -> Self {
        self.payload = Payload::trusted(raw.into());
        self
    }

    /// Sets the payload to one that was indexed before.
    #[must_use]
    pub fn with_payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    /// The payload, to share it.
    #[must_use]
    pub fn shared_payload(&self) -> &Payload {
        &self.payload
    }

    /// The same with elements of our own making behind the payload.
    #[must_use]
    pub fn append(&self, elements: &[u8]) -> Self {
        let payload = self.payload.append(elements);
        debug_assert!(payload.is_ok(), "a payload that is no XML");
        self.header().with_payload(payload.unwrap_or_else(|_| self.payload.clone()))
    }

    /// The same without the children for which `remove` is true.
    #[must_use]
    pub fn without(&self, remove: impl Fn(&ChildRef<'_>) -> bool) -> Self {
        self.header().with_payload(self.payload.without(remove))
    }

    /// The same with an empty payload.
    #[must_use]
    pub fn header(&self) -> Self {
        let Self { type_, to, from, id, lang, .. } = self;
        let (to, from, id, lang) = (to.clone(), from.clone(), id.clone(), lang.clone());
        Self { type_: *type_, to, from, id, lang, payload: Payload::default() }
    }

    /// Message, presence or IQ.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.type_.kind()
    }

    /// The child elements, in order.
    #[inline]
    pub fn children(&self) -> impl Iterator<Item = ChildRef<'_>> {
        self.payload.children()
    }

    /// The first child of this name and namespace; `jabber:client` is the content namespace.
    #[inline]
    #[must_use]
    pub fn child(&self, name: &str, ns: &str) -> Option<ChildRef<'_>> {
        self.payload.child(name, ns)
    }

    /// Whether there is a child of this name and namespace.
    #[inline]
    #[must_use]
    pub fn has(&self, name: &str, ns: &str) -> bool {
        self.child(name, ns).is_some()
    }

    /// The first child of this namespace: what an IQ asks for (RFC 6120 section 8.2.3).
    #[inline]
    #[must_use]
    pub fn child_in(&self, ns: &str) -> Option<ChildRef<'_>> {
        self.children().find(|child| child.is_in(ns))
    }

    /// The error that it carries, if it is one.
    #[must_use]
    pub fn error(&self) -> Option<StanzaError> {
        if !self.type_.is_error() {
            return None;
        }
        Some(StanzaError::parse(&self.child("error", ns::CLIENT)?.element()))
    }

    /// The bare JID of the sender.
    #[must_use]
    pub fn from_bare(&self) -> Option<BareJid> {
        self.from.as_ref().map(Jid::to_bare)
    }

    /// The bare JID of the recipient.
    #[must_use]
    pub fn to_bare(&self) -> Option<BareJid> {
        self.to.as_ref().map(Jid::to_bare)
    }
}
