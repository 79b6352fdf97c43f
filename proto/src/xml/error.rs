//! Why XML was refused, and which stream error says so.

use crate::xmpp::error::StreamCondition;

/// A violation of XML, of Namespaces in XML, of RFC 6120 section 11, or of a limit.
///
/// Each one ends the stream; [`Error::condition`] is the stream error to end it with. The messages are fixed texts:
/// nothing that a peer sent is repeated in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not XML 1.0, or not namespace-well-formed (RFC 6120 section 11.3).
    #[error("not well-formed: {0}")]
    NotWellFormed(&'static str),
    /// A comment, processing instruction, document type or custom entity (RFC 6120 section 11.1).
    #[error("restricted XML: {0}")]
    Restricted(&'static str),
    /// A prefix that no declaration in scope binds (RFC 6120 section 4.9.3.2).
    #[error("unbound namespace prefix")]
    UnboundPrefix,
    /// Not UTF-8, or declared to be something else (RFC 6120 section 11.6).
    #[error("not UTF-8")]
    Encoding,
    /// Well-formed, but not what a stream may hold at this place (RFC 6120 section 4.9.3.1).
    #[error("bad format: {0}")]
    Format(&'static str),
    /// A stream header or content namespace that is not XMPP's (RFC 6120 section 4.9.3.10).
    #[error("invalid namespace")]
    Namespace,
    /// A value that its schema does not allow (RFC 6120 section 4.9.3.11).
    #[error("invalid XML: {0}")]
    Schema(&'static str),
    /// A `to` or `from` of a stream header that is not a JID (RFC 6120 section 4.9.3.7).
    #[error("improper addressing")]
    Addressing,
    /// A stream version that is not two numbers and a dot (RFC 6120 section 4.7.5).
    #[error("unsupported stream version")]
    Version,
    /// A frame of more bytes than allowed at this stage.
    #[error("frame larger than {0} bytes")]
    TooLarge(u32),
    /// Elements nested deeper than allowed.
    #[error("elements nested deeper than {0}")]
    TooDeep(u16),
    /// More attributes on one element than allowed.
    #[error("more than {0} attributes")]
    TooManyAttributes(u16),
    /// More namespace declarations in force at once than allowed.
    #[error("more than {0} namespace declarations")]
    TooManyNamespaces(u16),
    /// A name of a namespace longer than [`Limits::NAMESPACE_BYTES`](super::Limits::NAMESPACE_BYTES).
    #[error("name of a namespace too long")]
    LongNamespace,
    /// More children directly under one stanza than allowed.
    #[error("more than {0} child elements")]
    TooManyChildren(u16),
}

impl Error {
    /// The stream error condition of RFC 6120 section 4.9.3 for this violation.
    #[must_use]
    pub fn condition(&self) -> StreamCondition {
        match self {
            Self::NotWellFormed(_) => StreamCondition::NotWellFormed,
            Self::Restricted(_) => StreamCondition::RestrictedXml,
            Self::UnboundPrefix => StreamCondition::BadNamespacePrefix,
            Self::Encoding => StreamCondition::UnsupportedEncoding,
            Self::Format(_) => StreamCondition::BadFormat,
            Self::Namespace => StreamCondition::InvalidNamespace,
            Self::Schema(_) => StreamCondition::InvalidXml,
            Self::Addressing => StreamCondition::ImproperAddressing,
            Self::Version => StreamCondition::UnsupportedVersion,
            Self::TooLarge(_)
            | Self::TooDeep(_)
            | Self::TooManyAttributes(_)
            | Self::TooManyNamespaces(_)
            | Self::LongNamespace
            | Self::TooManyChildren(_) => StreamCondition::PolicyViolation,
        }
    }
}
