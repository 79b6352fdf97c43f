//! Streams of other servers to clients that confirm late or never, where nothing is archived: the streams move on, nothing is lost, nothing
//! comes twice, and the order holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
#[path = "support/nodes.rs"]
mod nodes;
mod support;
#[path = "support/talk.rs"]
mod talk;

use std::sync::Arc;
use std::time::Duration;

use far::Far;
use nodes::Nodes;
use rookery_actors::options::Archive;
use rookery_actors::{Down, Host, Ledger, Options, Origin, OriginName, Pipe};
use rookery_cluster::seams::Seams;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use support::{Client, World};
use tokio::runtime::Handle;

/// So many stanzas of a stream are under way at most: then its socket is not read.
const WINDOW: usize = 256;
/// Only how long a failing test hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of another server, without its socket.
struct Stream {
    host: Host,
    runtime: Option<Handle>,
    ledger: Arc<Ledger>,
    name: OriginName,
    pipe: Arc<Pipe>,
}

impl Stream {
    fn of(host: &Host, runtime: Option<Handle>) -> Self {
        let (ledger, name) = (Ledger::new(0), OriginName::new(Seams::system().bytes()));
        Self { host: host.clone(), runtime, ledger, name, pipe: Pipe::new() }
    }

    /// Hands a stanza on as soon as the window has room.
    async fn send(&self, xml: &str) {
        self.at_most(WINDOW - 1).await;
        let stanza = Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).expect(xml);
        let domain = BareJid::parse("far.example").unwrap();
        let receipt = self.ledger.enter();
        let origin = Origin::new(self.name, receipt.number());
        let _there = self.runtime.as_ref().map(Handle::enter);
        self.host.from_remote(&domain, stanza, receipt, Some(origin)).unwrap();
    }

    /// Waits until no more are under way.
    async fn at_most(&self, most: usize) {
        let wait = async {
            loop {
                self.ledger.wait(&self.pipe);
                if self.ledger.open() <= most {
                    return;
                }
                self.pipe.ready().await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("{} stanzas hold the stream up", self.ledger.open()));
        assert!(!self.ledger.broken());
    }
}

fn message(to: &str, n: usize) -> String {
    format!("<message from='x@far.example/r' to='{to}' type='chat' id='{n}'><body>{n}</body></message>")
}

fn never(options: &mut Options) {
    far::far(options);
    options.archive = Archive::Never;
}

/// Takes the bodies `from..to`, each once and in order, and no message more.
async fn takes(client: &mut Client, from: usize, to: usize) {
    for n in from..to {
        let got = client.until("<message").await;
        assert!(got.contains(&format!("<body>{n}</body>")), "{n}: {got}");
    }
    talk::no_message(client).await;
}

/// What such a stanza is, and to whom it goes: one that lies in the queue until its client has it, or is worth nothing when that is gone.
const KINDS: [&str; 3] = [
    "<message from='x@far.example/r' to='juliet@localhost/phone' type='chat' id='ID'><body>b</body></message>",
    "<message from='x@far.example/r' to='juliet@localhost/phone' type='headline' id='ID'><body>b</body></message>",
    "<iq from='x@far.example/r' to='juliet@localhost/phone' type='get' id='ID'><ping xmlns='urn:xmpp:ping'/></iq>",
];

#[tokio::test]
async fn a_client_that_confirms_nothing_holds_up_no_stream() {
    for (kind, resumable) in KINDS.iter().flat_map(|kind| [(kind, true), (kind, false)]) {
        println!("{kind} {resumable}");
        let world = World::with(never).await;
        let _far = Far::of(&world);
        let mut deaf = world.bind("juliet", "phone").await;
        deaf.with(|link| link.enable(resumable, None));
        deaf.expect("<enabled").await;
        deaf.quiet = true;
        deaf.send("<presence/>");
        deaf.expect("<presence").await;
        let mut nurse = world.online("nurse", "kitchen").await;
        let stream = Stream::of(&world.host, None);
        for n in 0..2 * WINDOW {
            stream.send(&kind.replace("ID", &n.to_string())).await;
        }
        stream.send(&message("nurse@localhost/kitchen", 1)).await;
        nurse.until("<body>1</body>").await;
        stream.at_most(0).await;
        // It was sent everything, in order, and was asked now and then.
        let mut items = Vec::new();
        deaf.pipe.drain(&mut items, usize::MAX);
        let asked =
            items.iter().filter(|item| matches!(item, Down::Nonza(r) if r.starts_with(b"<r "))).count();
        assert!((1..=WINDOW / 8).contains(&asked), "{asked}");
        deaf.waiting.extend(items);
        for n in 0..2 * WINDOW {
            let got = deaf.recv().await;
            assert!(got.contains(&format!(" id='{n}'")), "{n}: {got}");
        }
        let queued = talk::queue(&world, "juliet").await;
        assert_eq!(queued > 0, kind.contains("chat") || resumable, "{queued}");
    }
}

/// What waits in front of what is pressing does not make it wait a second or two, burst by burst.
#[tokio::test(start_paused = true)]
async fn a_stream_to_a_client_that_confirms_nothing_does_not_stand_still() {
    let world = World::with(never).await;
    let _far = Far::of(&world);
    let mut deaf = talk::phone(&world, "juliet").await;
    deaf.quiet = true;
    let stream = Stream::of(&world.host, None);
    let begun = tokio::time::Instant::now();
    for n in 0..2 * WINDOW {
        stream.send(&message("juliet@localhost/phone", n)).await;
    }
    stream.at_most(0).await;
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    for n in 0..2 * WINDOW {
        deaf.expect(&format!("<body>{n}</body>")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_nodes_nothing_is_lost_and_the_order_holds() {
    const EACH: usize = 200;
    for dies in [false, true] {
        let mut world = Nodes::with(3, never).await;
        let _far = Far::of_nodes(world.nodes.iter().map(|node| &node.host), 2);
        let (juliet, romeo) = (world.user(0, "juliet").await, world.user(0, "romeo").await);
        let nurse = world.user(0, "nurse").await;
        // Beside its connection, on the node of its home, and nowhere.
        let mut slow = world.nodes[1].phone(&nurse).await;
        let mut deaf = world.nodes[0].phone(&juliet).await;
        let asleep = talk::sleeps(world.nodes[1].phone(&romeo).await).await;
        (deaf.quiet, slow.quiet) = (true, true);
        let (node, runtime) = (&world.nodes[2], world.nodes[2].handle());
        let stream = Stream::of(&node.host, Some(runtime));
        for n in 0..EACH {
            for to in [&juliet, &romeo, &nurse] {
                stream.send(&message(&format!("{to}@localhost/phone"), n)).await;
            }
            slow.until(&format!("<body>{n}</body>")).await;
            if n % 20 == 0 {
                slow.ack();
            }
        }
        stream.at_most(0).await;
        slow.ack();
        // It has the first of them, and says so when it is back.
        for n in 0..EACH / 4 {
            deaf.until(&format!("<body>{n}</body>")).await;
        }
        if dies {
            deaf.forget();
            world.kill(0);
        } else {
            deaf.lose();
        }
        let mut deaf = world.nodes[1].resume(&deaf).await.expect("resumed");
        takes(&mut deaf, EACH / 4, EACH).await;
        let mut asleep = world.nodes[1].resume(&asleep).await.expect("resumed");
        takes(&mut asleep, 0, EACH).await;
        takes(&mut slow, 0, 0).await;
    }
}
