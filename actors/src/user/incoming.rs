//! What is sent to a user (RFC 6121 section 8.5).

use std::sync::Arc;

use rookery_cluster::tables::archive::Collection;
use rookery_cluster::tables::offline;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{IqType, MessageType, Stanza, Type};

use super::deliver::Ops;
use super::foreign::is_bounce;
use super::share::{self, Owed};
use super::steps::Step;
use super::worth::worth_keeping;
use super::{Inbound, User};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Kept;
use crate::features::contract::{Direction, Passing, Phase, Verdict};
use crate::features::{self, xep_0356_privilege};
use crate::runtime::origin::Origin;

impl User {
    pub(super) fn incoming(&mut self, inbound: Inbound) {
        match inbound.stanza.type_ {
            Type::Message(kind) => self.incoming_message(kind, inbound),
            Type::Presence(kind) => self.incoming_presence(kind, inbound),
            Type::Iq(kind) => self.incoming_iq(kind, inbound),
        }
    }

    /// Runs the hooks of all phases over a message, until one of them stops it.
    pub(super) fn pass(&self, passing: &mut Passing) -> Verdict {
        for phase in [Phase::Check, Phase::Filter, Phase::Archive, Phase::Copy] {
            for hook in features::message_hooks(phase) {
                match (hook.run)(self, passing) {
                    Verdict::Pass => {}
                    verdict => return verdict,
                }
            }
        }
        Verdict::Pass
    }

    /// Asks the filters about anything that is not a message.
    pub(super) fn filter(&self, direction: Direction, stanza: &Stanza, with: &Jid) -> Verdict {
        for filter in features::filters() {
            match filter(self, direction, stanza, with) {
                Verdict::Pass => {}
                verdict => return verdict,
            }
        }
        Verdict::Pass
    }

    fn incoming_message(&mut self, kind: MessageType, inbound: Inbound) {
        if xep_0356_privilege::is_message_in_name(&inbound.stanza) {
            return self.send_in_name(inbound);
        }
        let Inbound { stanza, receipt, origin, .. } = inbound;
        if kind == MessageType::Error {
            match receipt.entry() {
                Some(entry) => self.take_back(entry, &stanza, receipt.number()),
                None if self.is_from_elsewhere(&stanza) => self.refused_elsewhere(&stanza),
                None => {}
            }
        }
        if let Some(error) = self.refused_before(origin) {
            return self.refuse(&stanza, receipt, &error);
        }
        if self.taken_before(origin) {
            // The stanza was taken, which is not to say that it is durable: what waits for its commit goes first.
            return self.in_order(Step::Again { stanza, origin, receipt });
        }
        let Some(from) = stanza.from.clone() else { return receipt.done() };
        let mut passing = Passing::new(stanza, Direction::In, from.to_bare());
        match self.pass(&mut passing) {
            Verdict::Pass => {}
            Verdict::Refuse(error) => return self.refuse(&passing.stanza, receipt, &error),
            Verdict::Drop => return receipt.done(),
        }
        if passing.stanza.to.is_none() {
            Arc::make_mut(&mut passing.stanza).to = Some(Jid::from(self.jid.clone()));
        }
        if let Some(origin) = origin {
            self.remember(origin); // it may come again by another way, kept or not
        }
        match self.plan(kind, &passing.stanza) {
            Plan::Deliver => self.keep_and_deliver(passing, origin, receipt),
            Plan::Ignore => receipt.done(),
            Plan::Refuse => {
                self.refuse_from(origin, &passing.stanza, receipt, &Condition::ServiceUnavailable.into());
            }
        }
    }

    /// RFC 6121 sections 8.5.2 and 8.5.3, the table of 8.5.4.
    fn plan(&self, kind: MessageType, stanza: &Stanza) -> Plan {
        let full = stanza.to.as_ref().filter(|to| to.resource().is_some());
        let matched = full.is_some_and(|to| self.sessions.iter().any(|s| s.jid.as_str() == to.as_str()));
        match (kind, full, matched) {
            (_, Some(_), true) => Plan::Deliver,
            (MessageType::Error, Some(_), false) if is_bounce(&self.host, stanza) => Plan::Deliver,
            (MessageType::Error, _, _) => Plan::Ignore,
            (MessageType::Groupchat, _, _) => Plan::Refuse,
            // 8.5.3.2.1: a chat goes to another resource, and so to the offline store.
            (MessageType::Chat, Some(_), false) => Plan::Deliver,
            (MessageType::Normal, Some(_), false) => Plan::Refuse,
            (MessageType::Headline, Some(_), false) => Plan::Ignore,
            (MessageType::Headline, None, _) if !self.takes_messages() => Plan::Ignore,
            _ => Plan::Deliver,
        }
    }

    fn keep_and_deliver(&mut self, passing: Passing, origin: Option<Origin>, receipt: Receipt) {
        let Passing { stanza, archive, copies, with, prepare, .. } = passing;
        let owed = self.owed(&stanza, || worth_keeping(&stanza) || is_bounce(&self.host, &stanza));
        let waits = owed == Owed::AnyDevice;
        if archive {
            let before = self.ids.last;
            let mut entry = self.entry(Direction::In, &stanza, &with);
            entry.flags = share::flags(owed, copies);
            let id = self.next_id();
            let mut more = Ops::new();
            if waits && self.offline.is_none() {
                let cursor = offline::Cursor::at(before.unwrap_or_else(|| id.before()));
                offline::set(&mut more, &self.entity, cursor);
                self.offline = Some(cursor);
                metrics::counter!("rookery_offline_stored_total").increment(1);
            }
            if waits {
                self.drains.kept(id);
            }
            let step = if owed.is_live() {
                Step::In { stanza, id: Some(id), owed, copies, kept: Kept::default(), receipt }
            } else {
                Step::Kept { stanza, receipt }
            };
            let more = self.with_hooks(more, prepare, Collection::Archive);
            self.archive(id, entry, origin, more, step);
        } else if owed.is_live() && (self.crowds_all(&stanza) || self.is_late_and_full(&stanza)) {
            match stanza.type_ {
                Type::Message(MessageType::Chat | MessageType::Normal) => {
                    self.refuse_from(origin, &stanza, receipt, &Condition::ResourceConstraint.into());
                }
                _ => receipt.done(), // RFC 6121 section 8.5.2.1.1: headlines and errors may go nowhere
            }
        } else if owed.is_live() {
            let kept = of_room(&stanza, origin, false);
            self.in_order(Step::In { stanza, id: None, owed, copies, kept, receipt });
        } else if !waits {
            receipt.done();
        } else if self.queued >= self.host.options().limits.offline_messages {
            metrics::counter!("rookery_limits_hit_total", "limit" => "offline_messages").increment(1);
            // XEP-0160 section 4
            self.refuse_from(origin, &stanza, receipt, &Condition::ServiceUnavailable.into());
        } else {
            self.queue(stanza, &with, origin, receipt, prepare);
        }
    }

    fn incoming_iq(&mut self, kind: IqType, inbound: Inbound) {
        let Inbound { stanza, receipt, origin, .. } = inbound;
        let Some(from) = stanza.from.clone() else { return receipt.done() };
        if self.taken_before(origin) {
            // The stanza has come by another way, and was answered or handed on; the session may be all that has it.
            let to = stanza.to.clone();
            let session =
                self.sessions.iter().find(|s| to.as_ref().is_some_and(|to| s.jid.as_str() == to.as_str()));
            return match session {
                Some(session) => session.deliver_iq(stanza, receipt, origin, true),
                None => receipt.done(), // the session that had it has ended, and has refused it
            };
        }
        // What is answered here is not remembered: an answer that was lost with the payload it was for is given again, and a
        // client that has had it gets it once (`recent`).
        let request = matches!(kind, IqType::Get | IqType::Set);
        match self.filter(Direction::In, &stanza, &from) {
            Verdict::Pass => {}
            Verdict::Refuse(error) if request => return self.refuse(&stanza, receipt, &error),
            _ => return receipt.done(),
        }
        match stanza.to.as_ref().filter(|to| to.resource().is_some()) {
            Some(to) => match self.sessions.iter().find(|s| s.jid.as_str() == to.as_str()) {
                Some(session) if self.crowds(session, &stanza) => match request {
                    true => self.refuse(&stanza, receipt, &Condition::ResourceConstraint.into()),
                    false => receipt.done(), // nobody answers an answer
                },
                Some(session) => {
                    // Settled when its client has it, or it is safe for a session that sleeps.
                    session.deliver_iq(stanza, receipt, origin, false);
                    self.remember_iq(origin);
                }
                None if request => {
                    self.refuse(&stanza, receipt, &StanzaError::new(Condition::ServiceUnavailable))
                }
                None => receipt.done(),
            },
            None if request => {
                if let Some(receipt) = self.asked_by_component(&stanza, receipt) {
                    self.answer(None, &stanza, receipt);
                }
            }
            None => {
                self.answered_in_name(&stanza); // else nobody here has asked for it
                receipt.done(); // a component that asks gets the answer or hears that there was none
            }
        }
    }
}

/// By which a message of a room is known that no archive has: the session that it is for may be all that has it.
pub(super) fn of_room(stanza: &Stanza, origin: Option<Origin>, again: bool) -> Kept {
    match (stanza.type_, origin) {
        (Type::Message(MessageType::Groupchat), Some(origin)) => Kept::default().of_room(origin, again),
        _ => Kept::default(),
    }
}

enum Plan {
    Deliver,
    Ignore,
    Refuse,
}
