//! Logins, idle sessions, archive pages, offline messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use super::Error;
use super::chat::{Outcome, frame};
use super::peer::{Peer, Seat, Site, login, session, user};
use super::usage::{actor, cpu_seconds, settle};
use crate::client::Client;

/// Clients at work at the same time where not said otherwise.
const WORKERS: usize = 8;

/// Full logins, one after the other on eight connections; users repeat, so that the generator's key
/// stretching is done in the warm-up.
pub async fn logins(site: &Site<'_>, count: usize) -> Result<Outcome, Error> {
    let users = (count / 10).clamp(WORKERS, 400);
    many_logins(site, users, users).await?;
    settle(&site.pids).await;
    let before = cpu_seconds(&site.pids);
    let start = Instant::now();
    many_logins(site, count, users).await?;
    let seconds = start.elapsed().as_secs_f64();
    settle(&site.pids).await;
    Ok(Outcome { messages: count, seconds, cpu: cpu_seconds(&site.pids) - before, ..Outcome::default() })
}

async fn many_logins(site: &Site<'_>, count: usize, users: usize) -> Result<(), Error> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    let seats: Arc<[Seat]> = (0..users).map(|number| site.seat(number)).collect();
    for _ in 0..WORKERS {
        let (seats, next) = (seats.clone(), next.clone());
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<(), Error>(());
                }
                let Seat { options, user } = &seats[number % users];
                login(options, *user).await?.close().await?;
            }
        });
    }
    all(running).await.map(drop)
}

/// Sessions that do nothing: actor bytes per session at each of the sizes.
pub async fn idle(site: &Site<'_>, sizes: &[usize]) -> Result<Vec<(usize, f64)>, Error> {
    // What a server makes once, it makes now.
    many_logins(site, 200, 200).await?;
    settle(&site.pids).await;
    let empty = actor(&site.pids);
    let mut held = JoinSet::new();
    let mut open = 0;
    let mut out = Vec::new();
    for size in sizes {
        while open < *size {
            let mut logging_in = JoinSet::new();
            for number in open..(open + 32).min(*size) {
                let Seat { mut options, user } = site.seat(number);
                options.source = Some(std::net::Ipv4Addr::new(127, 0, 0, 2 + (number % 8) as u8).into());
                logging_in.spawn(async move { Ok(session(&options, user).await?) });
            }
            for client in all(logging_in).await? {
                open += 1;
                held.spawn(stay(client));
            }
        }
        settle(&site.pids).await;
        let bytes = actor(&site.pids).saturating_sub(empty);
        out.push((*size, bytes as f64 / *size as f64));
        if let Some(ended) = held.try_join_next() {
            let why = ended.map_or_else(|e| e.to_string(), |e| e.to_string());
            return Err(Error::Wrong(format!("an idle session ended: {why}")));
        }
    }
    held.shutdown().await;
    Ok(out)
}

/// Answers what must be answered until the stream ends, which it must not.
async fn stay(mut client: Client) -> Error {
    client.kept = Default::default();
    client.features = None;
    client.wire.shrink();
    loop {
        if let Err(e) = frame(&mut client).await {
            return e;
        }
    }
}

/// Pages of 50 from archives of 500 messages, eight clients at a time, from the newest page backwards.
pub async fn pages(peer: &Peer, count: usize) -> Result<Outcome, Error> {
    const MESSAGES: usize = 500;
    let options = peer.options();
    let mut clients = Vec::new();
    for number in 0..WORKERS {
        // To a user who is not there: the archive of the sender fills, and that of the other.
        let mut client = session(&options, 200 + number).await?;
        for at in 0..MESSAGES {
            let to = user(300 + number);
            client
                .send(&format!(
                    "<message to='{to}@localhost' type='chat' id='p{at}'><body>The {at}th line of a long \
                     conversation, of ordinary length, neither short nor very long.</body></message>"
                ))
                .await?;
        }
        client.send_raw(b"<r xmlns='urn:xmpp:sm:3'/>").await?;
        client.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await?;
        clients.push(client);
    }
    settle(&peer.pids()).await;
    let before = cpu_seconds(&peer.pids());
    let start = Instant::now();
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(page_through(client, count / WORKERS));
    }
    let clients = all(running).await?;
    let seconds = start.elapsed().as_secs_f64();
    settle(&peer.pids()).await;
    let cpu = cpu_seconds(&peer.pids()) - before;
    for client in clients {
        client.close().await?;
    }
    Ok(Outcome { messages: count / WORKERS * WORKERS, seconds, cpu, ..Outcome::default() })
}

async fn page_through(mut client: Client, count: usize) -> Result<Client, Error> {
    let mut before = "<before/>".to_owned();
    for _ in 0..count {
        let query = format!(
            "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>50</max>{before}</set></query>"
        );
        let answer = client.iq_ok("set", "", &query).await?;
        let results = std::mem::take(&mut client.kept);
        let results = results.iter().filter(|e| e.child("result", "urn:xmpp:mam:2").is_some()).count();
        if results != 50 {
            return Err(Error::Wrong(format!("a page of {results}: {answer}")));
        }
        let rsm = "http://jabber.org/protocol/rsm";
        let first = answer.find("first", rsm).map(|f| f.text()).unwrap_or_default();
        let last_page = answer.find("fin", "urn:xmpp:mam:2").and_then(|f| f.attr("complete")) == Some("true");
        before = match last_page || first.is_empty() {
            true => "<before/>".to_owned(),
            false => format!("<before>{first}</before>"),
        };
    }
    Ok(client)
}

/// Messages to users who are not there, then their arrival: (stored, drained).
pub async fn offline(peer: &Peer, messages: usize) -> Result<(Outcome, Outcome), Error> {
    const PAIRS: usize = 20;
    let each = messages / PAIRS;
    let options = peer.options();
    // Keys are stretched before, and a server that has seen a user once may keep something.
    for number in 0..PAIRS {
        login(&options, 450 + number).await?.close().await?;
    }
    let mut senders = Vec::new();
    for number in 0..PAIRS {
        senders.push(session(&options, 400 + number).await?);
    }
    settle(&peer.pids()).await;
    let (before, start) = (cpu_seconds(&peer.pids()), Instant::now());
    let mut running = JoinSet::new();
    for (number, mut client) in senders.into_iter().enumerate() {
        running.spawn(async move {
            let to = user(450 + number);
            for at in 0..each {
                let text = format!(
                    "<message to='{to}@localhost' type='chat' id='o{at}'><body>The {at}th line for somebody \
                     who is not there, of ordinary length, neither short nor very long.</body></message>"
                );
                client.send(&text).await?;
            }
            client.sm.automatic = false;
            client.send_raw(b"<r xmlns='urn:xmpp:sm:3'/>").await?;
            let (sm, all) = (crate::client::SM, client.sm.unacked.len() as u32);
            let mut h = 0;
            while h < all {
                let ack = client.wait("the acknowledgement", |e| e.is("a", sm)).await?;
                h = ack.attr("h").and_then(|h| h.parse().ok()).unwrap_or(0);
                if h < all {
                    client.send_raw(b"<r xmlns='urn:xmpp:sm:3'/>").await?;
                }
            }
            Ok::<Client, Error>(client)
        });
    }
    let senders = all(running).await?;
    let seconds = start.elapsed().as_secs_f64();
    settle(&peer.pids()).await;
    let cpu = cpu_seconds(&peer.pids()) - before;
    let stored = Outcome { messages: each * PAIRS, seconds, cpu, ..Outcome::default() };

    let (before, start) = (cpu_seconds(&peer.pids()), Instant::now());
    let mut running = JoinSet::new();
    for number in 0..PAIRS {
        let options = options.clone();
        running.spawn(async move {
            let mut client = login(&options, 450 + number).await?;
            let with_body = |e: &crate::xml::Element| e.name == "message" && e.get("body").is_some();
            let mut got = client.kept.iter().filter(|e| with_body(e)).count();
            while got < each {
                got += usize::from(frame(&mut client).await?);
            }
            client.kept.clear();
            Ok::<Client, Error>(client)
        });
    }
    let patience = std::time::Duration::from_secs(120);
    let clients = tokio::time::timeout(patience, all(running))
        .await
        .map_err(|_| Error::Wrong("offline messages are missing".into()))??;
    let seconds = start.elapsed().as_secs_f64();
    settle(&peer.pids()).await;
    let cpu = cpu_seconds(&peer.pids()) - before;
    for client in senders.into_iter().chain(clients) {
        client.close().await?;
    }
    Ok((stored, Outcome { messages: each * PAIRS, seconds, cpu, ..Outcome::default() }))
}

pub(super) async fn all<T: 'static>(mut running: JoinSet<Result<T, Error>>) -> Result<Vec<T>, Error> {
    let mut out = Vec::new();
    while let Some(ended) = running.join_next().await {
        out.push(ended.map_err(|e| Error::Wrong(e.to_string()))??);
    }
    Ok(out)
}
