//! What others ask of a user: read from the store apart from what the user's own sessions do, which never wait for it.

use std::collections::VecDeque;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;

use super::iq::Read;
use super::{Inbound, Msg, User};

/// How many are read at a time.
const AT_ONCE: usize = 4;

/// How many wait, or are read, in all …
const ALL: usize = 256;

/// … of one domain that is not served here …
const DOMAIN: usize = 64;

/// … and of one account, whatever its resources.
const ACCOUNT: usize = 8;

/// The bytes of all that wait.
const BYTES: usize = 256 << 10;

/// What strangers have asked.
#[derive(Default)]
pub(super) struct Strangers {
    /// Strangers that are being answered.
    reading: Vec<Jid>,
    waiting: VecDeque<Read>,
}

impl Strangers {
    pub(super) fn are_reading(&self) -> bool {
        !self.reading.is_empty()
    }

    pub(super) fn shrink(&mut self) {
        self.reading.shrink_to_fit();
        self.waiting.shrink_to_fit();
    }

    fn count(&self, same: impl Fn(&Jid) -> bool) -> usize {
        let waiting = self.waiting.iter().filter_map(|read| read.stanza.from.as_ref());
        self.reading.iter().chain(waiting).filter(|jid| same(jid)).count()
    }

    /// Whether `from` may ask one thing more.
    fn have_room(&self, from: &Jid, size: usize, local: bool) -> bool {
        let bytes: usize = self.waiting.iter().map(Read::size).sum();
        self.reading.len() + self.waiting.len() < ALL
            && bytes + size <= BYTES
            && self.count(|jid| jid.bare_str() == from.bare_str()) < ACCOUNT
            && (local || self.count(|jid| jid.domain() == from.domain()) < DOMAIN)
    }
}

impl User {
    /// Somebody else asks.
    pub(super) fn read_for_stranger(&mut self, read: Read) {
        let Some(from) = &read.stanza.from else { return read.receipt.done() }; // nobody asks
        let local = self.host.serves(from.domain());
        if !self.ops.strangers.have_room(from, read.size(), local) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "stranger_reads").increment(1);
            let error = StanzaError::new(Condition::ResourceConstraint).text("too much is asked, try again");
            return self.refuse(&read.stanza, read.receipt, &error);
        }
        self.ops.strangers.waiting.push_back(read);
        self.next_stranger();
    }

    /// A stranger was answered.
    pub(super) fn stranger_answered(&mut self, stanza: &Stanza) {
        let reading = &mut self.ops.strangers.reading;
        if let Some(at) = reading.iter().position(|jid| stanza.from.as_ref() == Some(jid)) {
            reading.swap_remove(at);
        }
        self.next_stranger();
    }

    fn next_stranger(&mut self) {
        // A user who moves begins nothing: the next home answers.
        while self.leaving.is_none() && self.ops.strangers.reading.len() < AT_ONCE {
            let Some(read) = self.ops.strangers.waiting.pop_front() else { return };
            if self.is_nobody() {
                self.refuse(&read.stanza, read.receipt, &StanzaError::new(Condition::ServiceUnavailable));
                continue;
            }
            self.ops.strangers.reading.extend(read.stanza.from.clone());
            self.start_read(None, read);
        }
    }

    /// The user lives elsewhere now: whoever was not answered here is answered there.
    pub(super) fn send_strangers_on(&mut self) {
        for Read { stanza, receipt, .. } in std::mem::take(&mut self.ops.strangers.waiting) {
            let stanza = std::sync::Arc::from(stanza);
            self.take_moved(Msg::In(Box::new(Inbound { stanza, receipt, origin: None, change: None })));
        }
    }
}
