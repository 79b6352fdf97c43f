//! XEP-0334 Message Processing Hints, version 1.0.0: what a sender wishes for a message's storing and copying.

use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use crate::features::contract::{Feature, Hints, MessageHook, Passing, Phase, Verdict, Xep};
use crate::user::User;

/// XEP-0334. It has no discovery.
pub const HINTS: Feature = Feature {
    xep: Xep { number: 334, version: "1.0.0", name: "Message Processing Hints", note: "" },
    messages: &[MessageHook { phase: Phase::Check, run: read }],
    ..Feature::NONE
};

fn read(_: &User, passing: &mut Passing) -> Verdict {
    passing.hints = hints(&passing.stanza);
    Verdict::Pass
}

/// The hints of a message; those of an error are ignored, since they may be those of what it answers (section 5).
pub fn hints(stanza: &Stanza) -> Hints {
    let mut hints = Hints::default();
    if stanza.type_ == Type::Message(MessageType::Error) {
        return hints;
    }
    for child in stanza.children().filter(|child| child.is_in(ns::HINTS)) {
        match child.name() {
            "no-store" => hints.no_store = true,
            "no-permanent-store" => hints.no_permanent_store = true,
            "no-copy" => hints.no_copy = true,
            "store" => hints.store = true,
            _ => {}
        }
    }
    // XEP-0280 section 9 has its own word for the same.
    hints.no_copy |= stanza.has("private", ns::CARBONS);
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_but_not_from_errors() {
        let message = |type_, payload: &'static str| hints(&Stanza::new(type_).payload(payload.as_bytes()));
        let all = "<no-store xmlns='urn:xmpp:hints'/><no-permanent-store xmlns='urn:xmpp:hints'/>\
                   <store xmlns='urn:xmpp:hints'/><odd xmlns='urn:xmpp:hints'/>";
        let read = message(MessageType::Chat, all);
        assert!(read.no_store && read.no_permanent_store && read.store && !read.no_copy);
        assert!(message(MessageType::Chat, "<no-copy xmlns='urn:xmpp:hints'/>").no_copy);
        assert!(message(MessageType::Chat, "<private xmlns='urn:xmpp:carbons:2'/>").no_copy);
        assert!(!message(MessageType::Chat, "<no-copy xmlns='urn:other'/><store/>").no_copy);
        assert!(!message(MessageType::Error, "<no-store xmlns='urn:xmpp:hints'/>").no_store);
    }
}
