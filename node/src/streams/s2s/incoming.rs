//! From an accepted socket to a stream on which domains may be proved: TLS, headers, features, SASL EXTERNAL. The certificate is
//! judged before EXTERNAL is offered, so what is offered works.

use std::net::SocketAddr;
use std::sync::Arc;

use rookery_actors::features::xep_0478_stream_limits;
use rookery_actors::link::stream::Pair;
use rookery_proto::xml::chars::is_space;
use rookery_proto::xml::header::StreamHeader;
use rookery_proto::xmpp::dialback::{Kind, Says};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, SaslFailure, StreamCondition};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use tokio::time::{Instant, timeout_at};

use super::claims::{Claim, Proved};
use super::conn::{Conn, End, Frame};
use super::running::{Running, Start};
use super::{CONTENT, Federation, Settings, proof, sasl};
use crate::dns::Begin;
use crate::net::Pass;
use crate::tls::remote::Proof;

/// How often a server may fail to authenticate.
const FAILURES: u32 = 3;

/// What a server asked for with `<bidi/>`: the largest stanza that it takes, if it has said so.
pub(super) type Bidi = Option<usize>;

pub(super) struct Incoming {
    federation: Arc<Federation>,
    settings: Arc<Settings>,
    conn: Conn,
    begin: Begin,
    peer: SocketAddr,
    /// Since when the connection is there.
    since: Instant,
    /// The header's `to`, one of our domains.
    local: Option<BareJid>,
    /// The header's `from`.
    remote: Option<BareJid>,
    /// What the certificate proves `remote` by, if that is enough.
    proof: Option<Proof>,
    /// Taken when the other server has logged in.
    claim: Option<Claim>,
    bidi: Option<Bidi>,
    id: String,
}

/// How far the negotiation has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Clear,
    Login,
    Authenticated,
}

impl Incoming {
    /// Nothing was said yet; with [`Begin::Direct`], TLS may be there already.
    pub(super) fn new(
        federation: Arc<Federation>,
        settings: Arc<Settings>,
        conn: Conn,
        begin: Begin,
        (peer, since): (SocketAddr, Instant),
    ) -> Self {
        let (local, remote, proof, claim, bidi, id) = (None, None, None, None, None, String::new());
        Self { federation, settings, conn, begin, peer, since, local, remote, proof, claim, bidi, id }
    }

    /// `None` if the connection ended.
    pub(super) async fn run(mut self, pass: Pass) -> Option<Box<Running>> {
        let federation = self.federation.clone();
        let deadline = self.since + self.settings.federation.limits.negotiation;
        let standing = pass.standing();
        let mut stop = federation.stop.clone();
        let end = tokio::select! {
            biased;
            done = timeout_at(deadline, self.negotiate()) => match done {
                Ok(Ok(first)) => return Some(self.start(first, pass, deadline)),
                Ok(Err(end)) => end,
                Err(_) => {
                    let limit = "federation.negotiation_seconds";
                    metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
                    End::because(StreamCondition::ConnectionTimeout, "you took too long")
                }
            },
            _ = stop.wait_for(|stop| *stop) => End::error(StreamCondition::SystemShutdown),
            // Without a word: the peer holds too many connections, and an answer would only keep this one open longer.
            () = standing.sent_away() => End::Abandon,
        };
        let from = self.from();
        tracing::debug!(
            peer = %self.peer,
            remote = self.remote.as_ref().map(BareJid::as_str),
            why = end.why(),
            "stream of another server ended before a domain was proved on it"
        );
        self.conn.close(end, from.as_deref()).await;
        None
    }

    /// The domain of this deployment that stands in our header: the one the peer asked for, else the first.
    fn from(&self) -> Option<String> {
        let domain = self.local.as_ref().map(|local| local.as_str().to_owned());
        domain.or_else(|| self.federation.host.options().domains.first().map(|d| d.name.clone()))
    }

    /// Until the other server has logged in, or wants something that is not about that: the first frame of the stream proper.
    async fn negotiate(&mut self) -> Result<Option<Frame>, End> {
        let mut stage = Stage::Clear;
        if self.begin == Begin::Direct {
            if !self.conn.wire.is_encrypted() {
                self.secure("").await?;
            }
            stage = Stage::Login;
        }
        loop {
            self.open(stage).await?;
            self.advertise(stage);
            self.conn.flush(&self.federation).await?;
            if stage == Stage::Authenticated {
                return Ok(None);
            }
            match self.stage(stage).await? {
                Next::Stage(next) => {
                    stage = next;
                    self.conn.restart();
                }
                Next::First(frame) => return Ok(Some(frame)),
            }
        }
    }

    async fn secure(&mut self, to: &str) -> Result<(), End> {
        let accepted = self.conn.wire.accept(&self.federation.tls, self.begin, to).await;
        accepted.map_err(|error| {
            tracing::debug!(peer = %self.peer, %error, "TLS handshake with another server failed");
            End::Abandon
        })
    }

    /// Waits for the header and answers with ours.
    async fn open(&mut self, stage: Stage) -> Result<(), End> {
        let header = self.conn.header().await?;
        let judged = self.judge(&header, stage);
        if let Ok((local, _)) = &judged {
            self.local = Some(local.clone());
        }
        self.id = self.federation.stream_id();
        let to = header.from.as_ref().map(|from| from.as_str().to_owned());
        let from = self.from();
        self.conn.write_header(from.as_deref(), to.as_deref(), Some(&self.id));
        let (_, remote) = judged.map_err(End::error)?;
        if stage == Stage::Login
            && let Some(remote) = &remote
        {
            self.proof = self.federation.judge_caller(&self.conn.wire.chain, remote).await;
        }
        self.remote = remote;
        Ok(())
    }

    /// The domains of a header, ours and theirs, or the stream error that RFC 6120 names.
    fn judge(
        &self,
        header: &StreamHeader,
        stage: Stage,
    ) -> Result<(BareJid, Option<BareJid>), StreamCondition> {
        let host = &self.federation.host;
        if header.content != CONTENT {
            return Err(StreamCondition::InvalidNamespace);
        }
        // Section 4.7.5. Without a version there is no STARTTLS.
        if header.version.is_none_or(|(major, _)| major < 1) {
            return Err(StreamCondition::UnsupportedVersion);
        }
        let domain = |jid: &Jid| (jid.local().is_none() && jid.resource().is_none()).then(|| jid.to_bare());
        let to = header.to.as_ref().ok_or(StreamCondition::ImproperAddressing)?;
        let local = domain(to).filter(|to| host.answers(to.as_str())).ok_or(StreamCondition::HostUnknown)?;
        let remote = match &header.from {
            Some(from) => Some(domain(from).ok_or(StreamCondition::InvalidFrom)?),
            None => None,
        };
        if let Some(remote) = &remote {
            // No other server speaks for our domains.
            if host.answers(remote.as_str()) {
                return Err(StreamCondition::InvalidFrom);
            }
            if !self.settings.federation.admits(remote.as_str()) {
                return Err(StreamCondition::PolicyViolation);
            }
        }
        if stage == Stage::Authenticated
            && (self.local.as_ref() != Some(&local) || (remote.is_some() && self.remote != remote))
        {
            return Err(StreamCondition::NotAuthorized);
        }
        Ok((local, if stage == Stage::Authenticated { self.remote.clone() } else { remote }))
    }

    /// Appends the features of a stage (RFC 6120 section 4.3.2). A server that proves itself by dialback sees those of the login
    /// only, so they hold what comes after it.
    fn advertise(&mut self, stage: Stage) {
        let limits = &self.settings.federation.limits;
        let out = &mut self.conn.out;
        out.extend_from_slice(b"<stream:features>");
        if stage == Stage::Clear {
            out.extend_from_slice(
                b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>",
            );
        } else {
            if stage == Stage::Login && self.proof.is_some() {
                sasl::write_feature(out);
            }
            if stage == Stage::Login {
                out.extend_from_slice(b"<bidi xmlns='urn:xmpp:features:bidi'/>");
            }
            out.extend_from_slice(b"<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>");
            out.extend_from_slice(b"<sm xmlns='urn:xmpp:sm:3'/>");
            let idle = limits.idle.as_secs();
            out.extend_from_slice(&xep_0478_stream_limits::stream_feature(limits.stanza_bytes, Some(idle)));
        }
        out.extend_from_slice(b"</stream:features>");
    }

    /// Handles what comes until the stream leaves the stage.
    async fn stage(&mut self, stage: Stage) -> Result<Next, End> {
        let mut failures = 0;
        loop {
            let frame = self.conn.next().await?;
            let Frame::Nonza(element) = frame else {
                // RFC 6120 section 4.9.3.12: nothing is proved yet.
                return Err(End::error(StreamCondition::NotAuthorized));
            };
            match (stage, element.ns(), element.name()) {
                (Stage::Clear, ns::TLS, "starttls") => return self.starttls().await,
                (Stage::Clear, ns::DIALBACK, _) => self.too_early(&element)?,
                (Stage::Login, ns::SASL, "auth") => {
                    if self.login(&element) {
                        self.conn.flush(&self.federation).await?;
                        return Ok(Next::Stage(Stage::Authenticated));
                    }
                    failures += 1;
                }
                (Stage::Login, ns::DIALBACK, "verify") => self.answer(&element)?,
                (Stage::Login, ns::BIDI, "bidi") => self.bidi = Some(limit(&element)),
                (Stage::Login, ns::DIALBACK | ns::SM, _) => return Ok(Next::First(Frame::Nonza(element))),
                _ => return Err(End::error(StreamCondition::UnsupportedStanzaType)),
            }
            self.conn.flush(&self.federation).await?;
            if failures >= FAILURES {
                return Err(End::because(StreamCondition::PolicyViolation, "too many failed attempts"));
            }
        }
    }

    async fn starttls(&mut self) -> Result<Next, End> {
        // What came in the clear behind <starttls/> must not be taken for something encrypted (section 5.4.3.3).
        if !std::mem::take(&mut self.conn.tail).into_iter().all(is_space) {
            self.conn.out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            return Err(End::Clean);
        }
        self.conn.out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        self.conn.flush(&self.federation).await?;
        let to = self.local.as_ref().map(|d| d.as_str().to_owned()).unwrap_or_default();
        self.secure(&to).await?;
        Ok(Next::Stage(Stage::Login))
    }

    /// Another server asks about a key of ours (XEP-0220 section 2.2.2). That server may log in afterwards.
    fn answer(&mut self, element: &Element) -> Result<(), End> {
        let request = super::dialback::read(element)?;
        if let (Kind::Verify { id }, Says::Key(key)) = (&request.kind, &request.says) {
            let says = self.federation.is_ours(&request, id, key);
            request.answer(says).write(&mut self.conn.out);
        }
        Ok(())
    }

    /// Dialback in the clear: TLS comes first.
    fn too_early(&mut self, element: &Element) -> Result<(), End> {
        let request = super::dialback::read(element)?;
        if matches!(request.says, Says::Key(_)) {
            let error = super::dialback::error(Condition::PolicyViolation, "TLS is required");
            request.answer(error).write(&mut self.conn.out);
        }
        Ok(())
    }

    /// SASL EXTERNAL. Whether the other server has logged in.
    fn login(&mut self, auth: &Element) -> bool {
        let proved = self.remote.as_ref().filter(|_| self.proof.is_some());
        let judged = sasl::judge(auth, proved).and_then(|()| {
            let claim = self.pair().and_then(|pair| self.federation.claim(&pair));
            self.claim = Some(claim.ok_or(SaslFailure::TemporaryAuthFailure)?);
            Ok(())
        });
        let outcome = if judged.is_ok() { "ok" } else { "failed" };
        metrics::counter!("rookery_logins_total", "mechanism" => "EXTERNAL", "outcome" => outcome)
            .increment(1);
        match judged {
            Ok(()) => {
                self.conn.out.extend_from_slice(b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
            }
            Err(failure) => failure.write(None, &mut self.conn.out),
        }
        judged.is_ok()
    }

    /// The domains of the header.
    fn pair(&self) -> Option<Pair> {
        Pair::new(self.local.as_ref()?, self.remote.as_ref()?)
    }

    fn start(mut self, first: Option<Frame>, pass: Pass, deadline: Instant) -> Box<Running> {
        let proved = self.pair().zip(self.claim.take());
        let Self { federation, conn, peer, proof, bidi, id, .. } = self;
        let by = proof::name(proof);
        let proved = proved.map(|(pair, claim)| Proved { pair, by, _claim: Some(claim) });
        Running::new(Start {
            federation,
            conn,
            address: peer.to_string(),
            id,
            proved,
            first,
            bidi,
            incoming: Some((pass, deadline)),
            link: None,
            managed: None,
        })
    }
}

enum Next {
    /// The stream restarts in this stage.
    Stage(Stage),
    /// The stream proper begins.
    First(Frame),
}

/// The largest stanza that the other server takes, if the element says so (XEP-0478 version 0.2.0).
pub(super) fn limit(element: &Element) -> Option<usize> {
    element
        .child("limits", ns::STREAM_LIMITS)?
        .child_text("max-bytes", ns::STREAM_LIMITS)?
        .trim()
        .parse()
        .ok()
}
