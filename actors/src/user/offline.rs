//! What waits for a device: messages that came while nobody took them, and what a resumed session has missed. Both are
//! read page by page and sent with their places in the archive; the cursor moves when the client has them.

use std::sync::Arc;

use rookery_cluster::store;
use rookery_cluster::tables::archive::{self, ArchiveId, Shelf};
use rookery_cluster::tables::offline;
use rookery_proto::xmpp::jid::Jid;

use super::deliver::{Ops, worth_keeping};
use super::{Attached, User};
use crate::features::{xep_0203_delay as delay, xep_0280_carbons as carbons};
use crate::pipe::{Outgoing, Receipt};
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
    /// What was sent up to.
    after: Option<ArchiveId>,
    /// The newest message that was not sent live because of this.
    skipped: Option<ArchiveId>,
    /// All is sent; the last page is not confirmed yet.
    sent: bool,
}

/// Messages per page: one round trip to the client each.
const PAGE: usize = 100;

impl User {
    /// A session takes messages now: what is offline is for it.
    pub(super) fn start_drain(&mut self, sid: SessionId) {
        if (self.offline.is_none() && self.queued == 0) || self.drains.iter().any(|d| d.why == Why::Offline) {
            return;
        }
        let place = if self.queued > 0 { Shelf::Queue } else { Shelf::Archive };
        let after = if place == Shelf::Queue { None } else { self.offline };
        self.drain(Drain { sid, why: Why::Offline, place, after, skipped: None, sent: false });
    }

    /// A session that was restored from its record has been resumed.
    pub(super) fn start_replay(&mut self, sid: SessionId, acked: Option<ArchiveId>) {
        self.drain(Drain {
            sid,
            why: Why::Replay,
            place: Shelf::Queue,
            after: None,
            skipped: None,
            sent: false,
        });
        if let Some(session) = self.session_mut(sid) {
            session.replay_after = acked;
        }
    }

    fn drain(&mut self, drain: Drain) {
        let sid = drain.sid;
        self.drains.push(drain);
        if let Some(session) = self.session_mut(sid) {
            session.draining = true;
        }
        self.read_page(sid);
    }

    fn read_page(&mut self, sid: SessionId) {
        let Some(drain) = self.drains.iter().find(|drain| drain.sid == sid) else { return };
        let (place, after) = (drain.place, drain.after);
        let (host, entity) = (self.host.clone(), self.entity.clone());
        self.spawn(async move {
            if place == Shelf::Queue {
                // What clients have confirmed leaves the queue in the background; it must be gone before it is read. If
                // that fails, so does the read.
                host.batcher().flush().await.ok();
            }
            let query = archive::Query { after, ..archive::Query::all(PAGE) };
            let page = host
                .store()
                .read(|tx| {
                    let (entity, query) = (entity.clone(), query.clone());
                    Box::pin(async move { archive::page(&mut **tx, place, &entity, &query).await })
                })
                .await;
            let then: crate::feature::Then =
                Box::new(move |user: &mut User| user.page_read(sid, place, page));
            then
        });
    }

    fn page_read(&mut self, sid: SessionId, place: Shelf, page: store::Result<archive::Slice>) {
        let Some(at) = self.drains.iter().position(|drain| drain.sid == sid) else { return };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(user = %self.jid, %error, "offline messages could not be read; they wait for the next login");
                return self.stop_drain(sid);
            }
        };
        let Some(session) = self.session(sid) else { return self.stop_drain(sid) };
        let Some(why) = self.drains.get(at).map(|drain| drain.why) else { return };
        let mut sent = 0u64;
        for (id, entry) in &page.entries {
            if place == Shelf::Queue && self.kept.iter().any(|(_, kept)| kept == id) {
                continue; // a session has it, and will say so
            }
            if let Some(outgoing) = self.replayed(session, why, place, *id, entry) {
                let (id, queued) = match place {
                    Shelf::Archive => (Some(*id), None),
                    Shelf::Queue => (None, Some(*id)),
                };
                session.hand(Delivery { outgoing, id, queued, receipt: Receipt::none() });
                sent += 1;
            }
        }
        metrics::counter!("rookery_offline_drained_total").increment(sent);
        let last = page.cursor;
        let Some(drain) = self.drains.get_mut(at) else { return };
        drain.after = last.or(drain.after);
        let behind = drain.skipped.is_some_and(|skipped| drain.after.is_none_or(|after| after < skipped));
        drain.sent = page.end == archive::End::Complete && !(behind && place == Shelf::Archive);
        let live = drain.sent && place == Shelf::Archive;
        if let Some(session) = self.session_mut(sid) {
            if live {
                session.draining = false;
            }
            let _ = session.handle.cast_always(session::Msg::Mark);
        }
    }

    /// An archived message as this session is to get it, or nothing if it is not for it.
    fn replayed(
        &self,
        session: &Attached,
        why: Why,
        place: Shelf,
        id: ArchiveId,
        entry: &archive::Entry,
    ) -> Option<Outgoing> {
        let stanza = Arc::new(crate::stored::stanza(&entry.stanza)?);
        let mut extra = if place == Shelf::Archive { self.stanza_id(id) } else { Vec::new() };
        let domain = Jid::parse(self.jid.domain()).ok()?;
        let late = delay::delay(&domain, entry.stored_at);
        if why == Why::Offline {
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
        match stanza.to.as_ref().filter(|to| to.resource().is_some()) {
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

    /// The client has everything of the last page.
    pub(super) fn marked(&mut self, sid: SessionId) {
        let replay_after = self.session(sid).and_then(|session| session.replay_after);
        let Some(at) = self.drains.iter().position(|drain| drain.sid == sid) else { return };
        let Some(drain) = self.drains.get_mut(at) else { return };
        let mut ops = Ops::new();
        let (place, upto, why, sent) = (drain.place, drain.after, drain.why, drain.sent);
        if sent && place == Shelf::Queue {
            // The queue is through; go on with the archive.
            drain.place = Shelf::Archive;
            drain.sent = false;
            drain.after = match why {
                Why::Offline => self.offline,
                Why::Replay => replay_after,
            };
        }
        let finished = sent && (place == Shelf::Archive || (why == Why::Offline && self.offline.is_none()));
        if place == Shelf::Queue {
            if let Some(upto) = upto.filter(|_| self.kept.is_empty()) {
                archive::remove_through(&mut ops, Shelf::Queue, &self.entity, upto);
            }
            if sent {
                self.queued = self.kept.len();
            }
        } else if why == Why::Offline {
            if finished {
                self.offline = None;
                offline::clear(&mut ops, &self.entity);
            } else if let Some(upto) = upto {
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

    /// A live message was not sent to a draining session.
    pub(super) fn skipped(&mut self, sid: SessionId, id: ArchiveId) {
        if let Some(drain) = self.drains.iter_mut().find(|drain| drain.sid == sid) {
            drain.skipped = drain.skipped.max(Some(id));
        }
    }

    /// Ends a drain, because it is done or because its session is gone.
    pub(super) fn stop_drain(&mut self, sid: SessionId) {
        let Some(at) = self.drains.iter().position(|drain| drain.sid == sid) else { return };
        let drain = self.drains.swap_remove(at);
        let draining = self.drains.iter().any(|drain| drain.sid == sid);
        let Some(session) = self.session_mut(sid) else {
            // Another device takes over.
            if drain.why == Why::Offline
                && let Some(next) = self.sessions.iter().find(|s| s.takes_messages()).map(|s| s.sid)
            {
                self.start_drain(next);
            }
            return;
        };
        session.draining = draining;
        // Only the queue was read, and meanwhile something was passed over on the strength of that.
        let behind =
            drain.skipped.filter(|skipped| drain.place == Shelf::Queue || drain.after < Some(*skipped));
        if let Some(skipped) = behind {
            self.offline.get_or_insert(skipped.before());
            self.start_drain(sid);
        } else if drain.why == Why::Replay && self.session(sid).is_some_and(Attached::takes_messages) {
            self.start_drain(sid);
        }
    }
}
