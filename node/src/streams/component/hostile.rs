//! Components that are hostile, or broken, over real sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha1::Digest as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::tests::{SECRET, configured, header};
use crate::net::{Net as _, Tcp, accept};
use crate::streams::c2s::tests::{Fixture, fixture};
use crate::transport::tcp::{Socket, Start};

/// A connection of a component.
struct Wire {
    io: TcpStream,
    text: String,
}

/// Listens for components.
fn listen(fixture: &Fixture) -> SocketAddr {
    let listener = Tcp.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let at = listener.local_addr().unwrap();
    let shared = fixture.shared.clone();
    let (gate, stop) = (shared.gate.clone(), shared.stop.clone());
    let take = move |stream, peer, pass| {
        super::serve(&shared, Socket::new(stream, Start::InTheStream, peer), "component", pass);
    };
    tokio::spawn(accept::run(listener, gate, stop, take));
    at
}

impl Wire {
    /// Small buffers: whoever does not read is found out soon.
    async fn connect(at: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        let io = socket.connect(at).await.unwrap();
        io.set_nodelay(true).unwrap();
        Self { io, text: String::new() }
    }

    /// The id of the stream.
    async fn open(&mut self, name: &str) -> String {
        self.send(&header(name)).await;
        let opened = self.until(" id='").await + &self.until("'").await;
        self.until(">").await;
        opened.rsplit("id='").next().unwrap().trim_end_matches('\'').to_owned()
    }

    async fn component(at: SocketAddr, name: &str) -> Self {
        let mut wire = Self::connect(at).await;
        let id = wire.open(name).await;
        wire.send(&proof(&id, SECRET)).await;
        wire.until("<handshake/>").await;
        wire
    }

    /// Whether the other side took it.
    async fn send(&mut self, text: &str) -> bool {
        self.io.write_all(text.as_bytes()).await.is_ok()
    }

    async fn until(&mut self, needle: &str) -> String {
        loop {
            if let Some(at) = self.text.find(needle) {
                let rest = self.text.split_off(at + needle.len());
                return std::mem::replace(&mut self.text, rest);
            }
            assert!(self.more().await, "{needle:?} did not come, only {:?}", self.text);
        }
    }

    async fn end(&mut self) -> String {
        while self.more().await {}
        std::mem::take(&mut self.text)
    }

    async fn more(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        let read = tokio::time::timeout(Duration::from_secs(60), self.io.read(&mut buffer)).await;
        let n = read.expect("nothing came").unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        n > 0
    }
}

fn proof(id: &str, secret: &str) -> String {
    let digest = sha1::Sha1::digest(format!("{id}{secret}").as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("<handshake>{hex}</handshake>")
}

fn message(from: &str, body: &str) -> String {
    format!("<message from='a@{from}' to='romeo@localhost/orchard' type='chat'><body>{body}</body></message>")
}

#[tokio::test]
async fn wrong_secrets_and_replays_are_slow_and_of_no_use() {
    let fixture = fixture(configured).await;
    let at = listen(&fixture);
    let mut first = Wire::connect(at).await;
    let first_id = first.open("irc.localhost").await;
    let mut second = Wire::connect(at).await;
    let second_id = second.open("irc.localhost").await;
    assert_ne!(first_id, second_id);
    let begun = Instant::now();
    // What proves the first stream proves no other; nor does it say anything in another name.
    for handshake in [
        proof(&first_id, SECRET),
        proof("", SECRET),
        "<handshake/>".to_owned(),
        format!("<handshake>{}</handshake>", "0".repeat(4_000)),
    ] {
        let mut wire = Wire::connect(at).await;
        wire.open("irc.localhost").await;
        wire.send(&handshake).await;
        let end = wire.end().await;
        assert!(end.contains("<not-authorized") && !end.contains("<handshake/>"), "{end}");
    }
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    // A component that has the secret is not held up.
    second.send(&proof(&second_id, SECRET)).await;
    second.until("<handshake/>").await;
    // Before the handshake little is taken.
    let mut giant = Wire::connect(at).await;
    giant.open("irc.localhost").await;
    giant.send(&format!("<handshake>{}", "0".repeat(400_000))).await;
    assert!(giant.end().await.contains("<policy-violation"));
}

#[tokio::test]
async fn a_flood_and_giants_are_the_components_own_matter() {
    let fixture = fixture(|config| {
        configured(config);
        config.limits.component_stanzas_per_second = 50;
    })
    .await;
    let at = listen(&fixture);
    let mut romeo = fixture.session("romeo", "orchard").await;
    let mut irc = Wire::component(at, "irc.localhost").await;
    let mut other = Wire::component(at, "other.localhost").await;
    let flood: String = (0..300).map(|n| message("irc.localhost", &format!("flood {n}."))).collect();
    irc.send(&flood).await;
    romeo.until("flood 0.").await;
    other.send(&message("other.localhost", "honest")).await;
    let before = romeo.until("<body>honest</body>").await;
    assert!(!before.contains("flood 299."), "{before}");
    romeo.until("flood 299.").await;
    // A stanza without end.
    let most = usize::try_from(fixture.shared.settings.load().after.stanza_bytes).unwrap();
    let mut giant = Wire::component(at, "other.localhost").await;
    giant.send("<message from='a@other.localhost' to='romeo@localhost'><body>").await;
    let part = "x".repeat(64 * 1_024);
    for _ in 0..most / part.len() + 2 {
        if !giant.send(&part).await {
            break;
        }
    }
    assert!(giant.end().await.contains("<policy-violation"));
}

#[tokio::test]
async fn a_component_that_does_not_read_is_let_go() {
    let fixture = fixture(|config| {
        configured(config);
        config.limits.answer = Duration::from_secs(1);
        config.limits.component_stanzas_per_second = 1_000_000;
        config.limits.component_bytes_per_second = 1_000_000_000;
    })
    .await;
    let at = listen(&fixture);
    let mut irc = Wire::component(at, "irc.localhost").await;
    let ask =
        "<iq type='get' id='p' from='a@irc.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>";
    let many = ask.repeat(200);
    let begun = Instant::now();
    while irc.send(&many).await {
        assert!(begun.elapsed() < Duration::from_secs(50), "still there");
    }
    // Others did not notice.
    let mut romeo = fixture.session("romeo", "orchard").await;
    let mut other = Wire::component(at, "other.localhost").await;
    other.send(&message("other.localhost", "hello")).await;
    romeo.until("<body>hello</body>").await;
}
