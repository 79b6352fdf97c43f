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
        sm.timers.ticked();
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
        self.make_safe(Which::Aged);
        let open =
            |sm: &Sm| sm.unacked.iter().any(|item| item.open(sm.resumable(), false) || item.is_held(sm));
        // While it sleeps there is nobody to be asked.
        let connected = self.pipe.is_some();
        let waiting = self.sm.as_ref().is_some_and(|sm| connected && sm.asked.is_none() || open(sm));
        if waiting {
            self.want_tick();
        }
    }

    /// Something pressing was sent some time ago: make safe what the client has not confirmed of what was sent up to then, in that
    /// order, which is the one of the queue after a restart. What was sent later has its own time.
    pub(super) fn hurry(&mut self) {
        let Some(up_to) = self.sm.as_mut().and_then(|sm| sm.timers.hurried()) else { return };
        self.make_safe(Which::Sent { up_to });
        if let Some(sm) = &mut self.sm {
            sm.hurry_on();
        }
    }

    /// Whatever is open, now: see [`Session::make_safe`].
    pub(super) fn keep_open_messages(&mut self) {
        self.make_safe(Which::All);
    }

    /// What is durable nowhere (nothing is archived) goes into the offline queue if its client takes more than a second or
    /// two (what is pressing: more than a fifth of that), or has gone: only then may its sender's stanza be acknowledged. What
    /// is worth nothing to another device lies there for this session alone, if it can come back. Nobody answers for anything
    /// else, as for what goes to a client without XEP-0198: one that confirms nothing would keep the streams of all senders from
    /// being read.
    fn make_safe(&mut self, which: Which) {
        let gone = self.pipe.is_none();
        let Self { user, sid, ledger, sm: Some(sm), .. } = self else { return };
        let (acked, resumable) = (sm.acked, sm.resumable());
        for (number, item) in (1u32..).zip(sm.unacked.iter_mut()) {
            let number = acked.wrapping_add(number);
            let open = item.open(resumable, gone && which == Which::All);
            let held = !open && item.waits();
            let due = match which {
                Which::All => open,
                Which::Aged => (open || held) && std::mem::replace(&mut item.aged, true),
                Which::Sent { up_to } => (open || held) && up_to.wrapping_sub(number) < u32::MAX / 2,
            };
            if !due {
                continue;
            }
            if is_answer(item.stanza()) {
                item.answers = item.answers.or_else(|| item.receipt.number_in(ledger)); // its receipt goes
            }
            let receipt = std::mem::replace(&mut item.receipt, Receipt::none());
            if held {
                receipt.done(); // sent, as to a client without XEP-0198; a request is refused if the session ends first
                continue;
            }
            item.safe = true;
            let stanza = item.outgoing.stanza.clone();
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
                // Not pressing any more: a store that refuses is not asked in haste.
                (item.safe, item.aged, item.receipt) = (false, true, receipt.pressed(false));
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

/// Which of the open stanzas are made safe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// All of them.
    All,
    /// Those that have waited for a tick already. The others have now.
    Aged,
    /// Those that were sent up to the one with this number, pressing or not.
    Sent { up_to: u32 },
}

impl Unacked {
    /// Whether somebody waits for the client's confirmation alone: the stanza lies nowhere, and is worth nothing when the client has gone.
    fn is_held(&self, sm: &Sm) -> bool {
        self.waits() && !self.open(sm.resumable(), false)
    }

    /// Whether somebody waits until the client has it, or somebody else answers for it.
    fn waits(&self) -> bool {
        !self.safe && !self.answered && self.receipt.is_open()
    }

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
