//! The offline queue: what the archive does not keep, or is kept for a session that has not confirmed it.

use std::sync::Arc;

use rookery_cluster::tables::archive::{self, ArchiveId, Shelf};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;

use super::User;
use super::deliver::{Ops, Step};
use super::numbers::Numbers;
use super::order::Origin;
use super::share::{self, Owed};
use super::worth::worth_keeping;
use crate::feature::Direction;
use crate::ledger::Receipt;
use crate::session::SessionId;

impl User {
    /// Into the offline queue, for a session whose client takes long to confirm it.
    pub(crate) fn keep_for_session(
        &mut self,
        sid: SessionId,
        number: u32,
        stanza: Arc<Stanza>,
        origin: Origin,
        receipt: Receipt,
    ) {
        let with = stanza.from.as_ref().map_or_else(|| self.jid.clone(), Jid::to_bare);
        let mut entry = self.entry(Direction::In, &stanza, &with);
        let owed = if worth_keeping(&stanza) { Owed::AnyDevice } else { Owed::Session };
        entry.flags = share::flags(owed, true);
        let numbering = self.session(sid).and_then(|session| session.turns.numbering);
        entry.sent.extend(numbering.map(|numbering| archive::Sent { numbering: numbering.name, n: number }));
        if owed == Owed::Session {
            // Numberings change; whose it is does not.
            entry.sent.push(archive::Sent { numbering: sid.mark(), n: 0 });
        }
        let id = self.next_id();
        let ops = self.keep(Shelf::Queue, id, &entry, origin);
        self.queued += 1;
        self.after_commit(ops, Step::Held { sid, number, id, stanza, receipt }, Numbers::new(), None);
        if let Some(session) = self.session(sid) {
            let _ = session.handle.cast_always(crate::session::Msg::Kept { number, id });
            self.kept.push((sid, id));
        }
    }

    /// A session's client has what lies in the offline queue under these ids.
    pub(crate) fn unqueue(&mut self, sid: SessionId, ids: &[ArchiveId]) {
        let mut ops = Ops::new();
        for id in ids {
            archive::remove(&mut ops, Shelf::Queue, &self.entity, *id);
            self.kept.retain(|kept| *kept != (sid, *id));
            self.queued = self.queued.saturating_sub(1);
        }
        self.submit(ops);
    }

    /// Into the offline queue: for messages that the archive does not keep.
    pub(super) fn keep_for_later(&mut self, stanza: Arc<Stanza>, receipt: Receipt) {
        let with = stanza.from.as_ref().map_or_else(|| self.jid.clone(), Jid::to_bare);
        self.queue(stanza, &with, None, receipt);
    }

    /// Into the offline queue.
    pub(super) fn queue(
        &mut self,
        stanza: Arc<Stanza>,
        with: &BareJid,
        origin: Option<(SessionId, u32)>,
        receipt: Receipt,
    ) {
        let entry = self.entry(Direction::In, &stanza, with);
        let id = self.next_id();
        let ops = self.keep(Shelf::Queue, id, &entry, origin);
        self.queued += 1;
        self.drains.queue_grew();
        metrics::counter!("rookery_offline_stored_total").increment(1);
        self.after_commit(ops, Step::Kept { stanza, receipt }, Numbers::new(), origin);
    }
}
