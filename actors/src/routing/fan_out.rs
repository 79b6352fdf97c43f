//! Presence for many: to each node once, with the list of its users there.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rookery_cluster::mesh::Home;
use rookery_cluster::mesh::peer::{Envelope, NodeId, Outcome};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::broadcast::Broadcast;
use super::wire::{self, What};
use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::host::kind::USER;
use crate::host::options::Options;
use crate::placement::shard_of;

/// Users in one payload.
const MOST: usize = 1_000;

/// A presence on its way to many.
pub(crate) struct FanOut<'a> {
    host: &'a Host,
    stanza: &'a Arc<Stanza>,
    strict: bool,
    options: Arc<Options>,
    /// The domain of the user whose presence it is, if its users live here: that of most contacts.
    own: Option<&'a str>,
    /// The contacts without an account here.
    elsewhere: Broadcast<'a>,
    away: BTreeMap<NodeId, Vec<String>>,
}

impl<'a> FanOut<'a> {
    /// Nobody yet.
    pub(crate) fn new(host: &'a Host, stanza: &'a Arc<Stanza>, strict: bool) -> Self {
        let options = host.options();
        let own = stanza.from.as_ref().map(Jid::domain).filter(|own| options.domain(own).is_some());
        let elsewhere = Broadcast::new(host, stanza.clone(), Receipt::none(), None);
        Self { host, stanza, strict, options, own, elsewhere, away: BTreeMap::new() }
    }

    /// One more. A user of this node without sessions costs a look-up.
    pub(crate) fn add(&mut self, user: &BareJid) {
        // Only users are told this way. A contact elsewhere, or behind a service, gets a stanza of its own, which shares the payload.
        if self.own != Some(user.domain()) && self.options.domain(user.domain()).is_none() {
            let user = Jid::from(user.clone());
            // Nobody is told, at each presence, which servers are not spoken with.
            if self.host.reaches(&user) {
                self.elsewhere.add(&user);
            }
            return;
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
        self.elsewhere.send();
        if self.away.is_empty() {
            return;
        }
        let stanza: Bytes = self.stanza.to_bytes().into();
        let epoch = self.host.epoch_of(self.stanza);
        for (node, users) in self.away {
            for users in users.chunks(MOST) {
                let payload = wire::FanOut {
                    stanza: stanza.clone(),
                    users: users.to_vec(),
                    strict: self.strict,
                    kind: String::new(),
                    epoch,
                };
                let Some(first) = users.first().and_then(|user| BareJid::parse(user).ok()) else { continue };
                let (host, presence, strict) = (self.host.clone(), self.stanza.clone(), self.strict);
                let users: Arc<[String]> = users.into();
                let told_users = users.clone();
                let envelope =
                    Envelope::new(shard_of(&first), 0, Bytes::new(), wire::encode(What::FanOut(payload)));
                let sent =
                    placement.cluster.peers().peer(&node).send(envelope, move |outcome| match outcome {
                        Outcome::Taken(reply) => host.refused(&presence, epoch, reply, strict),
                        _ => host.tell_again(&presence, &told_users, strict),
                    });
                if sent.is_err() {
                    self.host.tell_again(self.stanza, &users, self.strict);
                }
            }
        }
    }
}

impl Host {
    /// The home of the user whose presence it is, as far as this node knows.
    fn home_of(&self, stanza: &Stanza) -> Option<Home> {
        Some(self.placement()?.home(shard_of(&stanza.from.as_ref()?.to_bare())))
    }

    /// The epoch of the shard of the user whose presence it is, if this node is its home; else 0.
    fn epoch_of(&self, stanza: &Stanza) -> u32 {
        match self.home_of(stanza) {
            Some(Home::Here { epoch }) => epoch.0,
            _ => 0,
        }
    }

    /// Whether a presence comes from a home of a former epoch: a node that was cut off, and does not know yet that others have its
    /// shards, says what held before.
    pub(crate) fn is_outdated(&self, stanza: &Stanza, epoch: u32) -> bool {
        // A probe is answered wherever its session is by then.
        if epoch == 0 || matches!(stanza.type_, Type::Presence(PresenceType::Probe)) {
            return false;
        }
        match self.home_of(stanza) {
            Some(Home::Here { epoch: now } | Home::There { epoch: now, .. }) => now.0 > epoch,
            _ => false,
        }
    }

    /// A presence for one user, wherever that is.
    fn tell_one(&self, stanza: &Arc<Stanza>, user: &BareJid, strict: bool) {
        let (users, epoch) = (vec![user.as_str().to_owned()], self.epoch_of(stanza));
        let payload =
            wire::FanOut { stanza: stanza.to_bytes().into(), users, strict, kind: String::new(), epoch };
        let (stanza, user) = (stanza.clone(), user.clone());
        self.send(&user.clone(), What::FanOut(payload), move |host, answer| match answer {
            Ok(reply) => host.refused(&stanza, epoch, reply, strict),
            Err(_) => tracing::debug!(%user, "presence could not be delivered"),
        });
    }

    /// What became of a presence at a node that took it for its users: some of them may live elsewhere by now.
    fn refused(&self, stanza: &Arc<Stanza>, epoch: u32, reply: Bytes, strict: bool) {
        if reply.is_empty() {
            return;
        }
        let refused = wire::Refused::decode(reply).unwrap_or_default();
        if refused.outdated && epoch != 0 && self.epoch_of(stanza) == epoch {
            return; // this node is about to hear that it is not the home any more
        }
        self.tell_again(stanza, &refused.users, strict);
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
        self.retell_from(&from, users.collect());
    }

    /// Has the home of a session tell these users, who did not hear its presence, what holds now.
    pub(crate) fn retell_from(&self, from: &Jid, users: Vec<BareJid>) {
        if self.is_home(&from.to_bare()) {
            return self.retell_here(from, users);
        }
        let users = users.iter().map(|user| user.as_str().to_owned()).collect();
        let retell = wire::Retell { from: from.as_str().to_owned(), users };
        self.send(&from.to_bare(), What::Retell(retell), |_, _| {});
    }

    /// What `user` is to know of the session `from`: its presence, or that it has none.
    pub(crate) fn retell_one(&self, from: &Jid, user: &BareJid, presence: Option<&Arc<Stanza>>) {
        let gone = || Arc::new(Stanza::new(Type::Presence(PresenceType::Unavailable)).from(from.clone()));
        let stanza = presence.cloned().unwrap_or_else(gone);
        if self.is_foreign(user.domain()) {
            return self.route(Stanza::clone(&stanza).to(user.clone()), Receipt::none(), None);
        }
        self.tell_one(&stanza, user, false);
    }
}
