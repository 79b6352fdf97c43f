//! Calling another server: finding it, TLS, headers and features. What the stream is for comes after.

use std::time::Duration;

use rookery_actors::link::stream::{Failure, Pair};
use rookery_proto::xml::header::StreamHeader;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, StreamCondition};
use rookery_proto::xmpp::ns;
use tokio::time::{Instant, timeout_at};

use super::conn::{Conn, End, Frame};
use super::wire::Wire;
use super::{Federation, proof};
use crate::dns::{Begin, NotFound, Target};
use crate::net::{Origin, Stream};
use crate::tls::remote::Proof;

/// A stream whose features were read, on TLS.
pub(super) struct Opened {
    pub(super) conn: Conn,
    /// The id that the other server gave it.
    pub(super) id: String,
    /// The last features.
    pub(super) features: Element,
    /// Whether the other server knows dialback.
    pub(super) dialback: bool,
    /// What the other server's certificate proves; enough for the policy.
    pub(super) proof: Option<Proof>,
    /// The other server's address.
    pub(super) address: String,
}

/// Why no stream could be opened.
#[derive(Debug)]
pub(super) enum Closed {
    /// No server is known, or policy forbids.
    Permanent(String),
    /// The server could not be reached, or the stream failed.
    Now(String),
    /// The server was reached, and does not prove its domain.
    Unproved(String),
    /// The server did not answer in time.
    Late(String),
}

impl Closed {
    /// For a link.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Permanent(text) => Failure::permanent(text),
            Self::Now(text) | Self::Late(text) => Failure::passing(text),
            Self::Unproved(text) => Failure { unproved: true, ..Failure::passing(text) },
        }
    }

    /// For an error of dialback (XEP-0220 section 2.5).
    pub(super) fn condition(&self) -> Condition {
        match self {
            Self::Late(_) => Condition::RemoteServerTimeout,
            Self::Permanent(_) | Self::Now(_) | Self::Unproved(_) => Condition::RemoteServerNotFound,
        }
    }
}

impl From<End> for Closed {
    fn from(end: End) -> Self {
        Self::Now(format!("the stream ended: {}", end.why()))
    }
}

/// How a header of the other server is taken, and its features.
pub(super) async fn features(conn: &mut Conn, pair: &Pair) -> Result<(StreamHeader, Element), End> {
    let header = conn.header().await?;
    if header.content != ns::SERVER {
        return Err(End::error(StreamCondition::InvalidNamespace));
    }
    if header.from.as_ref().is_some_and(|from| from.as_str() != pair.remote().as_str()) {
        return Err(End::error(StreamCondition::InvalidFrom));
    }
    // RFC 6120 section 4.7.5: without a version there are no features, and no TLS.
    if header.version.is_none_or(|(major, _)| major < 1) {
        return Err(End::error(StreamCondition::UnsupportedVersion));
    }
    match conn.next().await? {
        Frame::Nonza(features) if features.is("features", ns::STREAM) => Ok((header, features)),
        _ => Err(End::error(StreamCondition::BadFormat)),
    }
}

/// Sends our header.
pub(super) async fn greet(conn: &mut Conn, federation: &Federation, pair: &Pair) -> Result<(), End> {
    conn.write_header(Some(pair.local().as_str()), Some(pair.remote().as_str()), None);
    conn.flush(federation).await
}

impl Federation {
    /// The addresses of the servers of the pair's remote domain.
    async fn targets(&self, pair: &Pair) -> Result<Vec<Target>, Closed> {
        let settings = self.settings.load_full();
        let remote = pair.remote().domain();
        if !settings.federation.admits(remote) {
            return Err(Closed::Permanent("[federation] does not allow this domain".to_owned()));
        }
        let known = |error: NotFound| match error.permanent() {
            true => Closed::Permanent(error.to_string()),
            false => Closed::Now(error.to_string()),
        };
        if let Some(route) = settings.federation.route(remote) {
            let begin = if route.direct { Begin::Direct } else { Begin::Starttls };
            let target = self.finder.host(&route.host, route.port, begin).await;
            // The operator can mend a route to a name that does not exist: the error is not permanent, and stanzas wait.
            return Ok(vec![target.map_err(|error| Closed::Now(error.to_string()))?]);
        }
        self.finder.find(remote).await.map(|found| found.list).map_err(known)
    }

    /// Calls the server of a pair's remote domain, target after target, until one gives features on TLS and proves the domain as the
    /// policy demands. Takes `negotiation_seconds` for the last target that can be reached, and a quarter of it for each before.
    ///
    /// # Errors
    /// See [`Closed`].
    pub(super) async fn open(&self, pair: &Pair) -> Result<Opened, Closed> {
        let targets = self.targets(pair).await?;
        let mut rest = targets.as_slice();
        let (mut failed, mut only_unproved): (Option<Closed>, bool) = (None, true);
        while !rest.is_empty() {
            let connected = match self.finder.connect(rest).await {
                Ok(connected) => connected,
                Err(error) => {
                    only_unproved = false;
                    failed.get_or_insert_with(|| Closed::Now(error.to_string()));
                    break;
                }
            };
            let Some((target, behind)) = rest.get(connected.target..).and_then(<[_]>::split_first) else {
                break;
            };
            rest = behind;
            only_unproved &= connected.target == 0;
            let address = connected.address;
            // A server that says nothing must not use up the time of those behind it.
            let whole: Duration = self.settings.load().federation.limits.negotiation;
            let wait = if rest.is_empty() { whole } else { whole / 4 };
            let stream: Box<dyn Stream> = Box::new(connected.stream);
            let called = self.call(pair, stream, target, Origin::from(address.ip()));
            match timeout_at(Instant::now() + wait, called).await {
                Ok(Ok(opened)) => return Ok(Opened { address: address.to_string(), ..opened }),
                Ok(Err(error)) => {
                    only_unproved &= matches!(error, Closed::Unproved(_));
                    failed = Some(with_address(error, &address.to_string()));
                }
                Err(_) => {
                    only_unproved = false;
                    failed = Some(Closed::Late(format!("{address}: the stream was not opened in time")))
                }
            }
        }
        Err(match failed {
            // Another target that is only away may be the one that proves the domain.
            Some(Closed::Unproved(text)) if !only_unproved => Closed::Now(text),
            Some(failed) => failed,
            None => Closed::Now("no server could be reached".to_owned()),
        })
    }

    /// One connection.
    async fn call(
        &self,
        pair: &Pair,
        stream: Box<dyn Stream>,
        target: &Target,
        origin: Origin,
    ) -> Result<Opened, Closed> {
        let settings = self.settings.load_full();
        let (local, remote) = (pair.local().domain(), pair.remote().domain());
        let mut conn = Conn::new(Wire::new(stream), self.rates.address(origin), settings.clone());
        if target.begin == Begin::Starttls {
            greet(&mut conn, self, pair).await?;
            let (_, features) = features(&mut conn, pair).await?;
            if !features.has("starttls", ns::TLS) {
                conn.close(End::Clean, None).await;
                return Err(Closed::Now("the server does not offer TLS, which is required".to_owned()));
            }
            starttls(&mut conn, self).await?;
        }
        let tls = conn.wire.call(&self.tls, local, remote, target.begin).await;
        tls.map_err(|error| Closed::Now(format!("TLS failed: {error}")))?;
        let policy = settings.federation.policy(remote);
        let judged = self.judge_called(&conn.wire.chain, remote, target).await;
        let proof = judged.as_ref().ok().copied();
        if !proof::suffices(policy, proof) {
            let why = judged.err().unwrap_or_else(|| "it is not secured by DANE".to_owned());
            drop(conn);
            return Err(Closed::Unproved(format!("the certificate does not prove the domain: {why}")));
        }
        conn.restart();
        greet(&mut conn, self, pair).await?;
        let (header, features) = features(&mut conn, pair).await?;
        let dialback = header.scope.declares(ns::DIALBACK) || features.has("dialback", ns::DIALBACK_FEATURE);
        let id = header.id.map(|id| id.to_string()).unwrap_or_default();
        Ok(Opened { conn, id, features, dialback, proof, address: String::new() })
    }
}

fn with_address(closed: Closed, address: &str) -> Closed {
    match closed {
        Closed::Permanent(text) => Closed::Permanent(format!("{address}: {text}")),
        Closed::Now(text) => Closed::Now(format!("{address}: {text}")),
        Closed::Unproved(text) => Closed::Unproved(format!("{address}: {text}")),
        Closed::Late(text) => Closed::Late(format!("{address}: {text}")),
    }
}

/// RFC 6120 section 5.4.
async fn starttls(conn: &mut Conn, federation: &Federation) -> Result<(), End> {
    conn.out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    conn.flush(federation).await?;
    match conn.next().await? {
        Frame::Nonza(element) if element.is("proceed", ns::TLS) => {}
        _ => return Err(End::error(StreamCondition::BadFormat)),
    }
    // What came in the clear behind <proceed/> must not be taken for something encrypted (section 5.4.3.3).
    if conn.tail.is_empty() { Ok(()) } else { Err(End::Abandon) }
}
