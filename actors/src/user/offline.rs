//! What waits for a device: messages that came while nobody took them, and what a resumed session has missed. Both are
//! read page by page and sent with their places in the archive; the cursor moves when the client has them.
//!
//! Length: the drain, the replay after a restart and the one after a move are the same reading of the archive with different ends.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store;
use rookery_cluster::tables::archive::{self, ArchiveId, Collection};
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::jid::Jid;

use super::deliver::Ops;
use super::drains::{Drain, OLDER_NODE, Why};
use super::share::{self, About, Owed, Share};
use super::steps::Step;
use super::worth::worth_keeping;
use super::{Msg, User, UserSession};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::{Kept, Outgoing};
use crate::connection::recent;
use crate::features::xep_0203_delay as delay;
use crate::runtime::actor::Handle;
use crate::runtime::origin::Origin;
use crate::session::{self, Delivery, SessionId};

/// A page that is about to be sent.
pub(super) struct Ready {
    pub(super) sid: SessionId,
    pub(super) place: Collection,
    /// See [`Drain::offline`].
    pub(super) offline: bool,
    pub(super) ids: Vec<ArchiveId>,
    /// Those of the archive that ended sessions had left.
    left: Vec<ArchiveId>,
    pub(super) items: Vec<Delivery>,
    /// What its client has confirmed of the archive before.
    pub(super) confirmed: Option<ArchiveId>,
    turn: u64,
    /// What was read up to, and whether that was all.
    end: (Option<ArchiveId>, bool),
}

/// When the store is asked again that has not answered.
const AGAIN: Duration = Duration::from_secs(1);

/// Messages per page: one round trip to the client each.
const PAGE: usize = 100;

impl User {
    /// A session takes messages now: what is offline is for it.
    pub(super) fn start_drain(&mut self, sid: SessionId) {
        if let Some(drain) = self.drains.of(sid) {
            if drain.more.is_some()
                && let Some(session) = self.session_mut(sid)
            {
                session.draining = true; // it has missed something: that comes before what is new
            }
            if let Some(drain) = self.drains.of(sid) {
                drain.takes = drain.why == Why::Replay && !drain.offline;
                let fresh = drain.is_fresh();
                if self.may_turn_offline(sid)
                    && let Some(session) = self.session_mut(sid)
                {
                    session.draining = true; // it may have been sent all, and have confirmed nothing
                }
                if fresh {
                    self.turn_offline(sid);
                }
            }
            return;
        }
        let busy = self.drains.all.iter().any(|drain| drain.offline);
        let waits = self.session(sid).is_none_or(|session| session.draining);
        let nothing = self.offline.is_none() && self.queued == 0 && !self.behind.is_busy();
        if nothing || busy || waits {
            return;
        }
        // What a session that is ending had sent comes first, and may come into the queue.
        let queue = self.queued > 0 || self.behind.is_busy();
        let place = if queue { Collection::Queue } else { Collection::Archive };
        let drain = Drain { offline: true, ..self.new_drain(sid, Why::Offline, place) };
        let after = if place == Collection::Queue { None } else { drain.begin(self.waits_after()) };
        self.drain(Drain { after, from: after, ..drain });
    }

    /// Whether a session that is served what it has missed takes messages since, and is the one to get what is offline.
    fn may_turn_offline(&mut self, sid: SessionId) -> bool {
        let nothing = self.offline.is_none() && self.queued == 0;
        let busy = self.drains.all.iter().any(|drain| drain.offline);
        let takes = self.session(sid).is_some_and(UserSession::takes_messages);
        takes && !busy && !nothing && self.drains.of(sid).is_some_and(|drain| drain.takes)
    }

    /// What is offline comes before what is new, if so. Its client must have all that it was sent. Returns whether it begins.
    fn turn_offline(&mut self, sid: SessionId) -> bool {
        let turns = self.may_turn_offline(sid);
        if let Some(drain) = self.drains.of(sid).filter(|_| turns) {
            drain.turn_offline();
        }
        turns
    }

    /// Something is offline that was not: a device that is there gets it.
    pub(super) fn drain_somewhere(&mut self) {
        let takes = |session: &&UserSession| session.takes_messages() && !session.draining;
        if let Some(next) = self.sessions.iter().find(takes).map(|session| session.sid) {
            self.start_drain(next);
        }
    }

    /// All is written down that ended sessions have left.
    pub(super) fn go_on_draining(&mut self) {
        if self.behind.is_busy() {
            return;
        }
        let waiting: Vec<SessionId> =
            self.drains.all.iter().filter(|drain| drain.waits).map(|drain| drain.sid).collect();
        for sid in waiting {
            if let Some(drain) = self.drains.of(sid) {
                drain.waits = false;
                self.read_page(sid);
            }
        }
        if self.queued > self.kept.len() {
            self.drain_somewhere(); // an ended session was to get some of it
        }
    }

    /// A session that was restored from its record has been resumed.
    pub(super) fn start_replay(&mut self, sid: SessionId, acked: Option<ArchiveId>, has: (u64, u32)) {
        self.drains.take(sid);
        let drain = self.new_replay(sid, acked);
        self.drain(Drain { has: Some(has), ..drain });
    }

    /// A session goes on with its connection after its home was lost. What was archived behind `last` comes when its client
    /// has what it was sent before, which is what it `has`.
    pub(super) fn replay_behind(&mut self, sid: SessionId, last: Option<ArchiveId>, has: Option<(u64, u32)>) {
        self.drains.take(sid);
        let drain = self.new_replay(sid, last);
        let turn = drain.turn;
        self.drains.all.push(Drain { has, ..drain });
        if let Some(session) = self.session_mut(sid) {
            session.draining = true;
            let _ = session.handle.cast_always(session::Msg::Mark(turn));
        }
    }

    fn new_replay(&mut self, sid: SessionId, acked: Option<ArchiveId>) -> Drain {
        let takes = self.session(sid).is_some_and(UserSession::takes_messages);
        // What is offline goes first, unless another device is being served that already.
        let offline = takes && !self.drains.all.iter().any(|drain| drain.offline);
        Drain { floor: acked, offline, ..self.new_drain(sid, Why::Replay, Collection::Queue) }
    }

    pub(super) fn new_drain(&mut self, sid: SessionId, why: Why, place: Collection) -> Drain {
        self.drains.turn = self.drains.next_turn();
        // What waits for its commit now will not be sent live either.
        let pending = self.pending.steps().find_map(Step::id);
        Drain {
            sid,
            why,
            place,
            floor: pending.map(ArchiveId::before).or(self.ids.last),
            offline: false,
            takes: false,
            after: None,
            from: None,
            confirmed: why == Why::Replay,
            page: Vec::new(),
            has: None,
            skipped: None,
            more: None,
            queue_grew: false,
            freed: 0,
            under_way: false,
            sent: false,
            waits: false,
            failed: false,
            turn: self.drains.turn,
        }
    }

    fn drain(&mut self, drain: Drain) {
        let sid = drain.sid;
        self.drains.all.push(drain);
        if let Some(session) = self.session_mut(sid) {
            session.draining = true;
        }
        self.read_page(sid);
    }

    pub(super) fn read_page(&mut self, sid: SessionId) {
        let held = self.behind.is_busy();
        let Some(drain) = self.drains.of(sid) else { return };
        if held && drain.offline {
            drain.waits = true; // what is about to be offline as well comes first
            return;
        }
        let (place, after, turn) = (drain.place, drain.after, drain.turn);
        drain.under_way = true;
        drain.queue_grew &= place != Collection::Queue;
        let (host, entity, max_bytes) = (self.host.clone(), self.entity.clone(), self.page_bytes());
        let submitted = self.pending.commits.all_submitted();
        self.spawn(async move {
            if let Some(submitted) = submitted {
                submitted.await.ok(); // if the user moves, the drain has ended
            }
            // What clients have confirmed leaves the queue in the background, and what came just before enters queue and archive
            // so: that must be done before it is read.
            let flushed = host.batcher().flush().await;
            let query = archive::Query { after, max_bytes, ..archive::Query::all(PAGE) };
            let page = host
                .store()
                .read(|tx| {
                    let (entity, query) = (entity.clone(), query.clone());
                    Box::pin(async move { archive::page(&mut **tx, place, &entity, &query).await })
                })
                .await;
            let page = flushed.and(page);
            let then: crate::features::contract::Then =
                Box::new(move |user: &mut User| user.page_read(sid, turn, page));
            then
        });
    }

    fn page_read(&mut self, sid: SessionId, turn: u64, page: store::Result<archive::Slice>) {
        tracing::trace!(user = %self.jid, turn, page = ?page.as_ref().map(|page| page.entries.len()), "a page is read");
        // The page of a drain that another has taken the place of says nothing about that one.
        if !self.drains.all.iter().any(|drain| drain.turn == turn) {
            return;
        }
        let page = match page {
            Ok(page) => page,
            Err(error) => return self.drain_failed(sid, &error),
        };
        if self.turn_offline(sid) {
            return self.read_page(sid); // of this page nothing was sent
        }
        let Some(drain) = self.drains.all.iter().find(|drain| drain.turn == turn) else { return };
        let Some(session) = self.session(sid) else { return self.stop_drain(sid) };
        let place = drain.place;
        let (mut ids, mut left) = (Vec::new(), Vec::new());
        let mut items = Vec::new();
        let mut held = Vec::new();
        for (id, entry) in &page.entries {
            if place == Collection::Queue && self.kept.iter().any(|(_, kept)| kept == id) {
                continue; // a session has it, and will say so
            }
            let number = drain.has.and_then(|(numbering, h)| Some((entry.number(numbering)?, h)));
            if let Some((number, _)) = number.filter(|(number, h)| number.covered_by(*h)) {
                if place == Collection::Queue {
                    // The message leaves the queue when the client has it: its session may not know that it lies there.
                    let _ = session.handle.cast_always(session::Msg::Kept { number: number.n, id: *id });
                    held.push((sid, *id));
                }
                continue; // its client has said so, or was sent it by another home
            }
            let now = session.sequence.numbering.map(|numbering| numbering.name);
            if place == Collection::Archive
                && now.is_some_and(|now| entry.number(now).is_some())
                && !self.passes_over(session, drain, *id)
            {
                continue; // the session had it live
            }
            let left_behind = Owed::of(entry) == Owed::LeftBehind;
            if left_behind
                && let Some(other) = self.sessions.iter().find(|session| session.left_behind.has(*id))
            {
                // That client was sent it by the last home. What it does not confirm goes back when its session ends.
                left.extend(Some(*id).filter(|_| other.sid == sid));
                continue;
            }
            if let Some(outgoing) = self.stored_for(session, drain, *id, entry) {
                let offline = drain.offline;
                let kept = match place {
                    Collection::Archive if offline && left_behind => Kept::left_behind(Some(*id)),
                    Collection::Archive => Kept::archive(Some(*id), offline),
                    Collection::Queue => match Origin::of_bytes(&entry.origin) {
                        Some(room) => Kept::queue(*id).of_room(room, false),
                        None => Kept::queue(*id).keyed(recent::key(&outgoing.stanza, None)),
                    },
                };
                if left_behind {
                    left.push(*id);
                }
                ids.push(*id);
                items.push(Delivery { outgoing, kept, receipt: Receipt::none() });
            }
        }
        self.kept.extend(held);
        let end = (page.cursor, page.end == archive::End::Complete);
        // What was sent live before a drain began may be on its way still.
        let confirmed = drain.after.filter(|_| place == Collection::Archive && drain.confirmed);
        let offline = drain.offline;
        let ready = Box::new(Ready { sid, place, offline, ids, left, items, confirmed, turn, end });
        if ready.items.is_empty() {
            return self.send_page(*ready);
        }
        // A session that can be resumed must know after a crash what it was sent: that is written first.
        let step = Step::Page(ready);
        let numbers = self.reserve(&step);
        let Some((sid, page)) = step.page(&numbers) else { return self.in_order(step) };
        let mut ops = Ops::new();
        if let Err(error) = sessions::put_sending(&mut ops, &self.entity, &sid.0, &page) {
            return self.drain_failed(sid, &error);
        }
        self.after_commit(ops, step, numbers, None);
    }

    /// The store does not answer: what is left waits for that.
    pub(super) fn drain_failed(&mut self, sid: SessionId, error: &dyn std::fmt::Display) {
        let user = self.jid.clone();
        let Some(drain) = self.drains.of(sid) else { return };
        let turn = drain.turn;
        if !std::mem::replace(&mut drain.failed, true) {
            tracing::warn!(%user, %error, "stored messages could not be read; retrying every second");
        }
        let Some(me) = self.me.as_ref().map(Handle::downgrade) else { return };
        self.host.wheel().after(AGAIN, move || {
            if let Some(me) = me.upgrade() {
                let again = move |user: &mut User| {
                    if user.drains.of(sid).is_some_and(|drain| drain.turn == turn) {
                        user.drain_anew(sid);
                    }
                };
                let _ = me.cast_always(Msg::Then(Box::new(again)));
            }
        });
    }

    pub(super) fn send_page(&mut self, ready: Ready) {
        let Ready { sid, place, ids, left, items, turn, end: (last, complete), .. } = ready;
        tracing::trace!(user = %self.jid, turn, ?place, items = items.len(), complete, "a page is sent");
        let Some(at) = self.drains.all.iter().position(|drain| drain.turn == turn) else { return };
        let Some(session) = self.session(sid) else { return };
        metrics::counter!("rookery_offline_drained_total").increment(items.len() as u64);
        for item in items {
            session.hand_now(item);
        }
        let Some(drain) = self.drains.all.get_mut(at) else { return };
        (drain.failed, drain.under_way) = (false, false);
        drain.from = drain.after;
        drain.after = last.or(drain.after);
        drain.page = if place == Collection::Queue { ids } else { left };
        let behind = drain.skipped.is_some_and(|(_, last)| drain.after < Some(last));
        drain.sent = complete && !(behind && place == Collection::Archive);
        let live = drain.sent && place == Collection::Archive;
        if live {
            drain.skipped = None; // all of it was read
        }
        if let Some(session) = self.session_mut(sid) {
            if live {
                session.draining = false;
            }
            let _ = session.handle.cast_always(session::Msg::Mark(turn));
        }
    }

    /// A stored message as this session is to get it, or nothing if it is not for it.
    fn stored_for(
        &self,
        session: &UserSession,
        drain: &Drain,
        id: ArchiveId,
        entry: &archive::Entry,
    ) -> Option<Outgoing> {
        let stanza = Arc::new(crate::routing::stored::stanza(&entry.stanza)?);
        if entry.direction() == archive::Direction::In && self.withholds(&stanza) {
            return None;
        }
        let domain = Jid::parse(self.jid.domain()).ok()?;
        let late = delay::delay(&domain, entry.stored_at);
        let message = |id: Option<ArchiveId>| {
            let mut extra = id.map(|id| self.stanza_id(id)).unwrap_or_default();
            extra.extend_from_slice(&late);
            Outgoing::with(stanza.clone(), None, Some(extra.into()))
        };
        if drain.place == Collection::Queue {
            // What waits for any device, or what this session was sent and had not confirmed.
            let sent = drain.has.is_some_and(|(numbering, _)| entry.number(numbering).is_some());
            let marked = |session: &UserSession| entry.number(session.sid.mark()).is_some();
            // Another one that is being served will come to it.
            let served = |other: &UserSession| self.drains.all.iter().any(|drain| drain.sid == other.sid);
            let another = |other: &UserSession| other.sid != session.sid && marked(other) && served(other);
            let others = || self.sessions.iter().any(another);
            return match Owed::of(entry) {
                Owed::Session if !worth_keeping(&stanza) => {
                    marked(session).then(|| Outgoing::new(stanza.clone()))
                }
                Owed::Session => marked(session).then(|| message(None)),
                _ => (sent || marked(session) || drain.offline && !others()).then(|| message(None)),
            };
        }
        let about = About::entry(id, entry, &stanza);
        let own = drain.floor < Some(id);
        if entry.direction() == archive::Direction::Out {
            let from_here = stanza.from.as_ref().is_some_and(|from| from.as_str() == session.jid.as_str());
            let copied = own && about.copies && session.reader.copy_sent(id) && !from_here;
            return copied.then(|| self.sent(&stanza, &self.stanza_id(id), session));
        }
        let any = !(own && about.owed == Owed::Unsaid);
        let waits = self.offline.is_some_and(|cursor| share::waits_for_any(cursor, id, entry));
        if any && drain.offline && waits && worth_keeping(&stanza) {
            return Some(message(Some(id)));
        }
        match own.then(|| session.share(about))?? {
            Share::Message => Some(message(Some(id))),
            Share::Copy => Some(self.received(&stanza, &self.stanza_id(id), session)),
        }
    }

    /// The client has everything before a mark.
    pub(super) fn marked(&mut self, sid: SessionId, number: u64) {
        let cursor = self.offline;
        tracing::trace!(user = %self.jid, drains = self.drains.all.len(), "a session's client has all");
        // A mark of a drain that another has taken the place of says nothing about that one.
        let this = |drain: &&mut Drain| number == drain.turn || number == OLDER_NODE;
        let Some(drain) = self.drains.of(sid).filter(this) else { return };
        let mut ops = Ops::new();
        let more = drain.more;
        drain.sent &= !(drain.place == Collection::Queue && drain.queue_grew);
        // What was passed over since all was sent is still to come.
        let passed_over = drain.skipped.is_some_and(|(_, last)| drain.after < Some(last));
        drain.sent &= !(drain.place == Collection::Archive && passed_over);
        let (place, upto, sent, offline) = (drain.place, drain.after, drain.sent, drain.offline);
        let page = std::mem::take(&mut drain.page);
        drain.confirmed = true;
        if sent && place == Collection::Queue {
            // The queue is through; go on with the archive.
            drain.place = Collection::Archive;
            drain.sent = false;
            drain.after = drain.begin(cursor.map(|cursor| cursor.after));
            drain.from = drain.after;
        }
        let only_queue = drain.why == Why::Offline && cursor.is_none() && drain.skipped.is_none();
        let finished = sent && (place == Collection::Archive || only_queue);
        if place == Collection::Queue {
            // What a client with XEP-0198 has confirmed, its session says.
            if self.session(sid).is_some_and(|session| !session.is_managed()) {
                for id in &page {
                    archive::remove(&mut ops, Collection::Queue, &self.entity, *id);
                }
                self.queued = self.queued.saturating_sub(page.len());
            }
            if sent && offline {
                self.queued = self.kept.len() + self.drains.of(sid).map_or(0, |drain| drain.freed);
            }
        } else if offline && let Some(cursor) = cursor {
            let given = upto.map_or(cursor, |upto| cursor.on(upto));
            // What has gone offline where it had passed stays so.
            self.move_cursor(match more {
                Some(more) => Some(given.back(more)),
                None => (!finished).then_some(given),
            });
            self.settle_left(page);
        }
        self.submit(ops);
        if finished && !self.turn_offline(sid) {
            self.stop_drain(sid);
        } else {
            self.read_page(sid);
        }
    }

    /// Nobody knows whether a session's client has got the last page, and nobody will: it is read again.
    pub(crate) fn drain_anew(&mut self, sid: SessionId) {
        self.drains.turn = self.drains.next_turn();
        let turn = self.drains.turn;
        let Some(drain) = self.drains.of(sid) else { return };
        (drain.turn, drain.sent, drain.after) = (turn, false, drain.from);
        // That is among what is read now.
        if let Some(more) = drain.more.take() {
            self.drains.skip(sid, more);
        }
        if let Some(session) = self.session_mut(sid) {
            session.draining = true;
        }
        self.read_page(sid);
    }

    /// Ends a drain that is done.
    fn stop_drain(&mut self, sid: SessionId) {
        let Some(drain) = self.drains.take(sid) else { return };
        let Some(session) = self.session_mut(sid) else { return };
        session.draining = false;
        let again = drain.more.is_some() || drain.queue_grew || drain.freed > 0 || drain.why == Why::Replay;
        if again && session.takes_messages() {
            self.start_drain(sid);
        }
        if drain.offline && self.offline.is_some() {
            self.drain_somewhere();
        }
    }
}
