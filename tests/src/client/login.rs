//! From the first byte to a bound resource (RFC 6120), and XEP-0198's two ways of getting there.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use tokio::net::{TcpSocket, TcpStream};

use super::scram::{Hash, Scram};
use super::stream::{Io, Wire};
use super::{Client, Error, Event, Lost, Options, SM, Security, StreamManagement};
use crate::xml::{self, Element};

const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
const CB: &str = "urn:xmpp:sasl-cb:0";

const STRONGEST_FIRST: [&str; 6] =
    ["SCRAM-SHA-512-PLUS", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"];

pub(super) async fn open(options: &Options) -> Result<Client, Error> {
    let address = match options.security {
        Security::Direct => options.c2s_tls,
        Security::StartTls | Security::None => options.c2s,
    };
    let tcp = match options.source {
        None => TcpStream::connect(address).await?,
        Some(source) => {
            let socket = match source.is_ipv4() {
                true => TcpSocket::new_v4()?,
                false => TcpSocket::new_v6()?,
            };
            socket.set_reuseaddr(true)?;
            socket.bind((source, 0).into())?;
            socket.connect(address).await?
        }
    };
    tcp.set_nodelay(true)?;
    if options.proxied {
        tcp.try_write(b"PROXY TCP4 127.0.0.1 127.0.0.1 5222 5222\r\n")?;
    }
    let mut client = Client {
        wire: Wire::new(Io::Plain(tcp)),
        jid: String::new(),
        features: None,
        sm: StreamManagement::default(),
        counter: 0,
        kept: VecDeque::new(),
    };
    if options.security == Security::Direct {
        client.wire.secure(&options.tls, &options.domain).await?;
    }
    client.open_stream(&options.domain).await?;
    if options.security == Security::StartTls {
        client.send(&format!("<starttls xmlns='{TLS}'/>")).await?;
        let proceed = client.element().await?;
        if !proceed.is("proceed", TLS) {
            return Err(Error::Unexpected("<proceed/>".into(), proceed));
        }
        client.wire.secure(&options.tls, &options.domain).await?;
        client.open_stream(&options.domain).await?;
    }
    Ok(client)
}

impl Client {
    /// Sends a stream header and waits for the server's features.
    pub async fn open_stream(&mut self, domain: &str) -> Result<(), Error> {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' \
             xmlns='{}' xmlns:stream='{}'>",
            xml::CLIENT,
            xml::STREAMS
        );
        self.send_raw(header.as_bytes()).await?;
        let features = self.element().await?;
        if features.is("error", xml::STREAMS) {
            return Err(Error::Stream(features));
        }
        if !features.is("features", xml::STREAMS) {
            return Err(Error::Unexpected("stream features".into(), features));
        }
        self.features = Some(features);
        Ok(())
    }

    /// True if the features have this element.
    pub fn offers(&self, name: &str, ns: &str) -> bool {
        self.features.as_ref().is_some_and(|f| f.child(name, ns).is_some())
    }

    /// SASL, then the new stream that follows it.
    pub async fn authenticate(&mut self, options: &Options, user: &str, password: &str) -> Result<(), Error> {
        let features = self.features.take();
        let mechanism = choose(options, features.as_ref())?;
        match Hash::of(&mechanism) {
            None => self.plain(user, password).await?,
            Some(hash) => self.scram(&mechanism, hash, user, password).await?,
        }
        self.wire.restart();
        self.open_stream(&options.domain).await
    }

    async fn plain(&mut self, user: &str, password: &str) -> Result<(), Error> {
        let initial = B64.encode(format!("\0{user}\0{password}"));
        self.send(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{initial}</auth>")).await?;
        match self.element().await? {
            success if success.is("success", SASL) => Ok(()),
            other => Err(refusal(&other)),
        }
    }

    async fn scram(&mut self, mechanism: &str, hash: Hash, user: &str, password: &str) -> Result<(), Error> {
        let exporter = match mechanism.ends_with("-PLUS") {
            true => Some(self.wire.exporter().ok_or_else(|| Error::Login("no tls-exporter here".into()))?),
            false => None,
        };
        let binding = exporter.as_deref().map(|data| ("tls-exporter", data));
        let mut scram = Scram::new(hash, user, password, &nonce(), binding);
        let initial = B64.encode(scram.first());
        self.send(&format!("<auth xmlns='{SASL}' mechanism='{mechanism}'>{initial}</auth>")).await?;
        let challenge = self.element().await?;
        if !challenge.is("challenge", SASL) {
            return Err(refusal(&challenge));
        }
        let reply = scram.reply(&decoded(&challenge)?).map_err(Error::Login)?;
        self.send(&format!("<response xmlns='{SASL}'>{}</response>", B64.encode(reply))).await?;
        let last = self.element().await?;
        if !last.is("success", SASL) {
            return Err(refusal(&last));
        }
        match scram.check(&decoded(&last)?) {
            true => Ok(()),
            false => Err(Error::Login("the server does not know the password".into())),
        }
    }

    /// Binds a resource; the server chooses one if `resource` is empty.
    pub async fn bind(&mut self, resource: &str) -> Result<(), Error> {
        let wish = match resource {
            "" => String::new(),
            r => format!("<resource>{}</resource>", xml::escape(r)),
        };
        let answer = self.iq_ok("set", "", &format!("<bind xmlns='{BIND}'>{wish}</bind>")).await?;
        let jid = answer.find("jid", BIND).map(Element::text);
        self.jid = jid.ok_or_else(|| Error::Unexpected("a bound JID".into(), answer.clone()))?;
        Ok(())
    }

    /// Sequence stream management on (XEP-0198). With `automatic`, acknowledgements are answered unseen.
    pub async fn enable_sm(&mut self, resume: bool, automatic: bool) -> Result<Element, Error> {
        // Counting starts on our side when we send <enable/>, on the server's when it sends <enabled/>.
        self.sm = StreamManagement { enabled: false, automatic, ..StreamManagement::default() };
        self.send(&format!("<enable xmlns='{SM}' resume='{resume}'/>")).await?;
        let enabled = loop {
            match self.fresh_within().await? {
                e if e.is("enabled", SM) => break e,
                e if e.is("failed", SM) => return Err(Error::Unexpected("<enabled/>".into(), e)),
                e => self.kept.push_back(e),
            }
        };
        self.sm.enabled = true;
        self.sm.id = enabled.attr("id").map(str::to_owned);
        Ok(enabled)
    }

    /// Waits until the server has acknowledged all that was sent. The server acknowledges only what is durable, and with it that there
    /// is a session to resume.
    pub async fn all_acked(&mut self) -> Result<(), Error> {
        let automatic = std::mem::replace(&mut self.sm.automatic, false);
        while !self.sm.unacked.is_empty() {
            self.send_raw(format!("<r xmlns='{SM}'/>").as_bytes()).await?;
            let ack = self.wait("an acknowledgement", |e| e.is("a", SM)).await?;
            self.acked(&ack)?;
        }
        self.sm.automatic = automatic;
        let before = self.kept.len();
        self.kept.retain(|e| !e.is("r", SM));
        if self.kept.len() < before {
            self.send_raw(format!("<a xmlns='{SM}' h='{}'/>", self.sm.handled).as_bytes()).await?;
        }
        Ok(())
    }

    async fn fresh_within(&mut self) -> Result<Element, Error> {
        match tokio::time::timeout(super::patience(), self.fresh()).await {
            Ok(Ok(Event::Element(e))) => Ok(e),
            Ok(Ok(Event::Close | Event::End)) => Err(Error::Closed("an answer".into())),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(Error::Timeout("an answer".into())),
        }
    }

    /// Connects anew and resumes; the answer is `<resumed/>` or `<failed/>`. On success the
    /// stanzas that the server had not handled are sent again.
    pub async fn resume(
        options: &Options,
        user: &str,
        password: &str,
        lost: Lost,
    ) -> Result<(Client, Element), Error> {
        let mut client = Client::authenticated(options, user, password).await?;
        let answer = client.resume_here(lost).await?;
        Ok((client, answer))
    }

    /// The same on a stream that has logged in already.
    pub async fn resume_here(&mut self, lost: Lost) -> Result<Element, Error> {
        let id = xml::escape(lost.sm.id.as_deref().unwrap_or_default());
        self.send(&format!("<resume xmlns='{SM}' h='{}' previd='{id}'/>", lost.sm.handled)).await?;
        let answer = self.element().await?;
        if answer.is("resumed", SM) {
            self.jid = lost.jid;
            self.sm = lost.sm;
            self.sm.enabled = true;
            self.acked(&answer)?;
            for stanza in self.sm.unacked.clone() {
                self.send_raw(stanza.as_bytes()).await?;
            }
        }
        Ok(answer)
    }
}

fn choose(options: &Options, features: Option<&Element>) -> Result<String, Error> {
    if let Some(mechanism) = &options.mechanism {
        return Ok(mechanism.clone());
    }
    let features = features.ok_or_else(|| Error::Login("no features".into()))?;
    let offered: Vec<String> = features
        .child("mechanisms", SASL)
        .map(|m| m.children().map(Element::text).collect())
        .unwrap_or_default();
    // Without XEP-0440 a client cannot know which bindings the server has: then it uses none.
    let exporter = features
        .child("sasl-channel-binding", CB)
        .is_some_and(|cb| cb.children().any(|c| c.attr("type") == Some("tls-exporter")));
    STRONGEST_FIRST
        .iter()
        .find(|m| offered.iter().any(|o| o == *m) && (exporter || !m.ends_with("-PLUS")))
        .map(|m| (*m).to_owned())
        .ok_or_else(|| Error::Login(format!("no mechanism that we know in {offered:?}")))
}

fn refusal(element: &Element) -> Error {
    if element.is("error", xml::STREAMS) {
        return Error::Stream(element.clone());
    }
    let condition = element.children().map(|c| c.name.clone()).next().unwrap_or_default();
    Error::Login(format!("{} {condition}", element.name))
}

fn decoded(element: &Element) -> Result<String, Error> {
    let bytes = B64.decode(element.text()).map_err(|e| Error::Login(format!("base64: {e}")))?;
    String::from_utf8(bytes).map_err(|e| Error::Login(e.to_string()))
}

/// Unguessable enough for a test: the keys of a `RandomState` come from the system.
fn nonce() -> String {
    let part = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", part(), part())
}
