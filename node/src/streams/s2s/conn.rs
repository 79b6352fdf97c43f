//! A connection between servers while its stream is negotiated: one element after the other, with small limits.

use std::sync::Arc;

use rookery_proto::xml::framer::{Framer, Step};
use rookery_proto::xml::header::{CLOSE, Opening, StreamHeader};
use rookery_proto::xml::{Limits, Scope, Text};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{StreamCondition, StreamError};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{self, Malformed, Stanza};
use rookery_proto::xmpp::toplevel::TopLevel;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until};

use super::wire::Wire;
use super::{CONTENT, Federation, Settings};
use crate::streams::goodbye::{abandon, goodbye};
use crate::streams::rate::Meter;

/// How many elements the other server may send before it has proved a domain; honest ones need a handful.
const ELEMENTS: u32 = 64;

/// One thing on the first level of a stream.
pub(super) enum Frame {
    /// A header.
    Open(Box<StreamHeader>),
    /// Anything that is no stanza and is not below.
    Nonza(Element),
    /// A stanza.
    Stanza(Stanza),
    /// A stanza that breaks a rule; it may be answered.
    Malformed(Box<Malformed>),
    /// `<r/>` (XEP-0198).
    AckRequest,
    /// `<a/>` (XEP-0198).
    Ack(u32),
}

/// Why a stream ends.
#[derive(Debug)]
pub(super) enum End {
    /// The other side closed its stream properly.
    Closed,
    /// The socket ended without `</stream:stream>`, or failed.
    Lost,
    /// We close it with an error.
    Error(Box<StreamError>),
    /// The other side has ended it with an error.
    Told(StreamCondition),
    /// We close it without an error.
    Clean,
    /// At once and silently.
    Abandon,
}

impl End {
    pub(super) fn error(condition: StreamCondition) -> Self {
        Self::Error(Box::new(condition.into()))
    }

    pub(super) fn because(condition: StreamCondition, text: &'static str) -> Self {
        Self::Error(Box::new(StreamError::from(condition).text(text)))
    }

    /// For logs.
    pub(super) fn why(&self) -> &'static str {
        match self {
            Self::Closed => "closed by the other server",
            Self::Lost => "lost",
            Self::Error(error) => error.condition.name(),
            Self::Told(condition) => condition.name(),
            Self::Clean => "closed",
            Self::Abandon => "dropped",
        }
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        tracing::trace!(%error, "socket");
        Self::Lost
    }
}

/// A connection that is negotiated.
pub(super) struct Conn {
    pub(super) wire: Wire,
    pub(super) framer: Framer,
    /// What was read and not yet looked at.
    pub(super) tail: Vec<u8>,
    /// What is sent with the next flush.
    pub(super) out: Vec<u8>,
    pub(super) scope: Scope,
    pub(super) lang: Option<Text>,
    /// Whether our header is out since the last restart: a stream error needs one.
    pub(super) opened: bool,
    /// What its address has sent before it proved a domain.
    pub(super) meter: Arc<Meter>,
    pub(super) settings: Arc<Settings>,
    elements: u32,
}

impl Conn {
    pub(super) fn new(wire: Wire, meter: Arc<Meter>, settings: Arc<Settings>) -> Self {
        Self {
            wire,
            framer: Framer::new(settings.before),
            tail: Vec::new(),
            out: Vec::new(),
            scope: Scope::NOTHING,
            lang: None,
            opened: false,
            meter,
            settings,
            elements: ELEMENTS,
        }
    }

    /// Appends our header.
    pub(super) fn write_header(&mut self, from: Option<&str>, to: Option<&str>, id: Option<&str>) {
        Opening { content: CONTENT, from, to, id, lang: Some("en") }.write(&mut self.out);
        self.opened = true;
    }

    /// The stream restarts (RFC 6120 section 4.3.3).
    pub(super) fn restart(&mut self) {
        self.framer.restart();
        self.opened = false;
    }

    /// The other side's header. What it declares holds from now on.
    ///
    /// # Errors
    /// The end of the stream; the header's own mistakes among them.
    pub(super) async fn header(&mut self) -> Result<StreamHeader, End> {
        match self.next().await? {
            Frame::Open(header) => {
                (self.scope, self.lang) = (header.scope.clone(), header.lang.clone());
                Ok(*header)
            }
            // Unreachable: the framer lets nothing come before a header.
            _ => Err(End::error(StreamCondition::BadFormat)),
        }
    }

    /// The next thing. White space and XML declarations are passed over. Cancel safe.
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
                    let bytes = self.tail.get(..len).unwrap_or_default();
                    let open = StreamHeader::parse(bytes, self.framer.limits(), CONTENT);
                    (len, Some(Frame::Open(Box::new(open.map_err(|e| End::error(e.condition()))?))))
                }
                Step::Element { len } => {
                    self.elements = self.elements.saturating_sub(1);
                    if self.elements == 0 {
                        return Err(End::because(StreamCondition::PolicyViolation, "prove a domain first"));
                    }
                    let bytes = self.tail.get(..len).unwrap_or_default();
                    (len, Some(frame(bytes, &self.scope, self.framer.limits())?))
                }
            };
            self.tail.drain(..len);
            match frame {
                Some(Frame::Nonza(element)) if element.is("error", ns::STREAM) => return Err(told(&element)),
                Some(frame) => return Ok(frame),
                None => {}
            }
        }
    }

    /// Reads once, at the rate that the address has left.
    async fn read(&mut self) -> Result<(), End> {
        let rates = self.settings.rates;
        if let Some(until) = self.meter.due(Instant::now(), &rates) {
            let limit = "federation.bytes_per_second";
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
            sleep_until(until).await;
        }
        let read = self.wire.read_buf(&mut self.tail).await?;
        if read == 0 {
            return Err(End::Lost);
        }
        self.meter.bytes(Instant::now(), read, &rates);
        Ok(())
    }

    /// Sends what was written.
    pub(super) async fn flush(&mut self, federation: &Federation) -> Result<(), End> {
        self.wire.write_all(&self.out).await?;
        self.wire.flush().await?;
        federation.meters.sent.increment(self.out.len() as u64);
        self.out.clear();
        Ok(())
    }

    /// Says why, and closes (RFC 6120 sections 4.4 and 4.9.1).
    pub(super) async fn close(mut self, end: End, from: Option<&str>) {
        if matches!(end, End::Error(_)) && !self.opened {
            self.write_header(from, None, None);
        }
        let (opened, patience) = (self.opened, self.settings.close);
        close(&mut self.wire, self.out, end, opened, patience).await;
    }
}

/// Reads one element of the first level.
pub(super) fn frame(bytes: &[u8], scope: &Scope, limits: &Limits) -> Result<Frame, End> {
    match TopLevel::parse(bytes, scope, limits) {
        Ok(TopLevel::Stanza(stanza)) => Ok(Frame::Stanza(stanza)),
        Ok(TopLevel::Nonza(element)) => Ok(Frame::Nonza(element)),
        Ok(TopLevel::AckRequest) => Ok(Frame::AckRequest),
        Ok(TopLevel::Ack(h)) => Ok(Frame::Ack(h)),
        Err(stanza::Error::Malformed(malformed)) => Ok(Frame::Malformed(malformed)),
        Err(error) => Err(End::error(error.condition().unwrap_or(StreamCondition::BadFormat))),
    }
}

/// What a `<stream:error/>` of the other side says.
pub(super) fn told(element: &Element) -> End {
    let known = element.children().filter(|child| child.ns() == ns::STREAMS);
    let condition = known.filter_map(|child| StreamCondition::from_name(child.name())).next();
    End::Told(condition.unwrap_or(StreamCondition::UndefinedCondition))
}

/// Writes what is left in `out`, the error if there is one, and `</stream:stream>`; then waits, for `patience` at most, until the
/// other side has closed.
pub(super) async fn close(
    wire: &mut Wire,
    mut out: Vec<u8>,
    end: End,
    opened: bool,
    patience: std::time::Duration,
) {
    let wait = match &end {
        End::Lost | End::Abandon => return abandon(wire, patience).await,
        End::Error(error) => {
            let condition = error.condition.name();
            metrics::counter!("rookery_stream_errors_total", "condition" => condition).increment(1);
            error.write(&mut out);
            true
        }
        End::Clean => true,
        End::Closed | End::Told(_) => false,
    };
    if opened {
        out.extend_from_slice(CLOSE);
    }
    goodbye(wire, &out, wait, patience).await;
}
