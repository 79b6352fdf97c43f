//! The far server goes away in the midst of messages to it. Each message is delivered once or comes back, and the order is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{Error, wrong};
use crate::client::{Client, Event};
use crate::peers::{Host, PASSWORD, Side, Software, World, user};
use crate::xml::Element;

/// How the far server goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// SIGSTOP for a while.
    Paused,
    /// SIGTERM, and started again.
    Restarted,
    /// SIGKILL, and started again.
    Killed,
}

/// Messages of a round in which the far server is killed; of the others.
const MESSAGES: [usize; 2] = [5_000, 1_500];
/// After so long without anything new a round is over, and what is missing is lost.
const QUIET: Duration = Duration::from_secs(20);
/// The message behind all others: what was under way when they were all known has come before it.
const LAST: &str = "last";

/// What became of the messages.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub sent: usize,
    /// In the order in which they came.
    pub delivered: Vec<usize>,
    /// Those that came back as errors.
    pub bounced: Vec<usize>,
    /// What the errors said.
    pub reasons: BTreeSet<String>,
}

impl Tally {
    /// Neither delivered nor bounced.
    pub fn lost(&self) -> Vec<usize> {
        let known: BTreeSet<usize> = self.delivered.iter().chain(&self.bounced).copied().collect();
        (0..self.sent).filter(|n| !known.contains(n)).collect()
    }

    /// Delivered more than once.
    pub fn again(&self) -> Vec<usize> {
        let mut times = BTreeMap::new();
        for n in &self.delivered {
            *times.entry(*n).or_insert(0) += 1;
        }
        times.into_iter().filter(|(_, times)| *times > 1).map(|(n, _)| n).collect()
    }

    /// Delivered, and bounced as well.
    pub fn both(&self) -> Vec<usize> {
        let bounced: BTreeSet<usize> = self.bounced.iter().copied().collect();
        self.delivered.iter().copied().filter(|n| bounced.contains(n)).collect()
    }

    /// A message that came for the first time after a later one, and that one.
    pub fn disorder(&self) -> Option<(usize, usize)> {
        let (mut seen, mut last) = (BTreeSet::new(), 0);
        for n in &self.delivered {
            if seen.insert(*n) {
                if *n < last {
                    return Some((*n, last));
                }
                last = *n;
            }
        }
        None
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = |list: &[usize]| match list {
            [] => "none".to_owned(),
            [first, .., last] => format!("{} ({first} to {last})", list.len()),
            [one] => format!("1 ({one})"),
        };
        write!(
            f,
            "sent {}, delivered {}, bounced {} {:?}, lost {}, again {}, delivered and bounced {}, out of order {:?}",
            self.sent,
            self.delivered.len(),
            self.bounced.len(),
            self.reasons,
            ends(&self.lost()),
            ends(&self.again()),
            ends(&self.both()),
            self.disorder()
        )
    }
}

/// What came back.
#[derive(Clone, Debug, Default)]
struct Bounced {
    numbers: Vec<usize>,
    reasons: BTreeSet<String>,
}

/// The condition of an error, and its text.
pub fn reason(error: &Element) -> String {
    let texts = error.children().map(|child| match child.text() {
        text if text.is_empty() => child.name.clone(),
        text => text,
    });
    texts.collect::<Vec<_>>().join(": ")
}

/// How much may come again after a break: what was under way and not confirmed.
///
/// A server that ends in order has confirmed everything, if it can. A Rookery that is killed has not confirmed what has come since it was last
/// asked: a hundred or two, and more on a machine that does other things as well.
fn may_come_again(how: Break, far: Software) -> usize {
    match (how, far) {
        (Break::Paused, _) | (Break::Restarted, Software::Rookery) => 0,
        (Break::Killed, Software::Rookery) => 600,
        (Break::Restarted | Break::Killed, _) => 1_000,
    }
}

/// Plays a round and judges it.
///
/// Of Rookery as the sender all is asked. Neither Prosody nor ejabberd resumes a stream after a restart, so what they had and
/// had not confirmed comes again then; what comes for the first time is in order all the same. What they had confirmed and then lost, they
/// have lost: that is found in the log of Rookery ([`confirmed`]). Of others nothing is asked but that messages flow again at the end, and that
/// Rookery, which receives, refuses none while it is slow: TCP slows the sender.
pub(super) async fn play(world: &mut World, near: Side, number: usize, how: Break) -> Result<(), Error> {
    let before = world.server(near).whole_log().len();
    let tally = traffic(world, near, number, how, MESSAGES[usize::from(how != Break::Killed)]).await?;
    let (ours, far) = (world.server(near).software == Software::Rookery, world.server(near.other()).software);
    println!("{} {how:?}: {tally}", names(world, near));
    let mut lost = tally.lost();
    if ours && far != Software::Rookery && how != Break::Paused && !lost.is_empty() {
        let log = world.server(near).whole_log();
        let [near, far_domain] = [near, near.other()].map(|side| Host::Main.domain(side));
        let link = format!("link={near}@{far_domain} ");
        let confirmed = confirmed(log.get(before..).unwrap_or_default(), &link);
        println!("{far} has confirmed {confirmed:?}: what is lost of that, {far} has lost");
        lost.retain(|n| !confirmed.iter().any(|range| range.contains(n)));
    }
    let bad = !lost.is_empty()
        || !tally.both().is_empty()
        || tally.disorder().is_some()
        || tally.again().len() > may_come_again(how, far);
    let refused = far == Software::Rookery && tally.reasons.iter().any(|r| r.contains("resource-constraint"));
    match ours && bad || refused {
        true => wrong(format!("{tally}; of the lost ones not confirmed: {lost:?}")),
        false => after(world, near, number).await,
    }
}

/// Which messages the far server has confirmed, before the break and after it, as a round's part of Rookery's log says. What is sent is
/// confirmed in its order; a range with fewer stanzas than messages has a hole, and proves nothing.
fn confirmed(log: &str, link: &str) -> Vec<RangeInclusive<usize>> {
    let number = |line: &str, name: &str| -> Option<usize> {
        line.split_once(name)?.1.split_whitespace().next()?.trim_matches(['"', 'n']).parse().ok()
    };
    let lines = log.lines().filter(|line| line.contains(link));
    let lines = lines.filter(|line| line.contains("another server has confirmed what it was sent"));
    let range = |line: &str| {
        let (stanzas, first) = (number(line, "stanzas=")?, number(line, "first=")?);
        let last = number(line, "last=")?;
        (last < first + stanzas).then_some(first..=last)
    };
    let mut ranges: Vec<RangeInclusive<usize>> = Vec::new();
    for range in lines.filter_map(range) {
        match ranges.last_mut() {
            Some(before) if before.end() + 1 == *range.start() => *before = *before.start()..=*range.end(),
            _ => ranges.push(range),
        }
    }
    ranges
}

fn names(world: &World, near: Side) -> String {
    format!("{} to {}", world.server(near).software, world.server(near.other()).software)
}

/// A message each way, when all is over.
async fn after(world: &World, near: Side, number: usize) -> Result<(), Error> {
    let mut here = world.person(near, Host::Main, number).await?;
    let mut there = world.person(near.other(), Host::Main, number).await?;
    let give_up = Instant::now() + Duration::from_secs(60);
    for _ in 0..2 {
        let name = there.jid.clone();
        loop {
            super::everyday::say(&mut here, &name, "after", "still there?").await?;
            let through =
                |e: &Element| super::everyday::body(e) == "still there?" && e.attr("type") != Some("error");
            match timeout(Duration::from_secs(5), there.wait("a message", through)).await {
                Ok(got) => break drop(got?),
                Err(_) if Instant::now() > give_up => {
                    return wrong("no message comes through after the break");
                }
                Err(_) => {}
            }
        }
        std::mem::swap(&mut here, &mut there);
    }
    super::everyday::leave([here, there]).await
}

/// Sends so many messages; when a third has come, the far server goes away, and comes back.
pub async fn traffic(
    world: &mut World,
    near: Side,
    number: usize,
    how: Break,
    count: usize,
) -> Result<Tally, Error> {
    let far = near.other();
    let sender = world.person(near, Host::Main, number).await?;
    let receiver = world.person(far, Host::Main, number).await?;
    let to = world.jid(far, Host::Main, number);
    let options = world.server(far).options(&Host::Main.domain(far));
    let (seen, mut watch) = watch::channel(0_usize);
    let seen = Arc::new(seen);
    let (bounces, bounced) = watch::channel(Bounced::default());
    let (all, over) = watch::channel(false);
    let sending = tokio::spawn(send(sender, to, count, bounces, over));
    let receiving = tokio::spawn(receive(receiver, options, number, count, (seen, all), bounced.clone()));
    let third = timeout(Duration::from_secs(60), watch.wait_for(|n| *n >= count / 3)).await;
    if !third.is_ok_and(|seen| seen.is_ok()) {
        return wrong("not even a third of the messages has come");
    }
    strike(world, far, how).await?;
    let delivered = receiving.await.map_err(|e| Error::Wrong(e.to_string()))?;
    sending.abort();
    let Bounced { numbers, reasons } = bounced.borrow().clone();
    Ok(Tally { sent: count, delivered, bounced: numbers, reasons })
}

async fn strike(world: &mut World, far: Side, how: Break) -> Result<(), Error> {
    let server = world.server_mut(far);
    match how {
        Break::Paused => {
            let seconds = std::env::var("ROOKERY_TEST_PAUSE").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
            server.signal("STOP").await?;
            sleep(Duration::from_secs(seconds)).await; // the fault itself
            server.signal("CONT").await?;
        }
        Break::Restarted => {
            server.stop().await?;
            server.launch().await?;
        }
        Break::Killed => {
            server.kill().await?;
            server.launch().await?;
        }
    }
    Ok(())
}

/// Sends, and notes what comes back, until it is ended.
async fn send(
    mut client: Client,
    to: String,
    count: usize,
    bounces: watch::Sender<Bounced>,
    over: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut at = 0;
    let mut again = tokio::time::interval(Duration::from_millis(500));
    // A burst every tick: the strike hits while much is under way.
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            _ = tick.tick(), if at < count => {
                let upto = (at + 20).min(count);
                let burst: String = (at..upto)
                    .map(|n| format!("<message to='{to}' type='chat' id='n{n}'><body>line {n}</body></message>"))
                    .collect();
                client.send_raw(burst.as_bytes()).await?;
                at = upto;
            }
            // It may go the way of the others.
            _ = again.tick() => if *over.borrow() {
                super::everyday::say(&mut client, &to, LAST, "that was all").await?;
            },
            event = client.fresh() => match event? {
                Event::Element(e) => {
                    if e.attr("type") == Some("error") && let Some(n) = line(&e) {
                        bounces.send_modify(|bounced| {
                            bounced.numbers.push(n);
                            bounced.reasons.extend(e.get("error").map(reason));
                        });
                    }
                }
                Event::Close | Event::End => return wrong("the near server closed the sender's stream"),
            }
        }
    }
}

/// Receives until all are known, or nothing has come for long; logs in again whenever the stream ends.
async fn receive(
    client: Client,
    options: crate::client::Options,
    number: usize,
    count: usize,
    (seen, all): (Arc<watch::Sender<usize>>, watch::Sender<bool>),
    mut bounced: watch::Receiver<Bounced>,
) -> Vec<usize> {
    let (mut delivered, mut known) = (Vec::new(), BTreeSet::new());
    let mut client = Some(client);
    let mut last = Instant::now();
    let mut ended = false;
    while last.elapsed() < QUIET && !ended {
        let Some(stream) = &mut client else {
            match timeout(Duration::from_secs(5), enter(&options, number)).await {
                Ok(Ok(mut again)) => {
                    // What came while it logged in.
                    for element in &std::mem::take(&mut again.kept) {
                        if let Some(n) = line(element) {
                            delivered.push(n);
                            known.insert(n);
                        }
                    }
                    last = Instant::now();
                    client = Some(again);
                }
                _ => sleep(Duration::from_millis(50)).await, // a server that restarts gives no event
            }
            continue;
        };
        tokio::select! {
            event = stream.fresh() => match event {
                Ok(Event::Element(e)) => {
                    if let Some(n) = line(&e) {
                        delivered.push(n);
                        known.insert(n);
                        last = Instant::now();
                        seen.send_replace(known.len());
                    }
                    ended = e.name == "message" && e.attr("id") == Some(LAST);
                }
                Ok(Event::Close | Event::End) | Err(_) => client = None,
            },
            Ok(()) = bounced.changed() => {
                known.extend(bounced.borrow_and_update().numbers.iter().copied());
                last = Instant::now();
            }
            () = sleep(Duration::from_secs(1)) => {} // to look at the end of patience
        }
        if known.len() == count {
            // A copy of one that we have may still come.
            all.send_replace(true);
        }
    }
    delivered
}

async fn enter(options: &crate::client::Options, number: usize) -> Result<Client, crate::client::Error> {
    let mut client = Client::login(options, &user(number), PASSWORD, "here").await?;
    client.available().await?;
    Ok(client)
}

/// The number of one of these messages, an error about it, or a copy of it.
fn line(element: &Element) -> Option<usize> {
    match element.name.as_str() {
        "message" => element.attr("id")?.strip_prefix('n')?.parse().ok(),
        _ => None,
    }
}
