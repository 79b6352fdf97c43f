//! What an ended session leaves: messages that were for it and that its client has not confirmed. Those that no other device
//! has got, or is getting, are owed to any device from then on (RFC 6121 section 8.5.3.2.1): that is written into their
//! entries, and the offline cursor goes back before them. The session's record goes last: until then it remembers them.
//!
//! Length: the ways in which a session ends differ in a few lines each, and share the one question what is left.

use std::collections::VecDeque;
use std::time::Duration;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Options};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection, Entry};
use rookery_cluster::tables::offline::{self, Cursor};
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::FullJid;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};
use tokio::time::sleep;

use super::deliver::Ops;
use super::foreign::is_bounce;
use super::share::{self, About, Owed, Reader};
use super::worth::worth_keeping;
use super::{User, UserSession};
use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::session::SessionId;

/// A part of the archive: behind one entry, and up to another.
pub(super) type Range = (Option<ArchiveId>, ArchiveId);

/// What a session was still to be served from the store.
#[derive(Clone, Copy, Default)]
pub(super) struct Unread {
    /// Of the archive.
    pub(super) range: Option<Range>,
    /// Of the queue.
    pub(super) queue: bool,
}

/// A session that has ended, until what it had sent is known.
pub(super) struct Departed {
    sid: SessionId,
    jid: FullJid,
    reader: Reader,
    unread: Unread,
    /// The session was handed what was for it up to here.
    upto: ArchiveId,
}

/// A session of the user that has got messages, or will get them.
#[derive(Clone)]
struct Other {
    sid: SessionId,
    jid: FullJid,
    reader: Reader,
    /// Up to where, if it has ended.
    upto: Option<ArchiveId>,
}

impl Other {
    fn has(&self, message: About<'_>) -> bool {
        self.upto.is_none_or(|upto| message.id <= upto) && self.reader.share(&self.jid, message).is_some()
    }
}

/// The user's ended sessions, as long as they matter.
#[derive(Default)]
pub(super) struct Behind {
    /// Those of which it is not known yet what they had sent.
    departed: Vec<Departed>,
    /// What those before them have got: their devices need it no more. Only while there are sessions that may end.
    past: VecDeque<Other>,
    /// How many are being written down.
    busy: usize,
    /// The last ones that have ended: a connection that was not told must not bring one back.
    ended: VecDeque<SessionId>,
}

/// How many of those are remembered.
const ENDED: usize = 32;

/// How many ended sessions are remembered. To forget one costs a message that comes to a second device, later.
const PAST: usize = 16;

impl Behind {
    /// Whether this session has ended here a while ago.
    pub(super) fn has_ended(&self, sid: SessionId) -> bool {
        self.ended.contains(&sid)
    }

    /// Whether something is being written down, or is about to be: an ended session has not said yet what it had sent.
    pub(super) fn is_busy(&self) -> bool {
        self.busy > 0 || !self.departed.is_empty()
    }

    /// A session that has ended was handed these nevertheless: its client has not got them.
    fn not_got(&mut self, sid: SessionId, ids: &[ArchiveId]) {
        let Some(before) = ids.iter().copied().min().map(ArchiveId::before) else { return };
        for past in self.past.iter_mut().filter(|past| past.sid == sid) {
            past.upto = Some(past.upto.map_or(before, |upto| upto.min(before)));
        }
    }
}

/// What one session leaves.
struct Left {
    host: Host,
    user: Entity,
    /// The session; if it is not known any more, there are no ranges.
    reader: Option<(FullJid, Reader)>,
    /// What it was sent and has not confirmed.
    ids: Vec<ArchiveId>,
    /// The same in the queue, of what was for it alone and is for any device now.
    rows: Vec<ArchiveId>,
    /// Where there may be more that was for it.
    range: Option<Range>,
    /// There may be something for it alone in the queue, with this mark.
    mark: Option<u64>,
    others: Vec<Other>,
    /// See [`Cursor::drained`]: for an archive that has no cursor.
    drained: Option<ArchiveId>,
}

/// What was written down.
#[derive(Default)]
struct Written {
    /// The first message that is owed to any device now.
    first: Option<ArchiveId>,
    /// How many of the queue are.
    freed: usize,
    /// Requests that nobody will answer any more.
    requests: Vec<Stanza>,
}

/// The pause before the store is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Entries that are changed in one transaction: each is a round trip to the store.
const ENTRIES: usize = 50;
/// Bytes of entries that are changed in one transaction.
const PORTION: usize = 250_000;
/// Entries per read.
const PAGE: usize = 200;

impl User {
    /// A session has left the list; [`User::leave_behind`] is next.
    pub(super) fn departed(&mut self, session: &UserSession, unread: Unread) {
        let (sid, jid, reader) = (session.sid, session.jid.clone(), session.reader.clone());
        if self.behind.ended.len() >= ENDED {
            self.behind.ended.pop_front();
        }
        self.behind.ended.push_back(sid);
        // What waits for its commit is not delivered yet, and comes to the sessions that are there then.
        let pending = self.pending.steps().find_map(|step| step.id());
        let upto = pending.map(ArchiveId::before).or(self.ids.last).unwrap_or(ArchiveId::first_at(0));
        self.behind.departed.push(Departed { sid, jid, reader, unread, upto });
    }

    /// What a session had sent that its client has not confirmed is known now: `ids` of the archive, and what of the queue is for any device from
    /// now on; and if it was never resumed since it came back from the store, what came behind `replay`, and what lies in the queue for it.
    pub(super) fn leave_behind(
        &mut self,
        sid: SessionId,
        (ids, rows): (Vec<ArchiveId>, Vec<ArchiveId>),
        replay: Option<ArchiveId>,
        recorded: bool,
    ) {
        let at = self.behind.departed.iter().position(|departed| departed.sid == sid);
        let departed = at.map(|at| self.behind.departed.swap_remove(at));
        let last = self.ids.last;
        let replayed = replay.and_then(|after| Some((Some(after), last.filter(|last| after < *last)?)));
        let unread = departed.as_ref().map(|departed| departed.unread).unwrap_or_default();
        let mark = (replay.is_some() || unread.queue).then(|| sid.mark());
        let range = match (replayed, unread.range) {
            (Some(one), Some(two)) => Some((one.0.min(two.0), one.1.max(two.1))),
            (one, two) => one.or(two),
        };
        self.behind.not_got(sid, &ids);
        let others = self.others();
        if let Some(Departed { jid, reader, upto: handed, .. }) = &departed {
            // Archives are in the order of delivery: what comes before the first that it has not confirmed, it has.
            let first = ids.iter().copied().min().map(ArchiveId::before);
            let upto =
                first.into_iter().chain(range.map(|(after, _)| after.unwrap_or(ArchiveId::first_at(0))));
            let upto = upto.chain([*handed]).min();
            self.behind.past.push_back(Other { sid, jid: jid.clone(), reader: reader.clone(), upto });
            if self.behind.past.len() > PAST {
                self.behind.past.pop_front();
            }
        }
        if self.sessions.is_empty() && self.behind.departed.is_empty() {
            self.behind.past = VecDeque::new();
        }
        if ids.is_empty() && rows.is_empty() && range.is_none() && mark.is_none() {
            self.forget(sid, recorded);
            return self.go_on_draining();
        }
        let reader = departed.map(|departed| (departed.jid, departed.reader));
        let (host, user) = (self.host.clone(), self.entity.clone());
        let left = Left { host, user, reader, ids, rows, range, mark, others, drained: self.drained() };
        self.write_down(left, move |user, written| {
            if written {
                user.forget(sid, recorded);
            }
        });
    }

    /// The sessions that a message was for have ended before it was sent.
    pub(super) fn leave_behind_one(&mut self, id: ArchiveId, receipt: Receipt) {
        let (host, user, others) = (self.host.clone(), self.entity.clone(), self.others());
        let (ids, rows, drained) = (vec![id], Vec::new(), self.drained());
        let left = Left { host, user, reader: None, ids, rows, range: None, mark: None, others, drained };
        // Its sender's stanza is settled whatever comes of this: it is in the archive.
        self.write_down(left, move |_, _| receipt.done());
    }

    fn others(&self) -> Vec<Other> {
        let attached = self.sessions.iter().map(|session| Other {
            sid: session.sid,
            jid: session.jid.clone(),
            reader: session.reader.clone(),
            upto: None,
        });
        attached.chain(self.behind.past.iter().cloned()).collect()
    }

    fn write_down(&mut self, left: Left, then: impl FnOnce(&mut User, bool) + Send + 'static) {
        self.behind.busy += 1;
        let drained = left.drained;
        self.spawn(async move {
            let written = left.write().await;
            let done: crate::features::contract::Then = Box::new(move |user: &mut User| {
                user.behind.busy = user.behind.busy.saturating_sub(1);
                let ok = written.is_ok();
                let Written { first, freed, requests } = written.unwrap_or_default();
                for request in requests {
                    let gone = StanzaError::new(Condition::RecipientUnavailable);
                    user.refuse(&request, Receipt::none(), &gone);
                }
                if let Some(first) = first {
                    user.now_offline(first, drained);
                }
                if freed > 0 {
                    user.rows_freed(freed);
                }
                then(user, ok);
                user.go_on_draining();
            });
            done
        });
    }

    /// An entry, and perhaps some behind it, is owed to any device now.
    fn now_offline(&mut self, first: ArchiveId, drained: Option<ArchiveId>) {
        // Where nothing waits by now, a device was given more since that began to be written.
        let back = Cursor::before(first, drained.max(self.drained()));
        self.offline = Some(self.offline.map_or(back, |cursor| cursor.back(first)));
        // Once more: a cursor that was on its way to the store may have come after the one that was written with the entry.
        self.write_cursor();
        metrics::counter!("rookery_offline_stored_total").increment(1);
        for sid in self.drains.again_from(first) {
            self.read_page(sid);
        }
        self.drain_somewhere();
    }
}

impl Left {
    /// Writes down which messages are owed to any device.
    async fn write(&self) -> store::Result<Written> {
        let epoch = self.host.store().epoch(self.user.shard());
        loop {
            let written = self.try_write().await;
            if self.host.store().epoch(self.user.shard()) != epoch {
                // The user is at home elsewhere, or was meanwhile: there the session is looked at anew.
                return Err(store::Error::new(store::Class::Fenced, "the user has moved"));
            }
            match written {
                Err(error) if error.class.repeats() => sleep(PAUSE).await,
                Err(error) => {
                    tracing::warn!(user = %self.user, %error, "unacknowledged messages of an ended session could not be marked as offline messages; they are in the archive only");
                    return Err(error);
                }
                written => return written,
            }
        }
    }

    async fn try_write(&self) -> store::Result<Written> {
        // Some of it is on its way to the store.
        self.host.batcher().flush().await?;
        let first = self.leave_archive().await?;
        let mut written = Written { first, freed: self.rows.len(), requests: Vec::new() };
        self.free_rows().await?;
        if let Some(mark) = self.mark {
            self.leave_queue(mark, &mut written).await?;
        }
        Ok(written)
    }

    /// What lies in the queue for this session alone, and must not go with it, is for any device.
    async fn free_rows(&self) -> store::Result<()> {
        for ids in self.rows.chunks(ENTRIES) {
            let write = self.host.store().write(Options::owner(&self.user), |tx| {
                Box::pin(async move { free(&mut **tx, &self.user, ids).await })
            });
            write.await?;
        }
        Ok(())
    }

    /// What was for this session alone goes, but for the errors of what had left for another server.
    async fn leave_queue(&self, mark: u64, written: &mut Written) -> store::Result<()> {
        let mut after = None;
        loop {
            let page = self.page(Collection::Queue, after).await?;
            let mine = |(_, entry): &&(ArchiveId, Entry)| {
                Owed::of(entry) == Owed::Session && entry.number(mark).is_some()
            };
            let (mut ops, mut stay) = (Ops::new(), Vec::new());
            for (id, entry) in page.entries.iter().filter(mine) {
                let stanza = crate::routing::stored::stanza(&entry.stanza);
                if stanza.as_ref().is_some_and(|stanza| is_bounce(&self.host, stanza)) {
                    stay.push(*id);
                    continue;
                }
                archive::remove(&mut ops, Collection::Queue, &self.user, *id);
                written.requests.extend(stanza.filter(is_request));
            }
            written.freed += stay.len();
            if !ops.is_empty() || !stay.is_empty() {
                let write = self.host.store().write(Options::owner(&self.user), |tx| {
                    let (ops, stay) = (&ops, &stay);
                    Box::pin(async move {
                        ops.iter().for_each(|op| op.apply(&mut **tx));
                        free(&mut **tx, &self.user, stay).await
                    })
                });
                write.await?;
            }
            if page.end == archive::End::Complete {
                return Ok(());
            }
            after = page.cursor;
        }
    }

    async fn page(&self, collection: Collection, after: Option<ArchiveId>) -> store::Result<archive::Slice> {
        let query = archive::Query { after, ..archive::Query::all(PAGE) };
        let page = self.host.store().read(|tx| {
            let (user, query) = (self.user.clone(), query.clone());
            Box::pin(async move { archive::page(&mut **tx, collection, &user, &query).await })
        });
        page.await
    }

    async fn leave_archive(&self) -> store::Result<Option<ArchiveId>> {
        let mut first = self.give_up(&self.ids).await?;
        let (Some((jid, reader)), Some((mut after, upto))) = (&self.reader, self.range) else {
            return Ok(first);
        };
        loop {
            let page = self.page(Collection::Archive, after).await?;
            let mine = |(id, entry): &(ArchiveId, Entry)| {
                let stanza = crate::routing::stored::stanza(&entry.stanza)?;
                let message = About::entry(*id, entry, &stanza);
                (*id <= upto && is_in(entry) && reader.share(jid, message).is_some()).then_some(*id)
            };
            let ids: Vec<ArchiveId> = page.entries.iter().filter_map(mine).collect();
            let found = self.give_up(&ids).await?;
            first = first.or(found).min(found.or(first));
            if page.end == archive::End::Complete || page.cursor >= Some(upto) {
                return Ok(first);
            }
            after = page.cursor;
        }
    }

    /// Of these, what no other device has is owed to any device.
    async fn give_up(&self, ids: &[ArchiveId]) -> store::Result<Option<ArchiveId>> {
        let (mut rest, mut first) = (ids, None);
        while !rest.is_empty() {
            let portion = rest.get(..ENTRIES).unwrap_or(rest);
            let write = self.host.store().write(Options::owner(&self.user), |tx| {
                Box::pin(async move { self.mark(&mut **tx, portion).await })
            });
            let (count, found) = write.await?;
            first = first.or(found).min(found.or(first));
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(first)
    }

    /// As many of these as a transaction holds.
    async fn mark(
        &self,
        tx: &mut dyn store::Transaction,
        ids: &[ArchiveId],
    ) -> store::Result<(usize, Option<ArchiveId>)> {
        let (mut count, mut bytes, mut first) = (0, 0, None::<ArchiveId>);
        let cursor = offline::get(tx, &self.user).await?;
        for id in ids {
            let mut waits = false;
            let change = |entry: &Entry| {
                waits = self.is_missed(*id, entry);
                let already = cursor.is_some_and(|cursor| share::waits_for_any(cursor, *id, entry));
                let marked = already || Owed::of(entry) == Owed::LeftBehind;
                (waits && !marked).then(|| share::owed_to(Owed::LeftBehind, entry.flags))
            };
            let size = archive::reflag(tx, Collection::Archive, &self.user, *id, change).await?;
            if waits {
                first = first.or(Some(*id)).min(Some(*id));
            }
            count += 1;
            bytes += size.unwrap_or_default();
            if bytes > PORTION {
                break;
            }
        }
        if let Some(first) = first {
            let back = cursor.map_or(Cursor::before(first, self.drained), |cursor| cursor.back(first));
            if cursor != Some(back) {
                offline::set(tx, &self.user, back);
            }
        }
        Ok((count, first))
    }

    /// Whether a message of the ended session has come to nobody.
    fn is_missed(&self, id: ArchiveId, entry: &Entry) -> bool {
        let Some(stanza) = crate::routing::stored::stanza(&entry.stanza) else { return false };
        is_in(entry) && worth_keeping(&stanza) && !self.has_another(id, entry, &stanza)
    }

    fn has_another(&self, id: ArchiveId, entry: &Entry, stanza: &Stanza) -> bool {
        let message = About::entry(id, entry, stanza);
        self.others.iter().any(|other| other.has(message))
    }
}

/// These entries of the queue are for any device.
async fn free(tx: &mut dyn store::Transaction, user: &Entity, ids: &[ArchiveId]) -> store::Result<()> {
    for id in ids {
        let change = |entry: &Entry| {
            (Owed::of(entry) == Owed::Session).then(|| share::owed_to(Owed::AnyDevice, entry.flags))
        };
        archive::reflag(tx, Collection::Queue, user, *id, change).await?;
    }
    Ok(())
}

fn is_request(stanza: &Stanza) -> bool {
    matches!(stanza.type_, Type::Iq(IqType::Get | IqType::Set))
}

fn is_in(entry: &Entry) -> bool {
    entry.direction() == archive::Direction::In
}
