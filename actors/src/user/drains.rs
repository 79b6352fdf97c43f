//! The sessions that are being served from the store, and how far each has come.

use rookery_cluster::tables::archive::{ArchiveId, Collection};

use super::leftovers::Unread;
use super::{User, UserSession};
use crate::host::Host;
use crate::session::SessionId;

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
    pub(super) sid: SessionId,
    pub(super) why: Why,
    pub(super) place: Collection,
    /// What is newer is the session's own: sent live to others meanwhile, or before a restart. What is older, and read
    /// nevertheless, is offline.
    pub(super) floor: Option<ArchiveId>,
    /// What the client confirms is offline for no device any more.
    pub(super) offline: bool,
    /// Its session takes messages only since this began: what is offline is to come before what is new.
    pub(super) takes: bool,
    /// What was sent up to.
    pub(super) after: Option<ArchiveId>,
    /// Where the last page that was sent begins: its client may not have got it.
    pub(super) from: Option<ArchiveId>,
    /// Its client has confirmed all that it was sent before the last page.
    pub(super) confirmed: bool,
    /// What the last page sent of the queue; of the archive, what ended sessions had left.
    pub(super) page: Vec<ArchiveId>,
    /// Of a replay: the count that the client came back with, and in which numbering; it has what that covers.
    pub(super) has: Option<(u64, u32)>,
    /// The first and the last message that were not sent live because of this.
    pub(super) skipped: Option<(ArchiveId, ArchiveId)>,
    /// The first that went offline where it had passed already.
    pub(super) more: Option<ArchiveId>,
    /// Something was put into the queue since it was read.
    pub(super) queue_grew: bool,
    /// How much in the queue was for one session alone when the drain may have passed it, and is for any device since: it is drained again.
    pub(super) freed: usize,
    /// A page is being read, or is about to be sent.
    pub(super) under_way: bool,
    /// All is sent; the last page is not confirmed yet.
    pub(super) sent: bool,
    /// The drain begins when all is written down that ended sessions have left.
    pub(super) waits: bool,
    /// The store has not answered: that was said.
    pub(super) failed: bool,
    /// Tells it from those before it.
    pub(super) turn: u64,
}

/// The sessions that are being served from the store; each at most once.
pub(super) struct Drains {
    pub(super) all: Vec<Drain>,
    pub(super) turn: u64,
}

/// What a node that knows no numbers of marks says: `true`.
pub(super) const OLDER_NODE: u64 = 1;

impl Drains {
    /// The turns begin anywhere: a mark that another home of the user set is not taken for one of this.
    pub(super) fn new(host: &Host) -> Self {
        Self { all: Vec::new(), turn: u64::from_le_bytes(host.seams().bytes()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn next_turn(&self) -> u64 {
        self.turn.wrapping_add(1).max(OLDER_NODE + 1)
    }

    pub(super) fn of(&mut self, sid: SessionId) -> Option<&mut Drain> {
        self.all.iter_mut().find(|drain| drain.sid == sid)
    }

    pub(super) fn take(&mut self, sid: SessionId) -> Option<Drain> {
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
                Some(drain) if drain.sent && drain.place == Collection::Archive => {
                    drain.more.get_or_insert(id);
                }
                _ => self.skip(sid, id),
            }
        }
    }

    /// The same in the queue.
    pub(super) fn queue_grew(&mut self) {
        for drain in self.all.iter_mut().filter(|drain| drain.offline || drain.place == Collection::Queue) {
            drain.queue_grew = true;
        }
    }

    /// The same of an older one: it may have been passed already. Returns the sessions for which a page is to be read again: it may have been
    /// read before.
    pub(super) fn again_from(&mut self, id: ArchiveId) -> Vec<SessionId> {
        let (mut turn, mut again) = (self.next_turn(), Vec::new());
        for drain in self.all.iter_mut().filter(|drain| drain.offline && drain.place == Collection::Archive) {
            if drain.waits && drain.from == drain.after {
                // The drain has read nothing yet.
                drain.after = drain.after.min(Some(id.before()));
                drain.from = drain.after;
            } else if drain.sent || drain.after >= Some(id) {
                drain.more = Some(drain.more.map_or(id, |more| more.min(id)));
            } else if drain.under_way {
                (self.turn, drain.turn) = (turn, turn);
                turn = turn.wrapping_add(1).max(OLDER_NODE + 1);
                again.push(drain.sid);
            }
        }
        again
    }
}

impl User {
    /// So much in the queue was for one session alone, and is for any device now. Where all for any device has been read, it is not counted.
    pub(super) fn rows_freed(&mut self, rows: usize) {
        self.queued = self.queued.max(self.kept.len() + rows);
        if let Some(drain) = self.drains.all.iter_mut().find(|drain| drain.offline) {
            drain.freed += rows;
        }
    }

    /// The user goes elsewhere: there it is begun anew.
    pub(super) fn drop_drains(&mut self) {
        self.drains.all.clear();
    }

    /// Ends a drain whose session is gone. Returns where there may be messages for it that it was not sent, or was sent
    /// without a word of its client about them.
    pub(super) fn give_up_drain(&mut self, gone: &UserSession) -> Unread {
        let Some(drain) = self.drains.take(gone.sid) else { return Unread::default() };
        if drain.offline {
            self.drain_somewhere(); // another device takes over
        }
        // What a client with XEP-0198 was sent and has not confirmed, its session reports.
        let sent = if gone.is_managed() { drain.after } else { drain.from };
        let passed = sent.filter(|_| drain.place == Collection::Archive).max(drain.floor);
        let (first, last) = match drain.why {
            Why::Replay => (drain.floor, self.ids.last),
            Why::Offline => {
                (drain.skipped.map(|(first, _)| first.before()), drain.skipped.map(|(_, last)| last))
            }
        };
        let after = first.max(passed);
        let range = last.filter(|last| after < Some(*last)).map(|last| (after, last));
        Unread { range, queue: drain.why == Why::Replay && drain.place == Collection::Queue }
    }
}

impl Drain {
    /// Whether nothing was read for it yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.place == Collection::Queue && self.after.is_none() && !self.sent
    }

    /// What is offline comes as well, from now on. What was sent, its client has.
    pub(super) fn turn_offline(&mut self) {
        if self.place == Collection::Archive {
            self.floor = self.floor.max(self.after);
        }
        (self.offline, self.takes, self.sent) = (true, false, false);
        (self.place, self.after, self.from) = (Collection::Queue, None, None);
    }

    /// Behind which entry of the archive it begins; `cursor` is where what is offline begins.
    pub(super) fn begin(&self, cursor: Option<ArchiveId>) -> Option<ArchiveId> {
        if self.offline && cursor.is_some() { self.floor.min(cursor) } else { self.floor }
    }
}
