//! What a running stream takes: stanzas from domains that were proved on it, and the elements of stream management.

use rookery_actors::Origin;
use rookery_actors::link::incoming::NotTaken;
use rookery_actors::link::stream::Pair;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{Kind, Malformed, Stanza};
use tokio::time::Instant;

use super::claims::Proved;
use super::conn::{self, End, Frame};
use super::resume::{self, Managed};
use super::running::{Running, Sm};
use crate::streams::acks::Acks;

impl Running {
    /// One frame.
    pub(super) fn take_frame(&mut self, frame: Frame, now: Instant) -> Result<(), End> {
        match frame {
            Frame::Stanza(stanza) => {
                self.charge(now);
                self.stanza(stanza)
            }
            Frame::Malformed(malformed) => {
                self.charge(now);
                self.malformed(&malformed)
            }
            Frame::AckRequest if matches!(self.sm, Sm::Off) => {
                self.charge(now);
                failed(&mut self.own, "unexpected-request", None);
                Ok(())
            }
            Frame::AckRequest => {
                self.ack_request(now);
                Ok(())
            }
            Frame::Ack(h) => {
                if let Some((_, link)) = self.link.as_ref().filter(|_| self.confirms) {
                    link.confirmed(h);
                }
                Ok(())
            }
            Frame::Nonza(element) => {
                self.charge(now);
                self.nonza(&element)
            }
            Frame::Open(_) => Err(End::error(StreamCondition::BadFormat)),
        }
    }

    fn nonza(&mut self, element: &Element) -> Result<(), End> {
        match (element.ns(), element.name()) {
            (ns::DIALBACK, _) => self.dialback(element),
            (ns::SM, "enable") => {
                self.enable(element);
                Ok(())
            }
            (ns::SM, "resume") => {
                self.resume(element);
                Ok(())
            }
            (ns::BIDI, "bidi") if self.incoming() && !self.bidi => {
                self.bidi = true;
                self.max_bytes = super::incoming::limit(element);
                self.offer();
                Ok(())
            }
            // RFC 6120 section 4.9.1.1: the other side's error ends the stream.
            (ns::STREAM, "error") => Err(conn::told(element)),
            // White space of another age: what is over, or never was.
            (ns::SM, "failed" | "enabled" | "resumed") => Ok(()),
            _ => Err(End::error(StreamCondition::UnsupportedStanzaType)),
        }
    }

    /// The pair that a stanza is for, if the other server may send for it (RFC 6120 section 8.1.2.2).
    fn authorized(&self, from: Option<&Jid>, to: Option<&Jid>) -> Result<Pair, End> {
        if self.proved.is_empty() {
            return Err(End::error(StreamCondition::NotAuthorized));
        }
        let (Some(from), Some(to)) = (from, to) else {
            return Err(End::error(StreamCondition::ImproperAddressing));
        };
        let fits =
            |pair: &Pair| pair.remote().domain() == from.domain() && pair.local().domain() == to.domain();
        match self.proved.iter().map(|proved| &proved.pair).find(|pair| fits(pair)) {
            Some(pair) => Ok(pair.clone()),
            None if !self.federation.host.answers(to.domain()) => {
                Err(End::error(StreamCondition::HostUnknown))
            }
            None => Err(End::error(StreamCondition::InvalidFrom)),
        }
    }

    fn stanza(&mut self, mut stanza: Stanza) -> Result<(), End> {
        let pair = self.authorized(stanza.from.as_ref(), stanza.to.as_ref())?;
        if self.is_closing() && !matches!(self.sm, Sm::Off) {
            // The other server knows that this was not counted, and sends it again.
            return Ok(());
        }
        // RFC 6120 section 8.1.5: what is for human eyes inherits the stream's language.
        if stanza.lang.is_none() && self.lang.is_some() && stanza.kind() != Kind::Iq {
            stanza.lang.clone_from(&self.lang);
        }
        let receipt = self.ledger.enter();
        self.acks.count();
        let origin = match &self.sm {
            Sm::On(managed) => Some(Origin::new(managed.name, receipt.number())),
            Sm::Off => None,
        };
        let taken = self.federation.host.from_remote(pair.remote(), stanza, receipt, origin);
        taken.map_err(|error| {
            End::error(match error {
                NotTaken::InvalidFrom => StreamCondition::InvalidFrom,
                NotTaken::ImproperAddressing => StreamCondition::ImproperAddressing,
                NotTaken::HostUnknown => StreamCondition::HostUnknown,
            })
        })
    }

    /// A malformed stanza counts like any other (XEP-0198 section 4). The error goes back by the way of all stanzas.
    fn malformed(&mut self, malformed: &Malformed) -> Result<(), End> {
        let from = malformed.from.as_ref();
        // If `to` is what is wrong, the error comes from the local domain that the stream is for.
        let local = || {
            let fits = |pair: &Pair| Some(pair.remote().domain()) == from.map(Jid::domain);
            let pair = self.proved.iter().map(|proved| &proved.pair).find(|pair| fits(pair));
            pair.map(|pair| Jid::from(pair.local().clone()))
        };
        let to = malformed.to.clone().or_else(local);
        self.authorized(from, to.as_ref())?;
        let receipt = self.ledger.enter();
        self.acks.count();
        match (malformed.reply(), from) {
            (Some(mut reply), Some(from)) => {
                (reply.from, reply.to) = (to, Some(from.clone()));
                self.federation.host.answer_remote(reply, receipt);
            }
            _ => receipt.done(), // nobody can be told what is wrong with it
        }
        Ok(())
    }

    /// XEP-0198 section 3.
    fn enable(&mut self, element: &Element) {
        if self.proved.is_empty() || !matches!(self.sm, Sm::Off) || !self.incoming() {
            return failed(&mut self.own, "unexpected-request", None);
        }
        let time = self.settings.federation.limits.resume;
        let resume = matches!(element.attr("resume"), Some("true" | "1")) && !time.is_zero();
        let id = resume.then(|| self.federation.stream_id());
        self.manage(Managed {
            ledger: rookery_actors::Ledger::new(0),
            name: rookery_actors::OriginName::new(self.federation.seams.bytes()),
            id: id.clone(),
        });
        let out = &mut self.own;
        out.extend_from_slice(b"<enabled xmlns='urn:xmpp:sm:3'");
        if let Some(id) = &id {
            for part in [" id='", id, "' resume='true' max='", &time.as_secs().to_string(), "'"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(b"/>");
    }

    /// From here on both sides count.
    pub(super) fn manage(&mut self, managed: Managed) {
        self.earlier = Some(std::mem::replace(&mut self.ledger, managed.ledger.clone()));
        self.acks = Acks::new(managed.ledger.received());
        if let Some(id) = &managed.id {
            let remotes = self.proved.iter().map(|proved| proved.pair.remote().clone()).collect();
            self.federation.resumable.enter(id.clone(), remotes, self.place.orders().clone());
        }
        let resumes = managed.id.is_some();
        self.place.change(|info| info.managed = Some(resumes));
        self.sm = Sm::On(managed);
    }

    /// XEP-0198 section 5. The loop waits for what is kept.
    fn resume(&mut self, element: &Element) {
        let known = element.attr("previd").zip(self.proved.first());
        match known {
            Some((id, proved)) if matches!(self.sm, Sm::Off) && self.incoming() => {
                self.resuming = Some((id.to_owned(), proved.pair.remote().domain().to_owned()));
            }
            _ => failed(&mut self.own, "unexpected-request", None),
        }
    }

    /// What [`Running::resume`] asked for.
    pub(super) async fn take_up(&mut self, id: String, remote: String) {
        let Some(state) = self.federation.resumable.take(&id, &remote).await else {
            metrics::counter!("rookery_stream_resumptions_total", "outcome" => "unknown").increment(1);
            return failed(&mut self.own, "item-not-found", None);
        };
        metrics::counter!("rookery_stream_resumptions_total", "outcome" => "ok").increment(1);
        let ledger = resume::settled(state.ledger).await;
        let h = ledger.settled();
        for (pair, by) in state.proved {
            // What proved them then may not be enough now.
            let holds = self.federation.settings.load().federation.takes(pair.remote().domain(), by);
            if !holds || self.is_proved(&pair) {
                continue;
            }
            let claim = self.federation.claim(&pair);
            if claim.is_some() {
                self.prove(Proved { pair, by, _claim: claim });
            }
        }
        for part in ["<resumed xmlns='urn:xmpp:sm:3' previd='", &id, "' h='", &h.to_string(), "'/>"] {
            self.own.extend_from_slice(part.as_bytes());
        }
        self.manage(Managed { ledger, name: state.name, id: Some(id) });
    }

    fn ack_request(&mut self, now: Instant) {
        let settled = self.ledger.settled();
        match self.acks.request(now, settled) {
            Some(h) => self.write_ack(h),
            None => self.answer_acks(now),
        }
    }

    /// Answers an `<r/>` that waits, if it is time.
    pub(super) fn answer_acks(&mut self, now: Instant) {
        if !self.acks.waiting() {
            return;
        }
        self.ledger.wait(&self.pipe);
        if let Some(h) = self.acks.look(now, self.ledger.settled()) {
            self.write_ack(h);
        }
    }

    /// XEP-0198 section 4.
    pub(super) fn write_ack(&mut self, h: u32) {
        for part in ["<a xmlns='urn:xmpp:sm:3' h='", &h.to_string(), "'/>"] {
            self.own.extend_from_slice(part.as_bytes());
        }
        if let Some((_, link)) = self.link.as_ref().filter(|_| self.confirms && self.bidi) {
            link.handled(h);
        }
    }
}

/// XEP-0198 sections 3 and 5: not now, or not any more.
pub(super) fn failed(out: &mut Vec<u8>, condition: &str, h: Option<u32>) {
    out.extend_from_slice(b"<failed xmlns='urn:xmpp:sm:3'");
    if let Some(h) = h {
        out.extend_from_slice(format!(" h='{h}'").as_bytes());
    }
    for part in ["><", condition, " xmlns='", ns::STANZAS, "'/></failed>"] {
        out.extend_from_slice(part.as_bytes());
    }
}
