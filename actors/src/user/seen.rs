//! What was taken already: a stanza that may come again carries its origin, a name and a number.

use rookery_cluster::tables::seen as table;

use super::User;
use crate::runtime::origin::Origin;

impl User {
    /// See [`Senders::not_kept`](crate::runtime::seen::Senders::not_kept).
    pub(super) fn not_kept(&mut self, origin: Origin) {
        self.seen.not_kept(origin);
    }

    /// See [`Senders::refuse`](crate::runtime::seen::Senders::refuse).
    pub(super) fn refused_for_good(&mut self, origin: Origin) {
        self.seen.refuse(origin);
    }

    /// See [`Senders::was_refused`](crate::runtime::seen::Senders::was_refused).
    pub(super) fn was_refused(&self, origin: Origin) -> bool {
        self.seen.was_refused(origin)
    }

    /// See [`Senders::not_taken`](crate::runtime::seen::Senders::not_taken).
    pub(super) fn not_taken(&mut self, origin: Origin) {
        self.seen.not_taken(origin);
    }

    /// See [`Senders::taken_out`](crate::runtime::seen::Senders::taken_out).
    pub(super) fn taken_out(&mut self, origin: Origin) -> Option<table::Seen> {
        let at = self.host.seams().clock.now_micros();
        self.seen.taken_out(origin, at)
    }

    /// Whether this stanza was taken before.
    pub(super) fn taken_before(&self, origin: Option<Origin>) -> bool {
        origin.is_some_and(|origin| self.seen.has(origin))
    }

    /// This stanza is taken.
    pub(super) fn remember(&mut self, origin: Origin) {
        self.seen.take(origin);
    }

    /// The same of a request or an answer that is handed on.
    pub(super) fn remember_iq(&mut self, origin: Option<Origin>) {
        if let Some(origin) = origin {
            self.remember(origin);
        }
    }

    /// The same of what is about to be stored; returns the row that goes with it.
    pub(super) fn remember_kept(&mut self, origin: Origin, at: u64) -> table::Seen {
        self.seen.take_kept(origin, at)
    }
}
