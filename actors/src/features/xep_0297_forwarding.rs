//! XEP-0297 Stanza Forwarding, version 1.0: a stanza within another, for carbons and archive results.

use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::Stanza;

use crate::features::contract::{Feature, Xep};

/// XEP-0297. The server forwards, it takes nothing forwarded: so there is nothing to discover (section 5).
pub const FORWARDING: Feature = Feature {
    xep: Xep {
        number: 297,
        version: "1.0",
        name: "Stanza Forwarding",
        note: "in carbons and archive results",
    },
    ..Feature::NONE
};

const OPEN: &[u8] = b"<forwarded xmlns='urn:xmpp:forward:0'>";
const CLOSE: &[u8] = b"</forwarded>";

/// `<forwarded/>` with `delay` (an element of [`super::xep_0203_delay`], or nothing) and the stanza, which declares its
/// namespace (section 3.1). `extra` are elements to stand behind the stanza's payload.
pub fn forwarded(stanza: &Stanza, delay: &[u8], extra: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(stanza.size() + extra.len());
    stanza.write_with(&mut raw, stanza.to.as_ref(), extra);
    forwarded_raw(&raw, delay)
}

/// The same for a stanza as it was written by [`Stanza::write`], or with its namespace declared by
/// [`Stanza::to_bytes`]: how archives keep it. Copies bytes and reads none, apart from the name.
pub fn forwarded_raw(stanza: &[u8], delay: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(OPEN.len() + delay.len() + stanza.len() + 24 + CLOSE.len());
    out.extend_from_slice(OPEN);
    out.extend_from_slice(delay);
    let name = stanza.iter().position(|byte| matches!(byte, b' ' | b'>' | b'/')).unwrap_or(stanza.len());
    let (name, rest) = stanza.split_at(name);
    out.extend_from_slice(name);
    // Within `<forwarded/>` the default namespace is another, so the stanza must say its own.
    if !rest.starts_with(b" xmlns=") {
        out.extend_from_slice(b" xmlns='");
        out.extend_from_slice(ns::CLIENT.as_bytes());
        out.push(b'\'');
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(CLOSE);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_proto::xmpp::element::Element;
    use rookery_proto::xmpp::jid::Jid;
    use rookery_proto::xmpp::stanza::MessageType;

    #[test]
    fn the_stanza_keeps_its_namespace_however_it_was_stored() {
        let stanza = Stanza::new(MessageType::Chat)
            .from(Jid::parse("a@b/c").unwrap())
            .payload(&b"<body>hi</body><x xmlns='urn:x'/>"[..]);
        let mut plain = Vec::new();
        stanza.write(&mut plain);
        let forms = [
            forwarded(&stanza, b"", b""),
            forwarded_raw(&plain, b""),
            forwarded_raw(&stanza.to_bytes(), b""),
        ];
        for form in &forms {
            let read = Element::parse(form).unwrap();
            let message = read.child("message", ns::CLIENT).unwrap();
            assert_eq!(message.child_text("body", ns::CLIENT).as_deref(), Some("hi"));
            assert_eq!((message.attr("from"), message.attr("type")), (Some("a@b/c"), Some("chat")));
            assert_eq!(read.children().count(), 1);
        }
        let empty = forwarded(
            &Stanza::new(MessageType::Normal),
            b"<delay xmlns='urn:xmpp:delay'/>",
            b"<y xmlns='urn:y'/>",
        );
        let read = Element::parse(&empty).unwrap();
        assert!(read.has("delay", ns::DELAY) && read.child("message", ns::CLIENT).unwrap().has("y", "urn:y"));
    }
}
