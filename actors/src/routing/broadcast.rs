//! One stanza for many full or bare JIDs: what a room sends to its occupants, and a user's presence for contacts on other servers. To
//! each node once, with the list of recipients whose home, or whose server's link, is there; the payload is shared, and each
//! recipient gets a start tag of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;

use super::wire::{self, What};
use crate::connection::ledger::Receipt;
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::host::kind::{Inbound, KindId, USER};
use crate::host::names::Address;
use crate::placement::shard_of;
use crate::runtime::origin::{Origin, OriginName};

/// Recipients in one payload.
const MOST: usize = 1_000;

/// A message or a presence on its way to many.
pub(crate) struct Broadcast<'a> {
    host: &'a Host,
    stanza: Arc<Stanza>,
    receipt: Receipt,
    origin: Option<Origin>,
    away: BTreeMap<NodeId, Vec<Jid>>,
}

impl<'a> Broadcast<'a> {
    /// Nobody yet. `receipt` is done when each recipient has the stanza, or its home has it on disk. By `origin` a recipient's
    /// home knows the stanza if it comes again.
    pub(crate) fn new(host: &'a Host, stanza: Arc<Stanza>, receipt: Receipt, origin: Option<Origin>) -> Self {
        Self { host, stanza, receipt, origin, away: BTreeMap::new() }
    }

    /// One more. What lives on this node gets the stanza at once.
    pub(crate) fn add(&mut self, to: &Jid) {
        let Some((_, entity)) = self.host.in_broadcast(&self.stanza, to) else {
            return send_one(self.host, &self.stanza, to, self.receipt.split(), self.origin);
        };
        let shard = shard_of(&entity);
        let home = self.host.placement().map(|placement| placement.home(shard));
        match home {
            // What could not be delivered before comes before this.
            Some(Home::There { node, .. }) if !self.host.is_stalled(shard) => {
                self.away.entry(node).or_default().push(to.clone());
            }
            _ => send_one(self.host, &self.stanza, to, self.receipt.split(), self.origin),
        }
    }

    /// Sends it to the other nodes.
    pub(crate) fn send(self) {
        let Self { host, stanza, receipt, origin, away } = self;
        // Each recipient on this node has a part of the receipt since `add`.
        let Some(placement) = host.placement() else { return receipt.done() };
        let bytes: Bytes = stanza.to_bytes().into();
        for (node, all) in away {
            for some in all.chunks(MOST) {
                let Some(first) = some.first() else { continue };
                let payload = wire::Broadcast {
                    stanza: bytes.clone(),
                    to: some.iter().map(|jid| jid.as_str().to_owned()).collect(),
                    sid: origin.map(|origin| Bytes::copy_from_slice(&origin.name.0)).unwrap_or_default(),
                    n: origin.map_or(0, |origin| origin.number),
                };
                let shard = shard_of(&first.to_bare());
                let envelope = Envelope::new(shard, 0, Bytes::new(), wire::encode(What::Broadcast(payload)));
                let (again, back) = ((host.clone(), stanza.clone(), some.to_vec()), receipt.split());
                let told = move |outcome| {
                    let (host, stanza, some) = again;
                    let refused = match outcome {
                        Outcome::Taken(reply) if reply.is_empty() => return back.done(),
                        Outcome::Taken(reply) => {
                            let users = wire::Refused::decode(reply).unwrap_or_default().users;
                            users.iter().filter_map(|jid| Jid::parse(jid).ok()).collect()
                        }
                        _ => some,
                    };
                    refused.iter().for_each(|to| send_one(&host, &stanza, to, back.split(), origin));
                    back.done();
                };
                if let Err(refused) = placement.cluster.peers().peer(&node).send(envelope, told) {
                    // As lost: each recipient is looked for by itself.
                    tracing::debug!(%node, why = %refused.why, "a stanza for many goes to each by itself");
                    (refused.on_outcome)(Outcome::Lost);
                }
            }
        }
        receipt.done(); // each recipient, and each node, has a part of its own
    }
}

fn send_one(host: &Host, stanza: &Arc<Stanza>, to: &Jid, receipt: Receipt, origin: Option<Origin>) {
    host.route(Stanza::clone(stanza).to(to.clone()), receipt, origin);
}

impl Host {
    /// The actor for whom a recipient goes into one payload with others: a user, or the link to the recipient's server.
    fn in_broadcast(&self, stanza: &Stanza, to: &Jid) -> Option<(KindId, BareJid)> {
        match self.resolve(to) {
            Address::Entity(USER, user) => Some((USER, user)),
            Address::Remote => self.link_of(stanza.from.as_ref()?, to),
            Address::Entity(..) | Address::Host => None,
        }
    }

    /// A stanza for many from another node. What is not at home here goes back.
    pub(crate) fn take_broadcast(&self, broadcast: &wire::Broadcast, reply: Reply) {
        let Some(stanza) = super::stored::stanza(&broadcast.stanza) else { return reply.taken() };
        let origin = OriginName::from_slice(&broadcast.sid).map(|name| Origin::new(name, broadcast.n));
        let (mut here, mut users) = (Vec::new(), Vec::new());
        for to in broadcast.to.iter().filter_map(|to| Jid::parse(to).ok()) {
            match self.in_broadcast(&stanza, &to).filter(|(_, entity)| self.is_home(entity)) {
                Some((kind, entity)) => here.push((kind, entity, to)),
                None => users.push(to.as_str().to_owned()),
            }
        }
        let refused = wire::Refused { users, outdated: false };
        let answer = if refused.users.is_empty() { Bytes::new() } else { refused.encode_to_vec().into() };
        let receipt = Receipt::owed_with(reply, answer);
        for (kind, entity, to) in here {
            let stanza = Arc::new(stanza.clone().to(to));
            let inbound = Inbound { stanza, receipt: receipt.split(), origin, change: None };
            self.to_entity_here(kind, &entity, inbound);
        }
        receipt.done(); // each recipient has a part of its own
    }
}
