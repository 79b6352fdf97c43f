//! What clients read out of what they are sent.

use std::collections::BTreeMap;

use crate::chance::now;
use crate::client::{Client, Got, Way};
use crate::world::World;

pub(crate) fn message(world: &World, client: &mut Client, text: &str) {
    let error = attribute(text, "type").as_deref() == Some("error");
    // An error need not say what it is about but by its id.
    let n = match error {
        true => attribute(text, "id").and_then(|id| id.strip_prefix('m')?.parse::<usize>().ok()),
        false => between(text, "<body>m", "</body>").and_then(|n| n.parse::<usize>().ok()),
    };
    let Some(n) = n else { return };
    let mut messages = world.messages.lock();
    let Some(sent) = messages.get_mut(n) else { return };
    if error {
        sent.errors += 1;
        world.log.count("bounced");
        return;
    }
    drop(messages);
    let way = if text.contains("<received xmlns='urn:xmpp:carbons:2'") {
        Way::Received
    } else if text.contains("<sent xmlns='urn:xmpp:carbons:2'") {
        Way::Sent
    } else {
        Way::Direct
    };
    if way == Way::Received {
        world.log.count("copy of a message");
    }
    if let Some(life) = client.life_mut() {
        life.got.push(Got { n, way, at: now() });
    }
}

/// A request of another client, or the answer to one of its own.
pub(crate) fn asked(world: &World, client: &mut Client, text: &str, id: &str) -> Option<String> {
    let k: usize = id.get(1..)?.parse().ok()?;
    let mut all = world.asked.lock();
    let asked = all.get_mut(k)?;
    match attribute(text, "type").as_deref() {
        Some("get") => {
            asked.seen_by.push((client.n, client.lives.len()));
            let from = attribute(text, "from")?;
            Some(format!("<iq type='result' id='{id}' to='{from}'/>"))
        }
        _ => {
            asked.answers.push(client.came());
            None
        }
    }
}

pub(crate) fn presence(client: &mut Client, text: &str) -> Option<String> {
    let from = attribute(text, "from")?;
    match attribute(text, "type").as_deref() {
        None => {
            let status = between(text, "<status>", "</status>").unwrap_or_default();
            if from == client.full() && client.comes.take_if(|comes| comes == status).is_some() {
                // What comes before this was said to it when it was there last, and may not hold any more.
                client.seen.clear();
            }
            client.seen.insert(from, status.to_owned());
        }
        Some("unavailable") => match from.contains('/') {
            true => drop(client.seen.remove(&from)),
            // RFC 6121 section 4.5.2 and 3.2.2: all resources.
            false => client.seen.retain(|jid, _| jid.split('/').next() != Some(&from)),
        },
        // The first client answers for the user.
        Some("subscribe") if client.resource == "a" => {
            return Some(format!("<presence type='subscribed' to='{from}'/>"));
        }
        _ => {}
    }
    None
}

pub(crate) fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(inside, _)| inside)
}

/// An attribute of the first tag.
pub(crate) fn attribute(text: &str, name: &str) -> Option<String> {
    let tag = text.split('>').next()?;
    ['\'', '"'].into_iter().find_map(|quote| {
        let value = tag.split_once(&format!(" {name}={quote}"))?.1.split_once(quote)?.0;
        Some(value.to_owned())
    })
}

/// A roster push.
pub(crate) fn push(roster: &mut BTreeMap<String, String>, text: &str) {
    for (jid, subscription) in items(text) {
        match &subscription[..] {
            "remove" => drop(roster.remove(&jid)),
            _ => drop(roster.insert(jid, subscription)),
        }
    }
}

/// The contacts of a roster, with their subscriptions.
pub(crate) fn items(text: &str) -> BTreeMap<String, String> {
    let item = |part: &str| {
        let part = format!("<item{part}");
        Some((attribute(&part, "jid")?, attribute(&part, "subscription").unwrap_or_default()))
    };
    text.split("<item").skip(1).filter_map(item).collect()
}
