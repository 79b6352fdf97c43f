//! What a client sends again although it has its answer, or will get that. A client must send again whatever lies behind the `h`
//! of `<resumed/>` (XEP-0198 section 5), and where a stanza was lost inside the server, that may be less than what was answered.
//! A message that was refused would be refused a second time.

use std::sync::Arc;

use rookery_proto::xmpp::stanza::{Stanza, Type};

use super::safe::is_answer;
use super::sm::{Sm, Unacked};
use super::{Event, Session};
use crate::connection::ledger::{Ledger, Receipt};

/// An answer to one of the client's stanzas, which may come again.
pub(super) struct Answered {
    /// The number of that stanza.
    number: u32,
    answer: Arc<Stanza>,
}

/// Whether `number` is among the first `h`. Numbers wrap (XEP-0198 section 4).
fn covers(h: u32, number: u32) -> bool {
    h.wrapping_sub(number) < u32::MAX / 2
}

/// Whether the two are a stanza and its answer, given that their number is the same. A client may send something else in the
/// place of what was lost.
fn belong(answer: &Stanza, stanza: &Stanza) -> bool {
    let kind = matches!(
        (answer.type_, stanza.type_),
        (Type::Iq(_), Type::Iq(_)) | (Type::Message(_), Type::Message(_))
    );
    kind && answer.id == stanza.id
}

impl Unacked {
    /// The number of the client's stanza that this answers, if it does.
    pub(super) fn answers(&self, ledger: &Arc<Ledger>) -> Option<u32> {
        let number = || self.answers.or_else(|| self.receipt.number_in(ledger));
        is_answer(self.stanza()).then(number).flatten()
    }
}

impl Sm {
    /// The client will be told that `told` of its stanzas are settled, by another ledger than this: remembers which of those behind
    /// are answered by what the client has not confirmed.
    pub(super) fn note_answered(&mut self, ledger: &Arc<Ledger>, told: u32) {
        self.answered.retain(|known| !covers(told, known.number));
        for item in &self.unacked {
            let number = item.answers(ledger).filter(|number| !covers(told, *number));
            if let Some(number) = number
                && self.answered.iter().all(|known| known.number != number)
            {
                self.answered.push(Answered { number, answer: item.outgoing.stanza.clone() });
            }
        }
    }

    /// The answer to a stanza of the client that has come again.
    fn take_answer(&mut self, stanza: &Stanza, number: u32) -> Option<Arc<Stanza>> {
        let at = self.answered.iter().position(|known| known.number == number)?;
        let known = self.answered.swap_remove(at);
        belong(&known.answer, stanza).then_some(known.answer)
    }
}

impl Session {
    /// The receipt of a stanza of the client, unless that has come again and is answered: then it is settled as soon as the answer
    /// is safe, and nothing more may be done with it.
    pub(super) fn unless_answered(&mut self, stanza: &Stanza, receipt: Receipt) -> Option<Receipt> {
        let Some(sm) = &mut self.sm else { return Some(receipt) };
        if sm.answered.is_empty() {
            return Some(receipt);
        }
        let Some(answer) = sm.take_answer(stanza, receipt.number()) else { return Some(receipt) };
        let its = |item: &&mut Unacked| Arc::ptr_eq(&item.outgoing.stanza, &answer);
        match sm.unacked.iter_mut().find(its) {
            Some(item) if item.safe => self.tell(Event::QueuedAgain { stanza: answer, receipt }),
            Some(item) => {
                std::mem::replace(&mut item.receipt, receipt).done();
                self.want_tick();
            }
            None => receipt.done(), // its client has confirmed it
        }
        None
    }
}
