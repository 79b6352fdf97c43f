//! Several nodes in one process, each with a runtime of its own, so that one can be killed.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rookery_actors::options::{Archive, Domain, Service};
use rookery_actors::{Authenticated, Host, Options, Pipe};
use rookery_cluster::entity::Entity;
use rookery_cluster::mesh::peer::{self, Done, Envelope, NodeId, Receiver, Security, net};
use rookery_cluster::mesh::{Cluster, Config, Setup, Timing};
use rookery_cluster::seams::Seams;
use rookery_cluster::store::faults::Faults;
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::accounts;
use rookery_cluster::tables::nodes::Knows;
use rookery_proto::xmpp::jid::BareJid;
use rookery_rpc::payload::v1::{Payload, payload};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

use crate::support::{Client, conn};

pub struct Node {
    pub name: NodeId,
    pub host: Host,
    pub cluster: Cluster,
    /// Its way to the store.
    pub faults: Arc<Faults>,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
}

pub struct Nodes {
    pub db: Arc<Memory>,
    pub nodes: Vec<Node>,
}

/// The toys of `rookery_actors`: an echo room at each address of `rooms.localhost`, and a component.
fn toys() -> Vec<Service> {
    let service = |name: &str, kind, whole| Service { name: name.into(), kind, whole };
    vec![service("rooms.localhost", "echo-room", false), service("echo.localhost", "echo-component", true)]
}

fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        beat: ms(100),
        // Long: a node that gets no turn on a busy machine is not dead. Who is killed here is declared dead at once.
        lease: ms(4_000),
        death: ms(5_000),
        probe: ms(1_000),
        patience: ms(15_000),
        refresh: ms(300),
        pace: ms(20),
        claim: 512,
        release: 128,
        ..Timing::default()
    }
}

/// What an older node was sent that it did not understand.
pub type Dropped = Arc<Mutex<Vec<Payload>>>;

struct Older(Arc<dyn Receiver>, Dropped);

impl Receiver for Older {
    fn take(&self, from: &NodeId, envelope: Envelope, done: Done) {
        let payload = Payload::decode(envelope.body.clone()).unwrap();
        let unknown = match &payload.what {
            Some(payload::What::Broadcast(_)) => true,
            Some(payload::What::In(payload)) => !payload.kind.is_empty(),
            _ => false,
        };
        if unknown {
            self.1.lock().unwrap().push(payload);
            return done.reply(Bytes::new()).unwrap_or_default();
        }
        self.0.take(from, envelope, done);
    }

    fn is_well(&self) -> bool {
        self.0.is_well()
    }
}

impl Node {
    pub fn start(db: &Arc<Memory>, name: &str) -> Self {
        Self::start_as(db, name, None, |_| {})
    }

    /// With other options. With a list it is as of the version before nodes said what they know: it says nothing, drops what that
    /// version did not know, and writes it into the list.
    pub fn start_as(
        db: &Arc<Memory>,
        name: &str,
        older: Option<Dropped>,
        change: impl FnOnce(&mut Options) + Send + 'static,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let name = NodeId::new(name).unwrap();
        let (faults, node) = (Arc::new(Faults::new(Arc::clone(db) as Arc<_>)), name.clone());
        let db = faults.clone();
        let (host, cluster, stop) = runtime.block_on(async move {
            #[allow(clippy::disallowed_methods)] // a free port of the loopback interface
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config = Config {
                node,
                address: listener.local_addr().unwrap().to_string(),
                public: String::new(),
                zone: String::new(),
                weight: 100,
                version: "test".into(),
                knows: if older.is_none() { rookery_actors::knows() } else { Knows::default() },
                timing: timing(),
            };
            let setup = Setup {
                name: "test".into(),
                config,
                security: Security::PlainText,
                options: peer::Options::default(),
                network: Arc::new(net::Tcp),
            };
            let cluster = Cluster::join(db, Seams::system(), setup).await.unwrap();
            let mut options = Options::new(vec![Domain {
                name: "localhost".into(),
                open_registration: true,
                contact: vec![],
            }]);
            options.archive = Archive::Always;
            options.services = toys();
            change(&mut options);
            let store = cluster.mesh().store();
            let host = Host::start_in(options, store, Seams::system(), cluster.clone()).await.unwrap();
            let (stop, stopped) = oneshot::channel();
            let (serving, receiver) = (cluster.clone(), host.receiver());
            let receiver = older.map_or(receiver.clone(), |dropped| Arc::new(Older(receiver, dropped)) as _);
            tokio::spawn(async move {
                serving.serve(listener, receiver, async { drop(stopped.await) }).await.unwrap();
            });
            cluster.mesh().activate().await.unwrap();
            (host, cluster, stop)
        });
        Self { name, host, cluster, faults, runtime: Some(runtime), stop: Some(stop) }
    }

    pub fn handle(&self) -> Handle {
        self.runtime.as_ref().unwrap().handle().clone()
    }

    /// As by kill -9.
    pub fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
        std::mem::forget(self.stop.take());
        // Nothing of it runs on, wherever it is dropped.
        std::mem::forget(self);
    }

    /// As by SIGTERM.
    pub async fn leave(&self) {
        let cluster = self.cluster.clone();
        self.handle().spawn(async move { cluster.mesh().leave().await.unwrap() }).await.unwrap();
    }

    /// Gives all shards to the others and runs on.
    pub fn hand_over(&self) -> tokio::task::JoinHandle<bool> {
        let cluster = self.cluster.clone();
        self.handle().spawn(async move { cluster.mesh().hand_over().await })
    }

    pub async fn bind(&self, name: &str, resource: &str) -> Client {
        let user = BareJid::parse(&format!("{name}@localhost")).unwrap();
        let pipe = Pipe::new();
        let (host, who, asked) = (self.host.clone(), Authenticated::by_sasl(user.clone()), pipe.clone());
        let resource = resource.to_owned();
        let bound = self.handle().spawn(async move { host.bind(who, Some(&resource), conn(), asked).await });
        let link = bound.await.unwrap().unwrap();
        Client::on(user, link, pipe, self.handle())
    }

    /// Available and resumable.
    pub async fn phone(&self, name: &str) -> Client {
        let mut client = self.bind(name, "phone").await;
        client.resumable().await;
        client.send("<presence/>");
        client.expect("<presence").await;
        client
    }

    pub async fn resume(&self, lost: &Client) -> Option<Client> {
        let pipe = Pipe::new();
        let (host, who, asked) = (self.host.clone(), Authenticated::by_sasl(lost.user.clone()), pipe.clone());
        let (id, handled) = (lost.id.clone(), lost.handled);
        let resumed = self.handle().spawn(async move { host.resume(who, &id, handled, conn(), asked).await });
        let link = resumed.await.unwrap().ok()?;
        let mut client = Client::on(lost.user.clone(), link, pipe, self.handle());
        (client.id, client.handled, client.got) = (lost.id.clone(), lost.handled, lost.kept());
        Some(client)
    }

    /// Whether this node is the home of the user.
    pub fn is_home(&self, name: &str) -> bool {
        let shard = Entity::new(format!("{name}@localhost")).shard();
        self.cluster.mesh().map().epoch(shard).is_some()
    }

    pub fn holds(&self) -> usize {
        self.cluster.mesh().map().held().count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Nodes {
    /// That many nodes, with all shards held.
    pub async fn start(count: usize) -> Self {
        Self::make(count, None, |_| {}).await
    }

    /// With other options.
    pub async fn with(count: usize, change: fn(&mut Options)) -> Self {
        Self::make(count, None, change).await
    }

    /// The last is of an older version.
    pub async fn start_with(count: usize, older: Option<Dropped>) -> Self {
        Self::make(count, older, |_| {}).await
    }

    async fn make(count: usize, older: Option<Dropped>, change: fn(&mut Options)) -> Self {
        // RUST_LOG=rookery=debug shows what the nodes say.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer().try_init();
        let db = Arc::new(Memory::new());
        let nodes = (0..count).map(|n| {
            let (db, older) = (Arc::clone(&db), older.clone().filter(|_| n + 1 == count));
            tokio::task::spawn_blocking(move || Node::start_as(&db, &format!("n{n}"), older, change))
        });
        let mut started = Vec::new();
        for node in nodes {
            started.push(node.await.unwrap());
        }
        let nodes = Self { db, nodes: started };
        nodes.quiet().await;
        nodes
    }

    /// All shards are where they are to be.
    pub async fn quiet(&self) {
        let fair = 1024 / self.nodes.len();
        // Nothing moves any more: no node has two shards less than another.
        let even = |node: &Node| node.holds() >= fair;
        let quiet = async {
            while self.nodes.iter().map(Node::holds).sum::<usize>() != 1024 || !self.nodes.iter().all(even) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), quiet).await.expect("the shards find no owners");
    }

    /// A user who is at home on node `at`.
    pub async fn user(&self, at: usize, prefix: &str) -> String {
        let name = (0..).map(|n| format!("{prefix}{n}")).find(|name| self.nodes[at].is_home(name)).unwrap();
        self.account(&name).await;
        name
    }

    pub async fn account(&self, name: &str) {
        let entity = Entity::new(format!("{name}@localhost"));
        let store = Store::new(Arc::clone(&self.db) as Arc<_>, Seams::system());
        store
            .write(store::Options::default(), |tx| {
                let entity = entity.clone();
                Box::pin(async move {
                    accounts::create(&mut **tx, &entity, &accounts::Account::default(), 0).await.map(|_| ())
                })
            })
            .await
            .unwrap();
    }

    /// As by kill -9, and the others know at once. (How they find out is tested in the mesh.)
    pub fn kill(&mut self, at: usize) {
        let dead = self.nodes.remove(at);
        let name = dead.cluster.mesh().node().clone();
        dead.kill();
        let Some(survivor) = self.nodes.first() else { return };
        let cluster = survivor.cluster.clone();
        survivor.handle().spawn(async move { cluster.mesh().evict(&name, true).await.unwrap() });
    }
}
