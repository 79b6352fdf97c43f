//! Requests and answers that come again, since nobody could say whether the client was sent them.

use rookery_cluster::tables::archive::ArchiveId;

use super::sm::Sm;
use super::{Delivery, Event, Session};
use crate::connection::recent::{Recent, Sent};
use crate::routing::wire;

/// What another home has told the connection.
pub(super) fn from_wire(recent: &[wire::Recent]) -> Recent {
    Recent::of(recent.iter().map(|recent| Sent::new(recent.key, recent.number, recent.up)))
}

/// For the next home.
pub(super) fn to_wire(recent: &Recent) -> Vec<wire::Recent> {
    let wire = |sent: &Sent| wire::Recent { key: sent.key, number: sent.number, up: sent.up };
    recent.iter().map(wire).collect()
}

impl Session {
    /// The client was sent this. Whoever sends it again hears of it when the client has it.
    pub(super) fn has_had(&mut self, delivery: Delivery) {
        let Delivery { outgoing, kept, receipt } = delivery;
        let sm = self.sm.as_mut();
        let item = sm.and_then(|sm| sm.unacked.iter_mut().find(|item| item.kept.key() == kept.key()));
        match item {
            Some(item) if !item.safe && !item.answered => {
                std::mem::replace(&mut item.receipt, receipt).done();
                self.want_tick();
            }
            // It is on its way into the offline queue, or there.
            Some(item) if item.safe => {
                self.tell(Event::QueuedAgain { stanza: outgoing.stanza, receipt });
            }
            _ => receipt.done(), // its client has confirmed it, or answered
        }
    }
}

impl Sm {
    /// Drops what the client has had before; returns what of that lies in the offline queue.
    pub(super) fn take_had(&mut self, recent: &Recent) -> Vec<ArchiveId> {
        let mut queued = Vec::new();
        if self.unacked.iter().any(|item| recent.has(item.kept.key())) {
            let all = std::mem::take(&mut self.unacked);
            let (twice, rest): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|item| recent.has(item.kept.key()));
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
            if !recent.has(item.kept.key()) {
                recent.note_waited(item.kept.key(), self.acked.wrapping_add(number), up);
            }
        }
    }
}
