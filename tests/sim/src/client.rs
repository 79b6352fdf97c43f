//! Scripted clients: they talk, lose their connections, and resume where they find a node.

use std::sync::Arc;
use std::time::Duration;

use rookery_actors::{Authenticated, Close, ConnInfo, Down, Host, NotResumed, Pipe, SessionHandle};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::time::{Instant, sleep, timeout};

use crate::chance::now;
use crate::foreign::clients;
use crate::reading::{attribute, items, message, presence, push};
use crate::world::{World, jid};

mod begin;
mod device;
mod habits;
mod toys;

pub(crate) use device::{Came, Client, End, Got, Life, Traits, Way, What};

/// How long a client waits for an acknowledgement before it looks for another node.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many messages it has under way.
const WINDOW: usize = 40;

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// The node notices.
    Lost,
    /// The node does not: the socket stays open and nobody reads.
    Silent,
    /// The client closes its stream.
    Clean,
}

/// While it is there the client is connected.
struct Visit {
    world: Arc<World>,
    client: usize,
    connection: u32,
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.end();
    }
}

impl Visit {
    /// The client looks for another connection.
    fn end(&self) {
        self.with(|client| {
            client.at = None;
            client.live = false;
            client.loose = now();
        });
    }

    /// Does something with the client unless it is connected elsewhere by now.
    fn with<T>(&self, step: impl FnOnce(&mut Client) -> T) -> Option<T> {
        let mut client = self.world.clients.get(self.client)?.lock();
        (client.connection == self.connection).then(|| step(&mut client))
    }

    fn note(&self, what: impl std::fmt::Display) {
        self.world.log.note(format_args!("c{}", self.client), what);
    }
}

/// A connection of a client to a node, to its end.
pub(crate) async fn visit(world: Arc<World>, n: usize, host: Host, node: usize) {
    let Some((connection, user, resource, id, handled)) = world.clients.get(n).map(|client| {
        let mut client = client.lock();
        let rebinds = client.traits.rebinds;
        if world.plan.habits && world.talking() && !client.id.is_empty() && client.habit.hits(rebinds) {
            world.log.count("bound anew instead of resumed");
            client.id.clear();
        }
        (client.connection, client.user, client.resource, client.id.clone(), client.handled)
    }) else {
        return;
    };
    let visit = Visit { world, client: n, connection };
    let Ok(user) = BareJid::parse(&jid(user)) else { return };
    let (who, pipe) = (Authenticated::by_sasl(user), Pipe::new());
    let fresh = id.is_empty();
    let link = if fresh {
        visit.note(format_args!("binds at n{node}"));
        match timeout(PATIENCE, host.bind(who, Some(resource), conn(), pipe.clone())).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => return visit.note(format_args!("is not bound: {:?}", error.condition)),
            Err(_) => return visit.note("is not bound in time"),
        }
    } else {
        visit.note(format_args!("resumes at n{node} with {handled}"));
        match timeout(PATIENCE, host.resume(who, &id, handled, conn(), pipe.clone())).await {
            Ok(Ok(link)) => link,
            Ok(Err(NotResumed::NotFound)) => return not_resumed(&visit),
            Ok(Err(NotResumed::Unable)) => return visit.note("is told to come again"),
            Err(_) => return visit.note("is not resumed in time"),
        }
    };
    let mut running = Running { visit: &visit, link, pipe: pipe.clone() };
    if fresh {
        running.begin();
    }
    running.run().await;
    let cut = visit.with(|client| client.cut.take()).flatten();
    match cut {
        // Nobody reads, and the link is still there.
        Some(Cut::Silent) => {
            visit.end();
            sleep(Duration::from_secs(20)).await;
        }
        Some(Cut::Clean) => {
            visit.note("logs out");
            pipe.close();
            running.link.closed(true);
        }
        _ => pipe.close(),
    }
}

fn conn() -> ConnInfo {
    ConnInfo { address: "192.0.2.1".into(), via: "c2s_tls", tls: "1.3", suite: "AES_256_GCM_SHA384" }
}

fn not_resumed(visit: &Visit) {
    visit.note("is not resumed");
    visit.world.log.count("not resumed");
    let lost = visit.with(|client| {
        client.refused += 1;
        let short = client.life().is_some_and(|life| life.short);
        if client.refused < 4 && !short {
            return None;
        }
        // The client logs in anew, and knows nothing of what it had sent.
        client.refused = 0;
        let told = client.life().is_some_and(|life| life.told.is_some());
        client.end_life(End::Refused);
        client.id.clear();
        let plain = !visit.world.plan.habits;
        client.broken |= plain;
        Some((short, told || plain, client.closed.clone()))
    });
    match lost.flatten() {
        None => {}
        Some((true, _, _)) => visit.world.log.count("session expired"),
        Some((false, told, closed)) => {
            visit.world.log.count("session lost");
            if told {
                let c = visit.client;
                visit
                    .world
                    .log
                    .wrong(format_args!("[session/lost] c{c} lost its session (closed: {closed})"));
            }
        }
    }
}

/// A connection at work.
struct Running<'a> {
    visit: &'a Visit,
    link: SessionHandle,
    pipe: Arc<Pipe>,
}

impl Running<'_> {
    async fn run(&mut self) {
        let (mut next, begun) = (Instant::now(), now());
        let (mut items, mut asleep) = (Vec::new(), next);
        loop {
            let awake = asleep <= Instant::now();
            if awake {
                self.pipe.drain(&mut items, 64);
            }
            let all = awake && items.len() < 64;
            for item in items.drain(..) {
                if !self.take(item) {
                    return;
                }
            }
            if all {
                self.visit.with(|client| client.looked = now());
            }
            let ledger = self.link.ledger();
            ledger.wait(&self.pipe);
            let live = self.visit.with(|client| client.live);
            let Some(live) = live else { return };
            if ledger.broken() {
                return self.visit.note("is told that something was lost");
            }
            if live {
                self.acked(ledger.settled());
            }
            let ended = self.visit.with(|client| {
                let waited =
                    client.unacked.front().map(|(_, _, since)| now().saturating_sub(begun.max(*since)));
                client.cut.is_some() || waited.is_some_and(|waited| waited > PATIENCE)
            });
            if ended != Some(false) {
                return self.visit.note("ends its connection");
            }
            if live && next <= Instant::now() {
                let pause = self.act();
                next = Instant::now() + pause;
                let doze = self.visit.with(|client| {
                    let slow = self.visit.world.talking() && client.chance.hits(15);
                    if slow { client.chance.millis(500, 5_000) } else { Duration::ZERO }
                });
                asleep = asleep.max(Instant::now() + doze.unwrap_or_default());
            }
            let wait = sleep(
                next.saturating_duration_since(Instant::now())
                    .min(Duration::from_millis(250))
                    .max(Duration::from_millis(1)),
            );
            tokio::select! {
                biased;
                () = self.pipe.ready(), if asleep <= Instant::now() => {}
                () = wait => {}
            }
        }
    }

    /// The server has settled so many.
    fn acked(&self, h: u32) {
        let log = &self.visit.world.log;
        self.visit.with(|client| {
            if h < client.acked || (h - client.acked) as usize > client.unacked.len() {
                log.wrong(format_args!(
                    "[h] {} is told {h} after {} of {}",
                    client.name(),
                    client.acked,
                    client.unacked.len()
                ));
                return;
            }
            while client.acked < h {
                client.acked += 1;
                let Some((_, what, _)) = client.unacked.pop_front() else { break };
                self.settled(client, what);
            }
        });
    }

    /// Something that the client sent is settled.
    fn settled(&self, client: &mut Client, what: What) {
        let world = &self.visit.world;
        if let Some(life) = client.life_mut() {
            life.told.get_or_insert_with(now);
        }
        match what {
            What::Message(n) => {
                if let Some(sent) = world.messages.lock().get_mut(n) {
                    (sent.acked, sent.acked_at) = (true, Some(now()));
                }
                world.log.note(client.name(), format_args!("has sent m{n}"));
            }
            What::Shown(n) => {
                let shown = client.life_mut().and_then(|life| life.shown.get_mut(n));
                if let Some(shown) = shown {
                    shown.settled = Some(now());
                }
            }
            What::Line(n) => crate::toys::acked(world, n),
            What::Far(n) => clients::acked(world, n),
            What::FarAsked(n) => clients::ask_acked(world, n),
            What::Asked(k) => {
                if let Some(asked) = world.asked.lock().get_mut(k) {
                    asked.acked = true;
                }
            }
            What::Other => {}
        }
    }

    fn send(&self, xml: String, what: What) {
        self.visit.with(|client| {
            client.unacked.push_back((xml.clone(), what, now()));
            let n = client.acked as usize + client.unacked.len();
            self.visit.note(format_args!("says {n} {xml}"));
        });
        self.up(&xml);
    }

    fn up(&self, xml: &str) {
        match Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT) {
            Ok(stanza) => self.link.up(stanza),
            Err(error) => self.visit.world.log.wrong(format_args!("{xml}: {error:?}")),
        }
    }

    /// Takes an item; whether the connection goes on.
    fn take(&mut self, item: Down) -> bool {
        match item {
            Down::Stanza(outgoing, _) => {
                let mut bytes = Vec::new();
                outgoing.write(&mut bytes);
                self.stanza(&bytes);
            }
            Down::Written(bytes, _) => self.stanza(&bytes),
            Down::Nonza(bytes) if bytes.starts_with(b"<r ") => {
                if let Some(handled) = self.visit.with(|client| client.handled) {
                    self.link.down_ack(handled);
                }
            }
            Down::Nonza(bytes) => self.resumed(&String::from_utf8_lossy(&bytes)),
            Down::Enabled(bytes) => self.enabled(&String::from_utf8_lossy(&bytes)),
            Down::Moved => {}
            Down::Mark(number) => self.link.marked(number),
            Down::Close(close) => {
                self.visit.note(format_args!("is closed: {close:?}"));
                self.visit.with(|client| client.closed = format!("{close:?}"));
                let why = if matches!(close, Close::Abandon) { "abandoned" } else { "closed by the server" };
                self.visit.world.log.count(why);
                return false;
            }
        }
        true
    }

    fn home(&self, user: usize) -> Option<String> {
        self.visit.world.witness.owner(rookery_cluster::entity::Entity::new(jid(user)).shard().0)
    }

    fn stanza(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let world = &self.visit.world;
        let answer = self.visit.with(|client| {
            client.handled += 1;
            let id = attribute(&text, "id").unwrap_or_default();
            if id != "last" {
                *world.stirred.lock() = now();
            }
            world.log.note(client.name(), format_args!("gets {} {text}", client.handled));
            if world.plan.toys && crate::toys::take(world, client, &text, &id) {
                None
            } else if let Some(answer) = clients::take(world, client, &text, &id) {
                answer
            } else if text.starts_with("<message") {
                message(world, client, &text);
                None
            } else if id.starts_with('q') {
                crate::reading::asked(world, client, &text, &id)
            } else if text.starts_with("<presence") {
                presence(client, &text)
            } else if attribute(&text, "type").as_deref() == Some("set") {
                push(client.roster.get_or_insert_default(), &text);
                Some(format!("<iq type='result' id='{id}'/>"))
            } else {
                match &id[..] {
                    "roster" => client.roster = Some(items(&text)),
                    "last" => (client.roster, client.answered) = (Some(items(&text)), true),
                    _ => {}
                }
                None
            }
        });
        if let Some(Some(answer)) = answer {
            self.send(answer, What::Other);
        }
    }
}
