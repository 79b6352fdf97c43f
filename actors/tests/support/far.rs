//! Another server, as tests speak for it: `far.example`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::time::Duration;

use rookery_actors::Options;
use rookery_actors::options::Service;
use rookery_actors::toys;
use rookery_cluster::entity::Entity;
use rookery_cluster::tables::roster::{self, Item};
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::stanza::Stanza;

use crate::support::World;

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Far(toys::Far);

/// For [`World::with`].
pub fn far(options: &mut Options) {
    options.services.push(Service { name: "far.example".into(), kind: "far-server", whole: true });
}

impl Far {
    pub fn of(world: &World) -> Self {
        Self(toys::Far::of(&world.host))
    }

    pub fn send(&self, xml: &str) {
        self.0.say(Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).expect(xml));
    }

    pub async fn recv(&self) -> String {
        let stanza =
            tokio::time::timeout(PATIENCE, self.0.next()).await.expect("nothing came to the far server");
        String::from_utf8(stanza.to_bytes()).unwrap().replacen(" xmlns='jabber:client'", "", 1)
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

    /// Whatever the link does with stanzas from now on.
    pub fn refuses(&self, condition: Option<rookery_proto::xmpp::error::Condition>) {
        self.0.set(condition.map_or(toys::Mode::Takes, toys::Mode::Refuses));
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
