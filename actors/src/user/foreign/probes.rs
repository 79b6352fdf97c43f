//! Presence probes that come from other servers and services (RFC 6121 section 4.3.2).

use rookery_cluster::tables::last::{self, Last};
use rookery_proto::xml::write;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use crate::connection::ledger::Receipt;
use crate::features::contract::{Direction, Then, Verdict};
use crate::features::xep_0203_delay as delay;
use crate::host::Host;
use crate::user::User;

/// How many probes wait for the store; others are answered without.
const LOOKING: u8 = 4;

/// The presence that answers a probe for an account that is absent, or that the prober may not see.
fn answer(probe: &Stanza, kind: PresenceType, from: Jid) -> Option<Stanza> {
    let mut answer = Stanza::new(Type::Presence(kind)).from(from).to(probe.from.clone()?);
    answer.id.clone_from(&probe.id);
    Some(answer)
}

impl Host {
    /// Answers a probe of a prober elsewhere that may not see the account, whether or not the account exists (4.3.2, first rule). The
    /// answer, `unsubscribed`, ends a subscription that only the other side believes in, and changes nothing here.
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
    pub(in crate::user) fn probed_from_elsewhere(&mut self, probe: &Stanza, from: &Jid, receipt: Receipt) {
        let sees = self.roster.sees_me(from);
        if !matches!(self.filter(Direction::In, probe, from), Verdict::Pass) {
            // XEP-0191 section 3.3 wants no answer to a blocked contact. A blocked stranger gets the answer of an account that does
            // not exist: silence would tell that the account exists.
            return if sees { receipt.done() } else { self.host.answer_probe(probe, receipt) };
        }
        let full = probe.to.clone().filter(|to| to.resource().is_some());
        if self.probed(from, full.as_ref()) {
            return receipt.done();
        }
        if !sees {
            return self.host.answer_probe(probe, receipt);
        }
        // Last words are remembered for the account, never for one resource.
        let resource = full.is_some();
        let absent = full.unwrap_or_else(|| Jid::from(self.jid.clone()));
        match answer(probe, PresenceType::Unavailable, absent) {
            Some(answer) if resource => self.host.route(answer, receipt, None),
            Some(answer) => self.tell_absence(answer, receipt),
            None => receipt.done(),
        }
    }

    /// 4.3.2, third rule: a prober that may see the user is told since when the user is away, and the last status.
    fn tell_absence(&mut self, answer: Stanza, receipt: Receipt) {
        if self.foreign.looking >= LOOKING {
            return self.host.route(answer, receipt, None);
        }
        self.foreign.looking += 1;
        let (store, own) = (self.host.store().clone(), self.entity.clone());
        self.spawn(async move {
            let last = store.read(|tx| {
                let own = &own;
                Box::pin(async move { last::get(&mut **tx, own).await })
            });
            let last = last.await.ok().flatten(); // without it the answer is right, if short
            let then: Then = Box::new(move |user: &mut User| {
                user.foreign.looking = user.foreign.looking.saturating_sub(1);
                // Some resource may have come meanwhile, and has said so itself; its presence stays the last word.
                if user.sessions.iter().any(|session| session.presence.is_some()) {
                    return receipt.done();
                }
                let words = last.map(|last| words(&Jid::from(user.jid.clone()), &last)).unwrap_or_default();
                user.host.route(answer.payload(words), receipt, None);
            });
            then
        });
    }
}

/// What an absent user has left: its status, and a stamp (XEP-0203 version 2.0).
fn words(user: &Jid, last: &Last) -> Vec<u8> {
    let mut words = write::bytes(|w| {
        if !last.status.is_empty() {
            w.leaf("status", ns::CLIENT, &last.status);
        }
    });
    words.extend(delay::delay(user, last.at));
    words
}
