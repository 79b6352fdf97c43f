//! The roster's IQs (RFC 6121 section 2), declared as a feature like every other.

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::roster as table;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{Stanza, Type};

use super::subscribe::{self, Act, Acted, Full, Room};
use super::subscription::Kind;
use super::{User, foreign, roster};
use crate::features::contract::{Done, Feature, Iq, Method, Request, Run, Scope, Then, Who, Work, Xep};
use crate::features::store_failed;
use crate::host::Host;

/// RFC 6121 section 2: the roster, with versions (2.6).
pub const ROSTER: Feature = Feature {
    xep: Xep { number: 237, version: "1.3", name: "Roster Versioning", note: "as in RFC 6121" },
    iq: &[
        Iq {
            scope: Scope::Account,
            method: Method::Get,
            name: "query",
            ns: ns::ROSTER,
            who: Who::Owner,
            run: Run::Change(get), // from then on the session gets pushes; and its contacts come before their presence
        },
        Iq {
            scope: Scope::Account,
            method: Method::Set,
            name: "query",
            ns: ns::ROSTER,
            who: Who::Owner,
            run: Run::Change(set),
        },
    ],
    ..Feature::NONE
};

/// More news than that, and a client gets its whole roster instead.
const NEWS: usize = 64;

pub(super) fn get(host: Host, request: Request) -> Work {
    Box::pin(async move {
        let known = request.element()?.attr("ver").map(str::to_owned);
        let since = known.as_deref().and_then(table::parse_version);
        let entity = Entity::new(request.account.as_str());
        let rows = host.options().limits.roster_rows();
        let (items, version, news) = host
            .store()
            .read(|tx| {
                let entity = entity.clone();
                Box::pin(async move {
                    if let Some(since) = &since
                        && let Some(changes) = table::changes(&mut **tx, &entity, since, (rows, NEWS)).await?
                    {
                        return Ok((None, *since, !changes.rows.is_empty()));
                    }
                    let version = table::version(&mut **tx, &entity).await?;
                    Ok((Some(table::load(&mut **tx, &entity, rows).await?.rows), version, false))
                })
            })
            .await
            .map_err(|error| store_failed(&error))?;
        // 2.6.3: nothing but the result if the client's copy is current; what is new comes in pushes, after the result.
        let reply = items.map(|items| match known {
            Some(_) => roster::query(&version, &items),
            None => roster::query_unversioned(&items),
        });
        let sid = request.sid;
        let after: Then = Box::new(move |user: &mut User| {
            if let Some(session) = sid.and_then(|sid| user.session_mut(sid)) {
                session.interested = true; // 2.1.6: from now on it gets pushes
                session.roster = version;
            }
            if let Some(sid) = sid {
                user.changed(sid);
            }
            // Whatever is committed from here on is heard of in an operation behind this one.
            if news {
                user.catch_up();
            }
        });
        Ok(Done { reply: reply.unwrap_or_default(), after: Some(after), ..Done::default() })
    })
}

/// The one item of a roster set, checked.
#[derive(Clone)]
struct Set {
    jid: BareJid,
    name: Option<String>,
    groups: Vec<String>,
    remove: bool,
    /// What a gateway says of a contact at itself: both sides of the subscription are of its making (XEP-0356).
    subscription: Option<table::Subscription>,
}

/// The longest name of a contact or group, bytes.
const NAME: usize = 1_023;

fn parse(query: &Element, own: &BareJid, max_groups: usize) -> Result<Set, StanzaError> {
    let mut items = query.children();
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err(StanzaError::new(Condition::BadRequest));
    };
    if item.name() != "item" || item.ns() != ns::ROSTER {
        return Err(StanzaError::new(Condition::BadRequest));
    }
    let jid = Jid::parse(item.attr("jid").ok_or(StanzaError::new(Condition::BadRequest))?)
        .map_err(|_| StanzaError::new(Condition::JidMalformed))?;
    let jid = jid.to_bare();
    if jid == *own {
        return Err(StanzaError::new(Condition::NotAllowed));
    }
    let name = item.attr("name").filter(|name| !name.is_empty()).map(str::to_owned);
    let mut groups = Vec::new();
    for group in item.children().filter(|child| child.name() == "group") {
        let text = group.text();
        // 2.3.3: empty groups and doubles are errors of the client.
        if text.is_empty() || text.len() > NAME || groups.len() >= max_groups {
            return Err(StanzaError::new(Condition::NotAcceptable));
        }
        if groups.contains(&text) {
            return Err(StanzaError::new(Condition::BadRequest));
        }
        groups.push(text);
    }
    if name.as_ref().is_some_and(|name| name.len() > NAME) {
        return Err(StanzaError::new(Condition::NotAcceptable));
    }
    let remove = item.attr("subscription") == Some("remove");
    Ok(Set { jid, name, groups, remove, subscription: subscription(item) })
}

fn subscription(item: &Element) -> Option<table::Subscription> {
    Some(match item.attr("subscription")? {
        "none" => table::Subscription::None,
        "to" => table::Subscription::To,
        "from" => table::Subscription::From,
        "both" => table::Subscription::Both,
        _ => return None,
    })
}

fn set(host: Host, request: Request) -> Work {
    set_by(host, request, None)
}

/// The same by a gateway, which may say how it stands with contacts at itself.
pub(super) fn set_by(host: Host, request: Request, gateway: Option<String>) -> Work {
    Box::pin(async move {
        let limits = host.options().limits.clone();
        let mut set = parse(&request.element()?, &request.account, limits.roster_groups)?;
        if gateway.as_deref() != Some(set.jid.domain()) {
            set.subscription = None; // RFC 6121 section 2.1.2.5: subscriptions are changed by presence
        }
        let (contact, said) = (set.jid.clone(), set.subscription.is_some());
        let own = Entity::new(request.account.as_str());
        if set.remove {
            return remove(host, own, request.account, set.jid).await;
        }
        let room = Room::of(&limits);
        let options = store::Options::owner(&own).operation(host.store().operation());
        let item = host
            .store()
            .write(options, |tx| {
                let (own, set) = (own.clone(), set.clone());
                Box::pin(async move { put(&mut **tx, &own, set, room).await })
            })
            .await
            .map_err(|error| store_failed(&error))?;
        let item = item.map_err(Full::error)?;
        Ok(Done::then(move |user: &mut User| {
            let stood =
                |user: &User| user.roster.get(&contact).map_or((false, false), |c| (c.to(), c.from()));
            let before = stood(user);
            user.take_row(&item);
            user.catch_up();
            user.push_to_components(Ok(&item));
            let now = stood(user);
            if said && now.1 && !before.1 {
                user.show_presence(&contact, true);
            }
            if said && now.0 && !before.0 {
                user.probe(&contact);
            }
        }))
    })
}

/// Writes the user's part of an item.
async fn put(
    tx: &mut dyn Transaction,
    own: &Entity,
    set: Set,
    room: Room,
) -> store::Result<Result<table::Item, Full>> {
    let before = table::get(tx, own, set.jid.as_str()).await?;
    let mut item = before
        .clone()
        .unwrap_or_else(|| table::Item { jid: set.jid.as_str().to_owned(), ..table::Item::default() });
    item.name = set.name;
    item.groups = set.groups;
    item.unlisted = false;
    if let Some(subscription) = set.subscription {
        item.set_subscription(subscription);
        item.ask_subscribe = false;
        item.forget_request();
    }
    if let Some(full) = room.refuses(tx, own, before.as_ref(), &item).await? {
        return Ok(Err(full));
    }
    table::put(tx, own, &item)?;
    Ok(Ok(item))
}

/// 2.5: removes a contact, and with it the subscriptions in both directions.
pub(crate) async fn remove(
    host: Host,
    own: Entity,
    account: BareJid,
    contact: BareJid,
) -> Result<Done, StanzaError> {
    let other = Entity::new(contact.as_str());
    let local = host.serves(contact.domain());
    let room = Room::of(&host.options().limits);
    let name = if local { host.change_name() } else { foreign::name(&host) };
    // Named: done again after an unknown result there would be nothing to remove.
    let options = store::Options::owner(&own).operation(host.store().operation());
    let acted = host
        .store()
        .write(options, |tx| {
            let (own, other) = (own.clone(), other.clone());
            Box::pin(async move { removal(&mut **tx, &own, &other, local, (room, name)).await })
        })
        .await
        .map_err(|error| store_failed(&error))?;
    let acted = acted.ok_or(StanzaError::new(Condition::ItemNotFound))?;
    Ok(Done::then(move |user: &mut User| {
        let last = acted.iter().rposition(|(_, acted)| acted.is_told());
        for (n, (kind, acted)) in acted.into_iter().enumerate() {
            let stanza = Stanza::new(Type::Presence(kind.presence()))
                .from(Jid::from(account.clone()))
                .to(Jid::from(contact.clone()));
            user.acted(&contact, stanza, acted.silent(last == Some(n)));
        }
        user.forget_contact(&contact);
        user.catch_up();
        user.push_to_components(Err(&contact));
    }))
}

async fn removal(
    tx: &mut dyn Transaction,
    own: &Entity,
    other: &Entity,
    local: bool,
    (room, name): (Room, u64),
) -> store::Result<Option<Vec<(Kind, Acted)>>> {
    let Some(item) = table::get(tx, own, other.as_str()).await? else { return Ok(None) };
    if item.unlisted {
        return Ok(None);
    }
    let mut acted = Vec::new();
    for kind in [Kind::Unsubscribe, Kind::Unsubscribed] {
        // Each only where it means something: nobody is told that a subscription ended which never was.
        let item = table::get(tx, own, other.as_str()).await?.unwrap_or_default();
        let (to, from) = match item.subscription() {
            table::Subscription::None => (false, false),
            table::Subscription::To => (true, false),
            table::Subscription::From => (false, true),
            table::Subscription::Both => (true, true),
        };
        let due = match kind {
            Kind::Unsubscribe => to || item.ask_subscribe,
            _ => from || item.pending_in.is_some(),
        };
        let act = Act { contact_is_local: local, kind, request: (b"", 0), room, name };
        if due && let Ok(done) = subscribe::act(tx, own, other, &act).await? {
            acted.push((kind, done));
        }
    }
    let untold = table::get(tx, own, other.as_str()).await?.map_or(0, |item| item.untold);
    table::remove(tx, own, other.as_str()).await?;
    if untold != 0 {
        table::keep(tx, own, &table::Item { untold, ..table::Item::unlisted(other.as_str()) })?;
    }
    Ok(Some(acted))
}

impl Acted {
    /// Without a push of its own: the removal is pushed instead. Of two changes to another roster the last must be heard of; of
    /// two stanzas that go elsewhere both.
    fn silent(mut self, last: bool) -> Self {
        self.name = if last || self.is_foreign() { self.name } else { 0 };
        if let Some((_, push)) = &mut self.own {
            *push = false;
        }
        self
    }
}
