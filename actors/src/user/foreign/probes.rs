//! Who elsewhere asks for a user's presence (RFC 6121 section 4.3.2).

use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use crate::connection::ledger::Receipt;
use crate::features::contract::{Direction, Verdict};
use crate::host::Host;
use crate::user::User;

/// What a probe is answered by whoever is not there, or does not show itself.
fn answer(probe: &Stanza, kind: PresenceType, from: Jid) -> Option<Stanza> {
    let mut answer = Stanza::new(Type::Presence(kind)).from(from).to(probe.from.clone()?);
    answer.id.clone_from(&probe.id);
    Some(answer)
}

impl Host {
    /// The one answer to a probe of somebody elsewhere who may not see the account, whether or not there is one (4.3.2, first rule).
    /// It ends a subscription that the other side alone believes in, and changes nothing here.
    pub(in crate::user) fn answer_probe(&self, probe: &Stanza, receipt: Receipt) {
        let account = probe.to.as_ref().map(|to| Jid::from(to.to_bare()));
        match account.and_then(|account| answer(probe, PresenceType::Unsubscribed, account)) {
            Some(answer) => self.route(answer, receipt, None),
            None => receipt.done(),
        }
    }
}

impl User {
    /// A probe of somebody elsewhere.
    pub(in crate::user) fn probed_from_elsewhere(&self, probe: &Stanza, from: &Jid, receipt: Receipt) {
        let sees = self.roster.sees_me(from);
        if !matches!(self.filter(Direction::In, probe, from), Verdict::Pass) {
            // XEP-0191 section 3.3 wants no answer. Strangers who are blocked get the one that accounts give that do not exist: silence
            // would say that there is somebody.
            return if sees { receipt.done() } else { self.host.answer_probe(probe, receipt) };
        }
        let full = probe.to.clone().filter(|to| to.resource().is_some());
        if self.probed(from, full.as_ref()) {
            return receipt.done();
        }
        if !sees {
            return self.host.answer_probe(probe, receipt);
        }
        let absent = full.unwrap_or_else(|| Jid::from(self.jid.clone()));
        match answer(probe, PresenceType::Unavailable, absent) {
            Some(answer) => self.host.route(answer, receipt, None),
            None => receipt.done(),
        }
    }
}
