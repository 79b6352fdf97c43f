//! An echo room: occupants join by presence, and each message to the room goes to all of them. The store has the list of occupants, and
//! the messages that not all of them have, so the room goes on after its node has died: no message that was acknowledged is lost or
//! comes twice, and all occupants get all messages in one order.

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
use crate::routing::stored;
use crate::runtime::commit_queue::{Limit, Outcome};
use crate::runtime::origin::{Origin, OriginName};

/// Messages that are known when they come again.
const SEEN: usize = 256;
/// Messages that not all have.
const OPEN: usize = 256;
/// Names of removed occupants that are remembered.
const REMOVED: usize = 64;

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
    #[prost(string, tag = "2")]
    nick: String,
    /// Messages before it joined.
    #[prost(uint32, tag = "3")]
    since: u32,
}

/// A message that not all have.
#[derive(Clone, PartialEq, prost::Message)]
struct Open {
    #[prost(uint32, tag = "1")]
    number: u32,
    /// As it goes to all.
    #[prost(bytes = "bytes", tag = "2")]
    stanza: Bytes,
}

/// See the module. As it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EchoRoom {
    /// Messages so far.
    #[prost(uint32, tag = "2")]
    count: u32,
    #[prost(message, repeated, tag = "3")]
    seen: Vec<Seen>,
    #[prost(message, repeated, tag = "4")]
    occupants: Vec<Occupant>,
    /// The last occupants that were removed since their homes refused a message.
    #[prost(string, repeated, tag = "5")]
    removed: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    open: Vec<Open>,
}

/// What is to go out when it is stored.
pub(crate) struct Step {
    /// As the sender sent it.
    sent: Arc<Stanza>,
    receipt: Receipt,
    echo: Echo,
}

enum Echo {
    /// A presence, and the occupants it goes to.
    Presence(Stanza, Vec<Occupant>),
    /// The message of this number.
    Message(u32),
}

impl EchoRoom {
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

    /// The number of a message that came before.
    fn known(&self, origin: Option<Origin>) -> Option<u32> {
        let Origin { name, number } = origin?;
        let is_it = |seen: &&Seen| (&seen.name[..], seen.n) == (&name.0[..], number);
        self.seen.iter().find(is_it).map(|seen| seen.number)
    }

    /// The number of a new message.
    fn number(&mut self, origin: Option<Origin>, echo: &Stanza) -> u32 {
        self.count = self.count.wrapping_add(1);
        let number = self.count;
        self.open.push(Open { number, stanza: echo.to_bytes().into() });
        self.seen.extend(origin.map(|origin| Seen { name: origin.name.0.into(), n: origin.number, number }));
        self.seen.drain(..self.seen.len().saturating_sub(SEEN));
        number
    }

    /// An occupant comes or goes, and all are told.
    fn change(&mut self, me: &mut Me<Self>, change: Change, stanza: Arc<Stanza>, receipt: Receipt) {
        let (mut to, Change { occupant, joins, removed }) = (self.occupants.clone(), change);
        self.occupants.retain(|other| other.jid != occupant.jid);
        if joins {
            to.retain(|other| other.jid != occupant.jid);
            to.push(occupant.clone());
            self.occupants.push(occupant.clone());
        }
        self.removed.extend(removed.then_some(occupant.jid));
        self.removed.drain(..self.removed.len().saturating_sub(REMOVED));
        let echo =
            if removed { Stanza::new(Type::Presence(PresenceType::Unavailable)) } else { (*stanza).clone() };
        let Ok(from) = me.jid.with_resource(&occupant.nick) else { return receipt.done() };
        let echo = Echo::Presence(echo.from(from), to);
        self.commit(me, Step { sent: stanza, receipt, echo });
    }

    fn send(&self, me: &Me<Self>, number: u32, receipt: Receipt) {
        let open = self.open.iter().find(|open| open.number == number);
        let Some(echo) = open.and_then(|open| stored::stanza(&open.stanza)) else {
            return receipt.done(); // all have it
        };
        let name: [u8; 32] = sha2::Sha256::digest(me.jid.as_str()).into();
        let origin = OriginName::from_slice(name.split_at(16).0).map(|name| Origin::new(name, number));
        let to = self.occupants.iter().filter(|occupant| occupant.since < number);
        broadcast(&me.host, echo, me.reports(receipt, number), origin, to);
    }
}

/// What becomes of an occupant.
struct Change {
    occupant: Occupant,
    joins: bool,
    removed: bool,
}

fn broadcast<'a>(
    host: &Host,
    stanza: Stanza,
    receipt: Receipt,
    origin: Option<Origin>,
    to: impl Iterator<Item = &'a Occupant>,
) {
    let mut broadcast = Broadcast::new(host, Arc::new(stanza), receipt, origin);
    to.filter_map(|occupant| Jid::parse(&occupant.jid).ok()).for_each(|to| broadcast.add(&to));
    broadcast.send();
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

    fn begun(&mut self, me: &mut Me<Self>) {
        self.open.iter().for_each(|open| self.send(me, open.number, Receipt::none()));
    }

    fn take(&mut self, me: &mut Me<Self>, inbound: Inbound) {
        let Inbound { stanza, receipt, origin, .. } = inbound;
        let Some(from) = stanza.from.clone() else { return receipt.done() }; // nobody to answer
        if let Some(number) = self.known(origin) {
            // Its sender may have left since. What is not stored yet is, before all have it.
            return self.commit(me, Step { sent: stanza, receipt, echo: Echo::Message(number) });
        }
        let joined = self.occupants.iter().find(|occupant| occupant.jid == from.as_str()).cloned();
        match (stanza.type_, joined) {
            (Type::Presence(PresenceType::Available), joined) => {
                let Some(nick) = stanza.to.as_ref().and_then(Jid::resource) else { return receipt.done() };
                let since = joined.map_or(self.count, |occupant| occupant.since);
                let occupant = Occupant { jid: from.as_str().to_owned(), nick: nick.to_owned(), since };
                self.change(me, Change { occupant, joins: true, removed: false }, stanza, receipt);
            }
            (Type::Presence(PresenceType::Unavailable), Some(occupant)) => {
                self.change(me, Change { occupant, joins: false, removed: false }, stanza, receipt);
            }
            // What it was sent it has not got: it is no occupant any more.
            (Type::Message(MessageType::Error), Some(occupant)) => {
                self.change(me, Change { occupant, joins: false, removed: true }, stanza, receipt);
            }
            (Type::Message(MessageType::Error) | Type::Presence(_), _) => receipt.done(), // says nothing to a room
            (Type::Message(_), Some(_)) if self.open.len() >= OPEN => {
                me.host.bounce(&stanza, receipt, Condition::ResourceConstraint);
            }
            (Type::Message(_), Some(Occupant { nick, .. })) => {
                let Ok(from) = me.jid.with_resource(&nick) else { return receipt.done() };
                let echo = Stanza::clone(&stanza).from(from);
                let echo = Echo::Message(self.number(origin, &echo));
                self.commit(me, Step { sent: stanza, receipt, echo });
            }
            (Type::Message(_), None) => me.host.bounce(&stanza, receipt, Condition::NotAcceptable),
            (Type::Iq(_), _) => me.host.bounce(&stanza, receipt, Condition::ServiceUnavailable),
        }
    }

    fn settled(&mut self, me: &mut Me<Self>, Step { sent, receipt, echo }: Step, outcome: Outcome) {
        match echo {
            _ if outcome != Outcome::Stored => me.host.bounce(&sent, receipt, Condition::ResourceConstraint),
            Echo::Presence(echo, to) => broadcast(&me.host, echo, receipt, None, to.iter()),
            Echo::Message(number) => self.send(me, number, receipt),
        }
    }

    fn reported(&mut self, _: &mut Me<Self>, number: u32) {
        self.open.retain(|open| open.number != number);
    }

    /// A join wakes a room.
    fn wakes_for_presence(_: &Host, _: &BareJid) -> bool {
        true
    }
}
