//! Messages that no archive keeps: handed to the sessions that they are for, or put into the offline queue.

use std::sync::Arc;

use bytes::Bytes;
use rookery_cluster::tables::archive::{self, ArchiveId, Collection};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use super::deliver::Ops;
use super::foreign::is_bounce;
use super::incoming::of_room;
use super::numbers::Numbers;
use super::share::{self, Owed};
use super::steps::Step;
use super::worth::{worth_keeping, worth_telling};
use super::{User, UserSession};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::{Kept, Outgoing};
use crate::connection::shared_delivery::SharedDelivery;
use crate::features::contract::{Direction, Prepare};
use crate::runtime::origin::Origin;
use crate::session::{Delivery, SessionId};

/// Whether a message comes behind what waits in the queue for a session, and waits there: what is kept for a device that is not
/// there, and what rooms say, which comes in their order.
pub(super) fn waits_its_turn(stanza: &Stanza) -> bool {
    stanza.type_ == Type::Message(MessageType::Groupchat) || worth_keeping(stanza)
}

/// For the entry of a message of a room: its session's client may have it already, and its session knows by that.
fn room_of(stanza: &Stanza, origin: Option<Origin>) -> Bytes {
    of_room(stanza, origin, false).room().map(Origin::to_bytes).unwrap_or_default()
}

impl User {
    /// Hands a message that is archived nowhere to the sessions that it is for. One of them carries the obligation.
    pub(super) fn pass_on(
        &mut self,
        stanza: &Arc<Stanza>,
        (owed, copies): (Owed, bool),
        kept: Kept,
        receipt: Receipt,
    ) {
        let full = self.recipient(stanza);
        let mut receipt = Some(receipt);
        if !worth_telling(stanza)
            && let Some(receipt) = receipt.take()
        {
            receipt.done(); // nobody answers for a chat state
        }
        if let [session] = self.sessions.as_slice()
            && session.is_meant(full)
            && !session.draining
        {
            // Most have one.
            let low = session.shared.waits.low().is_some();
            if low && !worth_keeping(stanza) && self.crowds(session, stanza) {
                return receipt.into_iter().for_each(Receipt::done);
            }
            return session.hand_now(Delivery {
                outgoing: Outgoing::new(stanza.clone()),
                kept,
                receipt: receipt.unwrap_or_else(Receipt::none),
            });
        }
        let keeps = worth_keeping(stanza) || is_bounce(&self.host, stanza);
        // What an ended session has left is older than what waits in the queue by now.
        let turn = waits_its_turn(stanza);
        let late = |session: &UserSession| turn && owed != Owed::LeftBehind && self.is_late(session);
        let meant = |session: &&UserSession| session.is_meant(full);
        let copied = |session: &&UserSession| copies && session.carbons && !session.is_meant(full);
        let reached = self.sessions.iter().any(|session| meant(&session));
        if !reached && keeps {
            let receipt = receipt.take().unwrap_or_else(Receipt::none);
            return self.keep_for_later(stanza.clone(), receipt);
        }
        let (behind, now): (Vec<&UserSession>, Vec<&UserSession>) =
            self.sessions.iter().filter(meant).partition(|session| late(session));
        let behind: Vec<SessionId> = behind.into_iter().map(|session| session.sid).collect();
        let copies: Vec<&UserSession> = self.sessions.iter().filter(|_| reached).filter(copied).collect();
        let among = SharedDelivery::of(if keeps { now.len() + copies.len() } else { 0 }, stanza);
        for session in &now {
            if !keeps && self.crowds(session, stanza) {
                continue;
            }
            session.hand_now(Delivery {
                outgoing: Outgoing { among: among.clone(), ..Outgoing::new(stanza.clone()) },
                kept: kept.clone(),
                receipt: receipt.take().unwrap_or_else(Receipt::none),
            });
        }
        for session in copies {
            let outgoing = Outgoing { among: among.clone(), ..self.received(stanza, &[], session) };
            session.hand_now(Delivery { outgoing, kept: Kept::default(), receipt: Receipt::none() });
        }
        let alone = now.is_empty();
        self.queue_behind(stanza, behind, alone, kept.origin(), &mut receipt);
        if let Some(receipt) = receipt {
            receipt.done();
        }
    }

    /// Whether a session has not come to the end of the offline queue yet: what comes now comes behind that.
    pub(super) fn is_late(&self, session: &UserSession) -> bool {
        let drain = || self.drains.all.iter().find(|drain| drain.sid == session.sid);
        session.draining && drain().is_none_or(|drain| drain.place == Collection::Queue)
    }

    /// Whether a message for sessions of that kind finds no room in the queue.
    pub(super) fn is_late_and_full(&self, stanza: &Stanza) -> bool {
        // What waits for a commit may come into it as well.
        let queued = self.queued.saturating_add(self.pending.commits.len());
        if queued < self.host.options().limits.offline_messages || !waits_its_turn(stanza) {
            return false;
        }
        let full = self.recipient(stanza);
        self.sessions.iter().any(|session| session.is_meant(full) && self.is_late(session))
    }

    /// Puts a message into the queue for sessions that have not come to its end, each by its mark. If nobody else has it, it
    /// goes to any device if the first of them is not there.
    fn queue_behind(
        &mut self,
        stanza: &Arc<Stanza>,
        mut behind: Vec<SessionId>,
        alone: bool,
        origin: Option<Origin>,
        receipt: &mut Option<Receipt>,
    ) {
        let with = stanza.from.as_ref().map_or_else(|| self.jid.clone(), Jid::to_bare);
        // That is what the device gets which is being served what is offline.
        let offline =
            |sid: &SessionId| self.drains.all.iter().any(|drain| drain.offline && drain.sid == *sid);
        behind.sort_by_key(|sid| !offline(sid));
        let mut kept_by = origin;
        for (n, sid) in behind.into_iter().enumerate() {
            let mut entry = self.entry(Direction::In, stanza, &with);
            let any = alone && n == 0 && worth_keeping(stanza);
            let owed = if any { Owed::AnyDevice } else { Owed::Session };
            entry.flags = share::flags(owed, true);
            entry.sent.push(archive::Sent { numbering: sid.mark(), n: 0 });
            entry.origin = room_of(stanza, origin);
            let receipt = receipt.take().unwrap_or_else(Receipt::none);
            self.put(entry, kept_by.take(), Vec::new(), Step::Kept { stanza: stanza.clone(), receipt });
        }
    }

    /// Into the offline queue, for a session whose client takes long to confirm it.
    pub(crate) fn keep_for_session(
        &mut self,
        sid: SessionId,
        number: u32,
        stanza: Arc<Stanza>,
        origin: Option<Origin>,
        receipt: Receipt,
    ) {
        let with = stanza.from.as_ref().map_or_else(|| self.jid.clone(), Jid::to_bare);
        let mut entry = self.entry(Direction::In, &stanza, &with);
        let owed = if worth_keeping(&stanza) { Owed::AnyDevice } else { Owed::Session };
        entry.flags = share::flags(owed, true);
        let numbering = self.session(sid).and_then(|session| session.sequence.numbering);
        entry.sent.extend(numbering.map(|numbering| archive::Sent { numbering: numbering.name, n: number }));
        if owed == Owed::Session {
            // Numberings change; whose it is does not.
            entry.sent.push(archive::Sent { numbering: sid.mark(), n: 0 });
        }
        entry.origin = room_of(&stanza, origin);
        let id = self.next_id();
        self.queued += 1;
        entry.flags |= share::nth(self.queued);
        let ops = self.keep(Collection::Queue, id, &entry, origin);
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
            archive::remove(&mut ops, Collection::Queue, &self.entity, *id);
            self.kept.retain(|kept| *kept != (sid, *id));
            self.queued = self.queued.saturating_sub(1);
        }
        self.submit(ops);
    }

    /// What comes again lies in the queue, or is on its way there: that settles it.
    pub(crate) fn settle_kept(&mut self, stanza: Arc<Stanza>, receipt: Receipt) {
        self.in_order(Step::Kept { stanza, receipt });
    }

    /// Into the offline queue: for messages that the archive does not keep.
    pub(super) fn keep_for_later(&mut self, stanza: Arc<Stanza>, receipt: Receipt) {
        let with = stanza.from.as_ref().map_or_else(|| self.jid.clone(), Jid::to_bare);
        self.queue(stanza, &with, None, receipt, Vec::new());
    }

    /// Into the offline queue.
    pub(super) fn queue(
        &mut self,
        stanza: Arc<Stanza>,
        with: &BareJid,
        origin: Option<Origin>,
        receipt: Receipt,
        prepare: Vec<Prepare>,
    ) {
        let entry = self.entry(Direction::In, &stanza, with);
        self.put(entry, origin, prepare, Step::Kept { stanza, receipt });
    }

    fn put(&mut self, mut entry: archive::Entry, origin: Option<Origin>, prepare: Vec<Prepare>, step: Step) {
        let id = self.next_id();
        self.queued += 1;
        entry.flags |= share::nth(self.queued);
        let ops = self.keep(Collection::Queue, id, &entry, origin);
        self.drains.queue_grew();
        metrics::counter!("rookery_offline_stored_total").increment(1);
        let commit = self.with_hooks(ops, prepare, Collection::Queue);
        self.after_commit(commit, step, Numbers::new(), origin);
    }
}
