//! A client that says that nobody looks at it (XEP-0352): what it is spared. Presence and chat states wait, the last of each;
//! anything else is preceded by what waited, in order, so that a phone's radio is not woken for what nobody sees.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{MessageType, PresenceType, Stanza, Type};

use super::{Delivery, Session, Unacked};
use crate::connection::ledger::Receipt;

/// What waits for at most; then all of it is sent.
const HELD: usize = 512;

/// What is held back for an inactive client, in the order in which it will be sent.
#[derive(Default)]
pub(super) struct Held(Vec<Delivery>);

#[derive(PartialEq, Eq)]
enum Class {
    Presence,
    ChatState,
}

impl Held {
    /// Holds a stanza back, or returns it if it must be sent now (and what is held before it).
    pub(super) fn hold(&mut self, delivery: Delivery) -> Option<Delivery> {
        let Some(class) = class(&delivery.outgoing.stanza) else { return Some(delivery) };
        if self.0.len() >= HELD {
            return Some(delivery);
        }
        let from = &delivery.outgoing.stanza.from;
        let same = |held: &Delivery| {
            held.outgoing.stanza.from == *from && self::class(&held.outgoing.stanza).as_ref() == Some(&class)
        };
        if let Some(at) = self.0.iter().position(same) {
            self.0.remove(at).receipt.done();
        }
        self.0.push(delivery);
        None
    }

    /// How many are held.
    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Drops what came from contacts that have been blocked since; how many stanzas that were.
    pub(super) fn forget(&mut self, blocked: impl Fn(&Jid) -> bool) -> u32 {
        let before = self.len();
        let (gone, held) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|held: &Delivery| held.outgoing.stanza.from.as_ref().is_some_and(&blocked));
        self.0 = held;
        let gone: Vec<Delivery> = gone;
        gone.into_iter().for_each(|held| held.receipt.done());
        before.saturating_sub(self.len())
    }

    /// Takes out what is held.
    pub(super) fn take(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.0)
    }
}

/// Which of the kinds that may wait, if any. Requests for a subscription and errors may not.
fn class(stanza: &Stanza) -> Option<Class> {
    match stanza.type_ {
        Type::Presence(PresenceType::Available | PresenceType::Unavailable) => Some(Class::Presence),
        Type::Message(kind) if kind != MessageType::Error => {
            // Only a state, whatever little comes with it (XEP-0085 section 5.5, hints).
            let mut state = false;
            for child in stanza.children() {
                match child.ns() {
                    ns::CHATSTATES => state = true,
                    ns::HINTS => {}
                    ns::CLIENT if child.name() == "thread" => {}
                    _ => return None,
                }
            }
            state.then_some(Class::ChatState)
        }
        _ => None,
    }
}

impl Session {
    /// The client is looked at, or not.
    pub(super) fn csi(&mut self, active: bool) {
        if active {
            self.flush_held();
            self.set_inactive(false);
        } else if !self.client.inactive {
            self.set_inactive(true);
        }
        self.write_record();
    }

    /// The same as a fact that somebody else writes down. Nothing is held back now.
    pub(super) fn set_inactive(&mut self, inactive: bool) {
        self.client.inactive = inactive;
        self.held = inactive.then(Box::default);
    }

    /// Sends what is held back.
    pub(super) fn flush_held(&mut self) {
        let Some(held) = &mut self.held else { return };
        for delivery in held.take() {
            self.send(Box::new(delivery));
        }
    }

    /// What these have sent is withdrawn (XEP-0191): what is held back is dropped, and counted as never sent; what has a number
    /// already, and would be sent again to a client that comes back, is emptied.
    pub(super) fn withdraw(&mut self, from: impl Fn(&Jid) -> bool) {
        let gone = self.held.as_mut().map_or(0, |held| held.forget(&from));
        self.shared.dropped.fetch_add(gone, Ordering::Relaxed);
        if let Some(sm) = &mut self.sm {
            sm.unacked
                .iter_mut()
                .filter(|item| item.stanza().from.as_ref().is_some_and(&from))
                .for_each(empty);
        }
    }
}

/// Nothing to see takes the stanza's place and number. Requests stay: they are answered by the client.
fn empty(item: &mut Unacked) {
    if matches!(item.stanza().type_, Type::Iq(_)) {
        return;
    }
    let mut nothing = Stanza::new(MessageType::Headline);
    nothing.to.clone_from(&item.stanza().to);
    item.outgoing.extra = None;
    item.outgoing.stanza = Arc::new(nothing);
    std::mem::replace(&mut item.receipt, Receipt::none()).done();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::pipe::Outgoing;

    fn delivery(stanza: Stanza) -> Delivery {
        Delivery {
            outgoing: Outgoing::new(stanza),
            kept: crate::connection::pipe::Kept::default(),
            receipt: Receipt::none(),
        }
    }

    fn presence(from: &str, status: &str) -> Delivery {
        let stanza = Stanza::new(Type::Presence(PresenceType::Available)).from(Jid::parse(from).unwrap());
        delivery(stanza.payload(format!("<status>{status}</status>").into_bytes()))
    }

    fn state(from: &str, state: &str) -> Delivery {
        let stanza = Stanza::new(Type::Message(MessageType::Chat)).from(Jid::parse(from).unwrap());
        delivery(
            stanza.payload(format!("<{state} xmlns='http://jabber.org/protocol/chatstates'/>").into_bytes()),
        )
    }

    #[test]
    fn the_last_of_each_waits_and_messages_do_not() {
        let mut held = Held::default();
        assert!(held.hold(presence("a@x/1", "one")).is_none());
        assert!(held.hold(presence("b@x/1", "other")).is_none());
        assert!(held.hold(state("a@x/1", "composing")).is_none());
        assert!(held.hold(presence("a@x/1", "two")).is_none());
        assert!(held.hold(state("a@x/1", "paused")).is_none());
        let body = Stanza::new(Type::Message(MessageType::Chat)).payload(&b"<body>hi</body>"[..]);
        assert!(held.hold(delivery(body)).is_some());
        let sent: Vec<String> =
            held.take().iter().map(|d| String::from_utf8(d.outgoing.stanza.to_bytes()).unwrap()).collect();
        assert_eq!(sent.len(), 3);
        assert!(
            held.hold(presence("a@x/1", "one")).is_none() && held.hold(state("b@x/1", "active")).is_none()
        );
        assert_eq!((held.forget(|from| from.bare_str() == "a@x"), held.len()), (1, 1));
        assert!(held.take()[0].outgoing.stanza.from.as_ref().is_some_and(|from| from.bare_str() == "b@x"));
        assert!(
            sent[0].contains("other") && sent[1].contains("two") && sent[2].contains("paused"),
            "{sent:?}"
        );
        assert!(held.take().is_empty());
    }
}
