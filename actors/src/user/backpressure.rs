//! A session for which too much waits, and what is done about it: what is archived waits in the archive, and follows page
//! by page as the client confirms; what the session asks for is refused before it is begun. A session ends only for what
//! cannot be read back.

use rookery_cluster::tables::archive::{ArchiveId, Collection};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;

use super::drains::{Drain, Why};
use super::steps::Step;
use super::{User, UserSession};
use crate::connection::budget::Account;
use crate::session::{self, Delivery, SessionId};

/// Bytes per page at most: one round trip to the client each.
const PAGE_BYTES: usize = 256 << 10;

impl User {
    /// Everything archived up to `last` was sent. Sessions with little room get what comes behind that from the store.
    pub(super) fn relieve(&mut self, last: Option<ArchiveId>) {
        let Some(last) = last else { return };
        let low = |session: &&UserSession| !session.draining && session.shared.waits.low().is_some();
        while let Some(sid) = self.sessions.iter().find(low).map(|session| session.sid) {
            metrics::counter!("rookery_sessions_behind_total").increment(1);
            self.serve_behind(sid, last);
        }
    }

    fn serve_behind(&mut self, sid: SessionId, last: ArchiveId) {
        let Some(session) = self.session_mut(sid) else { return };
        session.draining = true;
        let handle = session.handle.clone();
        tracing::debug!(user = %self.jid, "a session falls behind; it is served from the store");
        if let Some(drain) = self.drains.of(sid) {
            // All was sent, and its client has not confirmed the last page: behind that it goes on.
            drain.sent = false;
            drain.after = drain.after.max(Some(last));
            if let Some(more) = drain.more.take() {
                self.drains.skip(sid, more);
            }
            return;
        }
        let drain = self.new_drain(sid, Why::Replay, Collection::Archive);
        let turn = drain.turn;
        let (floor, after, from) = (Some(last), Some(last), Some(last));
        self.drains.all.push(Drain { floor, after, from, ..drain });
        let _ = handle.cast_always(session::Msg::Mark(turn));
    }

    /// Whether an entry has a number of the session, and was not sent by it: it was, or will be, passed over because the
    /// session is served from the store, and when it was read that was not written yet.
    pub(super) fn passes_over(&self, session: &UserSession, drain: &Drain, id: ArchiveId) -> bool {
        let skipped = drain.skipped.is_some_and(|(first, last)| first <= id && id <= last);
        let waits = || self.pending.steps().any(|step| step.id() == Some(id));
        skipped || (session.draining && waits())
    }

    /// How many bytes a page has; the last message may exceed it. Before a page is sent, the client has what came before.
    pub(super) fn page_bytes(&self) -> usize {
        PAGE_BYTES.min(self.host.options().limits.unacked_bytes / 3)
    }

    /// What may wait for the sessions together.
    pub(super) fn budget(&self) -> Account {
        let shared = self.sessions.first().map(|session| session.shared.waits.account());
        shared.unwrap_or_else(|| self.host.budget().account())
    }

    /// Whether a stanza that is archived nowhere must not be handed to a session with little room: it would end for what a
    /// stranger sends.
    pub(super) fn crowds(&self, session: &UserSession, stanza: &Stanza) -> bool {
        let Some(limit) = session.shared.waits.low() else { return false };
        let own = |from: &Jid| from.bare_str() == self.jid.as_str();
        let stranger = |from: &Jid| !own(from) && self.roster.get(&from.to_bare()).is_none();
        let crowds = stanza.from.as_ref().is_some_and(stranger);
        if crowds {
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
        }
        crowds
    }

    /// The same of all sessions that a message is for, if there are any.
    pub(super) fn crowds_all(&self, stanza: &Stanza) -> bool {
        let full = self.recipient(stanza);
        let mut meant = self.sessions.iter().filter(|session| session.is_meant(full)).peekable();
        meant.peek().is_some() && meant.all(|session| self.crowds(session, stanza))
    }

    /// Whether there is no room for an answer to that session: what it asks for is not begun.
    pub(super) fn no_room(&self, sid: SessionId) -> bool {
        let low = self.session(sid).and_then(|session| session.shared.waits.low());
        if let Some(limit) = low {
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
        }
        low.is_some()
    }
}

impl UserSession {
    /// From here on it waits for the session, which ends if that is too much.
    pub(super) fn charge(&self, delivery: &mut Delivery) {
        if let Some(limit) = self.shared.waits.charge_within(&mut delivery.outgoing) {
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
            let _ = self.handle.cast_always(session::Msg::TooSlow);
        }
    }
}

impl Step {
    /// The message's place in the archive.
    pub(super) fn id(&self) -> Option<ArchiveId> {
        match self {
            Self::In { id, .. } | Self::Sent { id, .. } => *id,
            Self::Kept { .. } | Self::Again { .. } | Self::Held { .. } | Self::Page(_) => None,
        }
    }
}
