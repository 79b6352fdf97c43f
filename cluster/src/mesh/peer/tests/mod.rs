//! The channel over real sockets of the loopback interface, and its halves against each other.

mod carry;
mod cuts;
mod halves;
mod members;
mod stress;
mod trust;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::entity::Shard;

/// When a test is surely stuck.
const LONG: Duration = Duration::from_secs(60);
/// 2025-01-01 or so: certificates of the tests live from here; the system's clock is later than that and earlier than
/// their end, so it is asked.
fn now() -> i64 {
    i64::try_from(Seams::system().clock.now_micros() / 1_000_000).unwrap()
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn me(name: &str, generation: u64) -> Me {
    Me {
        cluster: "test".into(),
        node: id(name),
        generation,
        software: "rookery test".into(),
        versions: Me::VERSIONS,
    }
}

fn options() -> Options {
    Options {
        backoff: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        ..Options::default()
    }
}

/// An authority in a folder, with certificates for names.
struct Authority(tempfile::TempDir);

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        assert!(authority::make(folder.path(), "test", now()).unwrap());
        Self(folder)
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn tls(&self, node: &str) -> Security {
        let files = authority::certificate(self.folder(), &id(node), now()).unwrap();
        Security::Tls(tls::Tls::read(&files, &id(node)).unwrap())
    }
}

/// The addresses that nodes know.
#[derive(Default, Clone)]
struct Book(Arc<Mutex<HashMap<NodeId, String>>>);

impl Book {
    fn set(&self, node: &str, address: &str) {
        self.0.lock().insert(id(node), address.to_owned());
    }
}

impl Addresses for Book {
    fn address(&self, node: &NodeId) -> Option<String> {
        self.0.lock().get(node).cloned()
    }
}

/// A receiver that hands everything to the test.
struct Hands(mpsc::Sender<(NodeId, Envelope, Done)>);

impl Receiver for Hands {
    fn take(&self, from: &NodeId, envelope: Envelope, done: Done) {
        // What does not fit is dropped, and so lost: tests make it large enough.
        let _ = self.0.try_send((from.clone(), envelope, done));
    }
}

/// A node of a test.
struct Node {
    peers: Peers,
    address: String,
    taken: mpsc::Receiver<(NodeId, Envelope, Done)>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(me: Me, options: Options, security: Security, book: &Book) -> Self {
        let (sender, taken) = mpsc::channel(300_000);
        let (peers, address, stop, served) =
            serve(me, options, security, book, Arc::new(Hands(sender))).await;
        Self { peers, address, taken, stop: Some(stop), served }
    }

    /// With everything as usual.
    async fn usual(name: &str, generation: u64, authority: &Authority, book: &Book) -> Self {
        Self::start(me(name, generation), options(), authority.tls(name), book).await
    }

    /// The process ends: nothing of it is left.
    async fn kill(mut self) {
        self.peers.close();
        drop(self.stop.take());
        self.served.await.unwrap();
    }

    async fn next(&mut self) -> (NodeId, Envelope, Done) {
        tokio::time::timeout(LONG, self.taken.recv()).await.expect("nothing came").unwrap()
    }
}

async fn listen() -> TcpListener {
    #[allow(clippy::disallowed_methods)] // a free port of the loopback interface
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn serve(
    me: Me,
    options: Options,
    security: Security,
    book: &Book,
    receiver: Arc<dyn Receiver>,
) -> (Peers, String, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = listen().await;
    let address = listener.local_addr().unwrap().to_string();
    book.set(me.node.as_str(), &address);
    let peers =
        Peers::new(me, options, security, Arc::new(net::Tcp), Arc::new(book.clone()), Seams::system());
    let (stop, stopped) = oneshot::channel();
    let serving = peers.clone();
    let served = tokio::spawn(async move {
        serving
            .serve(listener, receiver, async {
                let _ = stopped.await;
            })
            .await
            .unwrap();
    });
    (peers, address, stop, served)
}

fn envelope(body: impl Into<Bytes>) -> Envelope {
    Envelope::new(Shard(7), 3, Bytes::from_static(b"romeo@example.org"), body.into())
}

fn numbered(number: u64) -> Envelope {
    envelope(number.to_be_bytes().to_vec())
}

fn number(envelope: &Envelope) -> u64 {
    u64::from_be_bytes(envelope.body[..8].try_into().unwrap())
}

/// Sends, and gives what became of it.
fn send(peer: &Peer, envelope: Envelope) -> oneshot::Receiver<Outcome> {
    let (told, outcome) = oneshot::channel();
    peer.send(envelope, move |outcome| {
        let _ = told.send(outcome);
    })
    .unwrap();
    outcome
}

async fn wait(outcome: oneshot::Receiver<Outcome>) -> Outcome {
    tokio::time::timeout(LONG, outcome).await.expect("no outcome").expect("the callback was dropped")
}

/// Sends as soon as there is room.
async fn send_all(peer: &Peer, count: u64, told: &mpsc::Sender<(u64, Outcome)>) {
    for n in 0..count {
        loop {
            let told = told.clone();
            let size = numbered(n).size();
            match peer.send(numbered(n), move |outcome| told.try_send((n, outcome)).unwrap()) {
                Ok(()) => break,
                Err(refused) => assert_eq!(refused.why, Why::Full),
            }
            peer.room(size).await;
        }
    }
}
