//! Subscriptions: what a user asks for or grants, committed for both sides at once (RFC 6121 section 3).

use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::accounts;
use rookery_cluster::tables::roster::{self as table, Item};
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{Stanza, Type};

use super::subscription::{self, Inbound as Outcome, Kind};
use super::{User, roster};
use crate::feature::{Direction, Done, Then, Verdict};
use crate::ledger::Receipt;
use crate::pipe::Outgoing;
use crate::session::SessionId;

/// What one user's transaction has changed in the other's roster.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The other's item for the one who acted, as committed.
    pub(crate) item: Item,
    /// The other's roster version now.
    pub(crate) version: String,
    /// Whether clients are pushed the item.
    pub(crate) push: bool,
    /// Whether the stanza goes to the sessions.
    pub(crate) deliver: bool,
    /// Whether the one who acted sees the other now and did not before, or the other way round.
    pub(crate) shows: Option<bool>,
}

/// What a subscription's transaction has done to both sides.
pub(super) struct Acted {
    pub(super) own: Option<(Item, bool)>,
    shows: Option<bool>,
    other: Option<Change>,
    /// The other's server answered `subscribed` at once: what that did to our item.
    reply: bool,
    routed: bool,
}

fn sees(item: &Item) -> bool {
    matches!(item.subscription(), table::Subscription::From | table::Subscription::Both)
}

/// The visible part of an item: what a push would say.
fn visible(item: &Item) -> (bool, table::Subscription, bool, bool) {
    (!item.unlisted, item.subscription(), item.ask_subscribe, item.approved)
}

/// One subscription stanza, both sides, within one transaction.
pub(super) async fn act(
    tx: &mut dyn Transaction,
    own: &Entity,
    contact: &Entity,
    contact_is_local: bool,
    kind: Kind,
    stanza: &[u8],
    limit: usize,
) -> store::Result<Option<Acted>> {
    let before = table::get(tx, own, contact.as_str()).await?;
    if before.is_none() && kind == Kind::Subscribe && table::count(tx, own, limit + 1).await?.listed >= limit
    {
        return Ok(None);
    }
    let mut item = before.unwrap_or_else(|| Item {
        jid: contact.as_str().to_owned(),
        unlisted: true,
        ..Item::default()
    });
    let (was, was_seen) = (visible(&item), sees(&item));
    let routed = subscription::outbound(&mut item, kind);
    let mut acted = Acted { own: None, shows: None, other: None, reply: false, routed };
    if routed && contact_is_local && accounts::exists(tx, contact).await? {
        let theirs = table::get(tx, contact, own.as_str()).await?;
        let mut theirs = theirs.unwrap_or_else(|| Item {
            jid: own.as_str().to_owned(),
            unlisted: true,
            ..Item::default()
        });
        let (their_was, they_saw) = (visible(&theirs), sees(&theirs));
        let outcome = subscription::inbound(&mut theirs, kind, stanza);
        if outcome == Outcome::AutoReply {
            acted.reply = subscription::inbound(&mut item, Kind::Subscribed, b"") == Outcome::Deliver;
        }
        if outcome != Outcome::Ignore {
            table::put(tx, contact, &theirs)?;
            acted.other = Some(Change {
                push: visible(&theirs) != their_was && !theirs.unlisted,
                deliver: matches!(outcome, Outcome::Deliver | Outcome::Ask),
                shows: (sees(&theirs) != they_saw).then_some(sees(&theirs)),
                item: theirs,
                version: String::new(),
            });
        }
    }
    table::put(tx, own, &item)?;
    acted.shows = (sees(&item) != was_seen).then_some(sees(&item));
    let push = visible(&item) != was && !item.unlisted;
    acted.own = Some((item, push));
    Ok(Some(acted))
}

impl User {
    /// `subscribe`, `subscribed`, `unsubscribe` or `unsubscribed` of one of the user's sessions.
    pub(super) fn subscribe(&mut self, sid: SessionId, kind: Kind, stanza: Stanza, receipt: Receipt) {
        let Some(contact) = stanza.to.as_ref().map(Jid::to_bare).filter(|contact| *contact != self.jid)
        else {
            self.answer_own(sid, &stanza, &StanzaError::new(Condition::BadRequest));
            return receipt.done();
        };
        // 3.1.2: stamped with bare JIDs.
        let stanza = stanza.from(Jid::from(self.jid.clone())).to(Jid::from(contact.clone()));
        if let Verdict::Refuse(error) = self.filter(Direction::Out, &stanza, &Jid::from(contact.clone())) {
            self.answer_own(sid, &stanza, &error);
            return receipt.done();
        }
        let host = self.host.clone();
        let local = host.serves(contact.domain());
        if !local {
            let error = StanzaError::new(Condition::RemoteServerNotFound);
            self.answer_own(sid, &stanza, &error);
            return receipt.done();
        }
        let own = self.entity.clone();
        let limit = host.options().limits.roster_items;
        self.operation(receipt, move || async move {
            let other = Entity::new(contact.as_str());
            let mut bytes = Vec::new();
            stanza.write(&mut bytes);
            // Named: done again after an unknown result it would find nothing to do, and nobody would be told.
            let options = store::Options::owner(&own).operation(host.store().operation());
            let result = host
                .store()
                .write_stamped(options, |tx| {
                    let (own, other, bytes) = (own.clone(), other.clone(), bytes.clone());
                    Box::pin(async move { act(&mut **tx, &own, &other, local, kind, &bytes, limit).await })
                })
                .await;
            let then: Then = match result {
                Ok((Some(acted), stamp)) => {
                    let version = table::version_text(&stamp);
                    Box::new(move |user: &mut User| user.acted(&contact, stanza, acted, &version))
                }
                Ok((None, _)) => Box::new(move |user: &mut User| {
                    user.answer_own(sid, &stanza, &StanzaError::new(Condition::ResourceConstraint));
                }),
                Err(_) => Box::new(move |user: &mut User| {
                    user.answer_own(sid, &stanza, &StanzaError::new(Condition::InternalServerError));
                }),
            };
            Ok(Done { then: Some(then), ..Done::default() })
        });
    }

    /// The transaction is committed: memory, pushes, presence, and the contact follow. `version` is what the commit made
    /// the version of both rosters.
    pub(super) fn acted(&mut self, contact: &BareJid, stanza: Stanza, acted: Acted, version: &str) {
        let kind = stanza.type_;
        if acted.shows == Some(false) {
            self.show_presence(contact, false); // 3.2.2: before `unsubscribed`, while it may still
        }
        if let Some((item, push)) = &acted.own {
            self.roster.apply(item);
            if *push {
                self.push(&roster::query(Some(version), std::slice::from_ref(item)));
            }
        }
        if acted.routed {
            let change = acted.other.map(|change| Box::new(Change { version: version.to_owned(), ..change }));
            if let Some(change) = change {
                self.host.to_user(contact, Arc::new(stanza), Receipt::none(), None, Some(change));
            }
        }
        if acted.shows == Some(true) && kind == Type::Presence(Kind::Subscribed.presence()) {
            self.show_presence(contact, true); // 3.1.5
        }
        if acted.reply {
            let granted = Stanza::new(Type::Presence(Kind::Subscribed.presence()))
                .from(Jid::from(contact.clone()))
                .to(Jid::from(self.jid.clone()));
            self.to_interested(Outgoing::new(granted));
        }
    }

    /// Another user's transaction has changed this user's roster. If that lives on another node it may have been on its way
    /// for long: the store says what holds by now.
    pub(super) fn change(&mut self, stanza: Arc<Stanza>, contact: BareJid, change: Change, receipt: Receipt) {
        if self.host.far().is_none() {
            self.changed_by_other(&stanza, &contact, change);
            return receipt.done();
        }
        let (host, own) = (self.host.clone(), self.entity.clone());
        self.operation(receipt, move || async move {
            let own = &own;
            let name = contact.as_str();
            let item =
                host.store().read(|tx| Box::pin(async move { table::get(&mut **tx, own, name).await }));
            let item = item.await.map_err(|error| crate::features::store_failed(&error))?;
            let gone = || Item { jid: name.to_owned(), unlisted: true, ..Item::default() };
            let change = Change { item: item.unwrap_or_else(gone), ..change };
            Ok(Done::then(move |user: &mut User| user.changed_by_other(&stanza, &contact, change)))
        });
    }

    /// Another user's transaction has changed this user's roster, and its stanza is here.
    fn changed_by_other(&mut self, stanza: &Arc<Stanza>, contact: &BareJid, change: Change) {
        if change.shows == Some(false) {
            self.show_presence(contact, false);
        }
        self.roster.apply(&change.item);
        // 3.1.6: the stanza before the push, so that clients know why.
        let blocked =
            !matches!(self.filter(Direction::In, stanza, &Jid::from(contact.clone())), Verdict::Pass);
        if change.deliver && !blocked {
            self.to_interested(Outgoing::new(stanza.clone()));
        }
        if change.push {
            self.push(&roster::query(Some(&change.version), std::slice::from_ref(&change.item)));
        }
        if change.shows == Some(true) {
            self.show_presence(contact, true);
        }
    }

    /// Subscription stanzas go to the available and to the interested resources (3.1.3, 3.1.6).
    fn to_interested(&self, outgoing: Outgoing) {
        for session in self.sessions.iter().filter(|s| s.presence.is_some() || s.interested) {
            session.deliver(outgoing.clone(), None, Receipt::none());
        }
    }
}
