//! One stanza for many full or bare JIDs: what a room sends to its occupants. To each node once, with the list of recipients there;
//! the payload is shared, and each recipient gets a start tag of its own.
//!
//! To each recipient it is as if the stanza had gone by itself: it has its place in the queue of the recipient's shard, so nothing
//! that is sent later overtakes it, and goes by itself where its home has changed, or is an older node.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;

use super::shard_queue::{Body, Entered};
use super::wire::{self, What};
use crate::connection::ledger::Receipt;
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::host::kind::{Inbound, USER};
use crate::host::names::Address;
use crate::placement::shard_of;
use crate::runtime::origin::{Origin, OriginName};

/// Recipients in one payload.
const MOST: usize = 1_000;

/// A recipient whose home has been found.
struct Part {
    to: Jid,
    entered: Entered,
}

/// A message on its way to many.
pub(crate) struct Broadcast<'a> {
    host: &'a Host,
    stanza: Arc<Stanza>,
    receipt: Receipt,
    origin: Option<Origin>,
    parts: BTreeMap<NodeId, Vec<Part>>,
}

impl<'a> Broadcast<'a> {
    /// Nobody yet. `receipt` is done when each recipient has the stanza, or its home has it on disk, or has refused it. By `origin` a
    /// recipient's home knows the stanza if it comes again.
    pub(crate) fn new(host: &'a Host, stanza: Arc<Stanza>, receipt: Receipt, origin: Option<Origin>) -> Self {
        Self { host, stanza, receipt, origin, parts: BTreeMap::new() }
    }

    /// One more.
    pub(crate) fn add(&mut self, to: &Jid) {
        let (host, receipt) = (self.host, self.receipt.split());
        // A link to another server gets each by itself, as that server does.
        let (Address::Entity(USER, user), Some(_)) = (host.resolve(to), host.placement()) else {
            let origin = self.origin.map(|origin| origin.for_one(to));
            return host.route(Stanza::clone(&self.stanza).to(to.clone()), receipt, origin);
        };
        let (stanza, recipient) = (self.stanza.clone(), to.clone());
        let then = move |host: &Host, answer| match answer {
            Ok(ref bytes) if Bytes::is_empty(bytes) => receipt.done(),
            answer => host.arrived(&Stanza::clone(&stanza).to(recipient), receipt, answer),
        };
        let body = Body::One { stanza: self.stanza.clone(), to: to.clone(), origin: self.origin };
        let Some(entered) = host.enter_queue(&user, body, then) else { return };
        if host.node_knows(&entered.target.0, |knows| knows.payload(wire::BROADCAST)) {
            let node = entered.target.0.clone();
            self.parts.entry(node).or_default().push(Part { to: to.clone(), entered });
        } else {
            host.launch(entered);
        }
    }

    /// Sends it.
    pub(crate) fn send(self) {
        let Self { host, stanza, receipt, origin, parts } = self;
        if let Some(placement) = host.placement() {
            let mut bytes = Bytes::new();
            for (node, mut all) in parts {
                if node == *placement.cluster.mesh().node() {
                    all.into_iter().for_each(|part| here(host, &stanza, origin, part));
                    continue;
                }
                if bytes.is_empty() {
                    bytes = stanza.to_bytes().into();
                }
                while !all.is_empty() {
                    let rest = all.split_off(all.len().min(MOST));
                    away(host, &node, &bytes, origin, std::mem::replace(&mut all, rest));
                }
            }
        }
        receipt.done(); // each recipient has a part of its own
    }
}

/// To a user of this node.
fn here(host: &Host, stanza: &Arc<Stanza>, origin: Option<Origin>, Part { to, entered }: Part) {
    let (told, user) = (host.clone(), to.to_bare());
    let receipt = Receipt::owed(Reply::here(move |outcome| told.landed(entered, outcome)), false);
    let origin = origin.map(|origin| origin.for_one(&to));
    let stanza = Arc::new(Stanza::clone(stanza).to(to));
    host.to_entity_here(USER, &user, Inbound { stanza, receipt, origin, change: None });
}

/// To users of another node.
fn away(host: &Host, node: &NodeId, stanza: &Bytes, origin: Option<Origin>, parts: Vec<Part>) {
    let Some((first, placement)) = parts.first().zip(host.placement()) else { return };
    let shard = shard_of(&first.to.to_bare());
    let payload = wire::Broadcast {
        stanza: stanza.clone(),
        to: parts.iter().map(|part| part.to.as_str().to_owned()).collect(),
        sid: origin.map(|origin| Bytes::copy_from_slice(&origin.name.0)).unwrap_or_default(),
        n: origin.map_or(0, |origin| origin.number),
        epochs: parts.iter().map(|part| u32::try_from(part.entered.target.1).unwrap_or(0)).collect(),
    };
    let envelope = Envelope::new(shard, 0, Bytes::new(), wire::encode(What::Broadcast(payload)));
    let back = host.clone();
    let told = move |outcome| {
        let answer = match outcome {
            Outcome::Taken(reply) => wire::Refused::decode(reply).ok().filter(|answer| answer.understood),
            Outcome::NotOwner { .. } | Outcome::Lost => None,
        };
        for Part { to, entered } in parts {
            let taken =
                answer.as_ref().is_some_and(|answer| !answer.users.iter().any(|user| user == to.as_str()));
            back.landed(entered, if taken { Outcome::Taken(Bytes::new()) } else { Outcome::Lost });
        }
    };
    if let Err(refused) = placement.cluster.peers().peer(node).send(envelope, told) {
        // As lost: each recipient is looked for by itself.
        tracing::debug!(%node, why = %refused.why, "a stanza for many goes to each by itself");
        (refused.on_outcome)(Outcome::Lost);
    }
}

/// The answer to a stanza for many, which is given when each recipient has taken it or has not.
struct Answer {
    reply: Mutex<Option<Reply>>,
    refused: Mutex<Vec<String>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let users = std::mem::take(&mut *self.refused.lock());
        let answer = wire::Refused { users, outdated: false, understood: true };
        if let Some(reply) = self.reply.lock().take() {
            reply.answer(answer.encode_to_vec().into());
        }
    }
}

impl Host {
    /// A stanza for many from another node. What is not at home here goes back.
    pub(crate) fn take_broadcast(
        &self,
        from: &NodeId,
        generation: u64,
        broadcast: wire::Broadcast,
        reply: Reply,
    ) {
        let Some((stanza, placement)) = super::stored::stanza(&broadcast.stanza).zip(self.placement()) else {
            return reply.taken();
        };
        let origin = OriginName::from_slice(&broadcast.sid).map(|name| Origin::new(name, broadcast.n));
        let answer = Arc::new(Answer { reply: Mutex::new(Some(reply)), refused: Mutex::default() });
        for (name, epoch) in broadcast.to.into_iter().zip(broadcast.epochs) {
            let Ok(to) = Jid::parse(&name) else { continue };
            let user = to.to_bare();
            let origin = origin.map(|origin| origin.for_one(&to));
            let stanza = stanza.clone().to(to);
            let part = answer.clone();
            let reply = Reply::here(move |outcome| {
                if !matches!(outcome, Outcome::Taken(_)) {
                    part.refused.lock().push(name);
                }
            });
            self.take_part(
                from,
                generation,
                (&user, epoch),
                (stanza, origin),
                reply,
                &placement.home(shard_of(&user)),
            );
        }
    }

    /// The part of one recipient: as any stanza for that user.
    fn take_part(
        &self,
        from: &NodeId,
        generation: u64,
        (user, epoch): (&BareJid, u32),
        (stanza, origin): (Stanza, Option<Origin>),
        reply: Reply,
        home: &Home,
    ) {
        let shard = shard_of(user);
        if self.is_early(shard, epoch.into()) {
            let what = What::In(wire::to_one(user, &stanza, origin));
            if let Some((_, reply)) = self.early(from, generation, (shard, epoch.into()), what, reply) {
                reply.not_here(0, None);
            }
        } else if matches!(home, Home::Here { .. }) {
            let (stanza, receipt) = (Arc::new(stanza), Receipt::owed(reply, false));
            self.to_entity_here(USER, user, Inbound { stanza, receipt, origin, change: None });
        } else {
            reply.not_here(0, None);
        }
    }
}
