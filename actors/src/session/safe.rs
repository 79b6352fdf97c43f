//! What a session was handed and is durable nowhere: nothing of it may be called handled until its client has it, or until it
//! lies in the offline queue.

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::stanza::{IqType, MessageType, Stanza, Type};

use super::Session;
use super::event::{Event, Unsafe};
use super::sm::{Sm, Unacked};
use super::worth::{worth_keeping, worth_telling};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;

impl Session {
    /// A second after something was sent: ask whether it has arrived, and make safe what has not.
    pub(super) fn tick(&mut self) {
        let Some(sm) = &mut self.sm else { return };
        sm.ticked();
        if self.enabling.is_some() {
            // The store has not answered yet, or refused.
            self.write_record();
            self.want_tick();
        }
        let Some(sm) = &mut self.sm else { return };
        if sm.unacked.is_empty() {
            return;
        }
        if sm.asked.is_none() {
            self.request_ack();
        }
        self.keep_open_messages(false);
        let open = |sm: &Sm| sm.unacked.iter().any(|item| item.open(sm.resumable(), false));
        let waiting = self.sm.as_ref().is_some_and(|sm| sm.asked.is_none() || open(sm));
        if waiting {
            self.want_tick();
        }
    }

    /// What is durable nowhere (nothing is archived) goes into the offline queue if its client takes more than a second or
    /// two, or has gone: only then may its sender's stanza be acknowledged. What is worth nothing to another device lies there
    /// for this session alone, if it can come back.
    pub(super) fn keep_open_messages(&mut self, now: bool) {
        let gone = self.pipe.is_none();
        let Self { user, sid, ledger, sm: Some(sm), .. } = self else { return };
        let (acked, resumable) = (sm.acked, sm.resumable());
        for (number, item) in (1u32..).zip(sm.unacked.iter_mut()) {
            if !item.open(resumable, gone && now) {
                continue;
            }
            if !item.aged && !now {
                item.aged = true;
                continue;
            }
            item.safe = true;
            if is_answer(item.stanza()) {
                item.answers = item.answers.or_else(|| item.receipt.number_in(ledger)); // its receipt goes
            }
            let receipt = std::mem::replace(&mut item.receipt, Receipt::none());
            let (stanza, number) = (item.outgoing.stanza.clone(), acked.wrapping_add(number));
            let origin = item.kept.origin();
            let event = Event::Unsafe(Box::new(Unsafe { number, stanza, origin, receipt }));
            let _ = user.tell_always(*sid, event);
        }
    }

    pub(super) fn kept(&mut self, number: u32, id: ArchiveId) {
        let Some(sm) = &mut self.sm else { return };
        let at = number.wrapping_sub(sm.acked).wrapping_sub(1);
        match sm.unacked.get_mut(at as usize) {
            // Put there by this home, or by the last one, whose client has not confirmed it.
            Some(item) if item.safe || item.is_nowhere() => {
                item.safe = true;
                item.kept.set_queued(Some(id));
                self.tell_more();
            }
            _ => {
                // The client has confirmed it meanwhile.
                self.unqueue(&[id]);
            }
        }
    }

    /// More of what is settled may be told, if somebody waits for that.
    pub(super) fn tell_more(&mut self) {
        if std::mem::take(&mut self.settle_waits) {
            self.write_cursor();
        }
    }

    /// A stanza of the client is settled by what its session was told last. If that is an answer that lies nowhere, the record
    /// says so only when the client has it: after a crash of the server the client asks again.
    pub(super) fn settle_told(&mut self, receipt: Receipt) {
        let number = receipt.number_in(&self.ledger);
        let sm = self.sm.as_mut().filter(|sm| sm.resumable() && number.is_some());
        let last = sm.and_then(|sm| sm.unacked.back_mut()).filter(|item| item.is_nowhere());
        if let Some(item) = last.filter(|item| is_answer(stanza_of(&item.outgoing))) {
            item.answers = item.answers.or(number);
            self.want_tick();
        }
        receipt.done();
    }

    /// The client answers a request: should the session end before it is confirmed, nobody else answers.
    pub(super) fn note_answer(&mut self, answer: &Stanza) {
        let (Type::Iq(IqType::Result | IqType::Error), Some(sm)) = (answer.type_, &mut self.sm) else {
            return;
        };
        let asked = |item: &&mut Unacked| {
            let stanza = &item.outgoing.stanza;
            let request = matches!(stanza.type_, Type::Iq(IqType::Get | IqType::Set));
            request && stanza.id == answer.id && stanza.from == answer.to
        };
        if let Some(item) = sm.unacked.iter_mut().find(asked) {
            item.answered = true;
            // The requester has nothing to send again: the answer is on its way.
            std::mem::replace(&mut item.receipt, Receipt::none()).done();
        }
    }

    /// A stanza could not be put into the offline queue: it is tried again.
    pub(super) fn not_kept(&mut self, number: u32, receipt: Receipt) {
        let Some(sm) = &mut self.sm else { return };
        let at = number.wrapping_sub(sm.acked).wrapping_sub(1);
        match sm.unacked.get_mut(at as usize) {
            Some(item) if item.safe => {
                (item.safe, item.receipt) = (false, receipt);
                item.kept.set_queued(None);
                self.want_tick();
            }
            _ => receipt.done(), // its client has confirmed it meanwhile
        }
    }

    /// The client has what lies in the offline queue under these ids.
    pub(super) fn unqueue(&self, ids: &[ArchiveId]) {
        if !ids.is_empty() {
            self.tell(Event::Unqueue(ids.to_vec()));
        }
    }
}

fn is_answer(stanza: &Stanza) -> bool {
    matches!(stanza.type_, Type::Iq(IqType::Result | IqType::Error) | Type::Message(MessageType::Error))
}

impl Unacked {
    /// Whether the stanza is durable nowhere.
    pub(super) fn is_nowhere(&self) -> bool {
        self.kept.is_nowhere()
    }

    /// A stanza that is durable nowhere and that somebody waits for, or, if its client has `gone`, would miss.
    pub(super) fn open(&self, resumable: bool, gone: bool) -> bool {
        let stanza = stanza_of(&self.outgoing);
        !self.safe
            && !self.answered
            && self.is_nowhere()
            && (self.receipt.is_open() || self.answers.is_some() || gone)
            && (worth_keeping(stanza) || resumable && worth_telling(stanza))
    }
}

fn stanza_of(outgoing: &Outgoing) -> &Stanza {
    &outgoing.stanza
}
