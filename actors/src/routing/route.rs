//! Stanzas on their way: to whatever their address says, on this node or another, and errors on their way back.

use std::sync::Arc;

use bytes::Bytes;
use rookery_cluster::mesh::Home;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::shard_queue::Failed;
use super::wire::{self, What};
use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::host::kind::{Inbound, KindId, LINK, PlacedActor, USER};
use crate::host::names::Address;
use crate::host::pair::Pair;
use crate::placement::shard_of;
use crate::runtime::origin::Origin;

/// Whether a presence is about a subscription, and so concerns a user's roster.
fn asks(presence: PresenceType) -> bool {
    match presence {
        PresenceType::Subscribe
        | PresenceType::Subscribed
        | PresenceType::Unsubscribe
        | PresenceType::Unsubscribed
        | PresenceType::Probe => true,
        PresenceType::Available | PresenceType::Unavailable | PresenceType::Error => false,
    }
}

impl Host {
    /// Sends a stanza to where its `to` says. One without `to` goes nowhere.
    pub(crate) fn route(&self, stanza: Stanza, receipt: Receipt, origin: Option<Origin>) {
        self.route_from(Arc::new(stanza), receipt, origin);
    }

    /// The same for a shared stanza.
    pub(crate) fn route_from(&self, stanza: Arc<Stanza>, receipt: Receipt, origin: Option<Origin>) {
        let Some(to) = stanza.to.as_ref() else { return receipt.done() }; // nobody is meant
        match self.resolve(to) {
            Address::Entity(kind, entity) => {
                let inbound = Inbound { stanza, receipt, origin, change: None };
                self.to_entity(kind, &entity, inbound);
            }
            // Nobody lives at a resource of the host.
            Address::Host if to.resource().is_some() => {
                self.bounce(&stanza, receipt, Condition::ServiceUnavailable);
            }
            // What a user's session asks the host is answered before it comes here.
            Address::Host => self.kinds().ask_host(self, &stanza, receipt),
            Address::Remote => self.to_remote(stanza, receipt, origin),
        }
    }

    /// To another server: to the link of the two domains, if this deployment speaks with that server.
    fn to_remote(&self, stanza: Arc<Stanza>, receipt: Receipt, origin: Option<Origin>) {
        let (Some(from), Some(to)) = (&stanza.from, &stanza.to) else { return receipt.done() }; // nobody speaks
        if !self.answers(from.domain()) {
            // Nobody is served as a relay between others.
            tracing::debug!(%from, %to, "a stanza between two other servers is dropped");
            return receipt.done();
        }
        match self.link_of(from, to) {
            Some((kind, link)) => {
                self.to_entity(kind, &link, Inbound { stanza, receipt, origin, change: None });
            }
            None => self.bounce(&stanza, receipt, Condition::RemoteServerNotFound),
        }
    }

    /// The link for what is sent from an address of this deployment to one of another server, if this deployment speaks with that.
    pub(super) fn link_of(&self, from: &Jid, to: &Jid) -> Option<(KindId, BareJid)> {
        let pair = Pair::new(&from.to_bare().to_domain(), &to.to_bare().to_domain())?;
        let kind = self.kinds().named(LINK)?;
        (self.answers(from.domain()) && self.federates(to.domain())).then(|| (kind, pair.entity().clone()))
    }

    /// To something that has a home, wherever that is.
    pub(crate) fn to_entity(&self, kind: KindId, entity: &BareJid, inbound: Inbound) {
        if self.is_open(kind, entity) {
            self.to_entity_here(kind, entity, inbound);
        } else {
            self.to_entity_away(kind, entity, inbound);
        }
    }

    /// What came to an actor that has moved goes on to where the entity lives now.
    pub(crate) fn forward<A: PlacedActor>(&self, entity: &BareJid, inbound: Inbound) {
        let kind = self.kinds().id::<A>();
        if self.is_home(entity) {
            // The entity has come back meanwhile, to another actor; the one that forwards is about to be forgotten.
            let (host, entity) = (self.clone(), entity.clone());
            self.spawn(async move { host.to_entity(kind, &entity, inbound) });
        } else {
            self.to_entity(kind, entity, inbound);
        }
    }

    /// To something whose home is this node.
    pub(crate) fn to_entity_here(&self, kind: KindId, entity: &BareJid, inbound: Inbound) {
        let Some(actors) = self.kinds().get(kind) else {
            return self.bounce(&inbound.stanza, inbound.receipt, Condition::ServiceUnavailable);
        };
        // Presence matters only to those that are here (RFC 6121 section 8.5.1 has nobody else care), or want it; but for what people
        // elsewhere ask a user, who may be away.
        let passing = match inbound.stanza.type_ {
            Type::Presence(presence) => inbound.change.is_none() && !(kind == USER && asks(presence)),
            _ => false,
        };
        if passing && !actors.takes_every_presence() {
            self.presence_here(kind, entity, &inbound.stanza, false);
            return inbound.receipt.done(); // nobody else is to know of a presence
        }
        if let Err(inbound) = actors.deliver(self, entity, Box::new(inbound)) {
            let Inbound { stanza, receipt, change, .. } = *inbound;
            if change.is_some() {
                return receipt.leave(); // its sender tries again
            }
            self.bounce(&stanza, receipt, Condition::ResourceConstraint);
        }
    }

    /// A presence for something whose home is this node; the stanza need not name it. If it is `strict`, it is a probe of a
    /// session that has been away: a contact that is not there says so.
    pub(crate) fn presence_here(&self, kind: KindId, entity: &BareJid, stanza: &Arc<Stanza>, strict: bool) {
        if strict && let Some(from) = stanza.from.clone() {
            // First all are gone, then those that are there say so: nobody else would speak of one that left meanwhile.
            let gone = Stanza::new(Type::Presence(PresenceType::Unavailable)).from(entity.clone()).to(from);
            self.route(gone, Receipt::none(), None);
        }
        if let Some(kind) = self.kinds().get(kind) {
            kind.presence(self, entity, stanza);
        }
    }

    /// To something whose home may be anywhere.
    fn to_entity_away(&self, kind: KindId, entity: &BareJid, inbound: Inbound) {
        let Inbound { stanza, receipt, origin, change } = inbound;
        if kind != USER && !self.is_served(kind, entity) {
            // Not told "there is none": when that node has been upgraded, or has given the shard away, there is one.
            metrics::counter!("rookery_stanzas_for_older_nodes_total").increment(1);
            return self.bounce(&stanza, receipt, Condition::ResourceConstraint);
        }
        let changes = change.is_some();
        let payload = wire::In {
            kind: self.kind_name(kind),
            change: change.map(|change| *change),
            entry: wire::id_bytes(receipt.entry()),
            pressing: receipt.is_pressing(),
            ..wire::to_one(entity, &stanza, origin)
        };
        self.send_to_kind(kind, entity, What::In(payload), move |host, answer| match answer {
            Err(_) if changes => receipt.leave(), // its sender remembers it, and tells it again
            answer => host.arrived(&stanza, receipt, answer),
        });
    }

    /// What became of a stanza that went to a home.
    pub(super) fn arrived(&self, stanza: &Stanza, receipt: Receipt, answer: Result<Bytes, Failed>) {
        match answer {
            Ok(refused) => match super::stored::stanza(&refused) {
                Some(error) => self.refuse(error, receipt),
                None => receipt.done(), // the home has taken the stanza, and keeps it
            },
            Err(Failed) => {
                tracing::debug!(to = ?stanza.to, "no node accepted a stanza in time; the sender gets an error");
                self.bounce(stanza, receipt, Condition::ResourceConstraint);
            }
        }
    }

    /// Whether the home of an entity is a node on which its kind can live, or will be found.
    fn is_served(&self, kind: KindId, entity: &BareJid) -> bool {
        let home = self.placement().map(|placement| placement.home(shard_of(entity)));
        match home {
            Some(Home::There { node, .. }) => self.node_knows_kind(&node, kind),
            _ => true,
        }
    }

    /// How a kind is called between nodes. Users have no name there, as in nodes that know no other kind.
    pub(crate) fn kind_name(&self, kind: KindId) -> String {
        let name = (kind != USER).then(|| self.kinds().get(kind)).flatten();
        name.map(|kind| kind.name().to_owned()).unwrap_or_default()
    }

    /// Sends the error that refuses a stanza to its sender.
    pub(crate) fn refuse(&self, error: Stanza, receipt: Receipt) {
        if let Err(receipt) = receipt.refuse(&error) {
            // Settled when the error has come to its sender: on its way it could be lost with this node.
            self.route(error, receipt, None);
        }
    }

    /// Answers a stanza with an error, if it may be answered, and settles it.
    pub(crate) fn bounce(&self, stanza: &Stanza, receipt: Receipt, condition: Condition) {
        self.bounce_with(stanza, receipt, &StanzaError::new(condition));
    }

    /// The same, with all that the error says.
    pub(crate) fn bounce_with(&self, stanza: &Stanza, receipt: Receipt, error: &StanzaError) {
        metrics::counter!("rookery_stanza_errors_total", "condition" => error.condition.name()).increment(1);
        match stanza.error_reply(error) {
            Some(reply) => self.refuse(reply, receipt),
            // Errors and results have no answer (RFC 6120 section 8.3.1), whatever becomes of them.
            None => receipt.done(),
        }
    }
}
