//! Which stanzas wait for somebody who is not there.

use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{ChildRef, MessageType, Stanza, Type};

use crate::features;

/// Whether a session that sleeps is to get a stanza that nobody else may have: answers, errors, headlines, and what is said
/// to this very resource. Not states, which are others by then, nor what asks to be kept nowhere (XEP-0334).
pub(crate) fn worth_telling(stanza: &Stanza) -> bool {
    match stanza.type_ {
        Type::Iq(_) => true,
        Type::Presence(_) => false,
        Type::Message(_) => {
            let state = |child: ChildRef<'_>| child.is_in(ns::CHATSTATES);
            !stanza.has("no-store", ns::HINTS) && !stanza.children().all(state)
        }
    }
}

/// XEP-0160 section 3: chat messages with a body and normal ones are kept for a user who is offline; chat states and
/// the like are not, nor what asks not to be (XEP-0334). Features name what else is ([`Payload`](features::contract::Payload)).
pub(crate) fn worth_keeping(stanza: &Stanza) -> bool {
    if stanza.has("no-store", ns::HINTS) {
        return false;
    }
    match stanza.type_ {
        Type::Message(MessageType::Normal) => !stanza.children().all(|c| c.is_in(ns::CHATSTATES)),
        Type::Message(MessageType::Chat) => {
            stanza.has("body", ns::CLIENT)
                || stanza.has("store", ns::HINTS)
                || stanza.has("encrypted", "eu.siacs.conversations.axolotl")
                || stanza
                    .children()
                    .any(|child| features::payload(&child).is_some_and(|payload| payload.waits))
        }
        _ => false,
    }
}
