//! Streams of links, as the far server takes them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rookery_actors::link::stream::{Dialer, Failure, LinkEnd, Managed, Next, Pair, Ready, Resumable};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Fate, Kept, Ways, people};
use crate::chance::now;
use crate::world::World;

/// How often a stream that must wait looks again.
const LOOK: Duration = Duration::from_millis(20);
/// How long a node that nobody reaches waits for a stream.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node's way to the far server.
pub(super) struct Way {
    pub(super) world: Arc<World>,
    pub(super) node: usize,
}

impl Dialer for Way {
    fn dial(&self, _: &Pair, resume: Option<Resumable>, end: LinkEnd) {
        tokio::spawn(stream(self.world.clone(), self.node, resume, end));
    }
}

fn failure(permanent: bool) -> Failure {
    let text = "the far server is not to be had";
    if permanent { Failure::permanent(text) } else { Failure::passing(text) }
}

/// A connection of a link's stream; however it ends, the far server knows.
struct Connection {
    world: Arc<World>,
    node: usize,
    stream: u64,
    connection: u64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end(None);
    }
}

impl Connection {
    /// Whether the stream is still this connection's.
    fn holds(&self) -> bool {
        let state = self.world.far.state.lock();
        state.streams.get(&self.stream).is_some_and(|kept| kept.connection == self.connection)
    }

    fn h(&self) -> u32 {
        self.world.far.state.lock().streams.get(&self.stream).map_or(0, |kept| kept.h)
    }

    fn severed(&self) -> bool {
        self.world.places.get(self.node).is_some_and(|place| place.severed.load(Ordering::Relaxed))
    }

    /// The stream is over; what is kept of the stream is what `fate` says.
    fn end(&self, fate: Option<Fate>) {
        let nature = self.world.far.nature;
        let mut state = self.world.far.state.lock();
        let Some(kept) = state.streams.get_mut(&self.stream) else { return };
        if kept.connection != self.connection {
            return;
        }
        kept.connection = 0;
        kept.lost.push(now());
        if kept.fate == Fate::Open {
            let usual = if nature.managed && nature.keeps { Fate::Open } else { Fate::Forgotten };
            kept.fate = fate.unwrap_or(usual);
        }
        let fate = kept.fate;
        drop(state);
        self.note(format_args!("ends: {fate:?}"));
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.world.log.note(format_args!("far n{} s{}", self.node, self.stream), what);
    }
}

async fn stream(world: Arc<World>, node: usize, resume: Option<Resumable>, end: LinkEnd) {
    let far = &world.far;
    sleep(far.delay(2, 25)).await;
    let mut ways = far.ways.subscribe();
    let severed = || world.places.get(node).is_some_and(|place| place.severed.load(Ordering::Relaxed));
    let begun = Instant::now();
    while severed() && begun.elapsed() < PATIENCE {
        sleep(LOOK).await;
    }
    let first = *ways.borrow_and_update();
    let away = if severed() { Some(false) } else { first.away };
    if let Some(permanent) = away {
        sleep(far.delay(10, 300)).await;
        world.log.count("far server not reached");
        return end.failed(failure(permanent));
    }
    let (stream, connection, managed) = open(&world, resume.as_ref());
    let connection = Connection { world: world.clone(), node, stream, connection };
    connection.note(format_args!("opens: {managed:?}"));
    let (proof, address) = ("certificate", "192.0.2.7".to_owned());
    end.ready(Ready { managed, proof, address, tls: "1.3", max_bytes: None });
    let fate = converse(&connection, &end, &mut ways, first).await;
    connection.end(fate);
}

/// Resumes a stream, or begins one: its name, its connection, and what the link is told.
fn open(world: &World, resume: Option<&Resumable>) -> (u64, u64, Managed) {
    let nature = world.far.nature;
    let mut state = world.far.state.lock();
    state.names += 1;
    let connection = state.names;
    let asked = resume.and_then(|resume| resume.id.strip_prefix('s')?.parse::<u64>().ok());
    let refuses = state.chance.hits(60);
    let tells = state.chance.hits(500);
    let mut last = None;
    if let Some((stream, kept)) = asked.and_then(|id| state.streams.get_mut(&id).map(|kept| (id, kept))) {
        if kept.fate == Fate::Open && !refuses {
            kept.connection = connection;
            kept.resumed.push(now());
            let h = kept.h;
            world.log.count("stream resumed by the far server");
            return (stream, connection, Managed::Resumed { h });
        }
        if kept.fate == Fate::Open {
            kept.fate = if tells { Fate::Told } else { Fate::Forgotten };
            kept.connection = 0;
            last = tells.then_some(kept.h);
        }
        world.log.count("resumption refused by the far server");
    }
    let kept = Kept { h: 0, connection, fate: Fate::Open, lost: vec![], resumed: vec![] };
    state.streams.insert(connection, kept);
    let id = nature.keeps.then(|| format!("s{connection}"));
    let managed = match nature.managed {
        true => Managed::Enabled { id, max: None, location: None, last },
        false => Managed::No,
    };
    world.log.count("stream of a link opened");
    (connection, connection, managed)
}

/// Until the stream is lost, or closed.
async fn converse(
    at: &Connection,
    end: &LinkEnd,
    ways: &mut watch::Receiver<Ways>,
    first: Ways,
) -> Option<Fate> {
    let mut out = Vec::new();
    loop {
        let now = *ways.borrow_and_update();
        if now.cuts != first.cuts || now.away.is_some() || !at.holds() {
            return None;
        }
        if now.closes != first.closes {
            // What was confirmed is; the rest is nobody's.
            end.confirmed(at.h());
            return Some(Fate::Forgotten);
        }
        if now.pauses || at.severed() {
            sleep(LOOK).await;
            continue;
        }
        out.clear();
        let next = tokio::select! {
            biased;
            changed = ways.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return None,
            },
            next = end.next(&mut out) => next,
            // Whether another connection has the stream now.
            () = sleep(Duration::from_millis(250)) => continue,
        };
        match next {
            Next::Abandon => return None,
            Next::Close => return Some(Fate::Closed),
            Next::Write => {}
        }
        sleep(at.world.far.delay(1, 10)).await;
        let text = String::from_utf8_lossy(&out).into_owned();
        for element in elements(&text) {
            let lost = ways.borrow().cuts != first.cuts && at.world.far.state.lock().chance.hits(300);
            if lost || !at.holds() {
                return None;
            }
            if element.starts_with("<r ") {
                let h = at.h();
                sleep(at.world.far.delay(1, 5)).await;
                end.confirmed(h);
            } else {
                people::take(&at.world, at.stream, element);
            }
        }
    }
}

/// The elements of a stream, one after the other: this server writes no comments and the like.
fn elements(text: &str) -> Vec<&str> {
    let (mut all, mut depth, mut start, mut at) = (Vec::new(), 0_i32, 0, 0);
    while let Some(open) = text.get(at..).and_then(|rest| rest.find('<')).map(|n| at + n) {
        let Some(close) = text.get(open..).and_then(|rest| rest.find('>')).map(|n| open + n) else { break };
        let tag = text.get(open..=close).unwrap_or_default();
        if depth == 0 {
            start = open;
        }
        match (tag.starts_with("</"), tag.ends_with("/>")) {
            (true, _) => depth -= 1,
            (_, true) => {}
            _ => depth += 1,
        }
        at = close + 1;
        if depth == 0 {
            all.extend(text.get(start..at));
        }
    }
    all
}
