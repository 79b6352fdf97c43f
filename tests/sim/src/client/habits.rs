//! What a client does by itself: it talks, asks, shows itself and hides, sleeps, logs out and binds anew.

use std::time::Duration;

use super::device::{Client, End, What};
use super::{Cut, Running, WINDOW, toys};
use crate::chance::now;
use crate::world::{Asked, Sent, Target, World, jid};

/// Something to send.
type Said = (String, What);

impl Running<'_> {
    /// Says something; how long it is silent then.
    pub(super) fn act(&self) -> Duration {
        let world = &self.visit.world;
        let home = self.visit.with(|client| client.user).and_then(|user| self.home(user));
        let what = self.visit.with(|client| {
            if world.plan.habits
                && let Some(what) = habit(world, client)
            {
                return what;
            }
            if !world.talking() {
                let calm = *world.stirred.lock() + Duration::from_secs(3) < now();
                if !calm || client.asked || !world.quiet() || !client.asks() {
                    return None;
                }
                client.asked = true;
                return Some((
                    "<iq type='get' id='last'><query xmlns='jabber:iq:roster'/></iq>".into(),
                    What::Other,
                ));
            }
            client.home = home.or(client.home.take());
            client.lost_node = false;
            client.was_drained = false;
            if client.unacked.len() >= WINDOW {
                return None;
            }
            if world.plan.toys
                && let Some(said) = toys::play(world, client)
            {
                return Some(said);
            }
            if world.plan.foreign
                && let Some(said) = crate::foreign::clients::play(world, client)
            {
                return Some(said);
            }
            Some(usual(world, client))
        });
        if let Some(Some((xml, what))) = what {
            self.send(xml, what);
        }
        let pause = self.visit.with(|client| {
            // Now and then many at once.
            if client.chance.hits(300) { Duration::from_millis(1) } else { client.chance.millis(50, 600) }
        });
        pause.unwrap_or(Duration::from_millis(100))
    }
}

fn usual(world: &World, client: &mut Client) -> Said {
    let to = jid(other(client, world.plan.users));
    let other = |xml: String| (xml, What::Other);
    match client.chance.below(100) {
        0..80 => {
            let (xml, n) = talk(world, client);
            (xml, What::Message(n))
        }
        80..90 if client.hides.is_some() || client.leaving => other("<presence type='probe'/>".into()),
        80..90 => client.show(true),
        90..93 => other(format!(
            "<iq type='set' id='r{n}'><query xmlns='jabber:iq:roster'><item jid='{to}' name='n{n}'/></query></iq>",
            n = client.chance.below(100)
        )),
        93..95 => other(format!("<presence type='unsubscribe' to='{to}'/>")),
        95..98 => other(format!("<presence type='subscribe' to='{to}'/>")),
        98..99 => other(format!("<presence type='unsubscribed' to='{to}'/>")),
        _ => other("<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>".into()),
    }
}

/// What a client does by habit; nothing if it does as all do.
fn habit(world: &World, client: &mut Client) -> Option<Option<Said>> {
    if client.leaving {
        if client.is_settled() {
            log_out(world, client);
        }
        return Some(None);
    }
    if let Some(until) = client.hides {
        // Those of one half stay hidden when all is quiet.
        let back = if world.quiet() { client.n.is_multiple_of(2) } else { until <= now() };
        if back && client.is_settled() {
            world.log.count("available again");
            return Some(Some(client.show(true)));
        }
    }
    if !world.talking() || client.unacked.len() >= WINDOW {
        return None;
    }
    let so = |client: &mut Client, often: u64| often > 0 && client.habit.hits(often);
    let traits = client.traits.clone();
    if so(client, traits.sleeps) {
        world.log.count("sleeps");
        client.sleeps = now() + client.habit.millis(1_500, 14_000);
        client.cut = Some(if client.habit.hits(800) { Cut::Lost } else { Cut::Silent });
        return Some(None);
    }
    if so(client, traits.leaves) {
        client.leaving = true;
        return Some(Some(client.show(false)));
    }
    if so(client, traits.hides) && client.is_shown() {
        world.log.count("unavailable for a while");
        let said = client.show(false);
        client.hides = Some(now() + client.habit.millis(1_500, 8_000));
        return Some(Some(said));
    }
    if so(client, 30) {
        return Some(Some(ask(world, client)));
    }
    if so(client, 15) && client.is_shown() {
        world.log.count("directed presence");
        let to = jid(other(client, world.plan.users));
        let xml = format!("<presence to='{to}'><status>{}</status></presence>", client.status);
        return Some(Some((xml, What::Other)));
    }
    None
}

/// Its last words are settled: it closes its stream.
fn log_out(world: &World, client: &mut Client) {
    world.log.count("logged out");
    client.leaving = false;
    client.end_life(End::LoggedOut);
    (client.out, client.live) = (true, false);
    client.sleeps = now() + client.habit.millis(1_500, 10_000);
    client.id.clear();
    client.cut = Some(Cut::Clean);
}

/// A request to some resource, which may be there or not.
fn ask(world: &World, client: &mut Client) -> Said {
    let user = other(client, world.plan.users);
    let (to, _, target) = address(world, client, user);
    let k = {
        let mut asked = world.asked.lock();
        asked.push(Asked {
            from: client.n,
            life: client.lives.len(),
            target,
            acked: false,
            answers: Vec::new(),
            seen_by: Vec::new(),
        });
        asked.len() - 1
    };
    world.log.count(match target {
        Target::Hibernates => "asked who hibernates",
        Target::There => "asked who is there",
        _ => "asked who is gone",
    });
    (format!("<iq type='get' id='q{k}' to='{to}'><ask xmlns='sim:ask'/></iq>"), What::Asked(k))
}

/// Another user.
pub(super) fn other(client: &mut Client, users: usize) -> usize {
    (client.user + 1 + client.chance.below(users - 1)) % users
}

/// A full JID of a user, of a device or of none; which device, and in what state.
fn address(world: &World, client: &mut Client, user: usize) -> (String, Option<usize>, Target) {
    let devices = world.devices.get(user).map(Vec::as_slice).unwrap_or_default();
    let one = client.habit.pick(devices).copied().filter(|_| !client.habit.hits(250));
    let Some(device) = one.and_then(|n| world.clients.get(n)) else {
        return (format!("{}/gone", jid(user)), None, Target::NeverWas);
    };
    // The device is another user's, so this is another lock.
    let device = device.lock();
    let target = match device.life() {
        None => Target::NeverWas,
        Some(life) if life.ended.is_some() => Target::LoggedOut,
        Some(_) if device.at.is_none() => Target::Hibernates,
        Some(_) => Target::There,
    };
    (device.full(), one, target)
}

/// A message to somebody, and its number.
pub(super) fn talk(world: &World, client: &mut Client) -> (String, usize) {
    let other = other(client, world.plan.users);
    let full = world.plan.habits && client.habit.hits(550);
    let (to, device, target) = match full {
        true => address(world, client, other),
        false => (jid(other), None, Target::Bare),
    };
    if let Some(count) = target.counter() {
        world.log.count(count);
    }
    let mut messages = world.messages.lock();
    let n = messages.len();
    let sent = Sent {
        from: client.n,
        to: other,
        device,
        target,
        acked: false,
        errors: 0,
        doubtful: false,
        sent_at: now(),
        acked_at: None,
    };
    messages.push(sent);
    (format!("<message to='{to}' type='chat' id='m{n}'><body>m{n}</body></message>"), n)
}
