//! Streams between two nodes of one process, over loopback, with an authority of the test's own; and against a peer of a few words.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rookery_actors::{Authenticated, ConnInfo, Down, Host, Pipe, SessionHandle};
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Durability};
use rookery_ops::secret::Password;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Federation, serve};
use crate::admin::Accounts;
use crate::config::{self, Authorities, CertificateFiles, Config, Policy, Route};
use crate::dns::Begin;
use crate::net::{Net as _, Tcp, accept};
use crate::streams::c2s::Shared;
use crate::tls::Tls;
use crate::{options, start};

mod crowd;
mod exchange;
mod forged;
mod hostile;
mod managed;
mod peer;
mod posh;
mod pressing;
mod reported;
mod shared_port;

/// An authority, and certificates that it signs.
pub(super) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `domain`, good for servers only, as public authorities make them.
    pub(super) fn sign(&self, folder: &Path, domain: &str) -> CertificateFiles {
        let mut params = CertificateParams::new(vec![idna::domain_to_ascii(domain).unwrap()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let files = CertificateFiles {
            certificate: folder.join(format!("{domain}.pem")),
            key: folder.join(format!("{domain}.key")),
        };
        std::fs::write(&files.certificate, signed.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        rustix::fs::chmod(&files.key, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        files
    }
}

/// Where a node will listen.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) at: SocketAddr,
}

impl Port {
    pub(super) fn new() -> Self {
        let listener = Tcp.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let at = listener.local_addr().unwrap();
        Self { listener, at }
    }
}

/// A node that talks to other servers.
pub(super) struct Node {
    pub(super) federation: Arc<Federation>,
    pub(super) shared: Arc<Shared>,
    pub(super) host: Host,
    pub(super) at: SocketAddr,
    pub(super) at_tls: SocketAddr,
    pub(super) stop: watch::Sender<bool>,
    _accepting: Vec<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

/// What a test node is made of.
pub(super) struct Plan<'a> {
    pub(super) domain: &'a str,
    pub(super) authority: Option<&'a Authority>,
    /// Domains that are elsewhere.
    pub(super) routes: Vec<(&'a str, SocketAddr, Begin)>,
    pub(super) policy: Policy,
}

impl<'a> Plan<'a> {
    /// A node with a certificate, that takes nothing less from others.
    pub(super) fn certified(domain: &'a str, authority: &'a Authority) -> Self {
        Self { domain, authority: Some(authority), routes: Vec::new(), policy: Policy::Certificate }
    }

    /// A node without, that knows the way to others.
    pub(super) fn by_dialback(domain: &'a str, routes: Vec<(&'a str, SocketAddr, Begin)>) -> Self {
        Self { domain, authority: None, routes, policy: Policy::Dialback }
    }
}

impl Node {
    /// A node with the accounts romeo and juliet.
    pub(super) async fn start(plan: Plan<'_>, ports: (Port, Port), change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::development();
        config.data_dir = folder.path().to_owned();
        config.sasl.iterations = 4_096;
        config.domains[0].name = BareJid::parse(plan.domain).unwrap().to_string();
        if let Some(authority) = plan.authority {
            config.domains[0].certificate = Some(authority.sign(folder.path(), plan.domain));
            let file = folder.path().join("authority.pem");
            std::fs::write(&file, &authority.pem).unwrap();
            config.authorities = Authorities { system: false, file: Some(file) };
        } else {
            config.authorities = Authorities { system: false, file: None };
        }
        config.federation.policy = plan.policy;
        for (domain, at, begin) in plan.routes {
            let domain = rookery_actors::options::DomainPattern::parse(domain);
            let (host, port, direct) = (at.ip().to_string(), at.port(), begin == Begin::Direct);
            config.federation.routes.push(Route { domain, host, port, direct });
        }
        change(&mut config);
        let seams = Seams::system();
        let store = store::open("memory:", folder.path(), Durability::Sync, seams.clone()).unwrap();
        let domain = config.domains[0].name.clone();
        let accounts = Accounts::new(store.clone(), seams.clone(), vec![domain.clone()], 4_096);
        for user in ["romeo", "juliet"] {
            accounts.add(&format!("{user}@{domain}"), &Password::new("secret").unwrap()).await.unwrap();
        }
        let tls = Tls::load(&config, seams.clone()).unwrap();
        let host = Host::start(options::host(&config), store, seams.clone()).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let shared = start::shared(&config, host.clone(), tls, seams, stopping.clone(), None);
        let federation = start::federation(&config, &shared).unwrap().unwrap();
        let (at, at_tls) = (ports.0.at, ports.1.at);
        let both = [(ports.0, Begin::Starttls), (ports.1, Begin::Direct)];
        let accepting = both.map(|(port, begin)| {
            let (federation, stop) = (federation.clone(), stopping.clone());
            let gate = federation.gate.clone();
            let take = move |stream, peer, pass| serve(&federation, stream, begin, peer, pass);
            tokio::spawn(accept::run(port.listener, gate, stop, take))
        });
        Self { federation, shared, host, at, at_tls, stop, _accepting: accepting.into(), _folder: folder }
    }

    /// A session of one of its users, online.
    pub(super) async fn session(&self, user: &str) -> Session {
        let domain = self.host.options().domains[0].name.clone();
        let jid = BareJid::parse(&format!("{user}@{domain}")).unwrap();
        let pipe = Pipe::new();
        let conn = ConnInfo { address: "127.0.0.1:1".into(), via: "c2s", tls: "1.3", suite: "" };
        let who = Authenticated::by_sasl(jid);
        let handle = self.host.bind(who, Some("r"), conn, pipe.clone()).await.unwrap();
        let mut session = Session { handle, pipe, text: String::new() };
        session.send("<presence/>");
        session.until("<presence").await;
        session
    }
}

/// Two nodes that know where the other is: one of `a.example`, one of `b.example`.
pub(super) async fn two(
    authority: Option<&Authority>,
    policy: Policy,
    begin: Begin,
    change: impl Fn(&mut Config),
) -> (Node, Node) {
    let (a, b) = ((Port::new(), Port::new()), (Port::new(), Port::new()));
    let place = |ports: &(Port, Port)| if begin == Begin::Direct { ports.1.at } else { ports.0.at };
    let (at_a, at_b) = (place(&a), place(&b));
    let plan = |domain, other, at| Plan { domain, authority, routes: vec![(other, at, begin)], policy };
    let one = Node::start(plan("a.example", "b.example", at_b), a, &change).await;
    let other = Node::start(plan("b.example", "a.example", at_a), b, &change).await;
    (one, other)
}

/// A client without its socket.
pub(super) struct Session {
    handle: SessionHandle,
    pipe: Arc<Pipe>,
    text: String,
}

impl Session {
    pub(super) fn send(&self, stanza: &str) {
        self.handle.up(Stanza::parse(stanza.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap());
    }

    /// What has come up to and with `needle`.
    pub(super) async fn until(&mut self, needle: &str) -> String {
        let found = tokio::time::timeout(Duration::from_secs(60), self.find(needle)).await;
        found.unwrap_or_else(|_| panic!("{needle:?} did not come"))
    }

    async fn find(&mut self, needle: &str) -> String {
        loop {
            if let Some(at) = self.text.find(needle) {
                let rest = self.text.split_off(at + needle.len());
                return std::mem::replace(&mut self.text, rest);
            }
            let mut items = Vec::new();
            self.pipe.drain(&mut items, 1_000);
            let none = items.is_empty();
            for item in items {
                let mut out = Vec::new();
                match item {
                    Down::Stanza(outgoing, _) => outgoing.write(&mut out),
                    Down::Written(bytes, _) | Down::Nonza(bytes) | Down::Enabled(bytes) => out.extend(bytes),
                    Down::Mark(number) => self.handle.marked(number),
                    Down::Moved | Down::Close(_) => {}
                }
                self.text.push_str(std::str::from_utf8(&out).unwrap());
            }
            if none {
                self.pipe.ready().await;
            }
        }
    }
}
