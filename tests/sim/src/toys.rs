//! Echo rooms and the echo component, as clients see them: which client was in which room when, what was said, and what came back.

use std::time::Duration;

use rookery_actors::options::Service;

use crate::chance::{Chance, now};
use crate::client::{Came, Client};
use crate::reading::{attribute, between};
use crate::world::World;

/// How many rooms there are.
pub(crate) const ROOMS: usize = 2;
/// The name of the component.
pub(crate) const ECHO: &str = "echo.localhost";

/// What lives on the names of a world with toys.
pub(crate) fn services() -> Vec<Service> {
    let service = |name: &str, kind, whole| Service { name: name.into(), kind, whole };
    vec![service("rooms.localhost", "echo-room", false), service(ECHO, "echo-component", true)]
}

/// The address of a room.
pub(crate) fn room(n: usize) -> String {
    format!("room{n}@rooms.localhost")
}

/// Something that a client said to a room, or to the component.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) from: usize,
    /// In which of its lives, from 1.
    pub(crate) life: usize,
    /// None: the component.
    pub(crate) room: Option<usize>,
    /// Its sender was in no room.
    pub(crate) outside: bool,
    pub(crate) sent_at: Duration,
    pub(crate) acked_at: Option<Duration>,
    /// The conditions of the errors that came back.
    pub(crate) errors: Vec<String>,
    /// When the first came.
    pub(crate) refused_at: Option<Came>,
    /// The sender's session was lost before it knew.
    pub(crate) doubtful: bool,
}

/// What a client knows of a time in a room.
#[derive(Clone, Debug)]
pub(crate) struct Stay {
    pub(crate) room: usize,
    /// In which of its client's lives, from 1.
    pub(crate) life: usize,
    /// What its presence says: tells it from others of the same client.
    pub(crate) status: String,
    /// When it asked last.
    pub(crate) asked: Duration,
    /// Its own presence came back.
    pub(crate) joined: Option<Duration>,
    /// The client said that it goes, or that it is unavailable, or its session ended.
    pub(crate) left: Option<Duration>,
    /// The room said so.
    pub(crate) out: Option<Duration>,
}

/// A line that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) line: usize,
    /// In which life of its client, from 1.
    pub(crate) life: usize,
    pub(crate) at: Came,
}

/// What a client has to do with the toys, with a die of its own.
#[derive(Clone, Debug)]
pub(crate) struct Toys {
    pub(crate) chance: Chance,
    pub(crate) stays: Vec<Stay>,
    /// What came for its full JID.
    pub(crate) heard: Vec<Heard>,
}

impl Toys {
    pub(crate) fn new(chance: Chance) -> Self {
        Self { chance, stays: Vec::new(), heard: Vec::new() }
    }

    /// The last stay, if its client has not left.
    pub(crate) fn stay(&mut self) -> Option<&mut Stay> {
        self.stays.last_mut().filter(|stay| stay.left.is_none() && stay.out.is_none())
    }

    /// The client is in no room from here on, and knows it.
    pub(crate) fn leaves(&mut self) {
        if let Some(stay) = self.stays.last_mut() {
            stay.left.get_or_insert_with(now);
        }
    }

    /// Whether a join now is not taken for that of the last stay: the room has said that it is over, or had time to.
    pub(crate) fn may_join(&self) -> bool {
        self.stays.last().is_none_or(|stay| {
            let over = stay.left.is_some() || stay.out.is_some();
            over && (stay.out.is_some() || stay.left.is_some_and(|at| at + Duration::from_secs(5) < now()))
        })
    }
}

impl Client {
    /// Its occupant in a room.
    pub(crate) fn occupant(&self, n: usize) -> String {
        format!("{}/c{}", room(n), self.n)
    }
}

/// The server has settled it.
pub(crate) fn acked(world: &World, n: usize) {
    if let Some(line) = world.lines.lock().get_mut(n) {
        line.acked_at = Some(now());
    }
}

/// Whether it comes is nobody's promise.
pub(crate) fn doubt(world: &World, n: usize) {
    if let Some(line) = world.lines.lock().get_mut(n) {
        line.doubtful = true;
    }
}

/// Takes what comes from a toy; whether it did.
pub(crate) fn take(world: &World, client: &mut Client, text: &str, id: &str) -> bool {
    let from = attribute(text, "from").unwrap_or_default();
    if text.starts_with("<presence") && from.contains("@rooms.") {
        presence(world, client, text, &from);
        return true;
    }
    let number = id.strip_prefix('e').and_then(|n| n.parse::<usize>().ok());
    let Some(n) = number.filter(|_| text.starts_with("<message")) else { return false };
    let mut lines = world.lines.lock();
    let Some(line) = lines.get_mut(n) else { return false };
    if attribute(text, "type").as_deref() == Some("error") {
        let tag = text.split_once("<error").map_or("", |(_, rest)| rest);
        let condition = between(tag, "<", " xmlns").unwrap_or("?").to_owned();
        let (at, first) = (client.came(), *line.refused_at.get_or_insert(client.came()));
        if line.errors.is_empty() || !world.may_repeat(client.user, first, at) {
            line.errors.push(condition);
        }
        world.log.count("line refused");
    } else if attribute(text, "to") == Some(client.full()) {
        client.toys.heard.push(Heard { line: n, life: client.lives.len(), at: client.came() });
        world.log.count(if line.room.is_some() { "line of a room" } else { "echo of the component" });
    }
    true
}

fn presence(world: &World, client: &mut Client, text: &str, from: &str) {
    let (me, life) = (client.n, client.lives.len());
    let mine = |stay: &Stay| stay.life == life && from == format!("{}/c{me}", room(stay.room));
    let type_ = attribute(text, "type");
    let status = between(text, "<status>", "</status>").unwrap_or_default();
    let Some(stay) = client.toys.stays.last_mut().filter(|stay| mine(stay)) else { return };
    match type_.as_deref() {
        None if status == stay.status => {
            if stay.joined.is_none() {
                world.log.count("joined a room");
            }
            stay.joined.get_or_insert_with(now);
        }
        // Of an earlier stay it may say so late.
        Some("unavailable") if stay.joined.is_some() => {
            if stay.left.is_none() {
                world.log.count("thrown out of a room");
            }
            stay.out.get_or_insert_with(now);
        }
        _ => {}
    }
}
