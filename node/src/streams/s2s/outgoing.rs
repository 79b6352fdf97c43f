//! Streams that this node opens for its links: authentication (SASL EXTERNAL, else dialback), stream management, and then the loop.

use std::sync::Arc;

use rookery_actors::features::xep_0478_stream_limits;
use rookery_actors::link::stream::{LinkEnd, Managed as Counts, Pair, Ready, Resumable};
use rookery_actors::{Ledger, OriginName};
use rookery_proto::xml::Writer;
use rookery_proto::xmpp::dialback::{Dialback, Kind, Says};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::ns;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::claims::Proved;
use super::conn::{Conn, End, Frame};
use super::open::{Closed, Opened, greet};
use super::resume::Managed;
use super::running::{Running, Start};
use super::{Federation, incoming, open, proof, sasl};
use crate::dns::names;

/// The longest text of the other server that is remembered, bytes (XEP-0198 allows 4,000 for an id).
const LONGEST: usize = 4_000;

/// How many streams to others are opened at the same time; further ones wait for their turn.
const OPENING: usize = 1_024;

/// A stream on which we may send.
struct Authenticated {
    opened: Opened,
    bidi: bool,
    counts: Counts,
    managed: Option<Managed>,
}

/// Opens a stream for a link, and serves it until its end.
pub(super) async fn run(federation: Arc<Federation>, pair: Pair, resume: Option<Resumable>, link: LinkEnd) {
    let mut scrap = Vec::new();
    let done = tokio::select! {
        done = authenticated(&federation, &pair, resume.as_ref()) => done,
        // Before it is ready only the end comes: the link does not want it any more.
        _ = link.next(&mut scrap) => return,
    };
    let Authenticated { opened, bidi, counts, managed } = match done {
        Ok(done) => done,
        Err(closed) => {
            let failure = closed.failure();
            tracing::debug!(%pair, why = failure.text, "no stream to another server");
            return link.failed(failure);
        }
    };
    let Opened { conn, id, features, proof, address, .. } = opened;
    let by = proof::name(proof);
    let max_bytes = incoming::limit(&features);
    tracing::debug!(%pair, address, by, bidi, "stream to another server is open");
    link.ready(Ready { managed: counts, proof: by, address: address.clone(), tls: conn.wire.tls, max_bytes });
    let running = Running::new(Start {
        federation,
        conn,
        address,
        id,
        proved: bidi.then(|| Proved { pair: pair.clone(), by, _claim: None }),
        first: None,
        bidi: bidi.then_some(None),
        incoming: None,
        link: Some((pair, link, by)),
        managed,
    });
    running.run().await;
}

/// Opens and authenticates. A server that refuses our certificate, and hangs up, is called once more, to be dialled back.
async fn authenticated(
    federation: &Arc<Federation>,
    pair: &Pair,
    resume: Option<&Resumable>,
) -> Result<Authenticated, Closed> {
    let place = federation.opening.take(OPENING, &names::zone(pair.remote().domain())).await;
    tokio::select! {
        done = attempts(federation, pair, resume) => done,
        () = place.sent_away() => Err(Closed::Late("it took too long, while others waited".to_owned())),
    }
}

async fn attempts(
    federation: &Federation,
    pair: &Pair,
    resume: Option<&Resumable>,
) -> Result<Authenticated, Closed> {
    let wait = federation.settings.load().federation.limits.negotiation;
    let late = || Closed::Late("authentication took too long".to_owned());
    for external in [true, false] {
        let opened = federation.open(pair).await?;
        let address = opened.address.clone();
        let mut attempt = Attempt { federation, pair, opened, bidi: false, refused: false };
        match timeout(wait, attempt.run(external, resume)).await {
            Ok(Ok((counts, managed))) => {
                let Attempt { opened, bidi, .. } = attempt;
                return Ok(Authenticated { opened, bidi, counts, managed });
            }
            Ok(Err(Stop::End(_))) if attempt.refused && external => {}
            Ok(Err(Stop::End(end))) => {
                let why = end.why();
                attempt.opened.conn.close(end, None).await;
                return Err(Closed::Now(format!("{address}: the stream ended: {why}")));
            }
            Ok(Err(Stop::Refused(why))) => {
                attempt.opened.conn.close(End::Clean, None).await;
                return Err(Closed::Now(format!("{address}: {why}")));
            }
            Err(_) => return Err(late()),
        }
    }
    Err(Closed::Now("the other server refuses our certificate".to_owned()))
}

/// Why an attempt is over.
enum Stop {
    End(End),
    /// The other server does not believe us, or lacks what it takes.
    Refused(String),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

struct Attempt<'a> {
    federation: &'a Federation,
    pair: &'a Pair,
    opened: Opened,
    bidi: bool,
    /// Whether EXTERNAL was refused.
    refused: bool,
}

impl Attempt<'_> {
    async fn run(
        &mut self,
        external: bool,
        resume: Option<&Resumable>,
    ) -> Result<(Counts, Option<Managed>), Stop> {
        let remote = self.pair.remote().domain();
        let both = resume.map_or_else(|| self.federation.one_way.has(remote), |resume| resume.h > 0);
        if both && self.opened.features.has("bidi", ns::BIDI_FEATURE) {
            self.ask_for_bidi();
        }
        if !(external && sasl::is_offered(&self.opened.features) && self.external().await?) {
            self.dialback().await?;
        }
        self.manage(resume).await
    }

    fn conn(&mut self) -> &mut Conn {
        &mut self.opened.conn
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.opened.conn.flush(self.federation).await
    }

    /// XEP-0288 version 1.0.1, with the limit for what comes (XEP-0478 version 0.2.0 section 3.2).
    fn ask_for_bidi(&mut self) {
        let limits = self.federation.settings.load().federation.limits;
        let feature =
            xep_0478_stream_limits::stream_feature(limits.stanza_bytes, Some(limits.idle.as_secs()));
        let out = &mut self.conn().out;
        out.extend_from_slice(b"<bidi xmlns='urn:xmpp:bidi'>");
        out.extend_from_slice(&feature);
        out.extend_from_slice(b"</bidi>");
        self.bidi = true;
    }

    /// SASL EXTERNAL (XEP-0178 version 1.2); whether we are logged in. If not, the stream goes on, or the other server ends it.
    async fn external(&mut self) -> Result<bool, Stop> {
        sasl::write_auth(self.pair.local().domain(), &mut self.opened.conn.out);
        self.flush().await?;
        match self.conn().next().await? {
            Frame::Nonza(element) if element.is("success", ns::SASL) => {}
            Frame::Nonza(element) if element.is("failure", ns::SASL) => {
                self.refused = true;
                let why = element.children().next().map_or("", Element::name);
                tracing::debug!(pair = %self.pair, why, "another server does not take our certificate");
                return Ok(false);
            }
            _ => return Err(End::error(StreamCondition::BadFormat).into()),
        }
        self.conn().restart();
        greet(&mut self.opened.conn, self.federation, self.pair).await?;
        let (header, features) = open::features(&mut self.opened.conn, self.pair).await?;
        self.opened.id = header.id.map(|id| id.to_string()).unwrap_or_default();
        self.opened.features = features;
        Ok(true)
    }

    /// The initiating server's part of dialback (XEP-0220 section 2.1.1).
    async fn dialback(&mut self) -> Result<(), Stop> {
        if !self.opened.dialback || self.opened.id.is_empty() {
            let why =
                if self.refused { "does not take our certificate, and" } else { "takes no certificate, and" };
            return Err(Stop::Refused(format!("the server {why} knows no dialback")));
        }
        let (local, remote) = (self.pair.local(), self.pair.remote());
        let key = self.federation.host.dialback_key(remote.domain(), local.domain(), &self.opened.id);
        let request =
            Dialback { kind: Kind::Result, from: local.clone(), to: remote.clone(), says: Says::Key(key) };
        request.write(&mut self.opened.conn.out);
        self.flush().await?;
        loop {
            let Frame::Nonza(element) = self.conn().next().await? else {
                return Err(End::error(StreamCondition::NotAuthorized).into());
            };
            let answer = Dialback::is(&element).then(|| Dialback::parse(&element).ok()).flatten();
            // Section 3: only the answer to this very request counts.
            let ours = |answer: &Dialback| {
                answer.kind == Kind::Result && answer.from == request.to && answer.to == request.from
            };
            match answer.filter(ours).map(|answer| answer.says) {
                Some(Says::Valid) => return Ok(()),
                Some(Says::Invalid) => {
                    return Err(Stop::Refused("the server says that our dialback key is false".to_owned()));
                }
                Some(Says::Error(error)) => {
                    let text = error.text.as_deref().unwrap_or_default();
                    let name = error.condition.name();
                    return Err(Stop::Refused(format!("the server refuses dialback: {name} {text}")));
                }
                Some(Says::Key(_)) | None => {}
            }
        }
    }

    /// XEP-0198 sections 3 and 5.
    async fn manage(&mut self, resume: Option<&Resumable>) -> Result<(Counts, Option<Managed>), Stop> {
        let offered = self.opened.features.has("sm", ns::SM);
        self.federation.one_way.learn(self.pair.remote().domain(), offered);
        if !offered {
            return Ok((Counts::No, None));
        }
        let mut last = None;
        if let Some(resume) = resume {
            let out = &mut self.opened.conn.out;
            let mut w = Writer::new(out);
            w.start("resume", ns::SM).attr_display("h", resume.h).attr("previd", &resume.id).end();
            drop(w);
            self.flush().await?;
            let answer = self.answer().await?;
            if answer.is("resumed", ns::SM) {
                let h = answer.attr("h").and_then(|h| h.parse().ok());
                let h = h.ok_or(End::error(StreamCondition::InvalidXml))?;
                return Ok((Counts::Resumed { h }, Some(self.managed(&resume.id, resume.h))));
            }
            last = answer.attr("h").and_then(|h| h.parse().ok());
        }
        self.opened.conn.out.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        self.flush().await?;
        let answer = self.answer().await?;
        if !answer.is("enabled", ns::SM) {
            return Ok((Counts::No, None));
        }
        let resumes = matches!(answer.attr("resume"), Some("true" | "1"));
        let text = |name| {
            answer.attr(name).filter(|text| !text.is_empty() && text.len() <= LONGEST).map(str::to_owned)
        };
        let id = text("id").filter(|_| resumes);
        self.federation.one_way.learn(self.pair.remote().domain(), id.is_some());
        let managed = self.managed(id.as_deref().unwrap_or_default(), 0);
        let max = answer.attr("max").and_then(|max| max.parse().ok());
        Ok((Counts::Enabled { id, max, location: text("location"), last }, Some(managed)))
    }

    /// The answer to `<enable/>` or `<resume/>`. What comes in front of it is from a server that sends without having been asked.
    async fn answer(&mut self) -> Result<Element, Stop> {
        match self.conn().next().await? {
            Frame::Nonza(element) if element.ns() == ns::SM => Ok(element),
            _ => Err(End::error(StreamCondition::UnsupportedStanzaType).into()),
        }
    }

    /// What we count of the other server's stanzas.
    fn managed(&self, id: &str, handled: u32) -> Managed {
        let mut name: [u8; 16] = self.federation.seams.bytes();
        if !id.is_empty() {
            // The same after a resumption: so a stanza that comes again is known.
            let hash =
                Sha256::new().chain_update(self.pair.entity().as_str()).chain_update("\n").chain_update(id);
            name.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        }
        let name = OriginName::new(name);
        Managed { ledger: Ledger::new(handled), name, id: None }
    }
}
