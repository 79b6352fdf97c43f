//! What a chat message costs between two sessions: `cargo bench -p rookery-actors --bench routing`.
//!
//! Parsed already, it goes through the sender's session and user, the directory, the recipient's user and session, into the
//! pipe of the recipient's connection, on the memory store: no socket, no TLS, no disk. "Alone", one message at a time is
//! under way, and the time is that of the wake-ups between the actors (with the archive on: of the batcher's pace, once for each
//! archive); with 64, a wake-up and a commit serve many.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rookery_actors::options::{Archive, Domain};
use rookery_actors::{Authenticated, ConnInfo, Down, Host, Options, Pipe, SessionHandle};
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::accounts;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;

const CHAT: &str = "<message to='juliet@localhost/balcony' id='6cb0b8a4-43a8-4b8e-9d3f-0f6f5a9a7a11' type='chat'>\
    <body>Wherefore art thou, Romeo? The walls are high and hard to c</body></message>";

/// A connection's end of a session.
struct Client {
    link: SessionHandle,
    pipe: Arc<Pipe>,
    items: Vec<Down>,
}

impl Client {
    async fn bind(host: &Host, user: &str, resource: &str) -> Self {
        let user = BareJid::new(Some(user), "localhost").unwrap();
        let entity = &Entity::new(user.as_str());
        let made = host.store().write(store::Options::owner(entity), |tx| {
            Box::pin(
                async move { accounts::create(&mut **tx, entity, &accounts::Account::default(), 0).await },
            )
        });
        made.await.unwrap();
        let (pipe, who) = (Pipe::new(), Authenticated::by_sasl(user));
        let conn = ConnInfo { address: "bench".into(), via: "c2s_tls", tls: "1.3", suite: "" };
        let link = host.bind(who, Some(resource), conn, pipe.clone()).await.unwrap();
        let mut client = Self { link, pipe, items: Vec::new() };
        client.link.up(parse("<presence/>"));
        client.receive().await;
        client
    }

    /// Waits until something comes, as a connection does; how many stanzas it was.
    async fn receive(&mut self) -> u64 {
        loop {
            self.pipe.ready().await;
            while self.pipe.drain(&mut self.items, 64) {}
            let mut stanzas = 0;
            for item in self.items.drain(..) {
                match item {
                    Down::Stanza(..) => stanzas += 1,
                    Down::Mark(number) => self.link.marked(number),
                    _ => {}
                }
            }
            if stanzas > 0 {
                return stanzas;
            }
        }
    }
}

fn parse(xml: &str) -> Stanza {
    Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap()
}

/// Sends `count` messages, at most `window` of them under way.
async fn send(from: &Client, to: &mut Client, chat: &Stanza, count: u64, window: u64) -> Duration {
    let began = Instant::now();
    let (mut sent, mut received) = (0, 0);
    while received < count {
        while sent < count && sent - received < window {
            from.link.up(chat.clone());
            sent += 1;
        }
        received += to.receive().await;
    }
    began.elapsed()
}

fn routing(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let chat = parse(CHAT);
    let mut group = c.benchmark_group("a message from session to session");
    group.throughput(Throughput::Elements(1));
    for (name, archive) in [("archive off", Archive::Never), ("archive on", Archive::Always)] {
        // A world of its own for each: an archive grows.
        for (under_way, window) in [("alone", 1), ("64 under way", 64)] {
            let (romeo, mut juliet) = runtime.block_on(async {
                let domain =
                    Domain { name: "localhost".to_owned(), open_registration: false, contact: Vec::new() };
                let options = Options { archive, ..Options::new(vec![domain]) };
                let seams = Seams::system();
                let store = Store::new(Arc::new(Memory::new()), seams.clone());
                let host = Host::start(options, store, seams).await.unwrap();
                (
                    Client::bind(&host, "romeo", "orchard").await,
                    Client::bind(&host, "juliet", "balcony").await,
                )
            });
            group.bench_function(BenchmarkId::new(name, under_way), |b| {
                b.iter_custom(|count| runtime.block_on(send(&romeo, &mut juliet, &chat, count, window)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, routing);
criterion_main!(benches);
