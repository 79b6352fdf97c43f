//! What is promised between clients and the people of the far server, when all is healed and at rest.
//!
//! Outwards: what was acknowledged, and did not come back with an error, has come to the far server, in the sender's order; not both; and not
//! twice, but where the far server has forgotten, or never knew, what came on a stream that was lost. Inwards: what the far server was told is safe
//! has come as local messages must. Presence and subscriptions agree on both sides. Nothing is left in a queue.

use std::collections::{BTreeMap, BTreeSet};

use rookery_cluster::entity::Entity;
use rookery_cluster::store::Store;
use rookery_cluster::tables::roster::{self, Subscription};

use super::{entries, number};
use crate::conduct::Kind;
use crate::foreign::{Fate, In, Kept, Out, PEOPLE, Request, State, left, person};
use crate::world::{View, World, jid};

/// How often each message is in a user's archive: of clients, and of people.
type Archived = (BTreeMap<usize, u32>, BTreeMap<usize, u32>);

pub(super) async fn all(world: &World, store: &Store) {
    let mut archives = Vec::new();
    let mut rosters = Vec::new();
    for user in 0..world.plan.users {
        match read(store, user).await {
            Ok((archive, roster)) => {
                archives.push(archive);
                rosters.push(roster);
            }
            Err(error) => return world.log.wrong(format_args!("user {user}: {error}")),
        }
    }
    {
        let state = world.far.state.lock();
        for (n, out) in state.outs.iter().enumerate() {
            outward(world, &state, n, out, &archives);
        }
        outward_order(world, &state);
        for (n, sent) in state.ins.iter().enumerate() {
            inward(world, n, sent, &archives);
        }
        inward_order(world, &state);
        requests(world, &state);
        if !world.far.nature.gives_up() {
            subscriptions(world, &state, &rosters);
            presence(world, &state, &rosters);
        }
    }
    let (rows, record) = left(world, store).await;
    if rows > 0 {
        world.log.wrong(format_args!("[foreign/rows] {rows} stanzas still wait in the link's queue"));
    }
    if record && world.far.nature.idle < std::time::Duration::from_secs(60) {
        world.log.wrong("[foreign/record] the link is not at rest");
    }
}

type Roster = BTreeMap<String, Subscription>;

async fn read(store: &Store, user: usize) -> rookery_cluster::store::Result<(Archived, Roster)> {
    let owner = &Entity::new(jid(user));
    let mut archived = Archived::default();
    for (_, text) in entries(store, user).await? {
        if let Some(n) = number(&text, 'f') {
            *archived.0.entry(n).or_default() += 1;
        } else if let Some(n) = number(&text, 'g') {
            *archived.1.entry(n).or_default() += 1;
        }
    }
    let rows = store.read(|tx| Box::pin(async move { roster::load(&mut **tx, owner, 10_000).await })).await?;
    let items = rows.rows.into_iter().filter(|item| !item.unlisted);
    Ok((archived, items.map(|item| (item.jid.clone(), item.subscription())).collect()))
}

fn outward(world: &World, state: &State, n: usize, out: &Out, archives: &[Archived]) {
    let wrong = |kind: &str, what: &str| {
        world.log.wrong(format_args!("[foreign/{kind}] f{n} of c{} to {} {what}", out.from, person(out.to)));
    };
    if !out.acked && !out.doubtful {
        wrong("unacked", "was never acknowledged");
    }
    if out.acked && !out.came_back(world) && out.came.is_empty() {
        wrong("lost", "was acknowledged, and neither came nor came back");
    }
    if let (Some((error, condition)), Some((stream, came))) = (out.errors.first(), out.came.last()) {
        let kept = state.streams.get(stream);
        // A link cannot know what the far server had when the stream was lost, until it is told.
        let lost = kept.and_then(|kept| kept.lost.iter().find(|lost| *lost >= came));
        let told = |lost| kept.is_some_and(|kept| kept.resumed.iter().any(|at| at > lost && at < error));
        let excused = came <= error && lost.is_some_and(|lost| lost <= error && !told(lost));
        let what = format!("came at {came:?} on s{stream}, and came back at {error:?}: {condition}");
        match excused {
            true => world.log.count("came and was bounced, since its stream was lost"),
            false => wrong("bounced-and-delivered", &what),
        }
    }
    if out.errors.len() > 1 {
        world.log.count("bounced twice");
    }
    for (at, (stream, when)) in out.came.iter().enumerate().skip(1) {
        let before = out.came.get(..at).unwrap_or_default();
        let excused = before.iter().all(|(first, _)| {
            let kept = state.streams.get(first);
            first != stream && kept.is_some_and(|kept| kept.fate == Fate::Forgotten && !kept.lost.is_empty())
        });
        match excused {
            true => world.log.count("came twice, since its stream was lost"),
            false => {
                let fates: Vec<_> = before
                    .iter()
                    .map(|(s, at)| (s, at, state.streams.get(s).map(|kept| kept.fate)))
                    .collect();
                let unasked = before.iter().any(|(s, _)| s == stream);
                let kind = if unasked { "twice-on-stream" } else { "twice" };
                wrong(kind, &format!("came again on s{stream} at {when:?}, after {fates:?}"));
            }
        }
    }
    let user = world.clients.get(out.from).map(|client| client.lock().user);
    let kept = user.and_then(|user| archives.get(user)?.0.get(&n).copied()).unwrap_or_default();
    if kept > 1 {
        wrong("archived-twice", "is in the sender's archive twice");
    }
    if kept == 0 && out.acked && !out.came_back(world) {
        wrong("not-archived", "is not in the sender's archive");
    }
    if kept > 0 && !out.errors.is_empty() && out.came.is_empty() {
        wrong("refused-archived", "was refused, and is in the sender's archive");
    }
}

/// Messages of a client to one of the people come in order.
fn outward_order(world: &World, state: &State) {
    for (p, came) in state.came.iter().enumerate() {
        let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::new());
        for n in came {
            let Some(out) = state.outs.get(*n).filter(|out| !out.doubtful && seen.insert(*n)) else {
                continue;
            };
            let before = last.insert(out.from, *n);
            if let Some(before) = before.filter(|before| before > n) {
                world.log.wrong(format_args!(
                    "[foreign/order] f{n} of c{} came to {} after f{before}",
                    out.from,
                    person(p)
                ));
            }
        }
    }
}

fn inward(world: &World, n: usize, sent: &In, archives: &[Archived]) {
    let wrong = |kind: &str, what: &str| {
        let (from, to) = (person(sent.from), sent.to);
        world.log.wrong(format_args!(
            "[foreign-in/{kind}] g{n} of {from} to user {to} ({:?}) {what}",
            sent.device
        ));
    };
    let kept = archives.get(sent.to).and_then(|archive| archive.1.get(&n).copied()).unwrap_or_default();
    if sent.confirmed && sent.errors == 0 && sent.got.is_empty() && sent.copies == 0 {
        wrong("lost", &format!("was confirmed and came to nobody; in the archive: {kept}"));
    }
    if sent.errors > 0 && !sent.got.is_empty() && !sent.again {
        wrong("bounced-and-delivered", &format!("came to {:?}, and was refused", sent.got));
    }
    if kept == 0 && sent.confirmed && sent.errors == 0 {
        wrong("not-archived", "is not in the recipient's archive");
    }
    if sent.again {
        return;
    }
    if kept > 1 {
        wrong("archived-twice", &format!("is in the recipient's archive {kept} times"));
    }
    let mut lives = BTreeSet::new();
    for (client, life, at) in &sent.got {
        if !lives.insert((client, life)) {
            wrong("twice", &format!("came to c{client} (life {life}) twice, the last time at {at:?}"));
        }
    }
}

/// Messages of a person to a name come in order, in a session; those that were somebody else's first are not looked at.
fn inward_order(world: &World, state: &State) {
    let mut got: BTreeMap<(usize, usize), Vec<(std::time::Duration, usize)>> = BTreeMap::new();
    for (n, sent) in state.ins.iter().enumerate().filter(|(_, sent)| !sent.again) {
        for (client, life, at) in &sent.got {
            if sent.device.is_none_or(|device| device == *client) {
                got.entry((*client, *life)).or_default().push((*at, n));
            }
        }
    }
    for ((client, number), mut all) in got {
        let Some(one) = world.clients.get(client).map(|client| client.lock()) else { continue };
        let Some(life) = number.checked_sub(1).and_then(|at| one.lives.get(at)) else { continue };
        // The session that got what another one left is told of that late.
        let user = one.user;
        let shown = life.shown.first().map(|shown| shown.said);
        let others = world.clients.iter().enumerate().filter(|(other, _)| *other != client);
        let ended = life.ended.is_some()
            || number > 1
            || others
                .map(|(_, other)| other.lock())
                .any(|other| other.user == user && other.lives.iter().any(|life| life.ended.is_some()));
        if ended {
            continue;
        }
        all.sort_by_key(|(at, _)| *at);
        let mut last: BTreeMap<(usize, Option<usize>), usize> = BTreeMap::new();
        for (at, n) in all {
            let Some(sent) = state.ins.get(n).filter(|_| shown.is_some_and(|shown| at > shown)) else {
                continue;
            };
            let before = last.insert((sent.from, sent.device), n);
            if let Some(before) = before.filter(|before| *before > n) {
                world.log.wrong(format_args!("[foreign-in/order] c{client} got g{n} after g{before}"));
            }
        }
    }
}

/// Whether the store always answers, and links keep what waits. Where a link cannot be read from the store, presence and requests are refused, and
/// nobody is told of some of that: of a probe, of an answer, of the last word of somebody who goes.
fn is_gentle(world: &World) -> bool {
    let known = |kind: &Kind| {
        use Kind::{Apart, Crash, Crashes, Cuts, Leave, OneWay, Restart};
        matches!(kind, Apart | Crash | Crashes | Cuts | Leave | OneWay | Restart)
    };
    world.plan.faults.iter().all(known) && !world.far.nature.gives_up()
}

fn requests(world: &World, state: &State) {
    let doubtful = !world.far.nature.managed
        || state.streams.values().any(|kept| kept.fate == Fate::Forgotten && !kept.lost.is_empty());
    let life = |asked: &Request| {
        let client = world.clients.get(asked.client)?.lock();
        client.lives.get(asked.life.checked_sub(1)?).map(|life| life.ended.is_none())
    };
    for (n, asked) in state.asks.iter().enumerate() {
        let life = life(asked);
        if !asked.acked || life != Some(true) {
            continue;
        }
        if asked.answers == 0 && world.far.nature.managed && is_gentle(world) {
            world.log.wrong(format_args!(
                "[foreign/iq-lost] h{n} of c{} was never answered; seen {} times",
                asked.client, asked.seen
            ));
        }
        if asked.answers > 1 {
            // A sender that says a request again after the death of a home does not know that the request had come.
            world.log.count("request to the far server answered twice");
        }
        if asked.answers > 1 && !doubtful && world.plan.faults.is_empty() {
            world.log.wrong(format_args!(
                "[foreign/iq-twice] h{n} of c{} was answered {} times",
                asked.client, asked.answers
            ));
        }
    }
    for (n, asked) in state.asked.iter().enumerate() {
        // What a client says in a session that ends before that is acknowledged is nobody's promise.
        if asked.acked && asked.answers == 0 && life(asked) == Some(true) && is_gentle(world) {
            world.log.wrong(format_args!(
                "[foreign-in/iq-lost] i{n} to c{} was never answered; seen {} times",
                asked.client, asked.seen
            ));
        }
    }
}

fn hears(rosters: &[Roster], user: usize, p: usize) -> bool {
    let state = rosters.get(user).and_then(|items| items.get(&person(p)));
    matches!(state, Some(Subscription::To | Subscription::Both))
}

fn tells(rosters: &[Roster], user: usize, p: usize) -> bool {
    let state = rosters.get(user).and_then(|items| items.get(&person(p)));
    matches!(state, Some(Subscription::From | Subscription::Both))
}

/// Both sides have the same of each subscription.
fn subscriptions(world: &World, state: &State, rosters: &[Roster]) {
    // The link has sent something twice, and nobody knows what.
    let again = |kept: &Kept| kept.fate == Fate::Forgotten && !kept.lost.is_empty();
    if !world.far.nature.managed || state.streams.values().any(again) {
        return;
    }
    for (p, one) in state.people.iter().enumerate() {
        for user in (0..world.plan.users).filter(|user| !state.muddled.contains(&(*user, p))) {
            let (from, to) = (one.from.get(user) == Some(&true), one.to.get(user) == Some(&true));
            let (hears, tells) = (hears(rosters, user, p), tells(rosters, user, p));
            if hears != from {
                world.log.wrong(format_args!(
                    "[foreign/roster-to] user {user} hears of {}: {hears}, and is told: {from}",
                    person(p)
                ));
            }
            if tells != to {
                world.log.wrong(format_args!(
                    "[foreign/roster-from] user {user} tells {}: {tells}, and is heard: {to}",
                    person(p)
                ));
            }
        }
    }
}

/// As all was before the last logged in.
fn presence(world: &World, state: &State, rosters: &[Roster]) {
    let views = world.views.lock();
    if views.is_empty() || state.views.len() < PEOPLE {
        return;
    }
    let view = |n: usize| views.get(n).cloned().unwrap_or_default();
    let mut online: BTreeMap<usize, BTreeMap<String, String>> = BTreeMap::new();
    for client in &world.clients {
        let client = client.lock();
        let View { shown, status, seen } = view(client.n);
        if !shown {
            continue;
        }
        online.entry(client.user).or_default().insert(client.full(), status);
        for (p, one) in state.views.iter().enumerate() {
            let sees = seen.get(&format!("{}/x", person(p)));
            let contact = hears(rosters, client.user, p) && one.from.get(client.user) == Some(&true);
            let kind = match (sees, &one.status) {
                (Some(_), None) => "ghost",
                (Some(sees), Some(is)) if contact && sees != is => "stale",
                (None, Some(_)) if contact && is_gentle(world) => "unseen",
                (Some(_), Some(_))
                    if !contact && is_gentle(world) && !state.muddled.contains(&(client.user, p)) =>
                {
                    "ghost-stranger"
                }
                _ => continue,
            };
            world.log.wrong(format_args!(
                "[foreign/presence-{kind}] c{} of user {} sees {} as {sees:?}, who is {:?}",
                client.n,
                client.user,
                person(p),
                one.status
            ));
        }
    }
    for (p, one) in state.views.iter().enumerate().filter(|(_, one)| one.status.is_some()) {
        for user in 0..world.plan.users {
            let prefix = format!("{}/", jid(user));
            let seen: BTreeMap<_, _> = one.seen.iter().filter(|(jid, _)| jid.starts_with(&prefix)).collect();
            let is = online.get(&user).cloned().unwrap_or_default();
            let contact = tells(rosters, user, p) && one.to.get(user) == Some(&true);
            let wrong = |kind: &str, jid: &str| {
                world.log.wrong(format_args!(
                    "[far/presence-{kind}] {} sees {jid} as {:?}, who is {:?}",
                    person(p),
                    one.seen.get(jid),
                    is.get(jid)
                ));
            };
            if state.refused.contains(&(user, p)) || !is_gentle(world) {
                continue;
            }
            for (jid, status) in &seen {
                match is.get(*jid) {
                    None => wrong("ghost", jid),
                    Some(is) if contact && is != *status => wrong("stale", jid),
                    Some(_) => {}
                }
            }
            for jid in is.keys().filter(|jid| contact && !seen.contains_key(jid)) {
                wrong("unseen", jid);
            }
        }
    }
}
