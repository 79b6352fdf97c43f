//! A raw XMPP client: it does what it is told, also when that is wrong, and hides nothing of what it receives.

mod framer;
mod login;
pub mod scram;
mod stream;
pub mod tls;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

pub use self::framer::{Framer, Piece};
pub use self::stream::{Frame, Io, Wire};
use crate::xml::{self, Element};

/// XEP-0198.
pub const SM: &str = "urn:xmpp:sm:3";
/// XEP-0199.
pub const PING: &str = "urn:xmpp:ping";

/// How long a test waits for what must come. Only a failure uses this time up.
pub fn patience() -> Duration {
    let seconds = std::env::var("ROOKERY_TEST_PATIENCE").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

/// Why a client could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("socket: {0}")]
    Io(#[from] std::io::Error),
    #[error("the server sent no XML: {0}")]
    Xml(#[from] xml::Error),
    #[error("the server closed the stream while we waited for {0}")]
    Closed(String),
    #[error("stream error:\n{0}")]
    Stream(Element),
    #[error("login failed: {0}")]
    Login(String),
    #[error("waited in vain for {0}")]
    Timeout(String),
    #[error("expected {0}, got:\n{1}")]
    Unexpected(String, Element),
}

/// How the stream is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte (XEP-0368).
    Direct,
    /// `<starttls/>` on the plain port.
    StartTls,
    /// Left in the clear: for tests of what a server refuses there.
    None,
}

/// Where and how to connect.
#[derive(Clone)]
pub struct Options {
    /// The STARTTLS port.
    pub c2s: SocketAddr,
    /// The direct TLS port.
    pub c2s_tls: SocketAddr,
    /// The domain served there.
    pub domain: String,
    pub security: Security,
    pub tls: Arc<ClientConfig>,
    /// The only SASL mechanism to use; the strongest one offered if `None`.
    pub mechanism: Option<String>,
    /// The local address to connect from, if it matters.
    pub source: Option<IpAddr>,
    /// The server wants a load balancer to name the client.
    pub proxied: bool,
}

impl Options {
    /// Direct TLS 1.3 with the strongest mechanism.
    pub fn new(c2s: SocketAddr, c2s_tls: SocketAddr, domain: &str) -> Options {
        Options {
            c2s,
            c2s_tls,
            domain: domain.to_owned(),
            security: Security::Direct,
            tls: tls::tls13(),
            mechanism: None,
            source: None,
            proxied: false,
        }
    }

    /// The same with another protection.
    pub fn with(&self, security: Security) -> Options {
        Options { security, ..self.clone() }
    }
}

/// The client's half of XEP-0198.
#[derive(Clone, Debug, Default)]
pub struct StreamManagement {
    pub enabled: bool,
    /// The id to resume with, if the server gave one.
    pub id: Option<String>,
    /// Stanzas received so far (our `h`).
    pub handled: u32,
    /// Stanzas that the server has not acknowledged, oldest first.
    pub unacked: VecDeque<String>,
    /// Stanzas that the server has acknowledged.
    pub acked: u32,
    /// Answer `<r/>` and swallow `<a/>` without telling the test.
    pub automatic: bool,
}

/// What survives a lost connection: everything that is needed to resume.
#[derive(Clone, Debug)]
pub struct Lost {
    pub jid: String,
    pub sm: StreamManagement,
}

/// A client with its stream.
pub struct Client {
    pub wire: Wire,
    /// The full JID once bound.
    pub jid: String,
    /// The last features that the server sent.
    pub features: Option<Element>,
    pub sm: StreamManagement,
    counter: u32,
    /// Elements that a wait has passed over, oldest first; `next` gives them out first.
    pub kept: VecDeque<Element>,
}

/// What comes next on the stream.
#[derive(Debug)]
pub enum Event {
    Element(Element),
    /// `</stream:stream>`
    Close,
    /// The socket ended without it.
    End,
}

impl Client {
    /// Connects, opens the stream and, if asked for, secures it. The features received last are in `features`.
    pub async fn open(options: &Options) -> Result<Client, Error> {
        login::open(options).await
    }

    /// Connects, logs in and binds `resource` (the server chooses if empty). No presence, no roster.
    pub async fn login(
        options: &Options,
        user: &str,
        password: &str,
        resource: &str,
    ) -> Result<Client, Error> {
        let mut client = Client::authenticated(options, user, password).await?;
        client.bind(resource).await?;
        Ok(client)
    }

    /// Connects and logs in, up to the features after SASL.
    pub async fn authenticated(options: &Options, user: &str, password: &str) -> Result<Client, Error> {
        let mut client = Client::open(options).await?;
        client.authenticate(options, user, password).await?;
        Ok(client)
    }

    /// Sends one stanza (or other element). Stanzas are counted once stream management is on.
    pub async fn send(&mut self, xml: &str) -> Result<(), Error> {
        if self.sm.enabled && is_stanza(xml.as_bytes()) {
            self.sm.unacked.push_back(xml.to_owned());
        }
        self.send_raw(xml.as_bytes()).await
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.wire.write(bytes).await?)
    }

    /// Sends bytes one at a time, each in a write of its own.
    pub async fn send_slowly(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for byte in bytes {
            self.wire.write(&[*byte]).await?;
        }
        Ok(())
    }

    /// The next thing from the stream; whatever a `wait` passed over comes first.
    pub async fn next(&mut self) -> Result<Event, Error> {
        if let Some(kept) = self.kept.pop_front() {
            return Ok(Event::Element(kept));
        }
        let patience = patience();
        match tokio::time::timeout(patience, self.fresh()).await {
            Ok(event) => event,
            Err(_) => Err(Error::Timeout("the next element".into())),
        }
    }

    /// The next element; its absence is an error.
    pub async fn element(&mut self) -> Result<Element, Error> {
        match self.next().await? {
            Event::Element(element) => Ok(element),
            Event::Close | Event::End => Err(Error::Closed("an element".into())),
        }
    }

    /// Reads the stream without a deadline. Safe to cancel.
    pub async fn fresh(&mut self) -> Result<Event, Error> {
        loop {
            let element = match self.wire.frame().await {
                Ok(Frame::Open) => continue,
                Ok(Frame::Close) => return Ok(Event::Close),
                Ok(Frame::End) => return Ok(Event::End),
                Ok(Frame::Element(range)) => {
                    let bytes = self.wire.bytes(range);
                    if self.sm.enabled && is_stanza(bytes) {
                        self.sm.handled = self.sm.handled.wrapping_add(1);
                    }
                    Element::parse(&String::from_utf8_lossy(bytes))?
                }
                // A reset instead of an orderly end is an end as well.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(Event::End),
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(Event::End),
                Err(e) => return Err(e.into()),
            };
            if self.sm.automatic && element.is("r", SM) {
                let ack = format!("<a xmlns='{SM}' h='{}'/>", self.sm.handled);
                self.send_raw(ack.as_bytes()).await?;
            } else if self.sm.automatic && element.is("a", SM) {
                self.acked(&element)?;
            } else {
                return Ok(Event::Element(element));
            }
        }
    }

    /// Takes note of an `<a/>`.
    pub fn acked(&mut self, element: &Element) -> Result<(), Error> {
        let h = element.attr("h").and_then(|h| h.parse::<u32>().ok());
        let h = h.ok_or_else(|| Error::Unexpected("h".into(), element.clone()))?;
        let new = h.wrapping_sub(self.sm.acked);
        if new as usize > self.sm.unacked.len() {
            return Err(Error::Unexpected("an h of what we sent".into(), element.clone()));
        }
        self.sm.unacked.drain(..new as usize);
        self.sm.acked = h;
        Ok(())
    }

    /// Waits for the first element that `wanted` likes; others are kept for `next`.
    pub async fn wait(&mut self, what: &str, wanted: impl Fn(&Element) -> bool) -> Result<Element, Error> {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return Ok(self.kept.remove(at).expect("position is within"));
        }
        let search = async {
            loop {
                match self.fresh().await? {
                    Event::Element(element) if wanted(&element) => return Ok(element),
                    Event::Element(element) if element.is("error", xml::STREAMS) => {
                        return Err(Error::Stream(element));
                    }
                    Event::Element(element) => self.kept.push_back(element),
                    Event::Close | Event::End => return Err(Error::Closed(what.into())),
                }
            }
        };
        match tokio::time::timeout(patience(), search).await {
            Ok(found) => found,
            Err(_) => {
                let passed: Vec<String> = self.kept.iter().take(8).map(Element::to_string).collect();
                Err(Error::Timeout(format!(
                    "{what}; passed over: {}\n{}",
                    self.kept.len(),
                    passed.join("\n")
                )))
            }
        }
    }

    /// Sends an IQ with a fresh id and waits for its answer, result or error. `to` may be empty.
    pub async fn iq(&mut self, kind: &str, to: &str, payload: &str) -> Result<Element, Error> {
        let id = self.fresh_id("iq");
        let to = if to.is_empty() { String::new() } else { format!(" to='{}'", xml::escape(to)) };
        self.send(&format!("<iq type='{kind}' id='{id}'{to}>{payload}</iq>")).await?;
        self.answer(&id).await
    }

    /// Waits for the answer to the IQ with this id.
    pub async fn answer(&mut self, id: &str) -> Result<Element, Error> {
        let wanted = |e: &Element| {
            e.is("iq", xml::CLIENT)
                && e.attr("id") == Some(id)
                && matches!(e.attr("type"), Some("result" | "error"))
        };
        self.wait(&format!("the answer to iq {id}"), wanted).await
    }

    /// The same, and the answer must be a result.
    pub async fn iq_ok(&mut self, kind: &str, to: &str, payload: &str) -> Result<Element, Error> {
        let answer = self.iq(kind, to, payload).await?;
        match answer.attr("type") {
            Some("result") => Ok(answer),
            _ => Err(Error::Unexpected(format!("a result for {payload}"), answer)),
        }
    }

    /// An id that this client has not used yet.
    pub fn fresh_id(&mut self, what: &str) -> String {
        self.counter += 1;
        format!("{what}-{}", self.counter)
    }

    /// Sends initial presence and waits until the server reflects it.
    pub async fn available(&mut self) -> Result<(), Error> {
        self.send("<presence/>").await?;
        let jid = self.jid.clone();
        self.wait("the reflection of our presence", |e| {
            e.is("presence", xml::CLIENT) && e.attr("from") == Some(&jid) && e.attr("type").is_none()
        })
        .await
        .map(drop)
    }

    /// Breaks the connection without a word.
    pub fn lose(self) -> Lost {
        Lost { jid: self.jid, sm: self.sm }
    }

    /// Closes the stream properly: `</stream:stream>` both ways. What else comes is returned.
    pub async fn close(mut self) -> Result<Vec<Element>, Error> {
        self.send_raw(b"</stream:stream>").await?;
        let mut rest = Vec::new();
        loop {
            match self.next().await? {
                Event::Element(element) => rest.push(element),
                Event::Close | Event::End => return Ok(rest),
            }
        }
    }
}

/// True for what XEP-0198 counts.
pub fn is_stanza(bytes: &[u8]) -> bool {
    let text = bytes.trim_ascii_start();
    [&b"<message"[..], b"<presence", b"<iq"].iter().any(|n| text.starts_with(n))
}
