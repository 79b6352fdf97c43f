//! What comes on the first level of a stream: stanzas, and the elements of negotiation and stream management.

use super::{
    Element, Stanza,
    stanza::{Error, Top, top},
};
use crate::xml::{Limits, Scope};

/// One element of a stream's first level.
#[derive(Clone, Debug)]
pub enum TopLevel {
    /// A message, presence or IQ.
    Stanza(Stanza),
    /// `<r/>`: the peer asks what arrived (XEP-0198 section 4). Read without a tree, since it follows most stanzas.
    AckRequest,
    /// `<a h=''/>`: that many of our stanzas arrived (XEP-0198 section 4), modulo 2^32.
    Ack(u32),
    /// Anything else outside of the content namespace: STARTTLS, SASL, the rest of XEP-0198, XEP-0352.
    Nonza(Element),
}

impl TopLevel {
    /// Reads one frame with all strict checks.
    ///
    /// # Errors
    /// See [`stanza::Error`](Error). A stanza-level error leaves the stream usable.
    pub fn parse(frame: &[u8], scope: &Scope, limits: &Limits) -> Result<Self, Error> {
        Ok(match top(frame, scope, limits)? {
            Top::Stanza(stanza) => Self::Stanza(stanza),
            Top::AckRequest => Self::AckRequest,
            Top::Ack(h) => Self::Ack(h),
            Top::Nonza(element) => Self::Nonza(element),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xmpp::{StreamCondition, ns};

    fn parse(frame: &str) -> Result<TopLevel, Error> {
        TopLevel::parse(frame.as_bytes(), &Scope::CLIENT, &Limits::CLIENT)
    }

    #[test]
    fn what_is_on_top() {
        assert!(matches!(parse("<r xmlns='urn:xmpp:sm:3'/>"), Ok(TopLevel::AckRequest)));
        assert!(matches!(parse("<s:r xmlns:s='urn:xmpp:sm:3'></s:r>"), Ok(TopLevel::AckRequest)));
        assert!(matches!(parse("<a xmlns='urn:xmpp:sm:3' h='4294967295'/>"), Ok(TopLevel::Ack(u32::MAX))));
        assert!(matches!(parse("<message><body>x</body></message>"), Ok(TopLevel::Stanza(_))));
        let Ok(TopLevel::Nonza(auth)) =
            parse("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AA==</auth>")
        else {
            panic!("no nonza");
        };
        assert_eq!((auth.attr("mechanism"), auth.text().as_str()), (Some("PLAIN"), "AA=="));
        let Ok(TopLevel::Nonza(error)) =
            parse("<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>")
        else {
            panic!("no nonza");
        };
        assert!(error.is("error", ns::STREAM) && error.has("reset", ns::STREAMS));
    }

    #[test]
    fn what_ends_the_stream() {
        for (frame, condition) in [
            ("<foo/>", StreamCondition::UnsupportedStanzaType),
            ("<a xmlns='urn:xmpp:sm:3'/>", StreamCondition::InvalidXml),
            ("<a xmlns='urn:xmpp:sm:3' h='+1'/>", StreamCondition::InvalidXml),
            ("<a xmlns='urn:xmpp:sm:3' h='4294967296'/>", StreamCondition::InvalidXml),
            ("<a xmlns='urn:xmpp:sm:3' h=''/>", StreamCondition::InvalidXml),
            ("<message from='@'/>", StreamCondition::InvalidFrom),
            ("<message><p:x/></message>", StreamCondition::BadNamespacePrefix),
            ("<message>\u{1}</message>", StreamCondition::NotWellFormed),
        ] {
            assert_eq!(parse(frame).err().and_then(|e| e.condition()), Some(condition), "{frame}");
        }
    }
}
