//! An echo room: occupants join by presence, and each message to the room goes to all of them. The store has the list of occupants, so the
//! room goes on after its node has died, and no message that was acknowledged is lost or comes twice.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::entity::Entity as Name;
use rookery_cluster::store::{self, Fut, Ops};
use rookery_cluster::tables::vcard as row;
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{MessageType, PresenceType, Stanza, Type};
use sha2::Digest as _;

use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::host::entity::{Logic, Me};
use crate::host::kind::Inbound;
use crate::routing::broadcast::Broadcast;
use crate::runtime::commit_queue::{Limit, Outcome};
use crate::runtime::origin::{Origin, OriginName};

/// Messages that are known when they come again.
const SEEN: usize = 256;

/// A message, and the number that the room gave it.
#[derive(Clone, PartialEq, prost::Message)]
struct Seen {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(uint32, tag = "2")]
    n: u32,
    #[prost(uint32, tag = "3")]
    number: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Occupant {
    #[prost(string, tag = "1")]
    jid: String,
}

/// See the module. As it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EchoRoom {
    #[prost(message, repeated, tag = "4")]
    occupants: Vec<Occupant>,
    /// The last occupants that were removed since their homes refused an echo.
    #[prost(string, repeated, tag = "5")]
    removed: Vec<String>,
    /// Messages so far.
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(message, repeated, tag = "3")]
    seen: Vec<Seen>,
}

/// A stanza that goes to these occupants.
pub(crate) struct Step {
    /// As the sender sent it.
    sent: Arc<Stanza>,
    echo: Stanza,
    to: Vec<String>,
    receipt: Receipt,
    number: Option<u32>,
}

impl EchoRoom {
    fn all(&self) -> Vec<String> {
        self.occupants.iter().map(|o| o.jid.clone()).collect()
    }

    fn commit(&self, me: &mut Me<Self>, step: Step) {
        let mut ops = Ops::new();
        let bytes = Bytes::from(self.encode_to_vec());
        let refused = match row::put(&mut ops, &me.name, &bytes) {
            Ok(()) => me.commit(ops, step).err(),
            Err(_) => Some(step),
        };
        if let Some(Step { sent, receipt, .. }) = refused {
            me.host.bounce(&sent, receipt, Condition::ResourceConstraint);
        }
    }

    /// The number of a message; that of its first time, if it came before.
    fn number(&mut self, origin: Option<Origin>) -> u32 {
        let is_it = |seen: &&Seen| {
            origin.is_some_and(|origin| (&seen.name[..], seen.n) == (&origin.name.0[..], origin.number))
        };
        if let Some(seen) = self.seen.iter().find(is_it) {
            return seen.number;
        }
        self.count = self.count.wrapping_add(1);
        let number = self.count;
        self.seen.extend(origin.map(|origin| Seen { name: origin.name.0.into(), n: origin.number, number }));
        self.seen.drain(..self.seen.len().saturating_sub(SEEN));
        number
    }
}

impl Logic for EchoRoom {
    const KIND: &'static str = "echo-room";
    const LIMIT: &'static Limit = &Limit { name: "echo_room", steps: 512 };
    type Step = Step;

    fn load<'a>(host: &'a Host, name: &'a Name) -> Fut<'a, store::Result<Option<Self>>> {
        Box::pin(async move {
            let read = host.store().read(|tx| {
                let name = name.clone();
                Box::pin(async move { row::get(&mut **tx, &name).await })
            });
            Ok(Some(read.await?.and_then(|row| Self::decode(row).ok()).unwrap_or_default()))
        })
    }

    fn take(&mut self, me: &mut Me<Self>, inbound: Inbound) {
        let Inbound { stanza, receipt, origin, .. } = inbound;
        let Some(from) = stanza.from.clone() else { return receipt.done() }; // nobody to answer
        let Ok(occupant) = me.jid.with_resource(from.resource().unwrap_or_default()) else {
            return receipt.done(); // no occupant is called so
        };
        let (joined, to) =
            (self.occupants.iter().any(|other| other.jid == from.as_str()), self.all());
        let echo = Stanza::clone(&stanza).from(occupant);
        match stanza.type_ {
            Type::Presence(PresenceType::Available) => {
                if !joined {
                    self.occupants.push(Occupant { jid: from.as_str().to_owned() });
                }
                let to = self.all();
                self.commit(me, Step { sent: stanza, echo, to, receipt, number: None });
            }
            Type::Presence(PresenceType::Unavailable) if joined => {
                self.occupants.retain(|other| other.jid != from.as_str());
                self.commit(me, Step { sent: stanza, echo, to, receipt, number: None });
            }
            Type::Message(MessageType::Error) if joined => {
                self.occupants.retain(|other| other.jid != from.as_str());
                self.removed.push(from.as_str().to_owned());
                let gone = Stanza::new(Type::Presence(PresenceType::Unavailable)).from(echo.from.unwrap());
                self.commit(me, Step { sent: stanza, echo: gone, to, receipt, number: None });
            }
            Type::Message(MessageType::Error) | Type::Presence(_) => receipt.done(), // says nothing to a room
            Type::Message(_) if joined => {
                // One that came before may not have come to all: they know it by its number.
                let number = Some(self.number(origin));
                self.commit(me, Step { sent: stanza, echo, to, receipt, number });
            }
            Type::Message(_) => me.host.bounce(&stanza, receipt, Condition::NotAcceptable),
            Type::Iq(_) => me.host.bounce(&stanza, receipt, Condition::ServiceUnavailable),
        }
    }

    fn settled(&mut self, me: &mut Me<Self>, step: Step, outcome: Outcome) {
        let Step { sent, echo, to, receipt, number } = step;
        if outcome != Outcome::Stored {
            return me.host.bounce(&sent, receipt, Condition::ResourceConstraint);
        }
        let name: [u8; 32] = sha2::Sha256::digest(me.jid.as_str()).into();
        let origin = OriginName::from_slice(name.split_at(16).0).zip(number);
        let origin = origin.map(|(name, number)| Origin::new(name, number));
        let mut broadcast = Broadcast::new(&me.host, Arc::new(echo), receipt, origin);
        to.iter().filter_map(|to| Jid::parse(to).ok()).for_each(|to| broadcast.add(&to));
        broadcast.send();
    }

    /// A join wakes a room.
    fn wakes_for_presence(_: &Host, _: &BareJid) -> bool {
        true
    }
}
