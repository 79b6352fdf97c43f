//! The far server's own stream: it ends on some node, as such streams do on any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rookery_actors::{Host, Ledger, Origin, OriginName};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::time::{Instant, sleep};

use super::outward::Way;
use super::{DOMAIN, Going, Item, Sent, State, number};
use crate::chance::now;
use crate::reading::attribute;
use crate::world::World;

/// How long a node may take to take a stream up.
const PATIENCE: Duration = Duration::from_secs(3);
/// A stream without use is closed after this.
const IDLE: Duration = Duration::from_secs(4);
/// How long a node waits until what has come is settled, as in the program.
const GIVE_UP: Duration = Duration::from_secs(2);
/// Stanzas that may be sent and not confirmed.
const WINDOW: usize = 50;

/// The streams that this node knows and may resume.
type Registry = BTreeMap<u64, Arc<Ledger>>;

impl State {
    /// Something is to be sent to the nodes.
    pub(super) fn say(&mut self, xml: String, what: Sent) {
        self.queue.push_back(Item { xml, what, sent: false });
    }

    /// The stream that this connection has.
    fn going(&mut self, connection: u64) -> Option<&mut Going> {
        self.going.as_mut().filter(|going| going.connection == connection)
    }

    /// So many of the stream's stanzas are safe.
    fn confirm(&mut self, connection: u64, h: u32) -> Result<(), u32> {
        let Some(going) = self.going.as_mut().filter(|going| going.connection == connection) else {
            return Ok(());
        };
        let count = usize::try_from(h.wrapping_sub(going.confirmed)).unwrap_or(usize::MAX);
        if count > self.queue.len() {
            return Err(going.confirmed);
        }
        going.confirmed = h;
        going.sent = going.sent.saturating_sub(count);
        for item in self.queue.drain(..count) {
            match item.what {
                Sent::Message(n) => self.ins.get_mut(n).into_iter().for_each(|sent| sent.confirmed = true),
                Sent::Request(n) => self.asked.get_mut(n).into_iter().for_each(|asked| asked.acked = true),
                Sent::Other => {}
            }
        }
        Ok(())
    }

    /// The node does not know the stream: what was sent is sent again, on a new one.
    fn anew(&mut self, connection: u64) {
        self.names += 1;
        let stream = self.names;
        let name = self.chance.next().to_le_bytes();
        let Some(going) = self.going.as_mut().filter(|going| going.connection == connection) else { return };
        (going.stream, going.sent, going.confirmed) = (stream, 0, 0);
        for (at, byte) in going.name.iter_mut().zip(name.iter().chain(&stream.to_le_bytes())) {
            *at = *byte;
        }
        for item in self.queue.iter().filter(|item| item.sent) {
            match item.what {
                Sent::Message(n) => self.ins.get_mut(n).into_iter().for_each(|sent| sent.again = true),
                Sent::Other if item.xml.contains("subscribe") => {
                    let address = |name| attribute(&item.xml, name).unwrap_or_default();
                    let (user, p) = (number(&address("to"), "user"), number(&address("from"), "p"));
                    self.muddled.extend(user.zip(p));
                }
                _ => {}
            }
        }
    }

    /// The stream is lost: with a memory it is to be resumed.
    pub(super) fn lose_going(&mut self, connection: u64) {
        if let Some(going) = self.going(connection) {
            (going.held, going.resumes, going.since) = (false, true, Duration::ZERO);
            going.connection = 0;
        }
    }

    /// The far server does not remember the stream.
    pub(super) fn forget_going(&mut self) {
        let connection = self.going.as_ref().map(|going| going.connection);
        if let Some(connection) = connection {
            self.lose_going(connection);
            self.anew(0);
            self.going = None;
        }
    }

    pub(super) fn close_going(&mut self) {
        if let Some(going) = &mut self.going {
            going.closes = true;
        }
    }

    pub(super) fn cut_going(&mut self) {
        if let Some(connection) = self.going.as_ref().map(|going| going.connection) {
            self.lose_going(connection);
        }
    }
}

/// Opens the stream where one is wanted.
pub(super) fn step(world: &World, now: Duration) {
    let far = &world.far;
    if far.ways.borrow().away.is_some() {
        return;
    }
    let mut state = far.state.lock();
    let state = &mut *state;
    if let Some(going) = &state.going {
        let waits = !going.held && going.connection != 0 && now > going.since + PATIENCE;
        if going.held || (going.connection != 0 && !waits) {
            return;
        }
    }
    if state.queue.is_empty() {
        return;
    }
    let up: Vec<usize> = (0..world.places.len())
        .filter(|n| {
            let place = world.places.get(*n);
            place.is_some_and(|p| p.up.load(Ordering::Relaxed) && !p.severed.load(Ordering::Relaxed))
        })
        .collect();
    state.names += 1;
    let connection = state.names;
    // Most often where the last one was, since only there it can be resumed.
    let last = state.going.as_ref().map(|going| going.node).filter(|node| up.contains(node));
    let last = last.filter(|_| state.chance.hits(700));
    let Some(node) = last.or_else(|| state.chance.pick(&up).copied()) else { return };
    match &mut state.going {
        Some(going) => {
            (going.node, going.connection, going.since, going.closes) = (node, connection, now, false);
        }
        None => {
            let (stream, name, resumes, held) = (0, [0; 16], false, false);
            let (sent, confirmed, closes, used) = (0, 0, false, now);
            let going = Going {
                node,
                connection,
                stream,
                name,
                resumes,
                held,
                since: now,
                sent,
                confirmed,
                closes,
                used,
            };
            state.going = Some(going);
        }
    }
    if let Some(knock) = far.knocks.get(node) {
        knock.notify_one();
    }
}

/// Connects a node with the far server, in both directions.
pub(crate) fn serve(world: &Arc<World>, host: &Host, node: usize) {
    if !world.plan.foreign {
        return;
    }
    host.set_dialer(Arc::new(Way { world: world.clone(), node }));
    let (world, host) = (world.clone(), host.clone());
    tokio::spawn(async move {
        let mut registry = Registry::new();
        loop {
            let Some(knock) = world.far.knocks.get(node) else { return };
            knock.notified().await;
            let connection = {
                let mut state = world.far.state.lock();
                let going = state.going.as_mut().filter(|going| going.node == node && !going.held);
                let going = going.filter(|going| going.connection != 0);
                going.map(|going| {
                    going.held = true;
                    going.connection
                })
            };
            if let Some(connection) = connection {
                let at = At { world: world.clone(), node, connection };
                incoming(&at, &host, &mut registry).await;
            }
        }
    });
}

/// A connection of the far server; however it ends, the far server knows.
struct At {
    world: Arc<World>,
    node: usize,
    connection: u64,
}

impl Drop for At {
    fn drop(&mut self) {
        self.world.far.state.lock().lose_going(self.connection);
    }
}

/// What the far server does next on its stream.
enum Next {
    Send(String),
    Wait,
    Close,
    Lost,
}

impl At {
    fn note(&self, what: impl std::fmt::Display) {
        self.world.log.note(format_args!("far to n{}", self.node), what);
    }

    fn next(&self) -> Next {
        let managed = self.world.far.nature.managed;
        let place = self.world.places.get(self.node);
        let mut state = self.world.far.state.lock();
        let waits = state.queue.len();
        let Some(going) = state.going(self.connection) else { return Next::Lost };
        if place.is_some_and(|place| place.severed.load(Ordering::Relaxed)) {
            return Next::Wait;
        }
        let idle = waits == 0 && now() > going.used + IDLE;
        if going.closes || idle || place.is_none_or(|place| !place.up.load(Ordering::Relaxed)) {
            return Next::Close;
        }
        if going.sent >= WINDOW {
            return Next::Wait;
        }
        let sent = going.sent;
        if managed {
            let Some(item) = state.queue.get_mut(sent) else { return Next::Wait };
            item.sent = true;
            let xml = item.xml.clone();
            if let Some(going) = state.going(self.connection) {
                (going.sent, going.used) = (sent + 1, now());
            }
            return Next::Send(xml);
        }
        // Nobody will say whether it came.
        let Some(item) = state.queue.pop_front() else { return Next::Wait };
        if let Some(going) = state.going(self.connection) {
            going.used = now();
        }
        Next::Send(item.xml)
    }

    /// Tells the far server what is settled.
    fn confirm(&self, ledger: &Ledger) {
        if !self.world.far.nature.managed {
            return;
        }
        let h = ledger.settled();
        if let Err(before) = self.world.far.state.lock().confirm(self.connection, h) {
            self.world.log.wrong(format_args!("[foreign/h] the far server is told {h} after {before}"));
        }
    }
}

/// What has come is settled, or a new ledger goes on from what is: as in the program.
async fn settled(ledger: Arc<Ledger>) -> Arc<Ledger> {
    let begun = Instant::now();
    while ledger.open() > 0 && !ledger.broken() && begun.elapsed() < GIVE_UP {
        sleep(Duration::from_millis(10)).await;
    }
    if ledger.open() > 0 || ledger.broken() { Ledger::new(ledger.settled()) } else { ledger }
}

async fn incoming(at: &At, host: &Host, registry: &mut Registry) {
    let far = &at.world.far;
    sleep(far.delay(2, 25)).await;
    let (resumes, stream) = {
        let mut state = far.state.lock();
        match state.going(at.connection) {
            Some(going) => (going.resumes, going.stream),
            None => return,
        }
    };
    let known = if resumes && far.nature.managed { registry.remove(&stream) } else { None };
    let ledger = match known {
        Some(ledger) => {
            at.world.log.count("far server's stream resumed");
            settled(ledger).await
        }
        None => {
            at.world.log.count("far server's stream opened");
            far.state.lock().anew(at.connection);
            Ledger::new(0)
        }
    };
    let Some((stream, name)) = far.state.lock().going(at.connection).map(|going| (going.stream, going.name))
    else {
        return;
    };
    at.note(format_args!("s{stream} opens with {}", ledger.settled()));
    registry.insert(stream, ledger.clone());
    at.confirm(&ledger);
    {
        // Those that are not confirmed are sent again.
        let mut state = far.state.lock();
        if let Some(going) = state.going(at.connection) {
            going.sent = 0;
        }
    }
    let Ok(domain) = BareJid::parse(DOMAIN) else { return };
    loop {
        match at.next() {
            Next::Lost => break,
            Next::Close => {
                let ledger = settled(ledger.clone()).await;
                at.confirm(&ledger);
                registry.remove(&stream);
                at.note("is closed");
                let mut state = far.state.lock();
                state.anew(at.connection);
                if state.going(at.connection).is_some() {
                    state.going = None;
                }
                return;
            }
            Next::Wait => sleep(Duration::from_millis(15)).await,
            Next::Send(xml) => {
                sleep(far.delay(0, 3)).await;
                let stanza = match Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT) {
                    Ok(stanza) => stanza,
                    Err(error) => return at.world.log.wrong(format_args!("{xml}: {error:?}")),
                };
                at.note(format_args!("sends {xml}"));
                let receipt = ledger.enter();
                let origin = far.nature.managed.then(|| Origin::new(OriginName::new(name), receipt.number()));
                if let Err(error) = host.from_remote(&domain, stanza, receipt, origin) {
                    at.world.log.wrong(format_args!("[foreign/refused] {xml}: {error}"));
                    return;
                }
            }
        }
        at.confirm(&ledger);
        if ledger.broken() {
            at.note("something was lost");
            return;
        }
    }
}
