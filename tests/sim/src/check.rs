//! What must hold when a world has come to rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::Store;
use rookery_cluster::tables::archive::{self, Collection, Direction, Query};
use rookery_cluster::tables::roster::{self, Subscription};

use crate::chance::{Chance, seams};
use crate::world::{View, World, jid};

mod foreign;
mod messages;
mod toys;

/// Checks everything; what is wrong goes to the log.
pub(crate) fn all(world: &Arc<World>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return world.log.wrong("no runtime to check in") };
    let store = Store::new(world.memory.clone(), seams(Chance::new(world.plan.seed, 2), 0));
    runtime.block_on(async {
        let mut lists = Vec::new();
        for user in 0..world.plan.users {
            match archived(&store, user).await {
                Ok(all) => lists.push(all),
                Err(error) => world.log.wrong(format_args!("the archive of user {user}: {error}")),
            }
        }
        match world.plan.habits {
            true => messages::all(world, &lists),
            false => messages(world),
        }
        for (user, (got, sent)) in lists.iter().enumerate() {
            archives(world, user, got, sent);
        }
        if world.plan.toys {
            toys::all(world, &store).await;
        }
        if world.plan.foreign {
            foreign::all(world, &store).await;
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
        for n in &client.got() {
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
        for (n, _) in mine.filter(|(_, sent)| sent.acked && sent.errors == 0) {
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

/// The stanzas in a user's archive that are no errors, as text.
async fn entries(store: &Store, user: usize) -> rookery_cluster::store::Result<Vec<(Direction, String)>> {
    let owner = Entity::new(jid(user));
    let (mut all, mut query) = (Vec::new(), Query::all(100_000));
    loop {
        let (owner, asked) = (&owner, &query);
        let slice = store
            .read(|tx| {
                Box::pin(async move { archive::page(&mut **tx, Collection::Archive, owner, asked).await })
            })
            .await?;
        let text = |entry: &archive::Entry| String::from_utf8_lossy(&entry.stanza).into_owned();
        let texts = slice.entries.iter().map(|(_, entry)| (entry.direction(), text(entry)));
        all.extend(texts.filter(|(_, text)| !text.contains("type='error'")));
        if slice.entries.is_empty() || slice.cursor.is_none() {
            return Ok(all);
        }
        query = query.onwards(slice.cursor);
    }
}

/// The number of the message in a stanza's body, behind a letter that says whose numbers they are.
fn number(text: &str, letter: char) -> Option<usize> {
    text.split_once(&format!("<body>{letter}"))?.1.split_once('<')?.0.parse().ok()
}

/// The messages in a user's archive: what came, and what was sent.
async fn archived(store: &Store, user: usize) -> rookery_cluster::store::Result<(Numbers, Numbers)> {
    let (mut got, mut sent) = (Vec::new(), Vec::new());
    for (direction, text) in entries(store, user).await? {
        let Some(number) = number(&text, 'm') else { continue };
        match direction {
            Direction::In => got.push(number),
            _ => sent.push(number),
        }
    }
    Ok((got, sent))
}

/// The archive has every acknowledged message once, in the order in which clients got them.
fn archives(world: &World, user: usize, got: &[usize], sent: &[usize]) {
    let log = &world.log;
    let messages = world.messages.lock();
    for (way, numbers) in [("came", got), ("went", sent)] {
        let mut seen = BTreeSet::new();
        for n in numbers {
            if !seen.insert(*n) {
                log.wrong(format_args!("[archive/twice] m{n} {way} twice into the archive of user {user}"));
            }
        }
        for (n, message) in
            messages.iter().enumerate().filter(|(_, message)| message.acked && message.errors == 0)
        {
            let from = world.clients.get(message.from).map(|client| client.lock().user);
            let mine = if way == "came" { message.to == user } else { from == Some(user) };
            if mine && !seen.contains(&n) {
                log.wrong(format_args!(
                    "[archive/missing] m{n} is not in the archive of user {user} ({way})"
                ));
            }
        }
    }
    if world.plan.habits {
        return; // which client is to get what is another question
    }
    for client in &world.clients {
        let client = client.lock();
        let mine = client.got();
        // What nobody promised may have come before the client did.
        let doubtful = |n: &usize| messages.get(*n).is_some_and(|sent| sent.doubtful);
        let due = |n: &&usize| !doubtful(n) || mine.contains(n);
        let got: Vec<usize> = got.iter().filter(due).copied().collect();
        if client.user == user && !client.broken && mine != got {
            let first = mine.iter().zip(&got).position(|(a, b)| a != b);
            log.wrong(format_args!(
                "{} got {} messages, its archive {}; the first difference is at {first:?}: {:?} and {:?}",
                client.name(),
                mine.len(),
                got.len(),
                three(&mine, first),
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

/// A contact that hears of another is told by the other; and every client has the roster that is stored: most by pushes alone.
fn symmetric(world: &World, rosters: &Rosters) {
    let mut told = 0;
    for user in 0..world.plan.users {
        for other in (0..world.plan.users).filter(|other| *other != user) {
            let (hears, tells) = (hears(rosters, user, other), tells(rosters, other, user));
            told += u32::from(hears && tells);
            if hears != tells {
                world.log.wrong(format_args!(
                    "[roster] user {user} hears of {other}: {hears}, and is told: {tells}"
                ));
            }
        }
    }
    if told == 0 {
        world.log.wrong("nobody hears of anybody");
    }
    for client in &world.clients {
        let client = client.lock();
        if !client.live {
            continue;
        }
        let stored: BTreeMap<String, String> = rosters
            .get(client.user)
            .into_iter()
            .flatten()
            .map(|(jid, state)| (jid.clone(), format!("{state:?}").to_lowercase()))
            .collect();
        let items = &client.roster;
        if items.as_ref() != Some(&stored) {
            world.log.wrong(format_args!(
                "[roster] {} has the roster {items:?}, stored is {stored:?}",
                client.name()
            ));
        }
    }
}

/// A contact that hears of a user sees each of the user's clients as it is, and no other client. As the world was before the last
/// logged in.
fn presence(world: &World, rosters: &Rosters) {
    let views = world.views.lock();
    let names: Vec<(usize, usize, String)> = world
        .clients
        .iter()
        .map(|client| {
            let client = client.lock();
            (client.n, client.user, client.full())
        })
        .collect();
    let view = |n: usize| views.get(n).cloned().unwrap_or_default();
    let mut online: BTreeMap<usize, BTreeMap<String, String>> = BTreeMap::new();
    for (n, user, full) in &names {
        let View { shown, status, .. } = view(*n);
        if shown {
            online.entry(*user).or_default().insert(full.clone(), status);
        }
    }
    for (n, user, _) in &names {
        let View { shown, seen, .. } = view(*n);
        for of in (0..world.plan.users).filter(|of| of != user && shown) {
            let prefix = format!("{}/", jid(of));
            let seen: BTreeMap<String, String> = seen
                .iter()
                .filter(|(jid, _)| jid.starts_with(&prefix))
                .map(|(a, b)| (a.clone(), b.clone()))
                .collect();
            let is = online.get(&of).cloned().unwrap_or_default();
            let contact = hears(rosters, *user, of) && tells(rosters, of, *user);
            let ghosts: Vec<&String> = seen.keys().filter(|jid| !is.contains_key(*jid)).collect();
            let kind = if contact { "ghost/contact" } else { "ghost/directed" };
            if !ghosts.is_empty() {
                world.log.wrong(format_args!("[{kind}] c{n} sees {ghosts:?}, who are not there"));
            }
            if !contact {
                continue;
            }
            let unseen: Vec<&String> = is.keys().filter(|jid| !seen.contains_key(*jid)).collect();
            if !unseen.is_empty() {
                world
                    .log
                    .wrong(format_args!("[presence/unseen] c{n} does not see {unseen:?}, who are there"));
            }
            let stale = |(jid, status): &(&String, &String)| is.get(*jid).is_some_and(|is| is != *status);
            let stale: Vec<_> = seen.iter().filter(stale).collect();
            if !stale.is_empty() {
                world.log.wrong(format_args!("[presence/stale] c{n} sees {stale:?}, and is {is:?}"));
            }
        }
    }
}
