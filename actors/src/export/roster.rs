//! The roster, and requests that wait for the user's answer.

use rookery_cluster::tables::roster::{Item, Subscription};
use rookery_proto::xml::{Scope, Writer};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::document::{Frame, LIMITS};
use crate::user::roster as written;

/// The longest name of a contact or group, bytes.
const NAME: usize = 1_023;

/// Whether the row is more than a request that waits: a contact, or one that the user approved in advance.
fn is_contact(item: &Item) -> bool {
    !item.unlisted || item.approved || item.ask_subscribe || item.subscription() != Subscription::None
}

pub(super) fn write(w: &mut Writer<'_>, items: &[Item]) {
    w.start("query", ns::ROSTER);
    for item in items.iter().filter(|item| is_contact(item)) {
        written::write_item(w, item);
    }
    w.end();
}

/// The stored requests, each on its own.
pub(super) fn requests(items: &[Item]) -> impl Iterator<Item = Stanza> {
    items.iter().filter_map(|item| {
        let stored = item.pending_in.as_ref()?;
        let plain = || Some(Stanza::new(PresenceType::Subscribe).from(Jid::parse(&item.jid).ok()?));
        crate::routing::stored::stanza(stored).filter(|stanza| stanza.from.is_some()).or_else(plain)
    })
}

/// An `<item/>`, or why it can't be taken over.
pub(super) fn read(element: &Element, own: &BareJid, max_groups: usize) -> Result<Item, &'static str> {
    let jid = element
        .attr("jid")
        .and_then(|jid| Jid::parse(jid).ok())
        .ok_or("a contact without a JID was left out")?;
    let jid = jid.to_bare();
    let subscription = match element.attr("subscription") {
        Some("to") => Subscription::To,
        Some("from") => Subscription::From,
        Some("both") => Subscription::Both,
        Some("none") | None => Subscription::None,
        Some(_) => return Err("a contact whose subscription is no state of one was left out"),
    };
    if jid == *own {
        return Err("the user's own JID among the contacts was left out");
    }
    let mut groups: Vec<String> = Vec::new();
    for group in element.children().filter(|child| child.is("group", ns::ROSTER)) {
        let group = group.text();
        if groups.len() < max_groups && !group.is_empty() && group.len() <= NAME && !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(Item {
        jid: jid.as_str().to_owned(),
        name: element.attr("name").filter(|name| !name.is_empty() && name.len() <= NAME).map(str::to_owned),
        groups,
        subscription: subscription.into(),
        ask_subscribe: element.attr("ask") == Some("subscribe"),
        approved: matches!(element.attr("approved"), Some("true" | "1")),
        pending_in: None,
        unlisted: false,
        untold: 0,
        asked_at: 0,
    })
}

/// From whom a request is, and the stanza as it is stored; `None` if the frame is no request.
pub(super) fn read_request(frame: &Frame, own: &BareJid) -> Option<(BareJid, Stanza)> {
    let scope: &Scope = &frame.scope;
    let stanza = Stanza::parse(&frame.bytes, scope, &LIMITS).ok()?;
    if stanza.type_ != Type::Presence(PresenceType::Subscribe) {
        return None;
    }
    let from = stanza.from.as_ref()?.to_bare();
    let stanza = stanza.from(Jid::from(from.clone())).to(Jid::from(own.clone()));
    (from != *own).then_some((from, stanza))
}
