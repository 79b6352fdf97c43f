//! A server without sockets: users and sessions on the memory store, clients that speak through pipes.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use rookery_actors::link::stream::{Dialer, LinkEnd, Pair, Resumable};
use rookery_actors::options::{Archive, Domain};
use rookery_actors::{Authenticated, Close, ConnInfo, Down, Host, Options, Pipe, SessionHandle};
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::faults::Faults;
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::accounts;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;

/// Only how long a failing test hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The dialer of a process that is no more.
struct Dead;

impl Dialer for Dead {
    fn dial(&self, _: &Pair, _: Option<Resumable>, end: LinkEnd) {
        drop(end);
    }
}

pub struct World {
    pub memory: Arc<Memory>,
    /// The way of this host to it.
    pub store: Store,
    pub faults: Arc<Faults>,
    pub host: Host,
    pub options: Options,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options =
            Options::new(vec![Domain { name: "localhost".into(), open_registration: true, contact: vec![] }]);
        options.archive = Archive::Always;
        change(&mut options);
        let world = Self::on(Arc::new(Memory::new()), options).await;
        for name in ["romeo", "juliet", "nurse"] {
            world.account(name).await;
        }
        world
    }

    async fn on(memory: Arc<Memory>, options: Options) -> Self {
        let faults = Arc::new(Faults::new(memory.clone()));
        let store = Store::new(faults.clone(), Seams::system());
        let host = Host::start(options.clone(), store.clone(), Seams::system()).await.unwrap();
        Self { memory, store, faults, host, options }
    }

    pub async fn account(&self, name: &str) {
        let entity = Entity::new(format!("{name}@localhost"));
        self.store
            .write(store::Options::default(), |tx| {
                let entity = entity.clone();
                Box::pin(async move {
                    accounts::create(&mut **tx, &entity, &accounts::Account::default(), 0).await.map(|_| ())
                })
            })
            .await
            .unwrap();
    }

    /// As if the process had been killed and started again: nothing of the memory survives, all of the store does. What still
    /// runs of the old host is cut off from the store for good, and opens no streams to other servers.
    pub async fn restart(self) -> Self {
        let (memory, options) = self.die();
        Self::on(memory, options).await
    }

    /// The first half of that: what the next process finds.
    pub fn die(self) -> (Arc<Memory>, Options) {
        self.faults.set_reachable(false);
        self.host.set_dialer(Arc::new(Dead));
        (self.memory, self.options)
    }

    pub async fn bind(&self, name: &str, resource: &str) -> Client {
        let user = BareJid::parse(&format!("{name}@localhost")).unwrap();
        let pipe = Pipe::new();
        let link = self
            .host
            .bind(Authenticated::by_sasl(user.clone()), Some(resource), conn(), pipe.clone())
            .await
            .unwrap();
        Client {
            user,
            link: Some(link),
            pipe,
            waiting: VecDeque::new(),
            handled: 0,
            id: String::new(),
            quiet: false,
            marks: Vec::new(),
            runtime: None,
            got: Vec::new(),
        }
    }

    /// Bound and available, with its own presence read.
    pub async fn online(&self, name: &str, resource: &str) -> Client {
        let mut client = self.bind(name, resource).await;
        client.send("<presence/>");
        client.expect("<presence").await;
        client
    }

    /// Takes up a lost client's session.
    pub async fn resume(&self, lost: &Client) -> Option<Client> {
        let pipe = Pipe::new();
        let who = Authenticated::by_sasl(lost.user.clone());
        let link = self.host.resume(who, &lost.id, lost.handled, conn(), pipe.clone()).await.ok()?;
        Some(Client {
            user: lost.user.clone(),
            link: Some(link),
            pipe,
            waiting: VecDeque::new(),
            handled: lost.handled,
            id: lost.id.clone(),
            quiet: false,
            marks: Vec::new(),
            runtime: None,
            got: lost.kept(),
        })
    }
}

pub fn conn() -> ConnInfo {
    ConnInfo { address: "192.0.2.1".into(), via: "c2s_tls", tls: "1.3", suite: "AES_256_GCM_SHA384" }
}

pub struct Client {
    pub user: BareJid,
    pub link: Option<SessionHandle>,
    pub pipe: Arc<Pipe>,
    pub waiting: VecDeque<Down>,
    /// Stanzas received since stream management was enabled.
    pub handled: u32,
    /// The resumption id.
    pub id: String,
    /// The client does not answer when it is asked what it has, and says of no mark that it is written.
    pub quiet: bool,
    /// Those marks.
    pub marks: Vec<u64>,
    /// Where it runs, if not here.
    pub runtime: Option<tokio::runtime::Handle>,
    /// The archived messages that came, each with its number in the session: none may come twice.
    pub got: Vec<(u32, String)>,
}

impl Client {
    /// One of a node with a runtime of its own.
    pub fn on(user: BareJid, link: SessionHandle, pipe: Arc<Pipe>, runtime: tokio::runtime::Handle) -> Self {
        Self {
            user,
            link: Some(link),
            pipe,
            waiting: VecDeque::new(),
            handled: 0,
            id: String::new(),
            quiet: false,
            marks: Vec::new(),
            runtime: Some(runtime),
            got: Vec::new(),
        }
    }

    pub fn link(&mut self) -> &mut SessionHandle {
        self.link.as_mut().unwrap()
    }

    /// Those of the messages that came which its count covers; what lies behind may come again in a resumed session.
    pub fn kept(&self) -> Vec<(u32, String)> {
        self.got.iter().filter(|(number, _)| *number <= self.handled).cloned().collect()
    }

    /// A message comes once.
    fn came(&mut self, text: &str) {
        // Carbons and pages of the archive hold copies.
        let copy = !text.starts_with("<message") || text.contains("<forwarded");
        let id = text.split("<stanza-id").nth(1).and_then(|rest| rest.split('>').next());
        let Some(id) = id.filter(|_| !copy) else { return };
        let twice = self.got.iter().any(|(_, other)| other == id);
        assert!(!twice, "{} got this twice: {text}", self.user);
        self.got.push((self.handled, id.to_owned()));
    }

    /// Does something with the link, where its node runs.
    pub fn with<T>(&mut self, step: impl FnOnce(&mut SessionHandle) -> T) -> T {
        let runtime = self.runtime.clone();
        let _there = runtime.as_ref().map(tokio::runtime::Handle::enter);
        step(self.link())
    }

    pub fn send(&mut self, xml: &str) {
        let stanza = Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).expect(xml);
        self.with(|link| link.up(stanza));
    }

    /// Its node was killed: nothing is done with the link any more.
    pub fn forget(&mut self) {
        std::mem::forget(self.link.take());
    }

    /// Everything sent so far is settled.
    pub async fn settled(&mut self) {
        let pipe = self.pipe.clone();
        let settle = async {
            loop {
                let open = self.with(|link| {
                    link.ledger().wait(&pipe);
                    link.ledger().open()
                });
                if open == 0 {
                    return;
                }
                self.drain();
                pipe.ready().await;
            }
        };
        tokio::time::timeout(PATIENCE, settle).await.expect("not settled");
    }

    /// What the client may be told by `<a/>` once everything that it sent is settled and written down.
    pub async fn told(&mut self) -> u32 {
        let pipe = self.pipe.clone();
        let told = async {
            loop {
                let (settled, received) = self.with(|link| {
                    link.ledger().wait(&pipe);
                    (link.ledger().settled(), link.ledger().received())
                });
                if settled == received {
                    return settled;
                }
                self.drain();
                pipe.ready().await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("not written down")
    }

    /// Takes what is in the pipe, as a connection does whose socket is not full.
    fn drain(&mut self) {
        let mut items = Vec::new();
        let runtime = self.runtime.clone();
        let there = runtime.as_ref().map(tokio::runtime::Handle::enter);
        self.pipe.drain(&mut items, usize::MAX);
        drop(there);
        self.waiting.extend(items);
    }

    async fn next(&mut self) -> Down {
        let wait = async {
            loop {
                if let Some(down) = self.waiting.pop_front() {
                    return down;
                }
                self.drain();
                if self.waiting.is_empty() {
                    self.pipe.ready().await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .unwrap_or_else(|_| panic!("nothing came for {}", self.user))
    }

    /// The next stanza as text; acknowledgement requests are answered, marks confirmed, on the way.
    pub async fn recv(&mut self) -> String {
        loop {
            match self.next().await {
                Down::Stanza(outgoing, _) => {
                    self.handled += 1;
                    let mut bytes = Vec::new();
                    outgoing.write(&mut bytes);
                    let text = String::from_utf8(bytes).unwrap();
                    println!("{} {}: {text}", self.user, self.handled); // shown if the test fails
                    self.came(&text);
                    return text;
                }
                Down::Nonza(bytes) if bytes.starts_with(b"<r ") && self.quiet => {}
                Down::Nonza(bytes) if bytes.starts_with(b"<r ") => self.ack(),
                Down::Nonza(bytes) => return String::from_utf8(bytes.to_vec()).unwrap(),
                Down::Enabled(bytes) => {
                    self.handled = 0;
                    self.got.iter_mut().for_each(|(number, _)| *number = 0);
                    return String::from_utf8(bytes.to_vec()).unwrap();
                }
                Down::Written(bytes, _) => {
                    self.handled += 1;
                    return String::from_utf8(bytes.to_vec()).unwrap();
                }
                Down::Moved => {}
                Down::Mark(number) if self.quiet => self.marks.push(number),
                Down::Mark(number) => self.with(|link| link.marked(number)),
                Down::Close(close) => return format!("close {close:?}"),
            }
        }
    }

    pub fn ack(&mut self) {
        let handled = self.handled;
        self.with(|link| link.down_ack(handled));
    }

    /// Says of all marks that were held back that they are written.
    pub fn written(&mut self) {
        for number in std::mem::take(&mut self.marks) {
            self.with(|link| link.marked(number));
        }
    }

    /// The next stanza, which must contain `part`.
    pub async fn expect(&mut self, part: &str) -> String {
        let got = self.recv().await;
        assert!(got.contains(part), "expected {part} in {got} (stanza {})", self.handled);
        got
    }

    /// The next stanza that contains `part`, whatever comes before it, but for a message that came already.
    pub async fn until(&mut self, part: &str) -> String {
        loop {
            let got = self.recv().await;
            if got.contains(part) {
                return got;
            }
        }
    }

    /// What comes up to the answer of a request that the server refuses.
    pub async fn comes(&mut self) -> Vec<String> {
        self.send("<iq type='get' id='comes' to='localhost'><no-such-thing xmlns='urn:x'/></iq>");
        let mut all = Vec::new();
        loop {
            let got = self.recv().await;
            if got.contains("id='comes'") {
                return all;
            }
            all.push(got);
        }
    }

    /// Nothing waits: a ping's answer is the next thing that comes.
    pub async fn nothing(&mut self) {
        self.send("<iq type='get' id='nothing' to='localhost'><no-such-thing xmlns='urn:x'/></iq>");
        self.expect("nothing").await;
    }

    /// Enables resumption.
    pub async fn resumable(&mut self) {
        self.with(|link| link.enable(true, None));
        let enabled = self.expect("<enabled").await;
        let at = enabled.find(" id='").or_else(|| enabled.find(" id=\"")).expect(&enabled) + 5;
        self.id = enabled[at..].split(['\'', '"']).next().unwrap().to_owned();
    }

    /// The connection is lost.
    pub fn lose(&mut self) {
        let link = self.link.take().unwrap();
        let _there = self.runtime.as_ref().map(tokio::runtime::Handle::enter);
        link.closed(false);
    }

    /// The client closes its stream.
    pub fn quit(mut self) {
        let link = self.link.take().unwrap();
        let _there = self.runtime.as_ref().map(tokio::runtime::Handle::enter);
        link.closed(true);
    }
}

pub fn closed(text: &str) -> bool {
    text.starts_with(&format!("close {:?}", Close::Clean)) || text.starts_with("close ")
}
