//! Pairs of clients that chat: with so many messages in flight, or so many a second.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Error;
use super::peer::{Site, session, user};
use super::usage::{cpu_seconds, settle};
use crate::client::{Client, Frame, SM};

/// How senders behave.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As fast as they can with this many unreceived messages a pair.
    InFlight(usize),
    /// This many messages a second in all.
    PerSecond(usize),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub messages: usize,
    pub seconds: f64,
    pub cpu: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Messages between two acknowledgement requests of a sender (XEP-0198).
const ACK_EVERY: usize = 8;

/// Runs `messages` over `pairs` pairs, after a warm-up of a tenth.
pub async fn chat(site: &Site<'_>, pairs: usize, messages: usize, pace: Pace) -> Result<Outcome, Error> {
    let mut clients = Vec::new();
    for pair in 0..pairs {
        let seats = [0, 1].map(|end| site.seat(pair * 2 + end));
        let mut sender = session(&seats[0].options, seats[0].user).await?;
        let mut receiver = session(&seats[1].options, seats[1].user).await?;
        // From here on `frame` below does the acknowledging; nothing is kept to be sent again.
        for client in [&mut sender, &mut receiver] {
            client.sm.enabled = false;
            client.sm.automatic = false;
        }
        let to = format!("{}@{}", user(seats[1].user), seats[1].options.domain);
        clients.push((sender, receiver, to));
    }
    let each = messages / pairs;
    let (clients, _) = round(clients, (each / 10).max(5), pace).await?;
    settle(&site.pids).await;
    let before = cpu_seconds(&site.pids);
    let start = Instant::now();
    let (clients, mut delays) = round(clients, each, pace).await?;
    let seconds = start.elapsed().as_secs_f64();
    settle(&site.pids).await;
    let cpu = cpu_seconds(&site.pids) - before;
    for (sender, mut receiver, _) in clients {
        sender.close().await?;
        // What was not acknowledged would come again at the next login, rightly.
        let last = format!("<a xmlns='{SM}' h='{}'/>", receiver.sm.handled);
        receiver.send_raw(last.as_bytes()).await?;
        receiver.close().await?;
    }
    delays.sort();
    let at = |part: f64| delays.get((delays.len() as f64 * part) as usize).copied().unwrap_or_default();
    Ok(Outcome { messages: delays.len(), seconds, cpu, p50: at(0.5), p99: at(0.99) })
}

/// The sender, the receiver, and the receiver's bare JID.
type Pairs = Vec<(Client, Client, String)>;

async fn round(clients: Pairs, each: usize, pace: Pace) -> Result<(Pairs, Vec<Duration>), Error> {
    let pairs = clients.len();
    let mut running = JoinSet::new();
    for (number, (mut sender, mut receiver, to)) in clients.into_iter().enumerate() {
        let permits = match pace {
            Pace::InFlight(window) => window,
            Pace::PerSecond(_) => each,
        };
        let gate = Arc::new(Semaphore::new(permits));
        let sent = Arc::new(Mutex::new(Vec::with_capacity(each)));
        let (gate2, sent2) = (gate.clone(), sent.clone());
        let name = to.clone();
        let step = match pace {
            Pace::InFlight(_) => None,
            Pace::PerSecond(rate) => Some(Duration::from_secs_f64(pairs as f64 / rate as f64)),
        };
        let offset = step.map(|s| s.mul_f64(number as f64 / pairs as f64));
        let send = async move {
            let start = tokio::time::Instant::now();
            for at in 0..each {
                if let (Some(step), Some(offset)) = (step, offset) {
                    let due = start + offset + step.mul_f64(at as f64);
                    drain_until(&mut sender, tokio::time::sleep_until(due)).await?;
                }
                let permit = drain_until(&mut sender, gate.acquire()).await?;
                permit.expect("the gate is never closed").forget();
                sent.lock().unwrap().push(Instant::now());
                let text = message(&to, at);
                sender.send(&text).await?;
            }
            Ok::<Client, Error>(sender)
        };
        let receive = async move {
            let mut delays = Vec::with_capacity(each);
            while delays.len() < each {
                if frame(&mut receiver).await? {
                    let at = delays.len();
                    let sent = sent2.lock().unwrap()[at];
                    delays.push(sent.elapsed());
                    gate2.add_permits(1);
                }
            }
            Ok::<_, Error>((receiver, delays))
        };
        running.spawn(async move {
            let (sender, received) = tokio::try_join!(send, receive)?;
            Ok::<_, Error>((number, (sender, received.0, name), received.1))
        });
    }
    let (mut clients, mut delays) = (Vec::new(), Vec::new());
    let patience = Duration::from_secs(300);
    while let Some(ended) = tokio::time::timeout(patience, running.join_next())
        .await
        .map_err(|_| Error::Wrong("messages are missing after five minutes".into()))?
    {
        let (number, pair, times) = ended.map_err(|e| Error::Wrong(e.to_string()))??;
        clients.push((number, pair));
        delays.extend(times);
    }
    clients.sort_by_key(|(number, ..)| *number);
    Ok((clients.into_iter().map(|(_, pair)| pair).collect(), delays))
}

/// A message as clients send it, about 330 bytes; every eighth asks for an acknowledgement.
fn message(to: &str, number: usize) -> String {
    let request = if number % ACK_EVERY == ACK_EVERY - 1 { "<r xmlns='urn:xmpp:sm:3'/>" } else { "" };
    format!(
        "<message to='{to}' type='chat' id='b0c7a1e2-{number:08}'>\
         <body>But, soft! what light through yonder window breaks? It is the east, and Juliet is the sun.</body>\
         <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>\
         <origin-id xmlns='urn:xmpp:sid:0' id='b0c7a1e2-{number:08}'/></message>{request}"
    )
}

/// Waits for `event` while reading what the server sends.
async fn drain_until<T>(client: &mut Client, event: impl Future<Output = T>) -> Result<T, Error> {
    tokio::pin!(event);
    loop {
        tokio::select! {
            biased;
            out = &mut event => return Ok(out),
            frame = frame(client) => { frame?; }
        }
    }
}

/// Reads one frame; true for a message with a body. Acknowledges when asked to.
pub(super) async fn frame(client: &mut Client) -> Result<bool, Error> {
    let body =
        |bytes: &[u8]| bytes.starts_with(b"<message") && memchr::memmem::find(bytes, b"<body").is_some();
    frame_that(client, body).await
}

/// Reads one frame; true if it is one of the wanted. Acknowledges when asked to.
pub(super) async fn frame_that(client: &mut Client, wanted: impl Fn(&[u8]) -> bool) -> Result<bool, Error> {
    let range = match client.wire.frame().await? {
        Frame::Element(range) => range,
        Frame::Open => return Ok(false),
        Frame::Close | Frame::End => return Err(Error::Wrong("the server closed a stream".into())),
    };
    let bytes = client.wire.bytes(range);
    let found = wanted(bytes);
    let request = bytes.starts_with(b"<r ") || bytes.starts_with(b"<r>");
    if bytes.starts_with(b"<stream:error") || memchr::memmem::find(bytes, b"type='error'").is_some() {
        return Err(Error::Wrong(format!("an error: {}", String::from_utf8_lossy(bytes))));
    }
    if request {
        let answer = format!("<a xmlns='{SM}' h='{}'/>", client.sm.handled);
        client.send_raw(answer.as_bytes()).await?;
    } else if crate::client::is_stanza(bytes) {
        client.sm.handled = client.sm.handled.wrapping_add(1);
    }
    Ok(found)
}
