//! What waits for a device: messages that came while nobody took them, and what a resumed session has missed. Both are
//! read page by page and sent with their places in the archive; the cursor moves when the client has them.

use std::sync::Arc;

use rookery_cluster::store;
use rookery_cluster::tables::archive::{self, ArchiveId, Shelf};
use rookery_cluster::tables::{offline, sessions};
use rookery_proto::xmpp::jid::Jid;

use super::deliver::{Ops, Step, worth_keeping};
use super::{Attached, User};
use crate::features::{xep_0191_blocking as blocking, xep_0203_delay as delay, xep_0280_carbons as carbons};
use crate::host::Host;
use crate::ledger::Receipt;
use crate::pipe::{Kept, Outgoing};
use crate::session::{self, Delivery, SessionId};

/// Why the archive is read for a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Messages that no device has got (XEP-0160).
    Offline,
    /// Messages that this session may not have got, after a restart of its home (XEP-0198).
    Replay,
}

/// A session that is being served from the store. Live archived messages are not sent to it meanwhile: it will come
/// to them.
pub(super) struct Drain {
    sid: SessionId,
    why: Why,
    place: Shelf,
    /// Of a replay: what the client has confirmed. What is older, and read nevertheless, is offline.
    acked: Option<ArchiveId>,
    /// What the client confirms is offline for no device any more.
    offline: bool,
    /// Of a replay: the session took no messages when it began. What came for any device, it gets when it is offline's turn.
    silent: bool,
    /// What was sent up to.
    after: Option<ArchiveId>,
    /// Where the last page that was sent begins: its client may not have got it.
    from: Option<ArchiveId>,
    /// The newest entry when it began: what is newer would have been sent live.
    began: Option<ArchiveId>,
    /// Of a replay: the count that the client came back with, and in which numbering; it has what that covers.
    has: Option<(u64, u32)>,
    /// The first and the last message that were not sent live because of this.
    skipped: Option<(ArchiveId, ArchiveId)>,
    /// The first that went offline after all was sent.
    more: Option<ArchiveId>,
    /// All is sent; the last page is not confirmed yet.
    sent: bool,
    /// Tells it from those before it.
    turn: u64,
}

/// The sessions that are being served from the store; each at most once.
pub(super) struct Drains {
    all: Vec<Drain>,
    turn: u64,
}

/// What a node that knows no numbers of marks says: `true`.
const OLDER_NODE: u64 = 1;

impl Drains {
    /// The turns begin anywhere: a mark that another home of the user set is not taken for one of this.
    pub(super) fn new(host: &Host) -> Self {
        Self { all: Vec::new(), turn: u64::from_le_bytes(host.seams().bytes()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn next_turn(&self) -> u64 {
        self.turn.wrapping_add(1).max(OLDER_NODE + 1)
    }

    fn of(&mut self, sid: SessionId) -> Option<&mut Drain> {
        self.all.iter_mut().find(|drain| drain.sid == sid)
    }

    fn take(&mut self, sid: SessionId) -> Option<Drain> {
        let at = self.all.iter().position(|drain| drain.sid == sid)?;
        Some(self.all.swap_remove(at))
    }

    /// A live message was not sent to a session that is being served.
    pub(super) fn skip(&mut self, sid: SessionId, id: ArchiveId) {
        if let Some(drain) = self.of(sid) {
            let (first, last) = drain.skipped.unwrap_or((id, id));
            drain.skipped = Some((first.min(id), last.max(id)));
        }
    }

    /// A message is offline, while what was offline before is being sent.
    pub(super) fn kept(&mut self, id: ArchiveId) {
        if let Some(sid) = self.all.iter().find(|drain| drain.offline).map(|drain| drain.sid) {
            match self.of(sid) {
                Some(drain) if drain.sent && drain.place == Shelf::Archive => {
                    drain.more.get_or_insert(id);
                }
                _ => self.skip(sid, id),
            }
        }
    }
}

impl Drain {
    /// Everything of the archive up to here is sent, or is no business of this drain.
    fn done(&self) -> Option<ArchiveId> {
        self.after.filter(|_| self.place == Shelf::Archive).max(self.acked)
    }

    /// Behind which entry of the archive it begins; `cursor` is where what is offline begins.
    fn begin(&self, cursor: Option<ArchiveId>) -> Option<ArchiveId> {
        match self.why {
            Why::Offline => cursor,
            Why::Replay if self.offline && cursor.is_some() => self.acked.min(cursor),
            Why::Replay => self.acked,
        }
    }

    /// Why an entry is read.
    fn why(&self, id: ArchiveId) -> Why {
        match self.why {
            // Older than what a resumed client has confirmed, and read nevertheless: since it is offline.
            Why::Replay if self.acked >= Some(id) => Why::Offline,
            Why::Offline if self.place == Shelf::Archive && self.began < Some(id) => Why::Replay,
            why => why,
        }
    }
}

/// A page that is about to be sent.
pub(super) struct Ready {
    pub(super) sid: SessionId,
    pub(super) place: Shelf,
    /// See [`Drain::offline`].
    pub(super) offline: bool,
    pub(super) ids: Vec<ArchiveId>,
    pub(super) items: Vec<Delivery>,
    /// What its client has confirmed of the archive before.
    pub(super) confirmed: Option<ArchiveId>,
    turn: u64,
    /// What was read up to, and whether that was all.
    end: (Option<ArchiveId>, bool),
}

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
            return;
        }
        let busy = self.drains.all.iter().any(|drain| drain.offline);
        let waits = self.session(sid).is_none_or(|session| session.draining);
        if (self.offline.is_none() && self.queued == 0) || busy || waits {
            return;
        }
        let place = if self.queued > 0 { Shelf::Queue } else { Shelf::Archive };
        let after = if place == Shelf::Queue { None } else { self.offline };
        let drain = self.new_drain(sid, Why::Offline, place);
        self.drain(Drain { after, offline: true, ..drain });
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

    /// The user goes elsewhere: there it is begun anew.
    pub(super) fn drop_drains(&mut self) {
        self.drains.all.clear();
    }

    fn new_replay(&mut self, sid: SessionId, acked: Option<ArchiveId>) -> Drain {
        let silent = !self.session(sid).is_some_and(Attached::takes_messages);
        // What is offline goes first, unless another device is being served that already.
        let offline = !silent && !self.drains.all.iter().any(|drain| drain.offline);
        Drain { acked, offline, silent, ..self.new_drain(sid, Why::Replay, Shelf::Queue) }
    }

    fn new_drain(&mut self, sid: SessionId, why: Why, place: Shelf) -> Drain {
        self.drains.turn = self.drains.next_turn();
        Drain {
            sid,
            why,
            place,
            acked: None,
            offline: false,
            silent: false,
            after: None,
            from: None,
            began: self.ids.last,
            has: None,
            skipped: None,
            more: None,
            sent: false,
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

    fn read_page(&mut self, sid: SessionId) {
        let Some(drain) = self.drains.of(sid) else { return };
        let (place, after, turn) = (drain.place, drain.after, drain.turn);
        let (host, entity) = (self.host.clone(), self.entity.clone());
        self.spawn(async move {
            // What clients have confirmed leaves the queue in the background, and what came just before enters queue and archive
            // so: that must be done before it is read.
            let flushed = host.batcher().flush().await;
            let query = archive::Query { after, ..archive::Query::all(PAGE) };
            let page = host
                .store()
                .read(|tx| {
                    let (entity, query) = (entity.clone(), query.clone());
                    Box::pin(async move { archive::page(&mut **tx, place, &entity, &query).await })
                })
                .await;
            let page = flushed.and(page);
            let then: crate::feature::Then = Box::new(move |user: &mut User| user.page_read(sid, turn, page));
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
        let Some(drain) = self.drains.all.iter().find(|drain| drain.turn == turn) else { return };
        let Some(session) = self.session(sid) else { return self.stop_drain(sid) };
        let place = drain.place;
        let mut ids = Vec::new();
        let mut items = Vec::new();
        for (id, entry) in &page.entries {
            if place == Shelf::Queue && self.kept.iter().any(|(_, kept)| kept == id) {
                continue; // a session has it, and will say so
            }
            let number = drain.has.and_then(|(numbering, h)| Some((entry.number(numbering)?, h)));
            if number.is_some_and(|(number, h)| number.covered_by(h)) {
                continue; // its client has said so
            }
            let now = session.turns.numbering.map(|numbering| numbering.name);
            if place == Shelf::Archive && now.is_some_and(|now| entry.number(now).is_some()) {
                continue; // the session had it live
            }
            if let Some(outgoing) = self.replayed(session, drain, *id, entry) {
                let offline = drain.offline;
                let kept = match place {
                    Shelf::Archive => Kept { offline, ..Kept::archived(Some(*id)) },
                    Shelf::Queue => Kept { queued: Some(*id), ..Kept::default() },
                };
                ids.push(*id);
                items.push(Delivery { outgoing, kept, receipt: Receipt::none() });
            }
        }
        let end = (page.cursor, page.end == archive::End::Complete);
        let (offline, confirmed) = (drain.offline, drain.after.filter(|_| place == Shelf::Archive));
        let ready = Box::new(Ready { sid, place, offline, ids, items, confirmed, turn, end });
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
        self.after_commit(ops, step, numbers);
    }

    /// The store does not answer: what is left waits.
    pub(super) fn drain_failed(&mut self, sid: SessionId, error: &dyn std::fmt::Display) {
        tracing::warn!(user = %self.jid, %error, "stored messages could not be read; they wait for the next login");
        if let Some(drain) = self.drains.of(sid).filter(|drain| drain.why == Why::Replay) {
            let done = drain.done();
            self.rewind(done.unwrap_or(ArchiveId::first_at(0)));
        }
        self.stop_drain(sid);
    }

    pub(super) fn send_page(&mut self, ready: Ready) {
        let Ready { sid, place, items, turn, end: (last, complete), .. } = ready;
        tracing::trace!(user = %self.jid, turn, ?place, items = items.len(), complete, "a page is sent");
        let Some(at) = self.drains.all.iter().position(|drain| drain.turn == turn) else { return };
        let Some(session) = self.session(sid) else { return self.stop_drain(sid) };
        metrics::counter!("rookery_offline_drained_total").increment(items.len() as u64);
        for item in items {
            session.hand_now(item);
        }
        let Some(drain) = self.drains.all.get_mut(at) else { return };
        drain.from = drain.after;
        drain.after = last.or(drain.after);
        let behind = drain.skipped.is_some_and(|(_, last)| drain.after < Some(last));
        drain.sent = complete && !(behind && place == Shelf::Archive);
        let live = drain.sent && place == Shelf::Archive;
        if let Some(session) = self.session_mut(sid) {
            if live {
                session.draining = false;
            }
            let _ = session.handle.cast_always(session::Msg::Mark(turn));
        }
    }

    /// An archived message as this session is to get it, or nothing if it is not for it.
    fn replayed(
        &self,
        session: &Attached,
        drain: &Drain,
        id: ArchiveId,
        entry: &archive::Entry,
    ) -> Option<Outgoing> {
        let place = drain.place;
        let stanza = Arc::new(crate::stored::stanza(&entry.stanza)?);
        if blocking::withheld(self, entry.direction(), &stanza) {
            return None;
        }
        let mut extra = if place == Shelf::Archive { self.stanza_id(id) } else { Vec::new() };
        let domain = Jid::parse(self.jid.domain()).ok()?;
        let late = delay::delay(&domain, entry.stored_at);
        if drain.why(id) == Why::Offline {
            if entry.direction() == archive::Direction::Out || !worth_keeping(&stanza) {
                return None;
            }
            extra.extend_from_slice(&late);
            return Some(Outgoing { stanza, to: None, extra: extra.into() });
        }
        let own = session.jid.as_str();
        if entry.direction() == archive::Direction::Out {
            let from_here = stanza.from.as_ref().is_some_and(|from| from.as_str() == own);
            return (session.carbons && !from_here).then(|| {
                Outgoing::new(carbons::carbon(carbons::Kind::Sent, &self.jid, &stanza, &extra, &session.jid))
            });
        }
        let to = stanza.to.as_ref().filter(|to| to.resource().is_some());
        let later = drain.silent && place == Shelf::Archive && self.offline.is_some_and(|cursor| cursor < id);
        match to {
            to if later && to.is_none_or(|to| to.as_str() != own) => None,
            Some(to) if to.as_str() != own => session.carbons.then(|| {
                Outgoing::new(carbons::carbon(
                    carbons::Kind::Received,
                    &self.jid,
                    &stanza,
                    &extra,
                    &session.jid,
                ))
            }),
            _ => {
                extra.extend_from_slice(&late);
                Some(Outgoing { stanza, to: None, extra: extra.into() })
            }
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
        let more = drain.more.map(ArchiveId::before);
        let (place, upto, sent, offline) = (drain.place, drain.after, drain.sent, drain.offline);
        if sent && place == Shelf::Queue {
            // The queue is through; go on with the archive.
            drain.place = Shelf::Archive;
            drain.sent = false;
            drain.after = drain.begin(cursor);
            drain.from = drain.after;
        }
        let only_queue = drain.why == Why::Offline && cursor.is_none();
        let finished = sent && (place == Shelf::Archive || only_queue);
        if place == Shelf::Queue {
            if let Some(upto) = upto.filter(|_| self.kept.is_empty()) {
                archive::remove_through(&mut ops, Shelf::Queue, &self.entity, upto);
            }
            if sent {
                self.queued = self.kept.len();
            }
        } else if offline && cursor.is_some() {
            let upto = if finished { more } else { upto };
            if finished && upto.is_none() {
                self.offline = None;
                offline::clear(&mut ops, &self.entity);
            } else if let Some(upto) = upto.filter(|upto| cursor < Some(*upto)) {
                self.offline = Some(upto);
                offline::set(&mut ops, &self.entity, upto);
            }
        }
        if !ops.is_empty() {
            self.submit(ops);
        }
        if finished {
            // Where the archive was never read, messages may have been passed over: they are offline.
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

    /// Ends a drain, because it is done or because its session is gone.
    pub(super) fn stop_drain(&mut self, sid: SessionId) {
        let Some(drain) = self.drains.take(sid) else { return };
        let Some(session) = self.session_mut(sid) else {
            if drain.why == Why::Replay && !self.takes_messages() {
                self.rewind(drain.done().unwrap_or(ArchiveId::first_at(0)));
            }
            // Another device takes over.
            let takes = |session: &&Attached| session.takes_messages() && !session.draining;
            if drain.offline
                && let Some(next) = self.sessions.iter().find(takes).map(|session| session.sid)
            {
                self.start_drain(next);
            }
            return;
        };
        session.draining = false;
        // Only the queue was read, and meanwhile something was passed over on the strength of that.
        let behind = drain
            .skipped
            .filter(|(_, last)| drain.place == Shelf::Queue || drain.after < Some(*last))
            .map(|(first, _)| first.before());
        if let Some(before) = behind {
            self.rewind(before);
        }
        let again = behind.is_some() || drain.more.is_some() || drain.why == Why::Replay;
        if again && self.session(sid).is_some_and(Attached::takes_messages) {
            self.start_drain(sid);
        }
    }
}
