//! Presence for which a queue has no room. An error to its sender would help nobody: a user tells presence to all contacts and waits for no answer,
//! and the contact would see for ever what held before. So the queue's owner remembers whose presence whom did not reach, and when there is
//! room asks the sender's home to tell what holds by then.

use std::collections::{HashSet, VecDeque};

use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use crate::connection::ledger::Receipt;
use crate::host::Host;

/// How many are remembered; of more, senders get an error.
const MOST: usize = 1_024;

/// How many are asked for at once.
const AT_ONCE: usize = 256;

/// A presence that was not taken.
#[derive(Clone, PartialEq, Eq, Hash)]
struct One {
    from: Jid,
    to: BareJid,
    probe: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Untold {
    /// In the order in which they came: the first are told first.
    order: VecDeque<One>,
    known: HashSet<One>,
}

impl Untold {
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Remembers a presence for which there is no room; `false` if it is none that would be told again.
    pub(crate) fn remember(&mut self, host: &Host, stanza: &Stanza) -> bool {
        let probe = match stanza.type_ {
            Type::Presence(PresenceType::Available | PresenceType::Unavailable) => false,
            Type::Presence(PresenceType::Probe) => true,
            _ => return false,
        };
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return false };
        // Whoever speaks to one resource, as to a room, waits for the answer.
        if from.resource().is_none() || to.resource().is_some() || !host.serves(from.domain()) {
            return false;
        }
        let one = One { from: from.clone(), to: to.to_bare(), probe };
        let known = self.known.contains(&one);
        if self.order.len() >= MOST && !known {
            return false;
        }
        metrics::counter!("rookery_presence_later_total").increment(1);
        if !known {
            self.known.insert(one.clone());
            self.order.push_back(one);
        }
        true
    }

    /// There is room: some of it is told again.
    pub(crate) fn tell_some(&mut self, host: &Host) {
        let some = self.order.len().min(AT_ONCE);
        for one in self.order.drain(..some) {
            self.known.remove(&one);
            tell(host, one);
        }
    }

    /// The queue's owner goes: the next one hears it.
    pub(crate) fn tell_all(&mut self, host: &Host) {
        self.known.clear();
        std::mem::take(&mut self.order).into_iter().for_each(|one| tell(host, one));
    }
}

fn tell(host: &Host, One { from, to, probe }: One) {
    if probe {
        let probe = Stanza::new(Type::Presence(PresenceType::Probe)).from(from).to(to);
        host.route(probe, Receipt::none(), None);
    } else {
        host.retell_from(&from, vec![to]);
    }
}
