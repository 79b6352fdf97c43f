//! Stanzas of other servers on their way in.

use std::sync::Arc;

use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;

use super::sending::may_be_pong;
use crate::connection::ledger::Receipt;
use crate::features::xep_0203_delay::without_forged;
use crate::host::Host;
use crate::host::kind::{Inbound, LINK};
use crate::host::pair::Pair;
use crate::runtime::origin::Origin;

/// What is wrong with a stanza that another server has sent. The stream ends with the error that belongs to it (RFC 6120 section 4.9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotTaken {
    /// `from` is not at the domain that was proved: `<invalid-from/>`.
    #[error("a stanza's 'from' is not at the domain that the other server has proved")]
    InvalidFrom,
    /// `from` or `to` is missing: `<improper-addressing/>` (RFC 6120 section 8.1).
    #[error("a stanza between servers has no 'from' or no 'to'")]
    ImproperAddressing,
    /// `to` is not at a domain of this deployment: `<host-unknown/>`.
    #[error("a stanza's 'to' is at no domain of this server")]
    HostUnknown,
}

impl Host {
    /// A stanza of another server, which has proved `domain` to the domain of the stanza's `to`. Whatever is addressed gets it as any
    /// other stanza, without stamps in the name of this deployment. `origin` makes it known if it comes again: a name of the stream, and the stanza's number on it.
    ///
    /// # Errors
    /// The stream must be ended; the stanza is not taken, and its receipt breaks the ledger.
    pub fn from_remote(
        &self,
        domain: &BareJid,
        stanza: Stanza,
        receipt: Receipt,
        origin: Option<Origin>,
    ) -> Result<(), NotTaken> {
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else {
            return Err(NotTaken::ImproperAddressing);
        };
        if from.domain() != domain.domain() || self.answers(from.domain()) {
            return Err(NotTaken::InvalidFrom);
        }
        if !self.answers(to.domain()) {
            return Err(NotTaken::HostUnknown);
        }
        metrics::counter!("rookery_remote_stanzas_total", "direction" => "in").increment(1);
        if may_be_pong(&stanza)
            && let (Some(pair), Some(kind)) = (Pair::new(&to.to_bare(), domain), self.kinds().named(LINK))
        {
            let inbound = Inbound { stanza: Arc::new(stanza), receipt, origin: None, change: None };
            self.to_entity(kind, pair.entity(), inbound);
            return Ok(());
        }
        let stanza = without_forged(self, &stanza).unwrap_or(stanza);
        self.route(stanza, receipt, origin);
        Ok(())
    }

    /// Sends the error for a stanza of another server that breaks a rule. The error goes the way of all stanzas, and settles the receipt.
    pub fn answer_remote(&self, answer: Stanza, receipt: Receipt) {
        self.route(answer, receipt, None);
    }
}
