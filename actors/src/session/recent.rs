//! Requests, answers and messages of rooms that come again, since nobody could say whether the client was sent them.

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::stanza::Stanza;

use super::sm::Sm;
use super::{Delivery, Event, Session};
use crate::connection::heard::Heard;
use crate::connection::ledger::Receipt;
use crate::connection::recent::{self, Asks, Recent, Sent};
use crate::routing::wire;

/// What another home has told the connection.
pub(super) fn from_wire(attach: &wire::Attach) -> Recent {
    let sent = attach.recent.iter().map(|recent| Sent::new(recent.key, recent.number, recent.up));
    let mut recent = Recent::of(sent);
    recent.rooms = Heard::read(&attach.rooms);
    recent.comes_again(attach.sent);
    recent
}

/// For the next home.
pub(super) fn to_wire(recent: &Recent) -> Vec<wire::Recent> {
    let wire = |sent: &Sent| wire::Recent { key: sent.key, number: sent.number, up: sent.up };
    recent.iter().map(wire).collect()
}

/// By which an error is known should it come again.
pub(super) fn key(error: &Stanza) -> u64 {
    recent::key(error, None)
}

impl Session {
    /// The client was sent this. A sender that sends it again hears of it when the client has it.
    pub(super) fn has_had(&mut self, delivery: Delivery) {
        let queued = delivery.kept.queued();
        let waits = |sm: &Sm| sm.unacked.iter().any(|item| item.kept.queued() == queued);
        if let Some(id) = queued.filter(|_| !self.sm.as_deref().is_some_and(waits)) {
            self.unqueue(&[id]); // it was put there when nobody knew that the client had it
        }
        self.settle_with(delivery.kept.key(), delivery.receipt);
    }

    /// The receipt of a stanza of the client, unless that has come again and is answered: then it is settled as soon as the answer
    /// is safe, and nothing more may be done with it.
    pub(super) fn unless_answered(&mut self, stanza: &Stanza, receipt: Receipt) -> Option<Receipt> {
        let acked = self.sm.as_ref().map_or(0, |sm| sm.acked);
        if self.recent.has_errors() {
            self.recent.forget_settled(self.ledger.settled(), acked);
        }
        match self.recent.asks(stanza, receipt.number(), acked) {
            Asks::Anew => return Some(receipt),
            Asks::Again(key) => self.settle_with(key, receipt),
        }
        None
    }

    /// Settles a receipt as soon as what the client was sent under this key is safe.
    fn settle_with(&mut self, key: u64, receipt: Receipt) {
        let sm = self.sm.as_mut();
        let item = sm.and_then(|sm| sm.unacked.iter_mut().find(|item| item.kept.key() == key));
        match item {
            // The stanza is on its way into the offline queue, or there.
            Some(item) if item.safe => {
                let stanza = item.outgoing.stanza.clone();
                self.tell(Event::QueuedAgain { stanza, receipt });
            }
            Some(item) if !item.answered && item.is_nowhere() => {
                let pressing = receipt.is_pressing();
                std::mem::replace(&mut item.receipt, receipt).done();
                if let Some(sm) = &mut self.sm {
                    sm.want_tick(pressing);
                }
            }
            _ => receipt.done(), // its client has confirmed it, or answered
        }
    }
}

impl Sm {
    /// Drops what the client has had before; returns what of that lies in the offline queue.
    pub(super) fn take_had(&mut self, recent: &Recent) -> Vec<ArchiveId> {
        let mut queued = Vec::new();
        if self.unacked.iter().any(|item| recent.has_kept(&item.kept)) {
            let all = std::mem::take(&mut self.unacked);
            let (twice, rest): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|item| recent.has_kept(&item.kept));
            self.unacked = rest.into();
            for item in twice {
                self.forget_bytes(&item);
                queued.extend(item.kept.queued());
                item.receipt.done(); // its client has had it
            }
        }
        queued
    }

    /// What waits for the client has its numbers.
    pub(super) fn note_had(&self, recent: &mut Recent, up: u32) {
        for (number, item) in (1u32..).zip(&self.unacked) {
            let number = self.acked.wrapping_add(number);
            if item.kept.room().is_some() {
                recent.note_kept(&item.kept, Some(number), up);
            } else if !recent.has(item.kept.key()) {
                recent.note_waited(item.kept.key(), number, up);
            }
        }
    }
}
