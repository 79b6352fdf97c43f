//! Scripted clients: they talk, lose their connections, and resume where they find a node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rookery_actors::{Authenticated, Close, ConnInfo, Down, Host, Link, NotResumed, Pipe};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::time::{Instant, sleep, timeout};

use crate::chance::{Chance, now};
use crate::reading::{attribute, items, message, presence, push};
use crate::world::{Sent, World, jid};

mod begin;

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
}

/// A client, connected or not.
pub(crate) struct Client {
    pub(crate) n: usize,
    pub(crate) user: usize,
    pub(crate) resource: &'static str,
    pub(crate) chance: Chance,
    /// The node it is connected to, or about to be; and which of its connections this is.
    pub(crate) at: Option<usize>,
    pub(crate) connection: u32,
    /// Stream management is on and resumed: it takes part.
    pub(crate) live: bool,
    /// Since when it has no connection.
    pub(crate) loose: Duration,
    pub(crate) retry: Duration,
    pub(crate) cut: Option<Cut>,
    /// Resumption: its id, and what it has got.
    id: String,
    handled: u32,
    acked: u32,
    pub(crate) unacked: VecDeque<(String, Option<usize>, Duration)>,
    /// What happened to its nodes since it was last live, for the counters.
    pub(crate) home: Option<String>,
    pub(crate) was_drained: bool,
    pub(crate) lost_node: bool,
    refused: u32,
    /// Its session was lost: what came meanwhile it may have missed.
    pub(crate) broken: bool,
    /// The messages that came, in order.
    pub(crate) got: Vec<usize>,
    /// The presence of others, by full JID.
    pub(crate) seen: BTreeMap<String, String>,
    /// Its own.
    pub(crate) status: String,
    statuses: u32,
    /// Its roster: what it was answered when it asked, and every push since.
    pub(crate) roster: Option<BTreeMap<String, String>>,
    /// It has asked again when all was quiet, and was answered. Not all do: the others know what they were pushed.
    pub(crate) asked: bool,
    pub(crate) answered: bool,
    /// It has said that it is there.
    greeted: bool,
}

impl Client {
    pub(crate) fn new(n: usize, user: usize, resource: &'static str, chance: Chance) -> Self {
        Self {
            n,
            user,
            resource,
            chance,
            at: None,
            connection: 0,
            live: false,
            loose: Duration::ZERO,
            retry: Duration::ZERO,
            cut: None,
            id: String::new(),
            handled: 0,
            acked: 0,
            unacked: VecDeque::new(),
            home: None,
            was_drained: false,
            lost_node: false,
            refused: 0,
            broken: false,
            got: Vec::new(),
            seen: BTreeMap::new(),
            status: String::new(),
            statuses: 0,
            roster: None,
            asked: false,
            answered: false,
            greeted: false,
        }
    }

    pub(crate) fn full(&self) -> String {
        format!("{}/{}", jid(self.user), self.resource)
    }

    /// Whether it asks for its roster when all is quiet.
    pub(crate) fn asks(&self) -> bool {
        self.n.is_multiple_of(3)
    }

    pub(crate) fn name(&self) -> String {
        format!("c{}", self.n)
    }
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
        let client = client.lock();
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
    let silent = visit.with(|client| client.cut.take()) == Some(Some(Cut::Silent));
    if !silent {
        return pipe.close();
    }
    // Nobody reads, and the link is still there.
    visit.end();
    sleep(Duration::from_secs(20)).await;
}

fn conn() -> ConnInfo {
    ConnInfo { address: "192.0.2.1".into(), via: "c2s_tls", tls: "1.3", suite: "AES_256_GCM_SHA384" }
}

fn not_resumed(visit: &Visit) {
    visit.note("is not resumed");
    visit.world.log.count("not resumed");
    let gone = visit.with(|client| {
        client.refused += 1;
        if client.refused < 4 {
            return None;
        }
        // It logs in anew, and knows nothing of what it had sent.
        client.refused = 0;
        client.broken = true;
        client.id.clear();
        Some(())
    });
    if gone == Some(Some(())) {
        visit.world.log.count("session lost");
        visit.world.log.wrong(format_args!("c{} lost its session", visit.client));
    }
}

/// A connection at work.
struct Running<'a> {
    visit: &'a Visit,
    link: Link,
    pipe: Arc<Pipe>,
}

impl Running<'_> {
    async fn run(&mut self) {
        let (mut next, begun) = (Instant::now(), now());
        let (mut items, mut asleep) = (Vec::new(), next);
        loop {
            if asleep <= Instant::now() {
                self.pipe.drain(&mut items, 64);
            }
            for item in items.drain(..) {
                if !self.take(item) {
                    return;
                }
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
                    "{} is told {h} after {} of {}",
                    client.name(),
                    client.acked,
                    client.unacked.len()
                ));
                return;
            }
            while client.acked < h {
                client.acked += 1;
                let Some((_, message, _)) = client.unacked.pop_front() else { break };
                let Some(message) = message else { continue };
                if let Some(sent) = self.visit.world.messages.lock().get_mut(message) {
                    sent.acked = true;
                }
                log.note(client.name(), format_args!("has sent m{message}"));
            }
        });
    }

    fn send(&self, xml: String, message: Option<usize>) {
        self.visit.with(|client| {
            client.unacked.push_back((xml.clone(), message, now()));
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
            if text.starts_with("<message") {
                message(world, client, &text);
                None
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
            self.send(answer, None);
        }
    }

    /// Says something; how long it is silent then.
    fn act(&self) -> Duration {
        let world = &self.visit.world;
        let users = world.plan.users;
        let home = self.visit.with(|client| client.user).and_then(|user| self.home(user));
        let what = self.visit.with(|client| {
            if !world.talking() {
                let calm = *world.stirred.lock() + Duration::from_secs(3) < now();
                if !calm || client.asked || !world.quiet() || !client.asks() {
                    return None;
                }
                client.asked = true;
                return Some(("<iq type='get' id='last'><query xmlns='jabber:iq:roster'/></iq>".into(), None));
            }
            client.home = home.or(client.home.take());
            client.lost_node = false;
            client.was_drained = false;
            if client.unacked.len() >= WINDOW {
                return None;
            }
            let to = jid(other(client, users));
            Some(match client.chance.below(100) {
                0..80 => {
                    let (xml, n) = talk(world, client);
                    (xml, Some(n))
                }
                80..90 => (format!("<presence><status>{}</status></presence>", next_status(client)), None),
                90..93 => (format!("<iq type='set' id='r{n}'><query xmlns='jabber:iq:roster'><item jid='{to}' name='n{n}'/></query></iq>", n = client.chance.below(100)), None),
                93..95 => (format!("<presence type='unsubscribe' to='{to}'/>"), None),
                95..98 => (format!("<presence type='subscribe' to='{to}'/>"), None),
                98..99 => (format!("<presence type='unsubscribed' to='{to}'/>"), None),
                _ => ("<iq type='get' id='ping' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>".into(), None),
            })
        });
        if let Some(Some((xml, message))) = what {
            self.send(xml, message);
        }
        let pause = self.visit.with(|client| {
            // Now and then many at once.
            if client.chance.hits(300) { Duration::from_millis(1) } else { client.chance.millis(50, 600) }
        });
        pause.unwrap_or(Duration::from_millis(100))
    }
}

/// Another user.
fn other(client: &mut Client, users: usize) -> usize {
    (client.user + 1 + client.chance.below(users - 1)) % users
}

/// A message to somebody, and its number.
fn talk(world: &World, client: &mut Client) -> (String, usize) {
    let other = other(client, world.plan.users);
    let mut messages = world.messages.lock();
    let n = messages.len();
    messages.push(Sent { from: client.n, to: other, acked: false, bounced: false, doubtful: false });
    (format!("<message to='{}' type='chat' id='m{n}'><body>m{n}</body></message>", jid(other)), n)
}

fn next_status(client: &mut Client) -> String {
    client.statuses += 1;
    client.status = format!("s{}", client.statuses);
    client.status.clone()
}
