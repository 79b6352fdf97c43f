//! What a client does with rooms and the component, by a die of its own.

use std::time::Duration;

use super::device::{Client, What};
use crate::chance::now;
use crate::toys::{ECHO, Line, ROOMS, Stay, room};
use crate::world::World;

/// When a client asks again whose presence has not come back: nobody promises that a presence is not lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// Something for a toy; nothing if the client does something else.
pub(super) fn play(world: &World, client: &mut Client) -> Option<(String, What)> {
    let told = client.life().is_some_and(|life| life.told.is_some());
    if !told || client.leaving || client.hides.is_some() {
        return None;
    }
    let dice = client.toys.chance.below(1_000);
    let stay = client.toys.stay().cloned();
    match stay {
        _ if dice < 40 => Some(say(world, client, None, false)),
        Some(stay) if stay.joined.is_none() => {
            let again = now() > stay.asked + PATIENCE;
            again.then(|| (join(client, stay.room, &stay.status), What::Other))
        }
        Some(stay) if dice < 240 => Some(say(world, client, Some(stay.room), false)),
        Some(stay) if dice < 252 => {
            world.log.count("left a room");
            client.toys.leaves();
            let to = client.occupant(stay.room);
            Some((format!("<presence to='{to}' type='unavailable'/>"), What::Other))
        }
        None if dice < 160 && client.toys.may_join() => {
            let (n, status) = (client.toys.chance.below(ROOMS), format!("j{}", client.toys.stays.len()));
            let (life, asked) = (client.lives.len(), now());
            let (joined, left, out) = (None, None, None);
            client.toys.stays.push(Stay { room: n, life, status: status.clone(), asked, joined, left, out });
            Some((join(client, n, &status), What::Other))
        }
        None if dice < 170 => {
            let n = client.toys.chance.below(ROOMS);
            Some(say(world, client, Some(n), true))
        }
        _ => None,
    }
}

fn join(client: &mut Client, n: usize, status: &str) -> String {
    if let Some(stay) = client.toys.stay() {
        stay.asked = now();
    }
    format!("<presence to='{}'><status>{status}</status></presence>", client.occupant(n))
}

/// A message to a room, or to some address of the component.
fn say(world: &World, client: &mut Client, to: Option<usize>, outside: bool) -> (String, What) {
    let mut lines = world.lines.lock();
    let n = lines.len();
    let (from, life, sent_at) = (client.n, client.lives.len(), now());
    let (acked_at, errors, refused_at) = (None, Vec::new(), None);
    lines.push(Line {
        from,
        life,
        room: to,
        outside,
        sent_at,
        acked_at,
        errors,
        refused_at,
        doubtful: false,
    });
    let (to, kind) = match to {
        // A chat is archived by each recipient; of a groupchat its session knows that it was sent.
        Some(n) => (room(n), if world.plan.groupchat { "groupchat" } else { "chat" }),
        None => (format!("somebody{}@{ECHO}/here", client.toys.chance.below(3)), "chat"),
    };
    (format!("<message to='{to}' type='{kind}' id='e{n}'><body>e{n}</body></message>"), What::Line(n))
}
