//! A server of a few words, to be hostile with.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::Node;
use crate::dns::Begin;
use crate::streams::c2s::tests as c2s;
use crate::tls::remote;

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// A connection, as a server that says what the test says.
pub(super) struct Peer {
    io: Box<dyn Both>,
    pub(super) text: String,
}

/// The header of a server, without its addresses.
pub(super) fn header(from: &str, to: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
         xmlns:stream='http://etherx.jabber.org/streams' from='{from}' to='{to}' version='1.0'>"
    )
}

impl Peer {
    /// In the clear.
    #[allow(clippy::disallowed_methods, reason = "a test's own socket")]
    pub(super) async fn plain(at: SocketAddr) -> Self {
        let io = TcpStream::connect(at).await.unwrap();
        io.set_nodelay(true).unwrap();
        Self { io: Box::new(io), text: String::new() }
    }

    /// A client of `node` that has called at `at`, its port for direct TLS, and has logged in.
    pub(super) async fn client(node: &Node, at: SocketAddr, user: &str) -> Self {
        let (domain, io) = (node.host.options().domains[0].name.clone(), Self::plain(at).await.io);
        // That is without ALPN, which a client may leave out.
        let begin = Begin::Starttls;
        let secured = remote::connect(&node.federation.tls, io, &domain, &domain, begin).await.unwrap();
        let mut client = Self { io: Box::new(secured.stream), text: String::new() };
        let header = c2s::HEADER.replace("localhost", &domain);
        for words in [c2s::plain(user, "secret"), String::new()] {
            client.send(&header).await;
            client.until("</stream:features>").await;
            if !words.is_empty() {
                client.send(&words).await;
                client.until("<success").await;
            }
        }
        client
    }

    /// By direct TLS to `node`, with the certificate that `as_node` has for `local`.
    pub(super) async fn tls(node: &Node, as_node: &Node, local: &str) -> Self {
        let Self { io, .. } = Self::plain(node.at_tls).await;
        Self::on(io, node, as_node, local).await
    }

    /// The same on a socket that is there.
    pub(super) async fn on(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        node: &Node,
        as_node: &Node,
        local: &str,
    ) -> Self {
        let to = node.host.options().domains[0].name.clone();
        let secured = remote::connect(&as_node.federation.tls, io, local, &to, Begin::Direct).await.unwrap();
        Self { io: Box::new(secured.stream), text: String::new() }
    }

    /// The same, with headers exchanged and features read, which come back with the header.
    pub(super) async fn opened(node: &Node, as_node: &Node, from: &str) -> (Self, String) {
        let to = node.host.options().domains[0].name.clone();
        Self::opened_to(node, as_node, from, &to).await
    }

    pub(super) async fn opened_to(node: &Node, as_node: &Node, from: &str, to: &str) -> (Self, String) {
        let mut peer = Self::tls(node, as_node, from).await;
        peer.send(&header(from, to)).await;
        let features = peer.until("</stream:features>").await;
        (peer, features)
    }

    /// The same, logged in by the certificate.
    pub(super) async fn authenticated(node: &Node, as_node: &Node, from: &str) -> Self {
        let mut peer = Self::tls(node, as_node, from).await;
        peer.log_in(from, &node.host.options().domains[0].name).await;
        peer
    }

    /// Headers, and a login by the certificate.
    pub(super) async fn log_in(&mut self, from: &str, to: &str) {
        self.send(&header(from, to)).await;
        let features = self.until("</stream:features>").await;
        assert!(features.contains("EXTERNAL"), "{features}");
        self.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
        self.until("<success").await;
        self.send(&header(from, to)).await;
        self.until("</stream:features>").await;
    }

    /// One that was called by direct TLS, and answers with what `as_node` has.
    pub(super) async fn called(listener: &TcpListener, as_node: &Node) -> Self {
        let (io, _) = listener.accept().await.unwrap();
        let secured = remote::accept_direct(&as_node.federation.tls, io).await.unwrap();
        Self { io: Box::new(secured.stream), text: String::new() }
    }

    /// Answers a header with one of `from`, and these features.
    pub(super) async fn greet(&mut self, from: &str, features: &str) -> String {
        let got = self.until("<stream:stream ").await + &self.until(">").await;
        let header = header(from, "a.example").replace(" from=", " id='i-1' from=");
        self.send(&format!("{header}<stream:features>{features}</stream:features>")).await;
        got
    }

    pub(super) async fn send(&mut self, text: &str) {
        // The other side may have hung up: what it said tells.
        let _ = self.io.write_all(text.as_bytes()).await;
        let _ = self.io.flush().await;
    }

    /// The same; whether the other side still took it.
    pub(super) async fn try_send(&mut self, text: &str) -> bool {
        self.io.write_all(text.as_bytes()).await.is_ok() && self.io.flush().await.is_ok()
    }

    /// Reads until `needle` has come; returns everything up to its end.
    pub(super) async fn until(&mut self, needle: &str) -> String {
        loop {
            if let Some(at) = self.text.find(needle) {
                let rest = self.text.split_off(at + needle.len());
                return std::mem::replace(&mut self.text, rest);
            }
            assert!(self.more().await, "{needle:?} did not come, only {:?}", self.text);
        }
    }

    /// What comes first; nothing, if that is the end.
    pub(super) async fn first(&mut self) -> String {
        self.more().await;
        std::mem::take(&mut self.text)
    }

    /// Reads to the end of the connection.
    pub(super) async fn end(&mut self) -> String {
        while self.more().await {}
        std::mem::take(&mut self.text)
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        let read = tokio::time::timeout(Duration::from_secs(60), self.io.read(&mut buffer)).await;
        let n = read.expect("nothing came").unwrap_or(0);
        self.text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        n > 0
    }
}

/// The id of a header.
pub(super) fn id(header: &str) -> String {
    header.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}
