//! From an accepted socket to a session (RFC 6120 sections 4 to 7): TLS, SASL, binding or resumption, all within the time
//! that `limits.login_seconds` gives, with small limits on everything.

use std::net::IpAddr;
use std::sync::Arc;

use rookery_actors::{Authenticated, ConnInfo, Pipe, SessionHandle};
use rookery_cluster::entity::Entity;
use rookery_cluster::mesh::{Home, Map};
use rookery_cluster::tables::nodes::State;
use rookery_proto::xml::framer::Step;
use rookery_proto::xml::header::{Opening, StreamHeader};
use rookery_proto::xml::{Scope, Text};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{StreamCondition, StreamError};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{self, Stanza};
use rookery_proto::xmpp::toplevel::TopLevel;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::offers::{Next, Stage};
use super::{CONTENT, End, Settings, Shared, closing, header};
use crate::net::{Origin, Pass, Standing};
use crate::streams::rate::Meter;
use crate::transport::{Carrier, Frames as _, Transport};

/// How many elements a client may send before it has a session; honest ones need a handful.
const ELEMENTS: u32 = 64;

/// A connection with a session: what the running loop begins with.
pub(super) struct Bound<W: Carrier> {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) wire: W,
    pub(super) link: SessionHandle,
    pub(super) pipe: Arc<Pipe>,
    /// Whether the session was resumed: stream management is on.
    pub(super) resumed: bool,
    pub(super) framer: W::Frames,
    /// What was read and not yet looked at.
    pub(super) tail: Vec<u8>,
    pub(super) scope: Scope,
    pub(super) lang: Option<Text>,
    pub(super) pass: Pass,
}

/// One top-level thing of the stream.
pub(super) enum Frame {
    Open(Box<StreamHeader>),
    Nonza(Element),
    Stanza(Stanza),
    /// A stanza that breaks a rule; the answer to it, if it may be answered.
    Malformed(Option<Stanza>),
}

/// A connection on its way to a session.
pub(super) struct Negotiation<T: Transport> {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) transport: T,
    framer: T::Frames,
    pub(super) tail: Vec<u8>,
    pub(super) out: Vec<u8>,
    scope: Scope,
    lang: Option<Text>,
    elements: u32,
    /// Whether our header is out since the last restart: a stream error needs one.
    opened: bool,
    pub(super) domain: Option<BareJid>,
    pub(super) user: Option<Authenticated>,
    /// How many attempts to log in have failed.
    pub(super) failures: u32,
    pub(super) origin: Origin,
    /// What came from its address before login.
    meter: Arc<Meter>,
    pub(super) peer: IpAddr,
    /// Its place among those that have not authenticated.
    pub(super) standing: Standing,
    pub(super) address: Arc<str>,
}

/// Runs the whole negotiation; `None` if the connection ended in it.
pub(super) async fn run<T: Transport>(
    shared: Arc<Shared>,
    mut transport: T,
    mut pass: Pass,
) -> Option<Bound<T::Settled>> {
    let settings = shared.settings.load_full();
    let standing = pass.standing();
    let peer = tokio::select! {
        peer = transport.locate(settings.proxy.as_deref()) => peer?,
        () = standing.sent_away() => return None,
    };
    let origin = Origin::from(peer.ip());
    if let Err(refusal) = pass.from(origin) {
        metrics::counter!("rookery_limits_hit_total", "limit" => refusal.limit()).increment(1);
        tracing::debug!(%peer, limit = refusal.limit(), "connection refused");
        return None;
    }
    let deadline = transport.since().unwrap_or_else(Instant::now) + settings.limits.login;
    let (mut stop, gate) = (shared.stop.clone(), shared.gate.clone());
    let mut negotiation = Negotiation {
        transport,
        framer: T::Frames::new(settings.before),
        tail: Vec::new(),
        out: Vec::new(),
        scope: Scope::NOTHING,
        lang: None,
        elements: ELEMENTS,
        opened: false,
        domain: None,
        user: None,
        failures: 0,
        meter: shared.rates.address(origin),
        origin,
        peer: peer.ip(),
        standing: pass.standing(),
        address: peer.to_string().into(),
        shared,
        settings,
    };
    let end = tokio::select! {
        biased;
        done = timeout_at(deadline, negotiation.steps()) => match done {
            Ok(Ok((link, pipe, resumed))) => {
                pass.logged_in();
                return negotiation.into_bound(link, pipe, resumed, pass);
            }
            Ok(Err(end)) => end,
            Err(_) => {
                metrics::counter!("rookery_limits_hit_total", "limit" => "login_seconds").increment(1);
                End::because(StreamCondition::ConnectionTimeout, "you took too long to log in")
            }
        },
        _ = stop.wait_for(|stop| *stop) => End::error(StreamCondition::SystemShutdown),
        () = gate.is_shut() => End::error(StreamCondition::SystemShutdown),
        // Without a word: the peer holds too many connections, and an answer would only keep this one open longer.
        () = standing.sent_away() => End::Abandon,
    };
    negotiation.close(end).await;
    None
}

/// Whether it is what a client may say of stream management (XEP-0198), at the right time.
pub(super) fn is_sm(element: &Element) -> bool {
    element.ns() == ns::SM && matches!(element.name(), "enable" | "resume" | "r" | "a")
}

/// The public address of the node where a user lives, if it is another one, stays, and has one.
fn public_home(map: &Map, user: &BareJid) -> Option<String> {
    let Home::There { node, .. } = map.home(Entity::new(user.as_str()).shard()) else { return None };
    let status = &map.member(&node)?.status;
    (status.state() == State::Active && !status.public.is_empty()).then(|| status.public.clone())
}

impl<T: Transport> Negotiation<T> {
    /// From stage to stage: each begins with the headers of both sides.
    async fn steps(&mut self) -> Result<(SessionHandle, Arc<Pipe>, bool), End> {
        self.transport.begin(&self.shared.tls).await.map_err(|error| self.no_tls(&error))?;
        let mut stage = if self.transport.security().is_some() { Stage::Login } else { Stage::Clear };
        loop {
            self.open().await?;
            self.elsewhere()?;
            match self.stage(stage).await? {
                Next::Stay => {}
                Next::Restart(next) => {
                    stage = next;
                    self.framer.restart();
                    self.opened = false;
                }
                Next::Bound { link, pipe, resumed } => return Ok((link, pipe, resumed)),
            }
        }
    }

    /// A client that could come to its user's home straight is sent there (RFC 6120 section 4.9.3.19), after login, so that
    /// the client can trust the redirect. A client is never sent on to a node that would not keep it.
    fn elsewhere(&self) -> Result<(), End> {
        let Some(user) = &self.user else { return Ok(()) };
        let Some(mesh) = self.shared.mesh.as_ref().filter(|_| self.settings.redirect) else { return Ok(()) };
        let Some(public) = public_home(&mesh.map(), user.jid()) else { return Ok(()) };
        metrics::counter!("rookery_redirects_total").increment(1);
        Err(End::Error { error: Box::new(StreamError::see_other_host(public)), resumable: false })
    }

    pub(super) fn no_tls(&self, error: &std::io::Error) -> End {
        tracing::debug!(address = %self.address, %error, "TLS handshake failed");
        End::Abandon
    }

    /// Waits for the client's header and answers with ours.
    async fn open(&mut self) -> Result<(), End> {
        let Frame::Open(client) = self.next().await? else {
            // Unreachable: the framer lets nothing come before a header.
            return Err(End::error(StreamCondition::BadFormat));
        };
        let host = self.shared.host.clone();
        let serves = |domain: &str| host.serves(domain);
        let user = self.user.as_ref().map(Authenticated::jid);
        let domain = self.domain.as_ref().filter(|_| user.is_some());
        let expected = header::Expected { serves: &serves, domain, user };
        let judged = header::judge(&client, &expected);
        self.domain = judged.as_ref().ok().cloned().or(self.domain.take());
        let to = client.from.as_ref().map(|from| from.as_str().to_owned());
        self.write_header(to.as_deref());
        (self.scope, self.lang) = (client.scope, client.lang);
        judged.map(drop).map_err(End::error)
    }

    /// RFC 6120 section 4.7: our header, with an id nobody can guess.
    fn write_header(&mut self, to: Option<&str>) {
        let id = self.shared.host.random_id();
        let options = self.shared.host.options();
        let domain = self.domain.as_ref().map(BareJid::as_str);
        let from = domain.or_else(|| options.domains.first().map(|d| d.name.as_str()));
        let opening = Opening { content: CONTENT, from, to, id: Some(&id), lang: Some("en") };
        T::Frames::open(&mut self.out, &opening);
        self.opened = true;
    }

    /// The next frame. White space and XML declarations are passed over.
    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        loop {
            let step = self.framer.next(&self.tail).map_err(|e| End::error(e.condition()))?;
            let (len, frame) = match step {
                Step::Need => {
                    self.read().await?;
                    continue;
                }
                Step::Whitespace { len } | Step::Declaration { len } => (len, None),
                Step::Close { .. } => return Err(End::Closed),
                Step::Open { len } => {
                    let open = T::Frames::header(self.frame(len), self.framer.limits(), CONTENT);
                    (len, Some(Frame::Open(Box::new(open.map_err(|e| End::error(e.condition()))?))))
                }
                Step::Element { len } => (len, Some(self.top_level(len)?)),
            };
            self.tail.drain(..len);
            if let Some(frame) = frame {
                return Ok(frame);
            }
        }
    }

    /// Reads once, at the rate that the client's address has left.
    async fn read(&mut self) -> Result<(), End> {
        let rates = self.settings.rates;
        if let Some(until) = self.meter.due(Instant::now(), &rates) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "bytes_per_second").increment(1);
            sleep_until(until).await;
        }
        let read = self.transport.read_buf(&mut self.tail).await?;
        if read == 0 {
            return Err(End::Lost);
        }
        self.meter.bytes(Instant::now(), read, &rates);
        Ok(())
    }

    fn frame(&self, len: usize) -> &[u8] {
        self.tail.get(..len).unwrap_or_default()
    }

    fn top_level(&mut self, len: usize) -> Result<Frame, End> {
        self.elements = self.elements.saturating_sub(1);
        if self.elements == 0 {
            return Err(End::because(StreamCondition::PolicyViolation, "log in first"));
        }
        match TopLevel::parse(self.frame(len), &self.scope, self.framer.limits()) {
            Ok(TopLevel::Stanza(stanza)) => Ok(Frame::Stanza(stanza)),
            Ok(TopLevel::Nonza(element)) => Ok(Frame::Nonza(element)),
            Ok(TopLevel::AckRequest) => Ok(Frame::Nonza(Element::new("r", ns::SM))),
            Ok(TopLevel::Ack(_)) => Ok(Frame::Nonza(Element::new("a", ns::SM))),
            Err(stanza::Error::Malformed(malformed)) => Ok(Frame::Malformed(malformed.reply())),
            Err(error) => Err(End::error(error.condition().unwrap_or(StreamCondition::BadFormat))),
        }
    }

    /// Sends what was written.
    pub(super) async fn flush(&mut self) -> Result<(), End> {
        self.transport.write_all(&self.out).await?;
        self.transport.flush().await?;
        self.shared.meters.sent.increment(self.out.len() as u64);
        self.out.clear();
        Ok(())
    }

    /// What the operator is shown of the connection.
    pub(super) fn conn(&self) -> ConnInfo {
        let security = self.transport.security();
        ConnInfo {
            address: self.address.clone(),
            via: self.transport.via(),
            tls: security.map_or("", |security| security.version),
            suite: security.map_or("", |security| security.suite),
        }
    }

    fn into_bound(
        self,
        link: SessionHandle,
        pipe: Arc<Pipe>,
        resumed: bool,
        pass: Pass,
    ) -> Option<Bound<T::Settled>> {
        let Self { shared, settings, transport, mut framer, tail, scope, lang, .. } = self;
        let wire = transport.settle()?;
        framer.set_limits(settings.after);
        Some(Bound { shared, settings, wire, link, pipe, resumed, framer, tail, scope, lang, pass })
    }

    /// Says why, and closes (RFC 6120 sections 4.4 and 4.9.1).
    async fn close(mut self, end: End) {
        if let End::Error { error, .. } = &end {
            tracing::debug!(address = %self.address, condition = error.condition.name(), "stream refused");
            if !self.opened {
                self.write_header(None);
            }
        }
        let opened = self.opened;
        closing::close(&mut self.transport, self.out, end, opened, self.settings.limits.close).await;
    }
}
