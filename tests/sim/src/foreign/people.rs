//! The people of the far server: what they say, and what they and their server answer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{In, Request, Sent, State, number, person};
use crate::chance::{Chance, now};
use crate::reading::{attribute, between};
use crate::world::{World, jid};

/// One of them. Its one resource is `x`.
#[derive(Clone)]
pub(crate) struct Person {
    chance: Chance,
    next: Duration,
    /// Its presence, if it is available.
    pub(crate) status: Option<String>,
    statuses: u32,
    /// Whose presence it hears, and who hears its own.
    pub(crate) to: Vec<bool>,
    pub(crate) from: Vec<bool>,
    /// Whom it has asked, without an answer yet.
    asks: Vec<bool>,
    /// The presence of users, by full JID.
    pub(crate) seen: BTreeMap<String, String>,
}

impl Person {
    pub(super) fn new(users: usize, chance: Chance) -> Self {
        Self {
            chance,
            next: Duration::ZERO,
            status: None,
            statuses: 0,
            to: vec![false; users],
            from: vec![false; users],
            asks: vec![false; users],
            seen: BTreeMap::new(),
        }
    }

    /// Nothing is seen of a user any more.
    fn forget(&mut self, user: usize) {
        let bare = jid(user);
        self.seen.retain(|full, _| full.split('/').next() != Some(&bare));
    }
}

fn flags(of: &[bool]) -> Vec<usize> {
    of.iter().enumerate().filter_map(|(user, holds)| holds.then_some(user)).collect()
}

impl State {
    fn presence(&self, p: usize, user: usize) -> String {
        let (from, to) = (person(p), jid(user));
        match self.people.get(p).and_then(|person| person.status.as_ref()) {
            Some(status) => {
                format!("<presence from='{from}/x' to='{to}'><status>{status}</status></presence>")
            }
            None => format!("<presence from='{from}/x' to='{to}' type='unavailable'/>"),
        }
    }

    fn presence_of_type(&mut self, p: usize, user: usize, kind: &str) {
        let xml = format!("<presence from='{}' to='{}' type='{kind}'/>", person(p), jid(user));
        self.say(xml, Sent::Other);
    }

    /// Tells all who hear it what a person's presence is.
    fn broadcast(&mut self, p: usize) {
        let hear = self.people.get(p).map(|person| flags(&person.from)).unwrap_or_default();
        for user in hear {
            let xml = self.presence(p, user);
            self.say(xml, Sent::Other);
        }
    }

    /// A person is there, with a new status. If it was not, it asks who else is.
    pub(super) fn comes(&mut self, p: usize) {
        let Some(person) = self.people.get_mut(p) else { return };
        let was = person.status.is_some();
        person.statuses += 1;
        person.status = Some(format!("w{}", person.statuses));
        let asks = if was { Vec::new() } else { flags(&person.to) };
        if !was {
            person.seen.clear();
        }
        self.broadcast(p);
        for user in asks {
            let xml = format!("<presence from='{}' to='{}' type='probe'/>", super::person(p), jid(user));
            self.say(xml, Sent::Other);
        }
    }

    pub(super) fn goes(&mut self, p: usize) {
        if let Some(person) = self.people.get_mut(p) {
            person.status = None;
        }
        self.broadcast(p);
    }

    /// Whether somebody's half of a subscription holds; and it holds from now on, or not.
    fn hears(&mut self, p: usize, user: usize, holds: bool) {
        if let Some(person) = self.people.get_mut(p) {
            // RFC 6121 section 3.1.6: what was not asked for is not granted.
            let asked = person.asks.get_mut(user).is_some_and(std::mem::take);
            if let Some(to) = person.to.get_mut(user) {
                *to = holds && (asked || *to);
            }
            if !holds {
                person.forget(user);
            }
        }
    }

    fn tells(&mut self, p: usize, user: usize, holds: bool) -> bool {
        let from = self.people.get_mut(p).and_then(|person| person.from.get_mut(user));
        from.is_some_and(|from| std::mem::replace(from, holds))
    }

    fn has_from(&self, p: usize, user: usize) -> bool {
        self.people.get(p).and_then(|person| person.from.get(user)).copied().unwrap_or_default()
    }

    fn has_to(&self, p: usize, user: usize) -> bool {
        self.people.get(p).and_then(|person| person.to.get(user)).copied().unwrap_or_default()
    }

    fn is_there(&self, p: usize) -> bool {
        self.people.get(p).is_some_and(|person| person.status.is_some())
    }

    /// A user is not to hear of a person any more.
    fn ends(&mut self, p: usize, user: usize) {
        if self.tells(p, user, false) && self.is_there(p) {
            let xml = format!("<presence from='{}/x' to='{}' type='unavailable'/>", person(p), jid(user));
            self.say(xml, Sent::Other);
        }
    }
}

/// What people do by themselves.
pub(super) fn step(world: &World, at: Duration) {
    if !world.talking() {
        return;
    }
    for p in 0..super::PEOPLE {
        let mut state = world.far.state.lock();
        let Some(person) = state.people.get_mut(p).filter(|person| person.next <= at) else { continue };
        let first = person.next == Duration::ZERO;
        let pause =
            if person.chance.hits(200) { person.chance.millis(1, 20) } else { person.chance.millis(80, 900) };
        person.next = at + pause;
        if first {
            state.comes(p);
            continue;
        }
        drop(state);
        act(world, p);
    }
}

fn act(world: &World, p: usize) {
    let mut state = world.far.state.lock();
    let Some(person) = state.people.get_mut(p) else { return };
    let (dice, user) = (person.chance.below(100), person.chance.below(world.plan.users));
    let (full, which, other) = (person.chance.hits(300), person.chance.next(), person.chance.hits(500));
    let device = world.devices.get(user).and_then(|devices| {
        let count = u64::try_from(devices.len()).unwrap_or(0);
        devices.get(usize::try_from(which.checked_rem(count)?).ok()?).copied()
    });
    let address = |device: usize| world.clients.get(device).map(|client| client.lock().full());
    match dice {
        0..58 => {
            let device = device.filter(|_| full);
            let to = device.and_then(address).unwrap_or_else(|| jid(user));
            let n = state.ins.len();
            let (confirmed, again, errors, got, copies) = (false, false, 0, Vec::new(), 0);
            state.ins.push(In { from: p, to: user, device, confirmed, again, errors, got, copies });
            let from = super::person(p);
            let xml = format!(
                "<message from='{from}/x' to='{to}' type='chat' id='g{n}'><body>g{n}</body></message>"
            );
            state.say(xml, Sent::Message(n));
        }
        58..72 if state.is_there(p) && other => state.goes(p),
        58..72 => state.comes(p),
        72..84 => {
            let Some((device, to)) = device.and_then(|device| Some((device, address(device)?))) else {
                return;
            };
            let life = world.clients.get(device).map_or(0, |client| client.lock().lives.len());
            let n = state.asked.len();
            let (acked, answers, seen) = (false, 0, 0);
            state.asked.push(Request { client: device, life, acked, answers, seen });
            let from = super::person(p);
            let xml =
                format!("<iq from='{from}/x' to='{to}' type='get' id='i{n}'><ask xmlns='sim:ask'/></iq>");
            state.say(xml, Sent::Request(n));
        }
        84..94 => {
            let asks = state.people.get_mut(p).and_then(|person| person.asks.get_mut(user));
            asks.into_iter().for_each(|asks| *asks = true);
            state.presence_of_type(p, user, "subscribe");
        }
        94..97 => {
            state.hears(p, user, false);
            state.presence_of_type(p, user, "unsubscribe");
        }
        _ => {
            if state.has_from(p, user) {
                state.ends(p, user);
                state.presence_of_type(p, user, "unsubscribed");
            }
        }
    }
}

/// Takes a stanza of a link.
pub(super) fn take(world: &World, stream: u64, xml: &str) {
    *world.stirred.lock() = now();
    world.log.note(format_args!("far s{stream}"), format_args!("gets {xml}"));
    let mut state = world.far.state.lock();
    let state = &mut *state;
    if let Some(kept) = state.streams.get_mut(&stream) {
        kept.h = kept.h.wrapping_add(1);
    }
    let get = |name: &str| attribute(xml, name).unwrap_or_default();
    let (id, kind, from, to) = (get("id"), get("type"), get("from"), get("to"));
    let p = number(&to, "p");
    let user = number(&from, "user");
    if xml.starts_with("<message") {
        message(world, state, stream, xml, (&id, &kind));
    } else if xml.starts_with("<iq") {
        iq(state, (&id, &kind), (&from, &to));
    } else if let (Some(p), Some(user)) = (p, user) {
        presence(state, xml, &kind, (p, user), &from);
    }
}

fn numbered(id: &str, letter: char) -> Option<usize> {
    id.strip_prefix(letter)?.parse().ok()
}

fn message(world: &World, state: &mut State, stream: u64, xml: &str, (id, kind): (&str, &str)) {
    if kind == "error" {
        if let Some(sent) = numbered(id, 'g').and_then(|n| state.ins.get_mut(n)) {
            sent.errors += 1;
            world.log.count("far message bounced");
        }
        return;
    }
    let n = between(xml, "<body>f", "</body>").and_then(|n| n.parse::<usize>().ok());
    let Some(n) = n else { return };
    let Some(out) = state.outs.get_mut(n) else { return };
    out.came.push((stream, now()));
    world.log.count(if out.came.len() == 1 {
        "message to the far server"
    } else {
        "message to the far server again"
    });
    if let Some(came) = state.came.get_mut(out.to) {
        came.push(n);
    }
}

fn iq(state: &mut State, (id, kind): (&str, &str), (from, to): (&str, &str)) {
    if kind == "get" || kind == "set" {
        if let Some(asked) = numbered(id, 'h').and_then(|n| state.asks.get_mut(n)) {
            asked.seen += 1;
        }
        let there = number(to, "p").is_none_or(|p| state.is_there(p));
        let xml = match there {
            true => format!("<iq from='{to}' to='{from}' type='result' id='{id}'/>"),
            false => format!(
                "<iq from='{to}' to='{from}' type='error' id='{id}'><error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            ),
        };
        state.say(xml, Sent::Other);
    } else if let Some(asked) = numbered(id, 'i').and_then(|n| state.asked.get_mut(n)) {
        asked.answers += 1;
    }
}

fn presence(state: &mut State, xml: &str, kind: &str, (p, user): (usize, usize), from: &str) {
    match kind {
        "" if state.has_to(p, user) => {
            let status = between(xml, "<status>", "</status>").unwrap_or_default().to_owned();
            if let Some(person) = state.people.get_mut(p) {
                person.seen.insert(from.to_owned(), status);
            }
        }
        "unavailable" if from.contains('/') => {
            if let Some(person) = state.people.get_mut(p) {
                person.seen.remove(from);
            }
        }
        "unavailable" => {
            if let Some(person) = state.people.get_mut(p) {
                person.forget(user);
            }
        }
        // Everybody may hear of everybody.
        "subscribe" => {
            state.tells(p, user, true);
            state.presence_of_type(p, user, "subscribed");
            if state.is_there(p) {
                let xml = state.presence(p, user);
                state.say(xml, Sent::Other);
            }
        }
        "subscribed" => state.hears(p, user, true),
        "unsubscribe" => state.ends(p, user),
        "unsubscribed" => state.hears(p, user, false),
        "probe" if state.has_from(p, user) => {
            let xml = state.presence(p, user);
            state.say(xml, Sent::Other);
        }
        "probe" => state.presence_of_type(p, user, "unsubscribed"),
        _ => {}
    }
}

/// For good: the first is there. Where nobody confirms what comes, everybody says again what holds.
pub(super) fn settle(state: &mut State, again: bool) {
    for p in 0..super::PEOPLE {
        match state.is_there(p) {
            true if again => state.comes(p),
            false if p == 0 => state.comes(p),
            false if again => state.goes(p),
            _ => {}
        }
    }
}
