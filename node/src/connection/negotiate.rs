//! From an accepted socket to a session (RFC 6120 sections 4 to 7): TLS, SASL, binding or resumption, all within the time
//! that `limits.login_seconds` gives, with small limits on everything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rookery_actors::features::xep_0077_registration;
use rookery_actors::{ConnInfo, Pipe, SessionHandle};
use rookery_cluster::entity::Entity;
use rookery_cluster::mesh::{Home, Map};
use rookery_cluster::tables::nodes::State;
use rookery_proto::sasl::ChannelBindings;
use rookery_proto::xml::chars::is_space;
use rookery_proto::xml::framer::{Framer, Step};
use rookery_proto::xml::header::{self as stream_header, StreamHeader};
use rookery_proto::xml::{Scope, Text};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{SaslFailure, StreamCondition, StreamError};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{self, Stanza};
use rookery_proto::xmpp::toplevel::TopLevel;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::rate::Meter;
use super::wire::Wire;
use super::{End, Kind, Settings, Shared, closing, features, header};
use crate::net::seldom::Seldom;
use crate::net::{Origin, Pass, Standing, Stream, proxy};
use crate::tls::{TlsStream, accept_direct, accept_starttls, version};

/// How many elements a client may send before it has a session; honest ones need a handful.
const ELEMENTS: u32 = 64;
/// How long a load balancer has to send its PROXY header.
const PROXY_HEADER: Duration = Duration::from_secs(5);

/// A connection with a session: what the running loop begins with.
pub(super) struct Bound<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) stream: Box<TlsStream<S>>,
    pub(super) link: SessionHandle,
    pub(super) pipe: Arc<Pipe>,
    /// Whether the session was resumed: stream management is on.
    pub(super) resumed: bool,
    pub(super) framer: Framer,
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
pub(super) struct Negotiation<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    wire: Wire<S>,
    framer: Framer,
    tail: Vec<u8>,
    pub(super) out: Vec<u8>,
    scope: Scope,
    lang: Option<Text>,
    elements: u32,
    /// Whether our header is out since the last restart: a stream error needs one.
    opened: bool,
    pub(super) domain: Option<BareJid>,
    pub(super) user: Option<BareJid>,
    pub(super) bindings: ChannelBindings,
    pub(super) origin: Origin,
    /// What came from its address before login.
    meter: Arc<Meter>,
    pub(super) peer: IpAddr,
    /// Its place among those that have not authenticated.
    standing: Standing,
    pub(super) address: Arc<str>,
    kind: Kind,
}

/// Runs the whole negotiation; `None` if the connection ended in it.
pub(super) async fn run<S: Stream>(
    shared: Arc<Shared>,
    kind: Kind,
    mut stream: S,
    peer: SocketAddr,
    mut pass: Pass,
) -> Option<Bound<S>> {
    let settings = shared.settings.load_full();
    let standing = pass.standing();
    let peer = tokio::select! {
        peer = origin(&settings, &mut stream, peer) => peer?,
        () = standing.sent_away() => return None,
    };
    let origin = Origin::from(peer.ip());
    if let Err(refusal) = pass.from(origin) {
        metrics::counter!("rookery_limits_hit_total", "limit" => refusal.limit()).increment(1);
        tracing::debug!(%peer, limit = refusal.limit(), "connection refused");
        return None;
    }
    let deadline = Instant::now() + settings.limits.login;
    let (mut stop, gate) = (shared.stop.clone(), shared.gate.clone());
    let mut negotiation = Negotiation {
        wire: Wire::Plain(stream),
        framer: Framer::new(settings.before),
        tail: Vec::new(),
        out: Vec::new(),
        scope: Scope::CLIENT,
        lang: None,
        elements: ELEMENTS,
        opened: false,
        domain: None,
        user: None,
        bindings: ChannelBindings::default(),
        meter: shared.rates.address(origin),
        origin,
        peer: peer.ip(),
        standing: pass.standing(),
        address: peer.to_string().into(),
        kind,
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
        // Without a word: whoever holds that many connections would only make us hold them longer.
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

/// Any stranger can come to a port that is for load balancers.
static UNTRUSTED: Seldom = Seldom::new();

/// Where the connection really comes from; `None` if that can't be told as it must.
async fn origin<S: Stream>(settings: &Settings, stream: &mut S, peer: SocketAddr) -> Option<SocketAddr> {
    match settings.proxy_trusts(peer.ip()) {
        None => Some(peer),
        Some(false) => {
            metrics::counter!("rookery_limits_hit_total", "limit" => "proxy_trusted").increment(1);
            if let Some(others) = UNTRUSTED.now() {
                tracing::warn!(%peer, others, "connection refused: the address is not in listen.proxy_trusted");
            }
            None
        }
        Some(true) => match timeout(PROXY_HEADER, proxy::read(stream)).await {
            Ok(Ok(source)) => Some(source.unwrap_or(peer)),
            Ok(Err(proxy::Error::Nothing)) => {
                tracing::debug!(%peer, "the load balancer looked whether this port is open");
                None
            }
            Ok(Err(error)) => {
                tracing::warn!(%peer, %error, "connection refused: invalid PROXY header");
                None
            }
            Err(_) => {
                tracing::warn!(%peer, "connection refused: no PROXY header arrived in time");
                None
            }
        },
    }
}

impl<S: Stream> Negotiation<S> {
    async fn steps(&mut self) -> Result<(SessionHandle, Arc<Pipe>, bool), End> {
        match self.kind {
            Kind::C2s => {
                self.open().await?;
                features::before_tls(&mut self.out);
                self.flush().await?;
                self.starttls().await?;
            }
            Kind::C2sTls => {
                let Wire::Plain(stream) = self.wire.release() else { return Err(End::Abandon) };
                let accepted = accept_direct(&self.shared.tls, stream).await.map_err(|e| self.no_tls(&e))?;
                (self.wire, self.bindings) = (Wire::Tls(Box::new(accepted.stream)), accepted.bindings);
            }
        }
        self.open().await?;
        let user = self.login().await?;
        self.standing.proved();
        self.user = Some(user.jid().clone());
        self.framer.restart();
        self.opened = false;
        self.open().await?;
        self.elsewhere(user.jid())?;
        self.session(user).await
    }

    /// A client that could come to its user's home straight is sent there (RFC 6120 section 4.9.3.19): it has logged in, so
    /// it can trust who says so. It is never sent on to a node that would not keep it.
    fn elsewhere(&self, user: &BareJid) -> Result<(), End> {
        let Some(mesh) = self.shared.mesh.as_ref().filter(|_| self.settings.redirect) else { return Ok(()) };
        let Some(public) = public_home(&mesh.map(), user) else { return Ok(()) };
        metrics::counter!("rookery_redirects_total").increment(1);
        Err(End::Error { error: Box::new(StreamError::see_other_host(public)), resumable: false })
    }

    fn no_tls(&self, error: &std::io::Error) -> End {
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
        let domain = self.domain.as_ref().filter(|_| self.user.is_some());
        let expected = header::Expected { serves: &serves, domain, user: self.user.as_ref() };
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
        stream_header::write(&mut self.out, ns::CLIENT, from, to, Some(&id), Some("en"));
        self.opened = true;
    }

    /// RFC 6120 section 5.4.
    async fn starttls(&mut self) -> Result<(), End> {
        loop {
            match self.next().await? {
                Frame::Nonza(element) if element.is("starttls", ns::TLS) => break,
                // Section 6.5.4: nobody gets to send a password in the clear twice.
                Frame::Nonza(element) if element.is("auth", ns::SASL) => {
                    SaslFailure::EncryptionRequired.write(None, &mut self.out);
                    self.flush().await?;
                }
                Frame::Nonza(element) if is_sm(&element) => self.refuse_sm("unexpected-request").await?,
                Frame::Nonza(_) => return Err(End::error(StreamCondition::UnsupportedStanzaType)),
                _ => return Err(End::error(StreamCondition::NotAuthorized)),
            }
        }
        // What came in the clear behind <starttls/> must not be taken for something encrypted (section 5.4.3.3). White space
        // says nothing: some clients end the element with a line end.
        if !std::mem::take(&mut self.tail).into_iter().all(is_space) {
            self.out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            return Err(End::Clean);
        }
        self.out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        self.flush().await?;
        let Wire::Plain(stream) = self.wire.release() else { return Err(End::Abandon) };
        let to = self.domain.as_ref().map(|d| d.as_str().to_owned()).unwrap_or_default();
        let accepted = accept_starttls(&self.shared.tls, stream, &to).await.map_err(|e| self.no_tls(&e))?;
        (self.wire, self.bindings) = (Wire::Tls(Box::new(accepted.stream)), accepted.bindings);
        self.framer.restart();
        self.opened = false;
        Ok(())
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
                    let open = StreamHeader::parse(self.frame(len), self.framer.limits());
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
        let read = self.wire.read_buf(&mut self.tail).await?;
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
        self.wire.write_all(&self.out).await?;
        self.wire.flush().await?;
        self.shared.meters.sent.increment(self.out.len() as u64);
        self.out.clear();
        Ok(())
    }

    /// The stream feature of registration, where it is open.
    pub(super) fn registration(&self) -> Option<Vec<u8>> {
        xep_0077_registration::stream_feature(&self.shared.host, self.domain.as_ref()?.as_str())
    }

    pub(super) fn conn(&self) -> ConnInfo {
        let tls = match &self.wire {
            Wire::Tls(stream) => Some(stream.get_ref().1),
            Wire::Plain(_) | Wire::Gone => None,
        };
        let suite = tls.and_then(|tls| tls.negotiated_cipher_suite()?.suite().as_str()).unwrap_or_default();
        ConnInfo {
            address: self.address.clone(),
            via: self.kind.name(),
            tls: tls.map_or("", |tls| version(tls)),
            suite: suite.trim_start_matches("TLS13_").trim_start_matches("TLS_"),
        }
    }

    fn into_bound(self, link: SessionHandle, pipe: Arc<Pipe>, resumed: bool, pass: Pass) -> Option<Bound<S>> {
        let Self { shared, settings, wire, mut framer, tail, scope, lang, .. } = self;
        let Wire::Tls(stream) = wire else { return None };
        framer.set_limits(settings.after);
        Some(Bound { shared, settings, stream, link, pipe, resumed, framer, tail, scope, lang, pass })
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
        closing::close(&mut self.wire, self.out, end, opened, self.settings.limits.close).await;
    }
}
