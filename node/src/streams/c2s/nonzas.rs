//! What a client with a session may send beside stanzas: one list. `<r/>` and `<a/>` (XEP-0198), which follow most stanzas,
//! are not in it: they are read without a tree, in [`input`](super::input).

use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::ns;

use super::End;
use super::running::{Running, Sm};
use crate::streams::acks::Acks;
use crate::transport::Carrier;

/// An element of the first level that is no stanza.
struct Nonza<W: Carrier> {
    name: &'static str,
    ns: &'static str,
    handle: fn(&mut Running<W>, &Element) -> Result<(), End>,
}

impl<W: Carrier> Running<W> {
    const NONZAS: &'static [Nonza<W>] = &[
        Nonza { name: "enable", ns: ns::SM, handle: Self::enable },
        Nonza { name: "resume", ns: ns::SM, handle: Self::resume },
        Nonza { name: "active", ns: ns::CSI, handle: |running, _| running.client_state(true) },
        Nonza { name: "inactive", ns: ns::CSI, handle: |running, _| running.client_state(false) },
        // RFC 6120 section 4.9.1.1: the client's own error ends the stream.
        Nonza { name: "error", ns: ns::STREAM, handle: |_, _| Err(End::Closed) },
    ];

    /// Handles one.
    pub(super) fn nonza(&mut self, element: &Element) -> Result<(), End> {
        match Self::NONZAS.iter().find(|nonza| element.is(nonza.name, nonza.ns)) {
            Some(nonza) => (nonza.handle)(self, element),
            None => Err(End::error(StreamCondition::UnsupportedStanzaType)),
        }
    }

    /// XEP-0198 section 3.
    fn enable(&mut self, element: &Element) -> Result<(), End> {
        // Once. (And a `<failed/>` in front of the `<enabled/>` that is on its way would be taken for its answer.)
        if self.sm != Sm::Off {
            return Err(End::error(StreamCondition::PolicyViolation));
        }
        let resume = matches!(element.attr("resume"), Some("true" | "1"));
        let max = element.attr("max").and_then(|max| max.parse().ok());
        self.link.enable(resume, max);
        (self.sm, self.acks) = (Sm::Asked { early: false }, Acks::new(0));
        Ok(())
    }

    /// XEP-0198 section 5: not into a session that is there.
    fn resume(&mut self, _: &Element) -> Result<(), End> {
        if matches!(self.sm, Sm::Asked { .. }) {
            return Err(End::error(StreamCondition::PolicyViolation));
        }
        self.refuse_sm();
        Ok(())
    }

    /// XEP-0352 section 5.
    fn client_state(&mut self, active: bool) -> Result<(), End> {
        self.link.csi(active);
        Ok(())
    }
}
