//! From a frame to a stanza.

use super::{
    IqType, Kind, Payload, Stanza, Text, Type,
    index::{Index, Is, Root},
};
use crate::{
    xml::{
        self, Limits, Scope,
        check::{self, Attribute, Shape},
    },
    xmpp::{Condition, Element, Jid, StanzaError, StreamCondition},
};

/// Why a frame is no stanza.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Broken or forbidden XML, which ends the stream.
    #[error(transparent)]
    Xml(#[from] xml::Error),
    /// An element that is no stanza (RFC 6120 section 4.9.3.24), which ends the stream.
    #[error("unsupported stanza type")]
    Unsupported,
    /// A `from` that is not even a JID (RFC 6120 section 4.9.3.9), which ends the stream.
    #[error("invalid from")]
    From,
    /// A stanza that can be answered with a stanza error; the stream goes on.
    #[error("malformed stanza: {}", .0.error.condition.name())]
    Malformed(Box<Malformed>),
}

impl Error {
    /// The stream error to end the stream with; `None` if the stream goes on.
    #[must_use]
    pub fn condition(&self) -> Option<StreamCondition> {
        match self {
            Self::Xml(error) => Some(error.condition()),
            Self::Unsupported => Some(StreamCondition::UnsupportedStanzaType),
            Self::From => Some(StreamCondition::InvalidFrom),
            Self::Malformed(_) => None,
        }
    }
}

/// What could be read of a stanza that breaks a rule, and how to answer it.
#[derive(Clone, Debug)]
pub struct Malformed {
    /// What it is.
    pub kind: Kind,
    /// Its id, for the answer.
    pub id: Option<Text>,
    /// The sender.
    pub from: Option<Jid>,
    /// Its recipient, unless that is what is wrong.
    pub to: Option<Jid>,
    /// What to answer.
    pub error: StanzaError,
    answerable: bool,
}

impl Malformed {
    /// The error to send back, from the stanza's addressee; without an addressee, the caller sets `from`.
    /// `None` if it must not be answered, being an error or a result itself.
    #[must_use]
    pub fn reply(&self) -> Option<Stanza> {
        if !self.answerable {
            return None;
        }
        let type_ = match self.kind {
            Kind::Message => Type::Message(super::MessageType::Error),
            Kind::Presence => Type::Presence(super::PresenceType::Error),
            Kind::Iq => Type::Iq(IqType::Error),
        };
        let mut payload = Vec::new();
        self.error.write(&mut payload);
        let reply = Stanza { from: self.to.clone(), id: self.id.clone(), ..Stanza::new(type_) };
        Some(reply.payload(payload))
    }
}

/// What a frame on the first level of a stream is.
pub(crate) enum Top {
    Stanza(Stanza),
    AckRequest,
    Ack(u32),
    Nonza(Element),
}

impl Stanza {
    /// Reads one frame with all strict checks, in one pass and with one copy of its payload.
    ///
    /// # Errors
    /// See [`Error`]; an element that is no stanza is `Unsupported`.
    pub fn parse(frame: &[u8], scope: &Scope, limits: &Limits) -> Result<Self, Error> {
        match top(frame, scope, limits)? {
            Top::Stanza(stanza) => Ok(stanza),
            _ => Err(Error::Unsupported),
        }
    }
}

pub(crate) fn top(frame: &[u8], scope: &Scope, limits: &Limits) -> Result<Top, Error> {
    let text = check::text(frame, limits)?;
    let mut index = Index::new(scope.content(), limits);
    check::walk(text, Shape::Element, scope, limits, &mut index)?;
    let Some(root) = index.root else { return Err(Error::Unsupported) };
    match root.is {
        Is::Stanza(kind) => stanza(kind, &root, Payload::of(text, index, scope, limits)?).map(Top::Stanza),
        Is::AckRequest => Ok(Top::AckRequest),
        Is::Ack => {
            let h = root.h.map(|h| h.value());
            let h = h.and_then(|h| h.parse().ok().filter(|_| h.bytes().all(|b| b.is_ascii_digit())));
            h.map(Top::Ack).ok_or(Error::Xml(xml::Error::Schema("h is not a number")))
        }
        Is::Unknown => Err(Error::Unsupported),
        Is::Nonza => Ok(Top::Nonza(Element::read(frame, scope)?)),
    }
}

fn stanza(kind: Kind, root: &Root<'_>, payload: Payload) -> Result<Stanza, Error> {
    let text = |a: Option<Attribute<'_>>| a.map(|a| Text::from(a.value()));
    let jid = |a: Option<Attribute<'_>>| a.map(|a| Jid::parse(&a.value())).transpose();
    let from = jid(root.from).map_err(|_| Error::From)?;
    let (id, lang) = (text(root.id), text(root.lang));
    let to = jid(root.to);
    let type_ = Type::parse(kind, root.type_.map(|a| a.value()).as_deref());
    let problem = match type_ {
        None => Some(Condition::BadRequest),
        Some(_) if to.is_err() => Some(Condition::JidMalformed),
        // RFC 6120 section 8.2.3: an id always, one child in a request, at most one in a result.
        Some(Type::Iq(_)) if id.is_none() => Some(Condition::BadRequest),
        Some(Type::Iq(IqType::Get | IqType::Set)) if payload.children().count() != 1 => {
            Some(Condition::BadRequest)
        }
        Some(Type::Iq(IqType::Result)) if payload.children().count() > 1 => Some(Condition::BadRequest),
        Some(_) => None,
    };
    match (problem, type_, to) {
        (None, Some(type_), Ok(to)) => Ok(Stanza { type_, to, from, id, lang, payload }),
        (problem, type_, to) => Err(Error::Malformed(Box::new(Malformed {
            kind,
            id,
            from,
            to: to.ok().flatten(),
            error: StanzaError::new(problem.unwrap_or(Condition::BadRequest)),
            answerable: type_.is_none_or(Type::is_answerable),
        }))),
    }
}
