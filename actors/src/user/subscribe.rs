//! Subscriptions: what a user asks for or grants, committed for both sides at once (RFC 6121 section 3).

use std::sync::Arc;

use prost::Message as _;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::roster::{self as table, Changes, Item, RosterVersion};
use rookery_cluster::tables::{accounts, blocks};
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::subscription::{self, Inbound as Outcome, Kind};
use super::{User, foreign, roster};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::features::contract::{Direction, Done, Then, Verdict};
use crate::features::{store_failed, xep_0203_delay as delay};
use crate::routing::wire;
use crate::session::SessionId;

pub(crate) mod requests;
mod room;

pub(crate) use room::{Full, Room};

/// What one user's transaction has changed in the other's roster.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The other's item for the one who acted, as committed.
    pub(crate) item: Item,
    /// Whether clients are pushed the item: for nodes of an older version, which do not ask the store.
    pub(crate) push: bool,
    /// Whether the stanza goes to the sessions.
    pub(crate) deliver: bool,
    /// Whether the one who acted sees the other now and did not before, or the other way round.
    pub(crate) shows: Option<bool>,
    /// The home of the one who acted died and may have told all of this before: what is new is to be found out.
    pub(crate) again: bool,
}

impl Change {
    /// As the change goes between nodes.
    pub(super) fn to_wire(&self) -> wire::Change {
        wire::Change {
            item: self.item.encode_to_vec().into(),
            version: String::new(),
            push: self.push,
            deliver: self.deliver,
            shows: self.shows,
            again: self.again,
        }
    }

    /// The change that came from a node, if this version can read it.
    pub(super) fn of_wire(change: wire::Change) -> Option<Self> {
        let item = Item::decode(change.item).ok()?;
        let (push, deliver, shows, again) = (change.push, change.deliver, change.shows, change.again);
        Some(Self { item, push, deliver, shows, again })
    }

    /// One that was committed by a home which died then.
    pub(super) fn again(who: &BareJid) -> Self {
        let item = Item::unlisted(who.as_str());
        Self { item, push: false, deliver: false, shows: None, again: true }
    }
}

/// A subscription stanza, as its transaction sees it.
pub(super) struct Act<'a> {
    pub(super) contact_is_local: bool,
    pub(super) kind: Kind,
    /// A request as it is kept, and when it was made, microseconds since 1970.
    pub(super) request: (&'a [u8], u64),
    /// How much may be in a roster.
    pub(super) room: Room,
    /// What the change is remembered by until the contact has heard of it; 0 if it need not be.
    pub(super) name: u64,
}

/// What a subscription's transaction has done to both sides.
pub(super) struct Acted {
    pub(super) own: Option<(Item, bool)>,
    shows: Option<bool>,
    pub(super) other: Option<Change>,
    /// See [`Act::name`].
    pub(super) name: u64,
    /// The other's server answered `subscribed` at once: what that did to our item.
    reply: bool,
    routed: bool,
    /// The contact is no user here: the stanza alone tells it.
    foreign: bool,
    /// How many older requests have made room at the other.
    displaced: usize,
}

pub(super) fn sees(item: &Item) -> bool {
    matches!(item.subscription(), table::Subscription::From | table::Subscription::Both)
}

/// The visible part of an item: what a push would say.
pub(super) fn visible(item: &Item) -> (bool, table::Subscription, bool, bool) {
    (!item.unlisted, item.subscription(), item.ask_subscribe, item.approved)
}

/// Clients hear of a row only if they see that it has changed.
pub(super) fn write(
    tx: &mut dyn Transaction,
    user: &Entity,
    item: &Item,
    visible: bool,
) -> store::Result<()> {
    if visible { table::put(tx, user, item) } else { table::keep(tx, user, item) }
}

/// One subscription stanza, both sides, within one transaction.
pub(super) async fn act(
    tx: &mut dyn Transaction,
    own: &Entity,
    contact: &Entity,
    act: &Act<'_>,
) -> store::Result<Result<Acted, Full>> {
    let Act { contact_is_local, kind, request: (request, now), room, name } = *act;
    let before = table::get(tx, own, contact.as_str()).await?;
    let mut item = before.clone().unwrap_or_else(|| Item::unlisted(contact.as_str()));
    let (was, was_seen) = (visible(&item), sees(&item));
    let routed = subscription::outbound(&mut item, kind);
    if let Some(full) = room.refuses(tx, own, before.as_ref(), &item).await? {
        return Ok(Err(full));
    }
    let mut acted = Acted {
        own: None,
        shows: None,
        other: None,
        name,
        reply: false,
        routed,
        foreign: !contact_is_local,
        displaced: 0,
    };
    // XEP-0191: nobody hears of a request of somebody who is blocked, now or later, and it is not approved; to its sender it
    // looks like one that is not answered. Both sides must agree on all else, which clients see without the stanza.
    let heard = kind != Kind::Subscribe || !blocks::any(tx, contact, &[own.as_str(), domain(own)]).await?;
    if routed && heard && contact_is_local && accounts::exists(tx, contact).await? {
        let theirs = table::get(tx, contact, own.as_str()).await?;
        let mut theirs = theirs.unwrap_or_else(|| Item::unlisted(own.as_str()));
        let (their_was, they_saw) = (visible(&theirs), sees(&theirs));
        let outcome = subscription::inbound(&mut theirs, kind, request);
        if outcome == Outcome::AutoReply {
            acted.reply = subscription::inbound(&mut item, Kind::Subscribed, b"") == Outcome::Deliver;
        }
        if outcome == Outcome::Ask {
            theirs.asked_at = now;
            acted.displaced = table::make_room(tx, contact, own.as_str(), (room.requests, room.rows)).await?;
        }
        if outcome != Outcome::Ignore {
            write(tx, contact, &theirs, visible(&theirs) != their_was)?;
            acted.other = Some(Change {
                push: visible(&theirs) != their_was && !theirs.unlisted,
                deliver: matches!(outcome, Outcome::Deliver | Outcome::Ask),
                shows: (sees(&theirs) != they_saw).then_some(sees(&theirs)),
                item: theirs,
                again: false,
            });
            item.untold = name;
        }
    }
    if routed && !contact_is_local {
        item.untold = foreign::untold(name, kind, item.untold);
        acted.name = item.untold;
    }
    write(tx, own, &item, visible(&item) != was)?;
    acted.shows = (sees(&item) != was_seen).then_some(sees(&item));
    let push = visible(&item) != was && !item.unlisted;
    acted.own = Some((item, push));
    Ok(Ok(acted))
}

/// The domain of a user.
fn domain(user: &Entity) -> &str {
    user.as_str().rsplit_once('@').map_or(user.as_str(), |(_, domain)| domain)
}

impl Acted {
    /// Whether the contact is to hear of it.
    pub(super) fn is_told(&self) -> bool {
        self.other.is_some() || self.foreign && self.routed
    }

    /// Whether the contact is no user here.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign
    }
}

impl User {
    /// `subscribe`, `subscribed`, `unsubscribe` or `unsubscribed` of one of the user's sessions.
    pub(super) fn subscribe(&mut self, sid: SessionId, kind: Kind, stanza: Stanza, receipt: Receipt) {
        let Some(contact) = stanza.to.as_ref().map(Jid::to_bare).filter(|contact| *contact != self.jid)
        else {
            self.answer_own(sid, &stanza, &StanzaError::new(Condition::BadRequest));
            return receipt.done();
        };
        let stanza = delay::without_forged(&self.host, &stanza).unwrap_or(stanza);
        // 3.1.2: stamped with bare JIDs.
        let stanza = stanza.from(Jid::from(self.jid.clone())).to(Jid::from(contact.clone()));
        if let Verdict::Refuse(error) = self.filter(Direction::Out, &stanza, &Jid::from(contact.clone())) {
            self.answer_own(sid, &stanza, &error);
            return receipt.done();
        }
        let host = self.host.clone();
        let local = host.serves(contact.domain());
        if kind == Kind::Subscribe && !host.reaches(&Jid::from(contact.clone())) {
            let error = StanzaError::new(Condition::RemoteServerNotFound);
            self.answer_own(sid, &stanza, &error);
            return receipt.done();
        }
        if !self.may_change() {
            return self.queue_is_full(sid, &stanza, receipt);
        }
        let own = self.entity.clone();
        let limits = &host.options().limits;
        let (room, bytes) = (Room::of(limits), limits.request_bytes);
        let name = if local { host.change_name() } else { foreign::name(&host) };
        self.change_by(sid, receipt, move || async move {
            let other = Entity::new(contact.as_str());
            let request = if kind == Kind::Subscribe { requests::kept(&stanza, bytes) } else { Vec::new() };
            let now = host.seams().clock.now_micros();
            // Named: done again after an unknown result it would find nothing to do, and nobody would be told.
            let options = store::Options::owner(&own).operation(host.store().operation());
            let result = host
                .store()
                .write(options, |tx| {
                    let (own, other, request) = (own.clone(), other.clone(), request.clone());
                    Box::pin(async move {
                        let request = (&request[..], now);
                        let one = Act { contact_is_local: local, kind, request, room, name };
                        act(&mut **tx, &own, &other, &one).await
                    })
                })
                .await;
            let then: Then = match result {
                Ok(Ok(acted)) => Box::new(move |user: &mut User| user.acted(&contact, stanza, acted)),
                Ok(Err(full)) => {
                    Box::new(move |user: &mut User| user.answer_own(sid, &stanza, &full.error()))
                }
                Err(error) => {
                    let error = store_failed(&error);
                    Box::new(move |user: &mut User| user.answer_own(sid, &stanza, &error))
                }
            };
            Ok(Done { then: Some(then), ..Done::default() })
        });
    }

    /// The transaction is committed: memory, pushes, presence, and the contact follow.
    pub(super) fn acted(&mut self, contact: &BareJid, stanza: Stanza, acted: Acted) {
        let kind = stanza.type_;
        if acted.displaced > 0 {
            metrics::counter!("rookery_limits_hit_total", "limit" => "requests").increment(1);
        }
        if let Some((item, push)) = &acted.own {
            self.take_row(item); // 3.2.2: before `unsubscribed` goes
            if *push {
                self.catch_up();
                self.push_to_components(Ok(item));
            }
        }
        // 3.1.5: when its server has told the contact's clients why.
        let show = acted.shows == Some(true) && kind == Type::Presence(Kind::Subscribed.presence());
        match acted.other.filter(|_| acted.routed) {
            Some(change) => self.tell_change(contact, Arc::new(stanza), change, (acted.name, show)),
            None => {
                if acted.routed && acted.foreign {
                    self.tell_foreign(contact, Arc::new(stanza), acted.name);
                }
                if show {
                    self.show_presence(contact, true); // in order behind that
                }
            }
        }
        if acted.reply {
            let granted = Stanza::new(Type::Presence(Kind::Subscribed.presence()))
                .from(Jid::from(contact.clone()))
                .to(Jid::from(self.jid.clone()));
            self.to_interested(Outgoing::new(granted));
        }
    }

    /// Another user's transaction has changed this user's roster. That may have been long ago: the store says what holds by
    /// now. The receipt is done when clients have been told.
    pub(super) fn change(&mut self, stanza: Arc<Stanza>, contact: BareJid, change: Change, receipt: Receipt) {
        if !self.others_may_change() {
            return self.later(move |user| user.change(stanza, contact, change, receipt));
        }
        let heard = receipt.split();
        self.operation(receipt, move |user| {
            let (own, read) = (user.entity.clone(), user.read_changes());
            let since = read.since;
            async move {
                let name = contact.as_str();
                let read = read.with(Some(name)).await;
                Ok(match read {
                    Ok((item, changes)) => {
                        let change = Change { item: item.unwrap_or_else(|| Item::unlisted(name)), ..change };
                        Done::then(move |user: &mut User| {
                            user.changed_by_other(&stanza, &contact, change, (since, changes));
                            heard.done();
                        })
                    }
                    Err(error) => {
                        tracing::warn!(user = %own, contact = name, %error, "a roster change could not be read, so the clients of the user do not have it yet; retrying in one second");
                        Done::then(move |user: &mut User| {
                            user.later(move |user| user.change(stanza, contact, change, heard));
                        })
                    }
                })
            }
        });
    }

    /// Another user's transaction has changed this user's roster, and its stanza is here.
    fn changed_by_other(
        &mut self,
        stanza: &Arc<Stanza>,
        contact: &BareJid,
        change: Change,
        (since, changes): (RosterVersion, Changes),
    ) {
        let from = self.roster.get(contact).is_some_and(roster::Contact::from);
        let sees = sees(&change.item);
        let shows = match change.again {
            true => (sees != from).then_some(sees),
            // The subscription may have been taken back meanwhile.
            false => change.shows.filter(|shows| *shows == sees),
        };
        if shows == Some(false) && !from {
            self.show_presence(contact, false); // the contact saw this user at another home
        }
        self.take_row(&change.item);
        if change.push {
            self.push_to_components(Ok(&change.item));
        }
        self.roster.limit_requests(self.host.options().limits.requests);
        // 3.1.6: the stanza before the push, so that clients know why.
        let blocked =
            !matches!(self.filter(Direction::In, stanza, &Jid::from(contact.clone())), Verdict::Pass);
        if change.deliver && !blocked {
            self.to_interested(Outgoing::new(stanza.clone()));
        }
        if change.again && !blocked {
            self.learn(contact, &change.item);
        }
        self.bring_up(&since, changes);
        if shows == Some(true) {
            self.show_presence(contact, true);
        }
    }

    /// What clients should have heard of a contact whose home died: its request, its presence, or that it has gone.
    fn learn(&self, contact: &BareJid, item: &Item) {
        if let Some(request) = item.pending_in.as_ref().and_then(|request| self.request(contact, request)) {
            self.to_interested(request);
        }
        // Whatever is remembered: what clients have not heard nobody else will tell them, and to hear it twice does no harm.
        if self.roster.get(contact).is_some_and(roster::Contact::to) {
            self.probe(contact);
        } else {
            let gone = Stanza::new(Type::Presence(PresenceType::Unavailable));
            let gone = gone.from(Jid::from(contact.clone())).to(Jid::from(self.jid.clone()));
            self.to_interested(Outgoing::new(gone));
        }
    }

    /// Subscription stanzas go to the available and to the interested resources (3.1.3, 3.1.6).
    pub(super) fn to_interested(&self, outgoing: Outgoing) {
        for session in self.sessions.iter().filter(|s| s.presence.is_some() || s.interested) {
            session.deliver(outgoing.clone(), None, Receipt::none());
        }
    }
}
