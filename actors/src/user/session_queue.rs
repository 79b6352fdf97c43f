//! The order of what a session sends (RFC 6120 section 10.1): it takes effect in the order in which it was sent.
//!
//! The user actor takes one stanza after the other, so most of that comes by itself. What needs the store goes on after its
//! step, and is one of two kinds ([`crate::features::contract::Run`]):
//! - A **change** (a block, a subscription, preferences) bears on what follows: whatever its session sends meanwhile waits in
//!   the session's [`SessionQueue`], and goes on in order when the change is done.
//! - A **read** bears on nothing: what follows does not wait. It begins when all changes that were sent before it are done;
//!   those of one session run one after the other.
//!
//! What depends on nothing (a ping, an answer to the server) passes. Other sessions and strangers have queues of their own
//! ([`super::strangers`]). What waits is neither acknowledged nor begun: if the user moves, the connection sends it again.

use std::collections::VecDeque;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::iq::Read;
use super::{Ended, User};
use crate::connection::ledger::Receipt;
use crate::features;
use crate::features::contract::{Method, Run, Scope};
use crate::runtime::origin::Origin;
use crate::session::SessionId;

/// How many stanzas of one session wait. A connection is not read on while so many are not settled.
const STANZAS: usize = 256;

/// Their bytes, of one session …
const BYTES: usize = 1 << 20;

/// … and of all sessions of one user.
const USER_BYTES: usize = 4 << 20;

/// How many reads of one session wait before what follows them waits too.
const READS: usize = 8;

/// What a session has sent, and waits for its turn.
enum Item {
    Stanza {
        stanza: Box<Stanza>,
        /// As it was when the stanza came: `<enable/>` may have begun to count anew since.
        origin: Option<Origin>,
        receipt: Receipt,
    },
    /// Its end.
    Ended(Box<Ended>),
}

/// What holds the next stanza back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Nothing,
    /// A change is under way.
    Change,
    /// Too many reads are.
    Reads,
}

/// What one session waits for. There is a queue only while there is something.
pub(super) struct SessionQueue {
    sid: SessionId,
    hold: Hold,
    waiting: VecDeque<Item>,
    reads: VecDeque<Read>,
    /// One of them is under way.
    reading: bool,
    /// What waits, bytes.
    bytes: usize,
    /// The user moves: what comes now is sent again to the next home.
    left: bool,
}

impl SessionQueue {
    fn is_empty(&self) -> bool {
        let waits = !self.waiting.is_empty() || !self.reads.is_empty() || self.reading;
        self.hold == Hold::Nothing && !waits && !self.left
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.size();
        self.waiting.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        if self.hold != Hold::Nothing {
            return None;
        }
        let item = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(item.size());
        Some(item)
    }

    fn next_read(&mut self) -> Option<Read> {
        let read = self.reads.pop_front();
        self.bytes = self.bytes.saturating_sub(read.as_ref().map_or(0, Read::size));
        self.reading = read.is_some();
        read
    }

    /// Its connection sends what waits again to the next home; what has ended stays so.
    fn leave(&mut self) -> Vec<Ended> {
        self.bytes = 0;
        self.reads.drain(..).for_each(|read| read.receipt.leave());
        let mut ended = Vec::new();
        for item in self.waiting.drain(..) {
            match item {
                Item::Stanza { receipt, .. } => receipt.leave(),
                Item::Ended(end) => ended.push(*end),
            }
        }
        ended
    }
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Self::Stanza { stanza, .. } => stanza.size(),
            Self::Ended(_) => 0,
        }
    }
}

/// The queues of a user's sessions. Those of sessions that have ended go on until they are empty.
#[derive(Default)]
pub(super) struct SessionQueues(Vec<SessionQueue>);

impl SessionQueues {
    /// Whether no session waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a read is under way.
    pub(super) fn are_reading(&self) -> bool {
        self.0.iter().any(|queue| queue.reading)
    }

    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    fn find(&mut self, sid: SessionId) -> Option<&mut SessionQueue> {
        self.0.iter_mut().find(|queue| queue.sid == sid)
    }

    fn of(&mut self, sid: SessionId) -> Option<&mut SessionQueue> {
        if self.find(sid).is_none() {
            let (waiting, reads) = (VecDeque::new(), VecDeque::new());
            let queue = SessionQueue {
                sid,
                hold: Hold::Nothing,
                waiting,
                reads,
                reading: false,
                bytes: 0,
                left: false,
            };
            self.0.push(queue);
        }
        self.find(sid)
    }

    /// Whether so much more may wait for this session.
    fn have_room(&mut self, sid: SessionId, size: usize) -> bool {
        let all: usize = self.0.iter().map(|queue| queue.bytes).sum();
        let fits = |queue: &mut SessionQueue| queue.waiting.len() < STANZAS && queue.bytes + size <= BYTES;
        all + size <= USER_BYTES && self.find(sid).is_none_or(fits)
    }

    /// A change of this session is under way.
    pub(super) fn hold(&mut self, sid: SessionId) {
        if let Some(queue) = self.of(sid) {
            queue.hold = Hold::Change;
        }
    }

    fn remove(&mut self, sid: SessionId) {
        self.0.retain(|queue| queue.sid != sid || !queue.is_empty());
    }
}

impl User {
    /// A stanza of one of the user's sessions.
    pub(super) fn sent_by(&mut self, sid: SessionId, stanza: Box<Stanza>, receipt: Receipt) {
        let Some(session) = self.session(sid) else {
            // The session was ended by others while this was on its way. Its client is told nothing of it.
            return receipt.leave();
        };
        let origin = session
            .origin_name(self.host.placement().is_some())
            .map(|name| Origin::new(name, receipt.number()));
        if self.ops.queues.is_empty() {
            self.send_now(sid, *stanza, origin, receipt);
        } else {
            self.send_in_turn(sid, stanza, origin, receipt);
        }
    }

    #[cold]
    fn send_in_turn(
        &mut self,
        sid: SessionId,
        stanza: Box<Stanza>,
        origin: Option<Origin>,
        receipt: Receipt,
    ) {
        let queue = self.ops.queues.find(sid);
        if queue.as_ref().is_some_and(|queue| queue.left) {
            return receipt.leave();
        }
        let waits = queue.is_some_and(|queue| queue.hold != Hold::Nothing || !queue.waiting.is_empty());
        if !waits || self.depends_on_nothing(&stanza) {
            return self.send_now(sid, *stanza, origin, receipt);
        }
        if !self.ops.queues.have_room(sid, stanza.size()) {
            return self.queue_is_full(sid, &stanza, receipt);
        }
        if let Some(queue) = self.ops.queues.find(sid) {
            queue.push(Item::Stanza { stanza, origin, receipt });
        }
    }

    /// Too much waits. What can't be answered is not acknowledged, so that the client sends it again.
    pub(super) fn queue_is_full(&self, sid: SessionId, stanza: &Stanza, receipt: Receipt) {
        metrics::counter!("rookery_limits_hit_total", "limit" => "session_order").increment(1);
        if stanza.type_.is_answerable() {
            self.answer_own(sid, stanza, &StanzaError::new(Condition::ResourceConstraint));
            receipt.done();
        }
    }

    /// What neither needs the store nor has an effect here: answers to the server, and what the server says at once.
    fn depends_on_nothing(&self, stanza: &Stanza) -> bool {
        let Type::Iq(kind) = stanza.type_ else { return false };
        let to = stanza.to.as_ref();
        let host = to.is_some_and(|to| {
            to.local().is_none() && to.resource().is_none() && self.host.serves(to.domain())
        });
        let method = match kind {
            IqType::Get => Method::Get,
            IqType::Set => Method::Set,
            _ => return host || to.is_none_or(|to| to.as_str() == self.jid.as_str()),
        };
        let Some(child) = stanza.children().next().filter(|_| host) else { return host };
        let handler = features::iq_handler(Scope::Host, method, child.name(), child.ns());
        handler.is_none_or(|handler| matches!(handler.run, Run::Host(_) | Run::Now(_)))
    }

    /// A session is over: after what it has sent.
    pub(super) fn session_ended(&mut self, ended: Box<Ended>) {
        match self.ops.queues.find(ended.sid) {
            Some(queue) if !queue.waiting.is_empty() => queue.push(Item::Ended(ended)),
            _ => self.ended(*ended),
        }
    }

    /// Takes a read of a session. If too many wait, it is the next to be taken, and what follows waits behind it.
    pub(super) fn read_for(&mut self, sid: SessionId, read: Read) {
        if self.leaving.is_some() {
            read.receipt.leave();
            return self.leave_queue(sid);
        }
        let (size, reading) = (read.size(), self.ops.queues.find(sid).is_some_and(|queue| queue.reading));
        if reading && !self.ops.queues.have_room(sid, size) {
            return self.queue_is_full(sid, &read.stanza, read.receipt);
        }
        let Some(queue) = self.ops.queues.of(sid) else { return };
        if !queue.reading {
            queue.reading = true;
            return self.start_read(Some(sid), read);
        }
        queue.bytes += size;
        if queue.reads.len() < READS {
            queue.reads.push_back(read);
        } else {
            queue.hold = Hold::Reads;
            let Read { stanza, receipt, .. } = read;
            queue.waiting.push_front(Item::Stanza { stanza, origin: None, receipt });
        }
    }

    /// A session's read is done.
    pub(super) fn next_read(&mut self, sid: SessionId) {
        if self.is_nobody() {
            return self.close_queues();
        }
        let Some(queue) = self.ops.queues.find(sid) else { return };
        if queue.hold == Hold::Reads {
            queue.hold = Hold::Nothing;
        }
        if let Some(read) = queue.next_read() {
            self.start_read(Some(sid), read);
        }
        self.go_on_sending(sid);
    }

    /// A session's change is done: what waited for it goes on, up to the next.
    pub(super) fn change_done(&mut self, sid: SessionId) {
        if self.is_nobody() {
            return self.close_queues();
        }
        if let Some(queue) = self.ops.queues.find(sid) {
            queue.hold = Hold::Nothing;
        }
        self.go_on_sending(sid);
    }

    fn go_on_sending(&mut self, sid: SessionId) {
        while let Some(item) = self.ops.queues.find(sid).and_then(SessionQueue::pop) {
            match item {
                // Its session may have ended: it had sent this before.
                Item::Stanza { stanza, origin, receipt } => self.send_now(sid, *stanza, origin, receipt),
                Item::Ended(ended) => self.ended(*ended),
            }
        }
        self.ops.queues.remove(sid);
    }

    /// The account was removed: nothing that waits has an effect any more.
    pub(super) fn close_queues(&mut self) {
        for mut queue in std::mem::take(&mut self.ops.queues.0) {
            let ended = queue.leave();
            ended.into_iter().for_each(|ended| self.forget(ended.sid, ended.recorded));
        }
    }

    /// The user moves: nothing more of this session is begun, or what follows would overtake it.
    pub(super) fn leave_queue(&mut self, sid: SessionId) {
        let Some(queue) = self.ops.queues.of(sid) else { return };
        queue.left = true;
        let ended = queue.leave();
        ended.into_iter().for_each(|ended| self.ended(ended));
    }

    /// The same for all sessions that wait.
    pub(super) fn leave_queues(&mut self) {
        let sids: Vec<SessionId> = self.ops.queues.0.iter().map(|queue| queue.sid).collect();
        sids.into_iter().for_each(|sid| self.leave_queue(sid));
    }
}

impl Drop for SessionQueue {
    fn drop(&mut self) {
        // Nobody is left to do it. Its connection sends it again to the next home; one that has none ends anyway.
        drop(self.leave());
    }
}
