//! The order of what a session sends (RFC 6120 section 10.1), on top of [`crate::runtime::operations`]: a change (a block, a
//! subscription, preferences) holds back what its session sends behind it; a read does not ([`Run`]).
//!
//! What depends on nothing (a ping, an answer to the server) passes. Other sessions and strangers have queues of their own
//! ([`super::strangers`]). What waits is neither acknowledged nor begun: if the user moves, the connection sends it again.

use std::sync::Arc;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::iq::Read;
use super::{Ended, User};
use crate::connection::ledger::Receipt;
use crate::features;
use crate::features::contract::{Method, Run, Scope};
use crate::runtime::operations::{Queued, Reading, Turn};
use crate::runtime::origin::Origin;
use crate::session::SessionId;

/// What a session has sent, and waits for its turn.
pub(super) enum Item {
    Stanza {
        stanza: Arc<Stanza>,
        /// As it was when the stanza came: `<enable/>` may have begun to count anew since.
        origin: Option<Origin>,
        receipt: Receipt,
    },
    /// Its end.
    Ended(Box<Ended>),
}

impl Queued for Item {
    fn size(&self) -> usize {
        match self {
            Self::Stanza { stanza, .. } => stanza.size(),
            Self::Ended(_) => 0,
        }
    }

    fn leave(self) {
        match self {
            Self::Stanza { receipt, .. } => receipt.leave(),
            Self::Ended(_) => {} // nobody is left to hear of it
        }
    }
}

impl From<Read> for Item {
    /// A read that waits for its turn once more.
    fn from(Read { stanza, receipt, .. }: Read) -> Self {
        Self::Stanza { stanza: stanza.into(), origin: None, receipt }
    }
}

impl User {
    /// A stanza of one of the user's sessions.
    pub(super) fn sent_by(&mut self, sid: SessionId, stanza: Arc<Stanza>, receipt: Receipt) {
        let Some(session) = self.session(sid) else {
            // The session was ended by others while this was on its way. Its client is told nothing of it.
            return receipt.leave();
        };
        let origin = session.origin_name(&self.host).map(|name| Origin::new(name, receipt.number()));
        if self.ops.sources.is_empty() {
            self.send_now(sid, stanza, origin, receipt);
        } else {
            self.send_in_turn(sid, stanza, origin, receipt);
        }
    }

    #[cold]
    fn send_in_turn(
        &mut self,
        sid: SessionId,
        stanza: Arc<Stanza>,
        origin: Option<Origin>,
        receipt: Receipt,
    ) {
        match self.ops.sources.turn(sid) {
            Turn::Left => receipt.leave(),
            Turn::Waits if !self.depends_on_nothing(&stanza) => {
                let item = Item::Stanza { stanza, origin, receipt };
                if let Err(Item::Stanza { stanza, receipt, .. }) = self.ops.sources.push(sid, item) {
                    self.queue_is_full(sid, &stanza, receipt);
                }
            }
            Turn::Now | Turn::Waits => self.send_now(sid, stanza, origin, receipt),
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
        let sid = ended.sid;
        if let Err(Item::Ended(ended)) = self.ops.sources.push_end(sid, Item::Ended(ended)) {
            self.ended(*ended);
        }
    }

    /// Takes a read of a session.
    pub(super) fn read_for(&mut self, sid: SessionId, read: Read) {
        if self.leaving.is_some() {
            read.leave();
            return self.leave_queue(sid);
        }
        match self.ops.sources.read(sid, read) {
            Reading::Now(read) => self.start_read(Some(sid), read),
            Reading::Waits => {}
            Reading::Full(read) => self.queue_is_full(sid, &read.stanza, read.receipt),
        }
    }

    /// A session's read is done.
    pub(super) fn next_read(&mut self, sid: SessionId) {
        if self.is_nobody() {
            return self.close_queues();
        }
        if let Some(read) = self.ops.sources.read_done(sid) {
            self.start_read(Some(sid), read);
        }
        self.go_on_sending(sid);
    }

    /// A session's change is done: what waited for it goes on, up to the next.
    pub(super) fn change_done(&mut self, sid: SessionId) {
        if self.is_nobody() {
            return self.close_queues();
        }
        self.ops.sources.change_done(sid);
        self.go_on_sending(sid);
    }

    fn go_on_sending(&mut self, sid: SessionId) {
        while let Some(item) = self.ops.sources.next(sid) {
            match item {
                // Its session may have ended: it had sent this before.
                Item::Stanza { stanza, origin, receipt } => self.send_now(sid, stanza, origin, receipt),
                Item::Ended(ended) => self.ended(*ended),
            }
        }
    }

    /// The account was removed: nothing that waits has an effect any more.
    pub(super) fn close_queues(&mut self) {
        for item in self.ops.sources.take_all() {
            match item {
                Item::Ended(ended) => self.forget(ended.sid, ended.recorded),
                stanza => stanza.leave(),
            }
        }
    }

    /// The user moves: nothing more of this session is begun, or what follows would overtake it. Its connection sends what waits
    /// again to the next home; what has ended stays so.
    pub(super) fn leave_queue(&mut self, sid: SessionId) {
        for item in self.ops.sources.leave(sid) {
            match item {
                Item::Ended(ended) => self.ended(*ended),
                stanza => stanza.leave(),
            }
        }
    }

    /// The same for all sessions that wait.
    pub(super) fn leave_queues(&mut self) {
        self.ops.sources.names().into_iter().for_each(|sid| self.leave_queue(sid));
    }
}
