//! Connections over in-memory pipes, with real TLS, a real host and the memory store.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rookery_actors::Host;
use rookery_cluster::mesh::Mesh;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Durability};
use rookery_ops::secret::Password;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::{Shared, serve};
use crate::admin::Accounts;
use crate::config::Config;
use crate::tls::Tls;
use crate::transport::tcp::{Socket, Start};
use crate::{options, start};

mod elsewhere;
mod framed;
mod limits;
mod login;
mod negotiation;
mod session;
mod sm;

/// A node without sockets.
pub(in crate::streams) struct Fixture {
    pub(in crate::streams) shared: Arc<Shared>,
    pub(in crate::streams) stop: watch::Sender<bool>,
    tls: TlsConnector,
    _folder: tempfile::TempDir,
}

pub(in crate::streams) const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>";
const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 40_000);

/// A node with the accounts romeo and juliet, whose passwords are `secret`.
pub(in crate::streams) async fn fixture(change: impl FnOnce(&mut Config)) -> Fixture {
    fixture_in(None, change).await
}

/// The same, where users may live on other nodes.
pub(in crate::streams) async fn fixture_in(
    mesh: Option<Arc<Mesh>>,
    change: impl FnOnce(&mut Config),
) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::development();
    config.data_dir = folder.path().to_owned();
    config.sasl.iterations = 4_096;
    // A login may take as long as a busy machine needs. Tests of this limit set their own.
    config.limits.login = Duration::from_secs(1_800);
    change(&mut config);
    let seams = Seams::system();
    let store = store::open("memory:", folder.path(), Durability::Sync, seams.clone()).unwrap();
    let accounts = Accounts::new(store.clone(), seams.clone(), vec!["localhost".to_owned()], 4_096);
    for user in ["romeo@localhost", "juliet@localhost"] {
        accounts.add(user, &Password::new("secret").unwrap()).await.unwrap();
    }
    let tls = Tls::load(&config, seams.clone()).unwrap();
    let host = Host::start(options::host(&config), store, seams.clone()).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let shared = start::shared(&config, host, tls, seams, stopping, mesh);
    Fixture { shared, stop, tls: trusting(&folder.path().join("tls/ca.pem")), _folder: folder }
}

/// A client's TLS that trusts the node's own authority.
fn trusting(authority: &Path) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// What every idle client costs beside TLS and its actors.
#[test]
fn a_running_connection_is_small() {
    fn size<A, F>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }
    let task = size(super::running::run::<Box<crate::tls::TlsStream<DuplexStream>>>);
    let state = size_of::<super::running::Running<Box<crate::tls::TlsStream<DuplexStream>>>>();
    assert!(task <= 400 && state <= 640, "the task's future has {task} bytes, its state {state}");
}

impl Fixture {
    /// An accepted connection from the usual peer.
    pub(in crate::streams) fn connect(&self, start: Start) -> Client {
        self.connect_from(start, SocketAddr::from(PEER))
    }

    pub(in crate::streams) fn connect_from(&self, start: Start, peer: SocketAddr) -> Client {
        let (ours, theirs) = tokio::io::duplex(32 * 1024);
        serve(&self.shared, Socket::new(ours, start, peer), self.shared.gate.enter().unwrap());
        Client { io: Io::Plain(theirs), text: String::new(), tls: self.tls.clone() }
    }

    /// What `serve` takes care of, and the other end.
    pub(in crate::streams) fn wire(
        &self,
        start: Start,
        serve: impl FnOnce(&Arc<Shared>, Socket<DuplexStream>, crate::net::Pass),
    ) -> Client {
        let (ours, theirs) = tokio::io::duplex(32 * 1024);
        let socket = Socket::new(ours, start, SocketAddr::from(PEER));
        serve(&self.shared, socket, self.shared.gate.enter().unwrap());
        Client { io: Io::Plain(theirs), text: String::new(), tls: self.tls.clone() }
    }

    /// The same with the bare pipe.
    pub(in crate::streams) fn raw(&self, serve: impl FnOnce(&Arc<Shared>, DuplexStream)) -> Client {
        let (ours, theirs) = tokio::io::duplex(32 * 1024);
        serve(&self.shared, ours);
        Client { io: Io::Plain(theirs), text: String::new(), tls: self.tls.clone() }
    }

    /// A connection in the clear whose stream is open and whose features were read.
    pub(in crate::streams) async fn opened(&self) -> Client {
        let mut client = self.connect(Start::InTheStream);
        client.open().await;
        client
    }

    /// The same by direct TLS.
    pub(in crate::streams) async fn tls(&self) -> Client {
        let mut client = self.connect(Start::Direct).encrypt().await;
        client.open().await;
        client
    }

    /// A logged-in stream whose last features were read.
    pub(in crate::streams) async fn authenticated(&self, user: &str) -> Client {
        let mut client = self.tls().await;
        client.send(&plain(user, "secret")).await;
        client.until("<success").await;
        client.open().await;
        client
    }

    /// A bound session.
    pub(in crate::streams) async fn session(&self, user: &str, resource: &str) -> Client {
        let mut client = self.authenticated(user).await;
        client.send(&bind(resource)).await;
        client.until("</iq>").await;
        client
    }

    /// The two who talk to each other: romeo in his orchard, juliet on her balcony.
    pub(in crate::streams) async fn pair(&self) -> (Client, Client) {
        (self.session("romeo", "orchard").await, self.session("juliet", "balcony").await)
    }
}

/// `<auth/>` for PLAIN.
pub(in crate::streams) fn plain(user: &str, password: &str) -> String {
    let data = rookery_proto::sasl::encoding::encode(format!("\0{user}\0{password}").as_bytes());
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{data}</auth>")
}

pub(in crate::streams) fn bind(resource: &str) -> String {
    format!(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
    )
}

enum Io {
    Plain(DuplexStream),
    Tls(Box<tokio_rustls::client::TlsStream<DuplexStream>>),
}

/// A client of a few words.
pub(in crate::streams) struct Client {
    io: Io,
    text: String,
    tls: TlsConnector,
}

trait Both: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Both for T {}

impl Client {
    fn io(&mut self) -> &mut dyn Both {
        match &mut self.io {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream,
        }
    }

    /// Begins TLS, with the certificate of `localhost` that the node has made for itself.
    pub(in crate::streams) async fn encrypt(self) -> Self {
        self.encrypt_as(&[]).await.unwrap()
    }

    /// The same, offering these protocols by ALPN; `None` if the server wants none of them.
    pub(in crate::streams) async fn encrypt_as(self, alpn: &[&[u8]]) -> Option<Self> {
        let Io::Plain(stream) = self.io else { panic!("encrypted already") };
        let name = ServerName::try_from("localhost").unwrap();
        let mut config = (**self.tls.config()).clone();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        Some(Self { io: Io::Tls(Box::new(connected.ok()?)), text: String::new(), tls: self.tls })
    }

    pub(in crate::streams) fn exporter(&self) -> [u8; 32] {
        let Io::Tls(stream) = &self.io else { panic!("not encrypted") };
        stream.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).unwrap()
    }

    /// Opens a stream; returns the answer up to the end of the features.
    pub(in crate::streams) async fn open(&mut self) -> String {
        self.send(HEADER).await;
        self.until("</stream:features>").await
    }

    pub(in crate::streams) async fn send(&mut self, text: &str) {
        self.bytes(text.as_bytes()).await;
    }

    pub(in crate::streams) async fn bytes(&mut self, bytes: &[u8]) {
        self.io().write_all(bytes).await.unwrap();
        self.io().flush().await.unwrap();
    }

    /// Reads until `needle` has come; returns everything up to its end.
    pub(in crate::streams) async fn until(&mut self, needle: &str) -> String {
        loop {
            if let Some(at) = self.text.find(needle) {
                let rest = self.text.split_off(at + needle.len());
                return std::mem::replace(&mut self.text, rest);
            }
            assert!(self.more().await, "{needle:?} did not come, only {:?}", self.text);
        }
    }

    /// Reads to the end of the connection.
    pub(in crate::streams) async fn end(&mut self) -> String {
        while self.more().await {}
        std::mem::take(&mut self.text)
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        // Only a failing test waits that long: a paused clock jumps over every wait, so this is longer than all limits.
        let read = self.io().read(&mut buffer);
        let n =
            tokio::time::timeout(Duration::from_secs(3_600), read).await.expect("nothing came").unwrap_or(0);
        self.text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        n > 0
    }

    /// Sends a ping and demands that nothing comes before its answer.
    pub(in crate::streams) async fn nothing_but_pong(&mut self) {
        self.send("<iq type='get' id='probe' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await;
        let got = self.until("/>").await;
        assert!(got.contains("id='probe'") && got.starts_with("<iq"), "{got}");
    }

    /// The socket is cut.
    pub(in crate::streams) fn cut(self) {}
}
