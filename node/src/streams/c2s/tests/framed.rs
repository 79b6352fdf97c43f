//! A stream over a transport that is no TCP: each element is a message of its own, there is no stream header but `<open/>`, and
//! encryption is somebody else's (as with WebSocket, RFC 7395, behind a proxy). A message here is four bytes of length and so
//! many of XML.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rookery_proto::sasl::ChannelBindings;
use rookery_proto::xml::framer::{Framer, Step};
use rookery_proto::xml::header::{Opening, StreamHeader};
use rookery_proto::xml::{Error, Limits, Scope};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use tokio::io::ReadBuf;

use super::*;
use crate::config::Network;
use crate::transport::{Carrier, Frames, Security, Transport};

const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";

/// Takes the lengths off what comes in; what goes out has them already.
struct Messages {
    io: DuplexStream,
    length: Vec<u8>,
    left: usize,
}

impl AsyncRead for Messages {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left == 0 {
            let mut byte = [0];
            let mut one = ReadBuf::new(&mut byte);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut one))?;
            let Some(byte) = one.filled().first() else { return Poll::Ready(Ok(())) };
            this.length.push(*byte);
            if let Ok(length) = <[u8; 4]>::try_from(this.length.as_slice()) {
                (this.left, this.length) = (u32::from_be_bytes(length) as usize, Vec::new());
            }
        }
        let mut part = vec![0; this.left.min(buf.remaining())];
        let mut read = ReadBuf::new(&mut part);
        ready!(Pin::new(&mut this.io).poll_read(cx, &mut read))?;
        this.left -= read.filled().len();
        buf.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Messages {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl Carrier for Messages {
    type Frames = Apart;
}

impl Transport for Messages {
    type Settled = Self;

    fn via(&self) -> &'static str {
        "framed"
    }
    async fn locate(&mut self, _: Option<&[Network]>) -> Option<SocketAddr> {
        Some(SocketAddr::from(PEER))
    }
    async fn begin(&mut self, _: &Tls) -> io::Result<()> {
        Ok(())
    }
    async fn encrypt(&mut self, _: &Tls, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn security(&self) -> Option<Security> {
        Some(Security { version: "", suite: "" })
    }
    fn bindings(&self) -> &ChannelBindings {
        const NONE: &ChannelBindings = &ChannelBindings { exporter: None, server_end_point: None };
        NONE
    }
    fn settle(self) -> Option<Self> {
        Some(self)
    }
}

/// Elements that stand alone.
struct Apart {
    framer: Framer,
    opened: bool,
}

impl Frames for Apart {
    fn new(limits: Limits) -> Self {
        let mut framer = Framer::new(limits);
        framer.next(b"<stream:stream>").unwrap();
        Self { framer, opened: false }
    }

    fn next(&mut self, bytes: &[u8]) -> Result<Step, Error> {
        Ok(match self.framer.next(bytes)? {
            Step::Element { len } if !std::mem::replace(&mut self.opened, true) => Step::Open { len },
            Step::Element { len } if bytes.starts_with(b"<close ") => Step::Close { len },
            step => step,
        })
    }

    fn restart(&mut self) {
        *self = Self::new(*self.framer.limits());
    }
    fn limits(&self) -> &Limits {
        self.framer.limits()
    }
    fn set_limits(&mut self, limits: Limits) {
        self.framer.set_limits(limits);
    }

    fn header(frame: &[u8], _: &Limits, content: &'static str) -> Result<StreamHeader, Error> {
        let open = Element::parse(frame).map_err(|_| Error::Namespace)?;
        if !open.is("open", FRAMING) {
            return Err(Error::Namespace);
        }
        Ok(StreamHeader {
            to: open.attr("to").and_then(|to| Jid::parse(to).ok()),
            from: None,
            id: None,
            version: open.attr("version").map(|_| (1, 0)),
            lang: None,
            content,
            scope: Scope::NOTHING,
        })
    }

    fn open(out: &mut Vec<u8>, opening: &Opening<'_>) {
        let (from, id) = (opening.from.unwrap_or_default(), opening.id.unwrap_or_default());
        let open = format!("<open xmlns='{FRAMING}' version='1.0' from='{from}' id='{id}'/>");
        Self::element(out, |out| out.extend_from_slice(open.as_bytes()));
    }

    fn element(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut element = Vec::new();
        write(&mut element);
        let tag = element.iter().position(|b| *b == b'>').unwrap();
        let name = element.iter().position(|b| b" />".contains(b)).unwrap();
        let name = if element.starts_with(b"</") { panic!("no element") } else { name };
        let declared = String::from_utf8_lossy(&element[..tag]).contains(" xmlns=");
        let declaration = match (element.starts_with(b"<stream:"), declared) {
            (true, _) => format!(" xmlns:stream='{}'", ns::STREAM),
            (false, true) => String::new(),
            (false, false) => format!(" xmlns='{}'", ns::CLIENT),
        };
        element.splice(name..name, declaration.into_bytes());
        out.extend_from_slice(&u32::try_from(element.len()).unwrap().to_be_bytes());
        out.append(&mut element);
    }

    fn close(out: &mut Vec<u8>) {
        Self::element(out, |out| out.extend_from_slice(format!("<close xmlns='{FRAMING}'/>").as_bytes()));
    }
}

/// The other end.
struct Peer(DuplexStream);

impl Peer {
    async fn send(&mut self, text: &str) {
        self.0.write_u32(u32::try_from(text.len()).unwrap()).await.unwrap();
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next message, which is one element that declares all it needs.
    async fn next(&mut self) -> Element {
        let mut message = vec![0; self.0.read_u32().await.unwrap() as usize];
        self.0.read_exact(&mut message).await.unwrap();
        Element::parse(&message).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&message)))
    }

    async fn open(&mut self) -> Element {
        self.send(&format!("<open xmlns='{FRAMING}' to='localhost' version='1.0'/>")).await;
        assert!(self.next().await.is("open", FRAMING));
        self.next().await
    }
}

#[tokio::test]
async fn one_element_in_a_message_and_no_starttls() {
    let node = fixture(|_| ()).await;
    let (ours, theirs) = tokio::io::duplex(32 * 1024);
    let messages = Messages { io: ours, length: Vec::new(), left: 0 };
    serve(&node.shared, messages, node.shared.gate.enter().unwrap());
    let mut peer = Peer(theirs);
    let features = peer.open().await;
    assert!(features.is("features", ns::STREAM) && !features.has("starttls", ns::TLS));
    let mechanisms: Vec<_> =
        features.child("mechanisms", ns::SASL).unwrap().children().map(|m| m.text().to_string()).collect();
    assert_eq!(mechanisms, ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"], "nothing to bind to");
    peer.send(&plain("romeo", "wrong")).await;
    assert!(peer.next().await.is("failure", ns::SASL));
    peer.send(&plain("romeo", "secret")).await;
    assert!(peer.next().await.is("success", ns::SASL));
    let features = peer.open().await;
    assert!(features.has("bind", ns::BIND) && features.has("sm", ns::SM));
    peer.send(&bind("orchard").replacen("<iq ", "<iq xmlns='jabber:client' ", 1)).await;
    assert!(peer.next().await.is("iq", ns::CLIENT));
    let conn = node.shared.host.session_list("").await[0].conn.clone().unwrap();
    assert_eq!((conn.via, conn.tls), ("framed", ""));
    // With a session: stanzas and what is none, several in one write.
    peer.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    assert!(peer.next().await.is("enabled", ns::SM));
    let ping =
        "<iq xmlns='jabber:client' type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>";
    peer.send(ping).await;
    peer.send(ping).await;
    peer.send("<r xmlns='urn:xmpp:sm:3'/>").await;
    let mut got = Vec::new();
    while got.len() < 3 {
        let element = peer.next().await;
        // The server asks, too, when it likes.
        if !element.is("r", ns::SM) {
            got.push(element.name().to_string());
        }
    }
    got.sort_unstable();
    assert_eq!(got, ["a", "iq", "iq"]);
    peer.send(&format!("<close xmlns='{FRAMING}'/>")).await;
    loop {
        let element = peer.next().await;
        if element.is("close", FRAMING) {
            break;
        }
        assert!(element.is("r", ns::SM), "{element:?}");
    }
}
