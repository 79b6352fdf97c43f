//! How the state of a connection changes whose session is elsewhere.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{At, Item, State};
use crate::routing::wire;

/// How many confirmed entries of the offline queue are remembered.
const UNQUEUE: usize = 64;

impl State {
    /// The session has lost its home, or that has given it up in order.
    pub(crate) fn look(&mut self, moved: bool) {
        self.moved = moved;
        self.attempt = self.attempt.wrapping_add(1);
        self.at = if self.ending { At::Over } else { At::Looking { since: Instant::now(), asked: false } };
        (self.doubt, self.refused) = (None, false);
        // Credit and marks are of the one pipe.
        (self.taken, self.marked) = (0, None);
    }

    /// `<enable/>` is on its way: what is settled is counted by the ledger before.
    pub(crate) fn is_enabling(&self) -> bool {
        self.counted && !self.managed
    }

    /// The client is sent something that may come again.
    pub(crate) fn note_had(&mut self, key: u64) {
        let number = self.h.wrapping_add(u32::try_from(self.tail.len()).unwrap_or(0));
        self.recent.note(key, number, self.ledger.received());
    }

    pub(crate) fn confirm(&mut self, h: u32) {
        while self.h != h {
            let Some((stanza, _)) = self.tail.pop_front() else { break };
            self.h = self.h.wrapping_add(1);
            self.acked = self.acked.max(wire::id_of(&stanza.id));
            if !stanza.queued.is_empty() {
                if self.unqueue.len() >= UNQUEUE {
                    self.unqueue.pop_front();
                }
                self.unqueue.push_back(stanza.queued);
            }
        }
        if self.tail.is_empty() && self.tail.capacity() > 32 {
            self.tail = VecDeque::new();
        }
    }

    /// The home has settled so many; they need not be kept.
    pub(crate) fn trim(&mut self, settled: u32) {
        let mut more = settled.wrapping_sub(self.ledger.processed());
        if more as usize > self.ups.len() {
            return;
        }
        while more > 0 && self.ups.front().is_some_and(Item::is_counted) {
            self.ups.pop_front();
            more -= 1;
        }
        if self.ups.is_empty() && self.ups.capacity() > 32 {
            self.ups = VecDeque::new();
        }
    }
}
