//! Stream errors: RFC 6120 4.9. Each of them ends the stream.

use super::{conditions, write_empty, write_text};
use crate::xmpp::ns;
use std::borrow::Cow;

conditions! {
    /// Why a stream ends (RFC 6120 4.9.3).
    StreamCondition {
        /// XML that cannot be processed, for which no condition below is more exact.
        BadFormat = "bad-format",
        /// A prefix that is not bound, or a stream element without its prefix.
        BadNamespacePrefix = "bad-namespace-prefix",
        /// A newer stream takes this one's place.
        Conflict = "conflict",
        /// The other side has not been heard of for too long.
        ConnectionTimeout = "connection-timeout",
        /// The host named by `to` is no longer served here.
        HostGone = "host-gone",
        /// The host named by `to` is not served here.
        HostUnknown = "host-unknown",
        /// A stanza between servers without `to` or `from`, or with one that is no address.
        ImproperAddressing = "improper-addressing",
        /// A fault of this server.
        InternalServerError = "internal-server-error",
        /// A `from` that the stream has not been authorised for.
        InvalidFrom = "invalid-from",
        /// A stream or content namespace that is not supported.
        InvalidNamespace = "invalid-namespace",
        /// XML that breaks a schema, where that is checked.
        InvalidXml = "invalid-xml",
        /// A stanza before authentication, or one that is not allowed at this stage.
        NotAuthorized = "not-authorized",
        /// XML that is not well-formed.
        NotWellFormed = "not-well-formed",
        /// A local rule was broken: size, rate, count.
        PolicyViolation = "policy-violation",
        /// A host that must be reached to go on cannot be reached.
        RemoteConnectionFailed = "remote-connection-failed",
        /// The stream must be opened anew, as its security or features changed.
        Reset = "reset",
        /// The server has not enough of something to go on.
        ResourceConstraint = "resource-constraint",
        /// Comments, processing instructions, DTDs, entities (RFC 6120 11.1).
        RestrictedXml = "restricted-xml",
        /// Go on at another host: [`StreamError::host`](super::StreamError).
        SeeOtherHost = "see-other-host",
        /// The server is going down.
        SystemShutdown = "system-shutdown",
        /// None of these; the application condition says more.
        UndefinedCondition = "undefined-condition",
        /// Not UTF-8.
        UnsupportedEncoding = "unsupported-encoding",
        /// A feature was asked for that was not offered, or a mandatory one is missing.
        UnsupportedFeature = "unsupported-feature",
        /// A first-level element that is neither a stanza nor known.
        UnsupportedStanzaType = "unsupported-stanza-type",
        /// A stream version that is not supported.
        UnsupportedVersion = "unsupported-version",
    }
}

impl StreamCondition {
    /// Appends `<stream:error>` with this condition; the prefix `stream` must be bound by the stream's header.
    pub fn write(self, out: &mut Vec<u8>) {
        StreamError::from(self).write(out);
    }
}

/// A whole `<stream:error/>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamError {
    /// Why.
    pub condition: StreamCondition,
    /// For people, in English.
    pub text: Option<Cow<'static, str>>,
    /// Where to go: `host`, `host:port`, `[v6]:port`. Only written with [`StreamCondition::SeeOtherHost`].
    pub host: Option<Cow<'static, str>>,
    /// The application-specific condition: one complete element, trusted XML.
    pub app: Option<Cow<'static, [u8]>>,
}

impl From<StreamCondition> for StreamError {
    fn from(condition: StreamCondition) -> Self {
        Self { condition, text: None, host: None, app: None }
    }
}

impl StreamError {
    /// The same with a text for people.
    #[must_use]
    pub fn text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// The same with an application-specific condition: one complete element, trusted XML.
    #[must_use]
    pub fn app(mut self, element: impl Into<Cow<'static, [u8]>>) -> Self {
        self.app = Some(element.into());
        self
    }

    /// `<see-other-host/>` with the place to go on.
    #[must_use]
    pub fn see_other_host(host: impl Into<Cow<'static, str>>) -> Self {
        Self { host: Some(host.into()), ..StreamCondition::SeeOtherHost.into() }
    }

    /// Appends the element; the prefix `stream` must be bound by the stream's header.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"<stream:error>");
        match &self.host {
            Some(host) if self.condition == StreamCondition::SeeOtherHost => {
                for part in ["<see-other-host xmlns='", ns::STREAMS, "'>"] {
                    out.extend_from_slice(part.as_bytes());
                }
                crate::xml::escape::text(out, host);
                out.extend_from_slice(b"</see-other-host>");
            }
            _ => write_empty(out, self.condition.name(), ns::STREAMS),
        }
        if let Some(text) = &self.text {
            write_text(out, ns::STREAMS, text);
        }
        if let Some(app) = &self.app {
            out.extend_from_slice(app);
        }
        out.extend_from_slice(b"</stream:error>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: &StreamError) -> String {
        let mut out = Vec::new();
        error.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_lead_back() {
        assert_eq!(StreamCondition::ALL.len(), 25);
        for &condition in StreamCondition::ALL {
            assert_eq!(StreamCondition::from_name(condition.name()), Some(condition));
        }
        assert_eq!(StreamCondition::from_name("xml-not-well-formed"), None);
    }

    #[test]
    fn is_written_with_all_parts() {
        assert_eq!(
            written(&StreamCondition::Conflict.into()),
            "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
        );
        let error =
            StreamError::from(StreamCondition::PolicyViolation).text("<slow>").app(&b"<x xmlns='y'/>"[..]);
        assert_eq!(
            written(&error),
            "<stream:error><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>&lt;slow&gt;</text><x xmlns='y'/></stream:error>"
        );
        assert_eq!(
            written(&StreamError::see_other_host("[::1]:5222")),
            "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[::1]:5222</see-other-host></stream:error>"
        );
    }
}
