//! Sessions on record whose resource a newer session has: the home died that replaced one, before the record of the one was removed.

use std::cmp::Ordering;

use rookery_proto::xmpp::error::StreamCondition;

use super::{User, UserSession};
use crate::session::SessionId;
use crate::session::reader::Reader;

/// Which of two sessions with one resource was bound first. Clocks of nodes differ, so the archive says it, if anything came between.
fn order(one: (&Reader, u64), other: (&Reader, u64)) -> Ordering {
    match (one.0.bound_at(), other.0.bound_at()) {
        (one, other) if one.comes_after(other) && one != other => Ordering::Greater,
        (one, other) if other.comes_after(one) && one != other => Ordering::Less,
        _ => one.1.cmp(&other.1),
    }
}

impl UserSession {
    /// Whether it was bound before a session with this reader, which was bound at `since`.
    pub(super) fn is_older(&self, reader: &Reader, since: u64) -> bool {
        order((&self.reader, self.since), (reader, since)) == Ordering::Less
    }
}

impl User {
    /// Ends those sessions whose resource a newer one has.
    pub(super) fn end_replaced(&mut self) {
        let newer = |old: &UserSession| {
            self.sessions
                .iter()
                .any(|new| new.sid != old.sid && new.jid == old.jid && old.is_older(&new.reader, new.since))
        };
        let replaced: Vec<SessionId> =
            self.sessions.iter().filter(|old| newer(old)).map(|old| old.sid).collect();
        replaced.into_iter().for_each(|sid| self.end_as_replaced(sid));
    }

    /// Ends a session whose resource another has.
    pub(super) fn end_as_replaced(&mut self, sid: SessionId) {
        metrics::counter!("rookery_sessions_replaced_total").increment(1);
        let text = "replaced by a new session with the same resource";
        self.end_session(sid, StreamCondition::Conflict, text);
    }
}
