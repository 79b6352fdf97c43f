//! What others ask of a user: read from the store apart from what the user's own sessions do, which never wait for it.

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::stanza::Stanza;

use super::iq::Read;
use super::{Inbound, Msg, User};

impl User {
    /// Somebody else asks.
    pub(super) fn read_for_stranger(&mut self, read: Read) {
        let Some(from) = &read.stanza.from else { return read.receipt.done() }; // nobody asks
        let (from, local) = (from.clone(), self.host.serves(from.domain()));
        if let Err(read) = self.ops.strangers.push(from, local, read) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "stranger_reads").increment(1);
            let error = StanzaError::new(Condition::ResourceConstraint).text("too much is asked, try again");
            return self.refuse(&read.stanza, read.receipt, &error);
        }
        self.next_stranger();
    }

    /// A stranger was answered.
    pub(super) fn stranger_answered(&mut self, stanza: &Stanza) {
        if let Some(from) = &stanza.from {
            self.ops.strangers.done(from);
        }
        self.next_stranger();
    }

    fn next_stranger(&mut self) {
        // A user who moves begins nothing: the next home answers.
        while self.leaving.is_none()
            && let Some((from, read)) = self.ops.strangers.next()
        {
            if self.is_nobody() {
                self.refuse(&read.stanza, read.receipt, &StanzaError::new(Condition::ServiceUnavailable));
                self.ops.strangers.done(&from);
            } else {
                self.start_read(None, read);
            }
        }
    }

    /// The user lives elsewhere now: strangers that were not answered here are answered there.
    pub(super) fn send_strangers_on(&mut self) {
        for Read { stanza, receipt, .. } in self.ops.strangers.take_all() {
            let stanza = std::sync::Arc::from(stanza);
            self.take_moved(Msg::In(Box::new(Inbound { stanza, receipt, origin: None, change: None })));
        }
    }
}
