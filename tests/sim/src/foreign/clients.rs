//! What clients do with people of the far server, and what they read of them.

use super::{DOMAIN, Out, PEOPLE, Request, number, person};
use crate::chance::now;
use crate::client::{Client, What};
use crate::reading::{attribute, between};
use crate::world::World;

/// Something for the far server; nothing if the client does something else.
pub(crate) fn play(world: &World, client: &mut Client) -> Option<(String, What)> {
    let told = client.life().is_some_and(|life| life.told.is_some());
    if !told || client.leaving {
        return None;
    }
    let mut state = world.far.state.lock();
    let side = state.sides.get_mut(client.n)?;
    let (dice, p, full) = (side.below(1_000), side.below(PEOPLE), side.hits(300));
    let to = if full { format!("{}/x", person(p)) } else { person(p) };
    match dice {
        0..160 => {
            let n = state.outs.len();
            let (life, acked, doubtful, copied) = (client.lives.len(), false, false, false);
            let (errors, came) = (Vec::new(), Vec::new());
            state.outs.push(Out { from: client.n, life, to: p, acked, doubtful, errors, copied, came });
            Some((
                format!("<message to='{to}' type='chat' id='f{n}'><body>f{n}</body></message>"),
                What::Far(n),
            ))
        }
        160..190 => {
            let n = state.asks.len();
            let (life, acked, answers, seen) = (client.lives.len(), false, 0, 0);
            state.asks.push(Request { client: client.n, life, acked, answers, seen });
            let xml = format!("<iq type='get' id='h{n}' to='{}/x'><ask xmlns='sim:ask'/></iq>", person(p));
            Some((xml, What::FarAsked(n)))
        }
        190..230 => Some((format!("<presence type='subscribe' to='{}'/>", person(p)), What::Other)),
        230..238 => Some((format!("<presence type='unsubscribe' to='{}'/>", person(p)), What::Other)),
        238..244 => Some((format!("<presence type='unsubscribed' to='{}'/>", person(p)), What::Other)),
        _ => None,
    }
}

/// A message is settled.
pub(crate) fn acked(world: &World, n: usize) {
    if let Some(out) = world.far.state.lock().outs.get_mut(n) {
        out.acked = true;
    }
}

/// A request is.
pub(crate) fn ask_acked(world: &World, n: usize) {
    if let Some(asked) = world.far.state.lock().asks.get_mut(n) {
        asked.acked = true;
    }
}

/// Whether it comes is nobody's promise.
pub(crate) fn doubt(world: &World, n: usize) {
    if let Some(out) = world.far.state.lock().outs.get_mut(n) {
        out.doubtful = true;
    }
}

/// Takes what has to do with the far server; `None` if nothing has. What is answered is inside.
pub(crate) fn take(world: &World, client: &Client, text: &str, id: &str) -> Option<Option<String>> {
    if !world.plan.foreign {
        return None;
    }
    let mut state = world.far.state.lock();
    let numbered = |letter: char| id.strip_prefix(letter)?.parse::<usize>().ok();
    let kind = attribute(text, "type").unwrap_or_default();
    if text.starts_with("<message") {
        if kind == "error" && text.contains("<received xmlns='urn:xmpp:carbons:2'") {
            let n = between(text, " id='f", "'").and_then(|n| n.parse::<usize>().ok())?;
            state.outs.get_mut(n)?.copied = true;
            world.log.count("copy of an error");
            return Some(None);
        }
        if kind == "error" {
            let out = numbered('f').and_then(|n| state.outs.get_mut(n))?;
            let tag = text.split_once("<error").map_or("", |(_, rest)| rest);
            let condition = between(tag, "<", " xmlns").unwrap_or("?").to_owned();
            out.errors.push((now(), condition));
            world.log.count("message to the far server bounced");
            return Some(None);
        }
        if text.contains("<body>f") {
            return Some(None); // a copy
        }
        let n = between(text, "<body>g", "</body>").and_then(|n| n.parse::<usize>().ok())?;
        let sent = state.ins.get_mut(n)?;
        match text.contains("urn:xmpp:carbons:2") {
            true => sent.copies += 1,
            false => {
                sent.got.push((client.n, client.lives.len(), now()));
                world.log.count("message of the far server");
            }
        }
        return Some(None);
    }
    if text.starts_with("<presence") && kind == "error" {
        let p = attribute(text, "from").and_then(|from| number(&from, "p"))?;
        state.refused.insert((client.user, p));
        world.log.count("presence for the far server refused");
        return Some(None);
    }
    if !text.starts_with("<iq") {
        return None;
    }
    match &kind[..] {
        "get" => {
            let asked = numbered('i').and_then(|n| state.asked.get_mut(n))?;
            asked.seen += 1;
            let from = attribute(text, "from").filter(|from| from.contains(DOMAIN))?;
            Some(Some(format!("<iq type='result' id='{id}' to='{from}'/>")))
        }
        "result" | "error" => {
            let asked = numbered('h').and_then(|n| state.asks.get_mut(n))?;
            asked.answers += 1;
            Some(None)
        }
        _ => None,
    }
}
