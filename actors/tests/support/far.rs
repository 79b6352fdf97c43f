//! Another server, as tests speak for it: `far.example`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rookery_actors::link::stream::{Dialer, LinkEnd, Managed, Next, Pair, Ready, Resumable};
use rookery_actors::options::{Archive, Federation, Service};
use rookery_actors::{Host, Options, Receipt, toys};
use rookery_cluster::entity::Entity;
use rookery_cluster::tables::roster::{self, Item};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::Notify;

use crate::support::World;

/// A user of the other server.
pub const JULIET: &str = "juliet@far.example";

/// A server that speaks with the other one, and archives as `archive` says.
pub async fn scene(archive: Archive) -> (World, Far) {
    let world = World::with(|options| {
        far(options);
        options.archive = archive;
    })
    .await;
    let far = Far::of(&world);
    (world, far)
}

const PATIENCE: Duration = Duration::from_secs(60);

/// What the links of some nodes have sent.
#[derive(Default)]
pub struct Sent {
    came: Mutex<VecDeque<String>>,
    some: Notify,
}

/// Opens streams that end here.
#[derive(Default)]
struct Streams(Arc<Sent>);

impl Dialer for Streams {
    fn dial(&self, _: &Pair, _: Option<Resumable>, end: LinkEnd) {
        tokio::spawn(stream(end, self.0.clone()));
    }
}

/// A stream of a server that has what it was sent.
async fn stream(end: LinkEnd, sent: Arc<Sent>) {
    let managed = Managed::Enabled { id: None, max: None, location: None, last: None };
    end.ready(Ready {
        managed,
        proof: "certificate",
        address: "192.0.2.2:5269".into(),
        tls: "1.3",
        max_bytes: None,
    });
    let (mut out, mut count) = (Vec::new(), 0);
    while end.next(&mut out).await == Next::Write {
        for element in elements(&String::from_utf8(std::mem::take(&mut out)).unwrap()) {
            if element.starts_with("<r ") {
                end.confirmed(count);
                continue;
            }
            count += 1;
            sent.came.lock().push_back(element.to_owned());
            sent.some.notify_one();
        }
    }
}

/// The elements that stand one behind the other, as this server writes them: without comments and the like.
fn elements(text: &str) -> Vec<&str> {
    let (mut all, mut depth, mut from, mut at) = (Vec::new(), 0, 0, 0);
    while let Some(tag) = text[at..].find('<').map(|n| at + n) {
        let end = tag + text[tag..].find('>').unwrap() + 1;
        match (text[tag..].starts_with("</"), text[..end].ends_with("/>")) {
            (true, _) => depth -= 1,
            (_, true) => {}
            _ => depth += 1,
        }
        at = end;
        if depth == 0 {
            all.push(&text[from..at]);
            from = at;
        }
    }
    all
}

/// What plays the other server.
enum Played {
    /// A link of the server's own.
    Linked(Host, Arc<Sent>),
    /// A service: contacts behind it are kept as those on other servers are.
    Served(toys::Far),
}

pub struct Far(Played);

/// For [`World::with`]: another server.
pub fn far(options: &mut Options) {
    options.federation = Some(Federation::default());
}

/// The same: a service.
pub fn near(options: &mut Options) {
    options.services.push(Service { name: "far.example".into(), kind: "far-server", whole: true });
}

impl Far {
    pub fn of(world: &World) -> Self {
        if world.host.options().federation.is_none() {
            return Self(Played::Served(toys::Far::of(&world.host)));
        }
        let streams = Streams::default();
        let sent = streams.0.clone();
        world.host.set_dialer(Arc::new(streams));
        Self(Played::Linked(world.host.clone(), sent))
    }

    /// That of several nodes; its own streams come to the node `at`.
    pub fn of_nodes<'a>(hosts: impl Iterator<Item = &'a Host>, at: usize) -> Self {
        let (streams, hosts) = (Arc::new(Streams::default()), hosts.collect::<Vec<_>>());
        hosts.iter().for_each(|host| host.set_dialer(streams.clone()));
        Self(Played::Linked(hosts[at].clone(), streams.0.clone()))
    }

    pub fn send(&self, xml: &str) {
        let stanza = Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).expect(xml);
        match &self.0 {
            Played::Served(far) => far.say(stanza),
            Played::Linked(host, _) => {
                let domain = BareJid::parse(stanza.from.as_ref().unwrap().domain()).unwrap();
                host.from_remote(&domain, stanza, Receipt::none(), None).expect(xml);
            }
        }
    }

    async fn next(&self) -> String {
        match &self.0 {
            Played::Served(far) => String::from_utf8(far.next().await.to_bytes()).unwrap(),
            Played::Linked(_, sent) => loop {
                let some = sent.some.notified();
                if let Some(stanza) = sent.came.lock().pop_front() {
                    return stanza;
                }
                some.await;
            },
        }
    }

    pub async fn recv(&self) -> String {
        let stanza =
            tokio::time::timeout(PATIENCE, self.next()).await.expect("nothing came to the far server");
        stanza.replacen(" xmlns='jabber:client'", "", 1)
    }

    /// The next stanza, which must contain `part`.
    pub async fn expect(&self, part: &str) -> String {
        let got = self.recv().await;
        assert!(got.contains(part), "expected {part} in {got}");
        got
    }

    /// The next stanza that contains `part`, whatever comes before it.
    pub async fn until(&self, part: &str) -> String {
        loop {
            let got = self.recv().await;
            if got.contains(part) {
                return got;
            }
        }
    }

    /// Nothing more comes: the answer to a ping is the next thing. What a user does is in order with what it answers.
    pub async fn nothing(&self) {
        self.send("<iq type='get' id='nothing' from='pinger@far.example/x' to='nobody@localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
        self.expect("id='nothing'").await;
    }

    /// What becomes of stanzas from now on, at a service.
    pub fn refuses(&self, condition: Option<Condition>) {
        let Played::Served(far) = &self.0 else { panic!("a link has no way to refuse at once") };
        far.set(condition.map_or(toys::Mode::Takes, toys::Mode::Refuses));
    }
}

/// The row of a contact.
pub async fn item(world: &World, user: &str, contact: &str) -> Option<Item> {
    let user = &Entity::new(format!("{user}@localhost"));
    let read = world.store.read(|tx| Box::pin(async move { roster::get(&mut **tx, user, contact).await }));
    read.await.unwrap()
}

/// The same, once nobody has to be told any more.
pub async fn told(world: &World, user: &str, contact: &str) -> Option<Item> {
    let told = async {
        loop {
            match item(world, user, contact).await {
                // The store gives no event.
                Some(item) if item.untold != 0 => tokio::time::sleep(Duration::from_millis(5)).await,
                item => return item,
            }
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the contact was not told")
}

/// Puts a row into a roster.
pub async fn put(world: &World, user: &str, item: &Item) {
    let user = &Entity::new(format!("{user}@localhost"));
    let write = world
        .store
        .write(Default::default(), |tx| Box::pin(async move { roster::put(&mut **tx, user, item) }));
    write.await.unwrap();
}
