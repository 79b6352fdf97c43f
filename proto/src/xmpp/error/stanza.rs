//! Stanza errors: RFC 6120 8.3.

use super::{conditions, write_empty, write_text};
use crate::{
    xml::escape,
    xmpp::{Element, jid::Jid, ns},
};
use std::borrow::Cow;

conditions! {
    /// What is wrong with a stanza (RFC 6120 8.3.3).
    Condition {
        /// The stanza breaks its schema (8.3.3.1).
        BadRequest = "bad-request",
        /// Something with that name or session exists already (8.3.3.2).
        Conflict = "conflict",
        /// Understood, not implemented (8.3.3.3).
        FeatureNotImplemented = "feature-not-implemented",
        /// The sender may not do this (8.3.3.4).
        Forbidden = "forbidden",
        /// The recipient is no longer at this address (8.3.3.5); [`StanzaError::uri`](super::StanzaError) may say where.
        Gone = "gone",
        /// A fault of this server (8.3.3.6).
        InternalServerError = "internal-server-error",
        /// The thing named does not exist (8.3.3.7).
        ItemNotFound = "item-not-found",
        /// An address in the stanza is none (8.3.3.8).
        JidMalformed = "jid-malformed",
        /// Understood, but against a rule that the sender can meet (8.3.3.9).
        NotAcceptable = "not-acceptable",
        /// No entity may do this (8.3.3.10).
        NotAllowed = "not-allowed",
        /// The sender must give credentials first (8.3.3.11).
        NotAuthorized = "not-authorized",
        /// A local rule was broken (8.3.3.12).
        PolicyViolation = "policy-violation",
        /// The recipient cannot be reached for now (8.3.3.13).
        RecipientUnavailable = "recipient-unavailable",
        /// The recipient is at another address for now (8.3.3.14): [`StanzaError::uri`](super::StanzaError).
        Redirect = "redirect",
        /// The sender must register first (8.3.3.15).
        RegistrationRequired = "registration-required",
        /// The remote domain does not exist (8.3.3.16).
        RemoteServerNotFound = "remote-server-not-found",
        /// The remote domain does not answer (8.3.3.17).
        RemoteServerTimeout = "remote-server-timeout",
        /// The server or the recipient has not enough of something (8.3.3.18).
        ResourceConstraint = "resource-constraint",
        /// Not served at this address: also the answer that hides whether an account exists (8.3.3.19).
        ServiceUnavailable = "service-unavailable",
        /// The sender must subscribe first (8.3.3.20).
        SubscriptionRequired = "subscription-required",
        /// None of these; the application condition says more (8.3.3.21).
        UndefinedCondition = "undefined-condition",
        /// Understood, but not now (8.3.3.22).
        UnexpectedRequest = "unexpected-request",
    }
}

conditions! {
    /// What the sender of the stanza may do about it (RFC 6120 8.3.2).
    ErrorType {
        /// Give credentials, then try again.
        Auth = "auth",
        /// Nothing: it will not work.
        Cancel = "cancel",
        /// Nothing: this was a warning only.
        Continue = "continue",
        /// Change the stanza, then try again.
        Modify = "modify",
        /// Try again later.
        Wait = "wait",
    }
}

impl Condition {
    /// The type that RFC 6120 8.3.3 associates with this condition (the first, where it names two).
    #[must_use]
    pub const fn default_type(self) -> ErrorType {
        match self {
            Self::BadRequest
            | Self::JidMalformed
            | Self::NotAcceptable
            | Self::PolicyViolation
            | Self::Redirect
            | Self::UndefinedCondition => ErrorType::Modify,
            Self::Forbidden
            | Self::NotAuthorized
            | Self::RegistrationRequired
            | Self::SubscriptionRequired => ErrorType::Auth,
            Self::RecipientUnavailable
            | Self::RemoteServerTimeout
            | Self::ResourceConstraint
            | Self::UnexpectedRequest => ErrorType::Wait,
            Self::Conflict
            | Self::FeatureNotImplemented
            | Self::Gone
            | Self::InternalServerError
            | Self::ItemNotFound
            | Self::NotAllowed
            | Self::RemoteServerNotFound
            | Self::ServiceUnavailable => ErrorType::Cancel,
        }
    }
}

/// The `<error/>` of a stanza (RFC 6120 8.3). `StanzaError::from(condition)` is the usual way to make one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stanza error: {condition}")]
pub struct StanzaError {
    /// What is wrong.
    pub condition: Condition,
    /// What the sender may do about it.
    pub type_: ErrorType,
    /// For people, in English.
    pub text: Option<Cow<'static, str>>,
    /// The application-specific condition: one complete element, trusted XML, as it stands inside a stanza.
    pub app: Option<Cow<'static, [u8]>>,
    /// The entity that found the error, if not the stanza's sender.
    pub by: Option<Jid>,
    /// The other address, with [`Condition::Gone`] and [`Condition::Redirect`] only.
    pub uri: Option<Cow<'static, str>>,
}

impl From<Condition> for StanzaError {
    fn from(condition: Condition) -> Self {
        Self::new(condition)
    }
}

impl StanzaError {
    /// An error with its condition's own type, and nothing else; `const`, so that features can name their errors.
    #[must_use]
    pub const fn new(condition: Condition) -> Self {
        Self { condition, type_: condition.default_type(), text: None, app: None, by: None, uri: None }
    }

    /// The same with another type, where RFC or XEP asks for one.
    #[must_use]
    pub const fn type_(mut self, type_: ErrorType) -> Self {
        self.type_ = type_;
        self
    }

    /// The same with a text for people, in English.
    #[must_use]
    pub fn text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// The same with an application-specific condition: one complete element, trusted XML, with its `xmlns`.
    #[must_use]
    pub fn app(mut self, element: impl Into<Cow<'static, [u8]>>) -> Self {
        self.app = Some(element.into());
        self
    }

    /// The same, naming the entity that found the error.
    #[must_use]
    pub fn by(mut self, by: impl Into<Jid>) -> Self {
        self.by = Some(by.into());
        self
    }

    /// Appends the `<error/>` element, without `xmlns`: it stands in a stanza's own namespace.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<error type='");
        out.extend_from_slice(self.type_.name().as_bytes());
        if let Some(by) = &self.by {
            out.extend_from_slice(b"' by='");
            escape::attribute(out, by.as_str());
        }
        out.extend_from_slice(b"'>");
        match &self.uri {
            Some(uri) if matches!(self.condition, Condition::Gone | Condition::Redirect) => {
                let name = self.condition.name();
                for part in ["<", name, " xmlns='", ns::STANZAS, "'>"] {
                    out.extend_from_slice(part.as_bytes());
                }
                escape::text(out, uri);
                for part in ["</", name, ">"] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            _ => write_empty(out, self.condition.name(), ns::STANZAS),
        }
        if let Some(text) = &self.text {
            write_text(out, ns::STANZAS, text);
        }
        if let Some(app) = &self.app {
            out.extend_from_slice(app);
        }
        out.extend_from_slice(b"</error>");
    }

    /// Reads an `<error/>` that someone sent. Never fails: an unknown condition is `undefined-condition` (8.3.3), an unknown
    /// type is the condition's own. Of several texts the first is taken; a `by` that is no address is dropped.
    #[must_use]
    pub fn parse(error: &Element) -> Self {
        let mut found = None;
        let mut text = None;
        let mut app = None;
        let mut uri = None;
        for child in error.children() {
            match (child.ns(), child.name()) {
                (ns::STANZAS, "text") => text = text.or_else(|| Some(child.text().into())),
                (ns::STANZAS, name) if found.is_none() => {
                    found = Condition::from_name(name);
                    uri = Some(child.text()).filter(|uri| !uri.is_empty()).map(Into::into);
                }
                (ns::STANZAS, _) => {}
                _ if app.is_none() => {
                    let mut raw = Vec::new();
                    child.write(&mut raw);
                    app = Some(raw.into());
                }
                _ => {}
            }
        }
        let condition = found.unwrap_or(Condition::UndefinedCondition);
        Self {
            condition,
            type_: error.attr("type").and_then(ErrorType::from_name).unwrap_or(condition.default_type()),
            text,
            app,
            by: error.attr("by").and_then(|by| Jid::parse(by).ok()),
            uri: uri.filter(|_| matches!(condition, Condition::Gone | Condition::Redirect)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: &StanzaError) -> String {
        let mut out = Vec::new();
        error.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_lead_back() {
        assert_eq!(Condition::ALL.len(), 22);
        for &condition in Condition::ALL {
            assert_eq!(Condition::from_name(condition.name()), Some(condition));
        }
        assert_eq!(ErrorType::ALL.len(), 5);
    }

    #[test]
    fn every_error_survives_the_wire() {
        for &condition in Condition::ALL {
            let plain = StanzaError::from(condition);
            let full = StanzaError {
                uri: matches!(condition, Condition::Gone | Condition::Redirect)
                    .then(|| "xmpp:a@b?x;y=<&>".into()),
                ..plain.clone()
            }
            .text("<why> & \"how\"")
            .app(&b"<x xmlns=\"urn:example\"/>"[..])
            .by(Jid::parse("example.net/'").unwrap());
            for error in [plain, full] {
                let xml = written(&error);
                let read = StanzaError::parse(&Element::parse(xml.as_bytes()).unwrap());
                assert_eq!(
                    StanzaError { app: None, ..read.clone() },
                    StanzaError { app: None, ..error.clone() },
                    "{xml}"
                );
                assert_eq!(read.app.is_some(), error.app.is_some(), "{xml}");
            }
        }
    }

    #[test]
    fn is_written_as_rfc_6120_shows() {
        assert_eq!(
            written(&StanzaError::new(Condition::ServiceUnavailable)),
            "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        );
    }

    #[test]
    fn reads_what_it_does_not_know() {
        for xml in [
            "<error/>",
            "<error type='odd' by='@'><odd xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
            "<error><item-not-found xmlns='urn:other'/></error>",
        ] {
            let error = StanzaError::parse(&Element::parse(xml.as_bytes()).unwrap());
            assert_eq!(error.condition, Condition::UndefinedCondition, "{xml}");
            assert_eq!(error.by, None);
        }
        let xml = "<error type='wait'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                   <conflict xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        let error = StanzaError::parse(&Element::parse(xml.as_bytes()).unwrap());
        assert_eq!((error.condition, error.type_, error.uri), (Condition::Gone, ErrorType::Wait, None));
    }
}
