//! What rooms and the component promise.
//!
//! A line that was acknowledged to its sender and not refused comes once to each occupant that was joined throughout, the sender
//! included, in the room's order, whatever became of the room's home. Nothing comes twice to a session, joined or not (but see
//! [`World::may_repeat`]). The
//! component's echo of an acknowledged line comes once to the session that sent it.
//!
//! An error that comes back to the sender says that the room, or the component, did not take the line: it comes to nobody. That of
//! an echo that the recipient's own home refused goes to the room or to the component. The room removes that occupant, as rooms do
//! (XEP-0045 section 18.3), and its row says so: the occupant was not joined throughout. The component passes the error on to the
//! sender, which is the recipient.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message as _;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::Store;
use rookery_cluster::tables::vcard as row;

use crate::client::{Came, Client};
use crate::toys::{Line, ROOMS, Stay, room};
use crate::world::World;

/// What of a room's row matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(message, repeated, tag = "4")]
    occupants: Vec<Occupant>,
    /// Occupants that were removed since their homes refused an echo.
    #[prost(string, repeated, tag = "5")]
    removed: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Occupant {
    #[prost(string, tag = "1")]
    jid: String,
}

/// A life of a client, and what it heard of one room, or of the component, in order.
struct Ear<'a> {
    client: &'a Client,
    life: usize,
    lines: Vec<usize>,
    /// When each came.
    at: Vec<Came>,
}

impl Ear<'_> {
    fn name(&self) -> String {
        format!("c{} (life {})", self.client.n, self.life)
    }
}

pub(super) async fn all(world: &World, store: &Store) {
    let mut lines = world.lines.lock().clone();
    let clients: Vec<_> = world.clients.iter().map(|client| client.lock()).collect();
    let lines = &mut lines;
    let heard: BTreeSet<usize> =
        clients.iter().flat_map(|client| &client.toys.heard).map(|h| h.line).collect();
    for (n, line) in lines.iter_mut().enumerate() {
        settled(world, n, line);
        let Some(sender) = clients.get(line.from) else { continue };
        let lasts =
            line.life.checked_sub(1).and_then(|at| sender.lives.get(at)).is_some_and(|l| l.ended.is_none());
        // Where its session has ended, an error may have come to nobody.
        line.doubtful |= !lasts && !heard.contains(&n);
        outside(world, sender, n, line);
    }
    let lines = &**lines;
    for place in (0..ROOMS).map(Some).chain([None]) {
        let ears: Vec<Ear<'_>> = clients.iter().flat_map(|client| ears(client, place, lines)).collect();
        for ear in &ears {
            once(world, ear, place, lines);
        }
        let Some(n) = place else {
            echoes(world, &ears, lines, &clients.iter().map(|client| &**client).collect::<Vec<_>>());
            continue;
        };
        one_order(world, n, &ears, lines);
        let Some(row) = read(world, store, n).await else { continue };
        for client in &clients {
            for stay in client.toys.stays.iter().filter(|stay| stay.room == n) {
                joined(world, client, stay, &row, lines);
            }
        }
    }
}

/// What each life of a client heard.
fn ears<'a>(client: &'a Client, place: Option<usize>, lines: &[Line]) -> Vec<Ear<'a>> {
    let mut all: BTreeMap<usize, Vec<(usize, Came)>> = BTreeMap::new();
    for heard in &client.toys.heard {
        if lines.get(heard.line).is_some_and(|line| line.room == place) {
            all.entry(heard.life).or_default().push((heard.line, heard.at));
        }
    }
    let ear = |(life, heard): (usize, Vec<_>)| {
        let (lines, at) = heard.into_iter().unzip();
        Ear { client, life, lines, at }
    };
    all.into_iter().map(ear).collect()
}

async fn read(world: &World, store: &Store, n: usize) -> Option<Row> {
    let name = Entity::new(room(n));
    let name = &name;
    match store.read(|tx| Box::pin(async move { row::get(&mut **tx, name).await })).await {
        Ok(row) => Some(row.and_then(|row| Row::decode(row).ok()).unwrap_or_default()),
        Err(error) => {
            world.log.wrong(format_args!("the row of room {n}: {error}"));
            None
        }
    }
}

/// Each line is acknowledged, and refused once at most.
fn settled(world: &World, n: usize, line: &Line) {
    if line.acked_at.is_none() && !line.doubtful {
        wrong(world, "room/unacked", n, line, "was never acknowledged");
    }
    if line.errors.len() > 1 {
        wrong(world, "room/refused-twice", n, line, format_args!("was refused: {:?}", line.errors));
    }
}

/// A line of a client that never was in the room is refused. (Of a client that was, the room may not have heard that it left.)
fn outside(world: &World, sender: &Client, n: usize, line: &Line) {
    let was_there = sender.toys.stays.iter().any(|stay| Some(stay.room) == line.room);
    let taken = line.acked_at.is_some() && !line.doubtful && line.errors.is_empty();
    if line.outside && taken && !was_there {
        wrong(world, "room/outside", n, line, "was taken, and its sender was not in the room");
    }
}

/// Nothing twice, nothing that was refused, and what one client says in its order.
fn once(world: &World, ear: &Ear<'_>, place: Option<usize>, lines: &[Line]) {
    let (mut seen, mut last) = (BTreeMap::new(), BTreeMap::<usize, usize>::new());
    for (n, at) in ear.lines.iter().zip(&ear.at) {
        let Some(line) = lines.get(*n) else { continue };
        if let Some(first) = seen.insert(*n, *at) {
            if world.plan.groupchat && place.is_some() && world.may_repeat(ear.client.user, first, *at) {
                continue;
            }
            wrong(world, "room/twice", *n, line, format_args!("came twice to {}", ear.name()));
            continue;
        }
        if !line.errors.is_empty() {
            let why = format_args!("was refused ({:?}), and came to {}", line.errors, ear.name());
            wrong(world, "room/refused-delivered", *n, line, why);
        }
        let before = last.insert(line.from, *n).filter(|before| *before > *n);
        if let Some(before) = before.filter(|_| place.is_some() && !line.doubtful) {
            wrong(
                world,
                "room/sender-order",
                *n,
                line,
                format_args!("came to {} after e{before}", ear.name()),
            );
        }
    }
}

/// Two sessions hear in one order what both hear. What was said before they came to the room was for a session of the device before,
/// which has ended without it: that comes as messages do that nobody got.
fn one_order(world: &World, n: usize, ears: &[Ear<'_>], lines: &[Line]) {
    for (at, one) in ears.iter().enumerate() {
        for other in ears.iter().skip(at + 1) {
            let both = |mine: &Ear<'_>, of: &Ear<'_>| -> Vec<usize> {
                let mut seen = BTreeSet::new();
                let since = |ear: &Ear<'_>| {
                    let mut stays = ear.client.toys.stays.iter().filter(|stay| stay.room == n);
                    let joined = stays.find_map(|stay| stay.joined.filter(|_| stay.life == ear.life));
                    joined.unwrap_or(Duration::MAX)
                };
                let from = since(mine).max(since(of));
                let said = |line: &usize| lines.get(*line).is_some_and(|line| line.sent_at >= from);
                let both = |line: &usize| of.lines.contains(line) && said(line) && seen.insert(*line);
                mine.lines.iter().copied().filter(both).collect()
            };
            let (a, b) = (both(one, other), both(other, one));
            if let Some((x, y)) = a.iter().zip(&b).find(|(x, y)| x != y) {
                world.log.wrong(format_args!(
                    "[room/order] room {n}: {} heard e{x} where {} heard e{y}",
                    one.name(),
                    other.name()
                ));
            }
        }
    }
}

/// An occupant that was joined throughout has heard it.
fn joined(world: &World, client: &Client, stay: &Stay, row: &Row, lines: &[Line]) {
    let Some(since) = stay.joined else { return };
    let life = stay.life.checked_sub(1).and_then(|at| client.lives.get(at));
    if life.is_none_or(|life| life.ended.is_some()) {
        return; // what its session had not got yet went with it
    }
    let full = client.full();
    if stay.left.is_none() && !row.occupants.iter().any(|occupant| occupant.jid == full) {
        if !row.removed.contains(&full) {
            world.log.wrong(format_args!("[room/forgotten] room {} has forgotten c{}", stay.room, client.n));
        }
        return;
    }
    if row.removed.contains(&full) {
        return; // in this stay, or in one before
    }
    let until = stay.left.unwrap_or(Duration::MAX);
    world.log.count("stay checked");
    for (n, line) in lines.iter().enumerate() {
        let mine = line.room == Some(stay.room) && line.sent_at >= since;
        let promised =
            line.acked_at.is_some_and(|at| at <= until) && line.errors.is_empty() && !line.doubtful;
        if mine
            && promised
            && !client.toys.heard.iter().any(|heard| (heard.line, heard.life) == (n, stay.life))
        {
            wrong(
                world,
                "room/lost",
                n,
                line,
                format_args!("did not come to c{} (life {})", client.n, stay.life),
            );
        }
    }
}

/// The component's echo comes to the session that asked for it.
fn echoes(world: &World, ears: &[Ear<'_>], lines: &[Line], clients: &[&Client]) {
    for (n, line) in lines.iter().enumerate().filter(|(_, line)| line.room.is_none()) {
        let life = clients.get(line.from).and_then(|client| client.lives.get(line.life.checked_sub(1)?));
        let lasts = life.is_some_and(|life| life.ended.is_none());
        let heard = ears.iter().any(|ear| ear.client.n == line.from && ear.lines.contains(&n));
        if lasts && line.acked_at.is_some() && line.errors.is_empty() && !heard {
            wrong(world, "echo/lost", n, line, "was never echoed");
        }
    }
}

fn wrong(world: &World, kind: &str, n: usize, line: &Line, what: impl std::fmt::Display) {
    let to = line.room.map_or("the component".to_owned(), |room| format!("room {room}"));
    world.log.wrong(format_args!(
        "[{kind}] e{n} from c{} to {to} (sent {:.3}, acked {:.3}) {what}",
        line.from,
        line.sent_at.as_secs_f64(),
        line.acked_at.unwrap_or_default().as_secs_f64()
    ));
}
