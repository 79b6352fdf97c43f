//! What must hold when a world has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::Store;
use rookery_cluster::tables::archive::{self, Direction, Query, Shelf};
use rookery_cluster::tables::roster::{self, Subscription};

use crate::chance::{Chance, seams};
use crate::world::{World, jid};

/// Checks everything; what is wrong goes to the log.
pub(crate) fn all(world: &Arc<World>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return world.log.wrong("no runtime to check in") };
    let store = Store::new(world.memory.clone(), seams(Chance::new(world.plan.seed, 2), 0));
    runtime.block_on(async {
        messages(world);
        for user in 0..world.plan.users {
            match archived(&store, user).await {
                Ok((got, sent)) => archives(world, user, &got, &sent),
                Err(error) => world.log.wrong(format_args!("the archive of user {user}: {error}")),
            }
        }
        match rosters(&store, world.plan.users).await {
            Ok(rosters) => {
                symmetric(world, &rosters);
                presence(world, &rosters);
            }
            Err(error) => world.log.wrong(format_args!("the rosters: {error}")),
        }
    });
}

/// Every acknowledged message came to every client of its recipient, once, and in the order in which it was sent.
fn messages(world: &World) {
    let log = &world.log;
    let messages = world.messages.lock();
    for client in &world.clients {
        let client = client.lock();
        if client.broken {
            continue;
        }
        let mut times: BTreeMap<usize, u32> = BTreeMap::new();
        let mut last: BTreeMap<usize, usize> = BTreeMap::new();
        for n in &client.got {
            *times.entry(*n).or_default() += 1;
            let Some(sent) = messages.get(*n) else { continue };
            if sent.to != client.user {
                log.wrong(format_args!("{} got m{n}, which is for user {}", client.name(), sent.to));
            }
            let before = last.insert(sent.from, *n);
            if before.is_some_and(|before| before > *n) {
                log.wrong(format_args!("{} got m{n} after {before:?} of c{}", client.name(), sent.from));
            }
        }
        for (n, times) in times.iter().filter(|(_, times)| **times > 1) {
            log.wrong(format_args!("{} got m{n} {times} times", client.name()));
        }
        let mine = messages.iter().enumerate().filter(|(_, sent)| sent.to == client.user);
        for (n, _) in mine.filter(|(_, sent)| sent.acked && !sent.bounced) {
            if !times.contains_key(&n) {
                log.wrong(format_args!("{} never got m{n}", client.name()));
            }
        }
    }
    for (n, sent) in messages.iter().enumerate() {
        if !sent.acked && !sent.doubtful {
            log.wrong(format_args!("m{n} of c{} was never acknowledged", sent.from));
        }
    }
}

type Numbers = Vec<usize>;

/// The messages in a user's archive: what came, and what was sent.
async fn archived(store: &Store, user: usize) -> rookery_cluster::store::Result<(Numbers, Numbers)> {
    let owner = Entity::new(jid(user));
    let (mut got, mut sent) = (Vec::new(), Vec::new());
    let mut query = Query::all(100_000);
    loop {
        let (owner, asked) = (&owner, &query);
        let slice = store
            .read(|tx| Box::pin(async move { archive::page(&mut **tx, Shelf::Archive, owner, asked).await }))
            .await?;
        for (_, entry) in &slice.entries {
            let text = String::from_utf8_lossy(&entry.stanza).into_owned();
            let number =
                text.split_once("<body>m").and_then(|(_, rest)| rest.split_once('<')?.0.parse().ok());
            let Some(number) = number else { continue };
            if text.contains("type='error'") {
                continue;
            }
            match entry.direction() {
                Direction::In => got.push(number),
                _ => sent.push(number),
            }
        }
        if slice.entries.is_empty() || slice.cursor.is_none() {
            return Ok((got, sent));
        }
        query = query.onwards(slice.cursor);
    }
}

/// The archive has every acknowledged message once, in the order in which clients got them.
fn archives(world: &World, user: usize, got: &[usize], sent: &[usize]) {
    let log = &world.log;
    let messages = world.messages.lock();
    for (way, numbers) in [("came", got), ("went", sent)] {
        let mut seen = BTreeSet::new();
        for n in numbers {
            if !seen.insert(*n) {
                log.wrong(format_args!("m{n} {way} twice into the archive of user {user}"));
            }
        }
        for (n, message) in
            messages.iter().enumerate().filter(|(_, message)| message.acked && !message.bounced)
        {
            let from = world.clients.get(message.from).map(|client| client.lock().user);
            let mine = if way == "came" { message.to == user } else { from == Some(user) };
            if mine && !seen.contains(&n) {
                log.wrong(format_args!("m{n} is not in the archive of user {user} ({way})"));
            }
        }
    }
    for client in &world.clients {
        let client = client.lock();
        // What nobody promised may have come before the client did.
        let doubtful = |n: &usize| messages.get(*n).is_some_and(|sent| sent.doubtful);
        let due = |n: &&usize| !doubtful(n) || client.got.contains(n);
        let got: Vec<usize> = got.iter().filter(due).copied().collect();
        if client.user == user && !client.broken && client.got != got {
            let first = client.got.iter().zip(&got).position(|(a, b)| a != b);
            log.wrong(format_args!(
                "{} got {} messages, its archive {}; the first difference is at {first:?}: {:?} and {:?}",
                client.name(),
                client.got.len(),
                got.len(),
                three(&client.got, first),
                three(&got, first),
            ));
        }
    }
}

/// What lies from there on.
fn three(numbers: &[usize], from: Option<usize>) -> Vec<usize> {
    numbers.iter().skip(from.unwrap_or(numbers.len())).take(3).copied().collect()
}

type Rosters = Vec<BTreeMap<String, Subscription>>;

async fn rosters(store: &Store, users: usize) -> rookery_cluster::store::Result<Rosters> {
    let mut all = Vec::new();
    for user in 0..users {
        let owner = Entity::new(jid(user));
        let owner = &owner;
        let rows =
            store.read(|tx| Box::pin(async move { roster::load(&mut **tx, owner, 10_000).await })).await?;
        let items = rows.rows.into_iter().filter(|item| !item.unlisted);
        all.push(items.map(|item| (item.jid.clone(), item.subscription())).collect());
    }
    Ok(all)
}

fn hears(rosters: &Rosters, user: usize, of: usize) -> bool {
    let state = rosters.get(user).and_then(|items| items.get(&jid(of)));
    matches!(state, Some(Subscription::To | Subscription::Both))
}

fn tells(rosters: &Rosters, user: usize, to: usize) -> bool {
    let state = rosters.get(user).and_then(|items| items.get(&jid(to)));
    matches!(state, Some(Subscription::From | Subscription::Both))
}

/// Who hears of another is told by the other; and every client has the roster that is stored: most by pushes alone.
fn symmetric(world: &World, rosters: &Rosters) {
    let mut told = 0;
    for user in 0..world.plan.users {
        for other in (0..world.plan.users).filter(|other| *other != user) {
            let (hears, tells) = (hears(rosters, user, other), tells(rosters, other, user));
            told += u32::from(hears && tells);
            if hears != tells {
                world.log.wrong(format_args!("user {user} hears of {other}: {hears}, and is told: {tells}"));
            }
        }
    }
    if told == 0 {
        world.log.wrong("nobody hears of anybody");
    }
    for client in &world.clients {
        let client = client.lock();
        let stored: BTreeMap<String, String> = rosters
            .get(client.user)
            .into_iter()
            .flatten()
            .map(|(jid, state)| (jid.clone(), format!("{state:?}").to_lowercase()))
            .collect();
        let items = &client.roster;
        if items.as_ref() != Some(&stored) {
            world.log.wrong(format_args!("{} has the roster {items:?}, stored is {stored:?}", client.name()));
        }
    }
}

/// Who hears of a user sees each of its clients as it is, and no other.
fn presence(world: &World, rosters: &Rosters) {
    let mut online: BTreeMap<usize, BTreeMap<String, String>> = BTreeMap::new();
    for client in &world.clients {
        let client = client.lock();
        online.entry(client.user).or_default().insert(client.full(), client.status.clone());
    }
    for client in &world.clients {
        let client = client.lock();
        for of in (0..world.plan.users).filter(|of| *of != client.user) {
            if !hears(rosters, client.user, of) || !tells(rosters, of, client.user) {
                continue;
            }
            let prefix = format!("{}/", jid(of));
            let seen: BTreeMap<String, String> = client
                .seen
                .iter()
                .filter(|(jid, _)| jid.starts_with(&prefix))
                .map(|(jid, status)| (jid.clone(), status.clone()))
                .collect();
            let is = online.get(&of).cloned().unwrap_or_default();
            if seen != is {
                world.log.wrong(format_args!("{} sees {seen:?}, and is {is:?}", client.name()));
            }
        }
    }
}
