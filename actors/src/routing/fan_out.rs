//! Presence for many: to each node once, with the list of its users there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::wire::{self, What};
use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::host::kind::USER;
use crate::host::names::Address;
use crate::placement::shard_of;

/// Users in one payload.
const MOST: usize = 1_000;

/// A presence on its way to many.
pub(crate) struct FanOut<'a> {
    host: &'a Host,
    stanza: &'a Arc<Stanza>,
    strict: bool,
    away: BTreeMap<NodeId, Vec<String>>,
}

impl<'a> FanOut<'a> {
    /// Nobody yet.
    pub(crate) fn new(host: &'a Host, stanza: &'a Arc<Stanza>, strict: bool) -> Self {
        Self { host, stanza, strict, away: BTreeMap::new() }
    }

    /// One more. A user of this node without sessions costs a look-up.
    pub(crate) fn add(&mut self, user: &BareJid) {
        // Only users are told this way; whoever else is a contact gets a stanza of its own.
        match self.host.resolve(&Jid::from(user.clone())) {
            Address::Entity(USER, _) => {}
            Address::Entity(..) => {
                let stanza = Stanza::clone(self.stanza).to(user.clone());
                return self.host.route(stanza, Receipt::none(), None);
            }
            Address::Host | Address::Remote => return,
        }
        let Some(placement) = self.host.placement() else {
            return self.host.presence_here(USER, user, self.stanza, self.strict);
        };
        let shard = shard_of(user);
        match placement.home(shard) {
            // What could not be delivered before comes before this.
            _ if self.host.is_stalled(shard) => self.host.tell_one(self.stanza, user, self.strict),
            Home::Here { .. } => self.host.presence_here(USER, user, self.stanza, self.strict),
            Home::There { node, .. } => self.away.entry(node).or_default().push(user.as_str().to_owned()),
            Home::Nobody => self.host.tell_one(self.stanza, user, self.strict),
        }
    }

    /// Sends it to the other nodes.
    pub(crate) fn send(self) {
        let Some(placement) = self.host.placement() else { return };
        if self.away.is_empty() {
            return;
        }
        let stanza: Bytes = self.stanza.to_bytes().into();
        for (node, users) in self.away {
            for users in users.chunks(MOST) {
                let payload = wire::FanOut {
                    stanza: stanza.clone(),
                    users: users.to_vec(),
                    strict: self.strict,
                    kind: String::new(),
                };
                let Some(first) = users.first().and_then(|user| BareJid::parse(user).ok()) else { continue };
                let (host, presence, strict) = (self.host.clone(), self.stanza.clone(), self.strict);
                let users: Arc<[String]> = users.into();
                let told_users = users.clone();
                let envelope =
                    Envelope::new(shard_of(&first), 0, Bytes::new(), wire::encode(What::FanOut(payload)));
                let sent = placement.cluster.peers().peer(&node).send(envelope, move |outcome| {
                    let again = match outcome {
                        Outcome::Taken(reply) if reply.is_empty() => return,
                        Outcome::Taken(reply) => wire::Refused::decode(reply).unwrap_or_default().users,
                        _ => told_users.to_vec(),
                    };
                    host.tell_again(&presence, &again, strict);
                });
                if sent.is_err() {
                    self.host.tell_again(self.stanza, &users, self.strict);
                }
            }
        }
    }
}

impl Host {
    /// A presence for one user, wherever that is.
    fn tell_one(&self, stanza: &Arc<Stanza>, user: &BareJid, strict: bool) {
        let users = vec![user.as_str().to_owned()];
        let payload = wire::FanOut { stanza: stanza.to_bytes().into(), users, strict, kind: String::new() };
        let (stanza, user) = (stanza.clone(), user.clone());
        self.send(&user.clone(), What::FanOut(payload), move |host, answer| match answer {
            Ok(reply) if reply.is_empty() => {}
            // The shard has moved in the very moment.
            Ok(_) => host.tell_again(&stanza, &[user.as_str().to_owned()], strict),
            Err(_) => tracing::debug!(%user, "presence could not be delivered"),
        });
    }

    /// Presence that was not taken. Meanwhile it may be another: what is sent is what holds now.
    fn tell_again(&self, stanza: &Arc<Stanza>, users: &[String], strict: bool) {
        let users = users.iter().filter_map(|user| BareJid::parse(user).ok());
        if matches!(stanza.type_, Type::Presence(PresenceType::Probe)) {
            for user in users {
                self.tell_one(stanza, &user, strict);
            }
            return;
        }
        let Some(from) = stanza.from.clone() else { return };
        if self.is_home(&from.to_bare()) {
            return self.retell_here(&from, users.collect());
        }
        // The sender has moved meanwhile: its new home knows what holds.
        let users = users.map(|user| user.as_str().to_owned()).collect();
        let retell = wire::Retell { from: from.as_str().to_owned(), users };
        self.send(&from.to_bare(), What::Retell(retell), |_, _| {});
    }

    /// What `user` is to know of the session `from`: its presence, or that it has none.
    pub(crate) fn retell_one(&self, from: &Jid, user: &BareJid, presence: Option<&Arc<Stanza>>) {
        let gone = || Arc::new(Stanza::new(Type::Presence(PresenceType::Unavailable)).from(from.clone()));
        let stanza = presence.cloned().unwrap_or_else(gone);
        self.tell_one(&stanza, user, false);
    }
}
