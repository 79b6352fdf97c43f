//! What comes in: bytes to frames to stanzas, without a buffer of the connection's own.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rookery_proto::xml::framer::Step;
use rookery_proto::xmpp::error::StreamCondition;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{self, IqType, Kind, Stanza, Type};
use rookery_proto::xmpp::toplevel::TopLevel;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::running::{Running, Sm};
use super::{End, bind};
use crate::transport::{Carrier, Frames as _};

/// What one read takes at most: a TLS record.
const SCRATCH: usize = 16 * 1024;
/// How many stanzas one read hands up before the window is looked at again.
const BATCH: usize = 64;

/// How long the last answers of a session on another node may take after they are settled.
const GRACE: Duration = Duration::from_millis(100);

thread_local! {
    /// The read buffer of all connections on this thread. Taken while in use.
    static BUFFER: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

impl<W: Carrier> Running<W> {
    /// Reads once and takes what there is.
    pub(super) fn poll_in(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Result<(), End>> {
        if self.held {
            let tail = std::mem::take(&mut self.tail);
            return Poll::Ready(self.take(tail, now));
        }
        let mut buffer = BUFFER.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
        let read = self.poll_read(cx, &mut buffer, now);
        BUFFER.set(Some(buffer));
        read
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8], now: Instant) -> Poll<Result<(), End>> {
        let mut filled = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.wire).poll_read(cx, &mut filled)).map_err(End::from)?;
        let bytes = filled.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(End::Lost));
        }
        self.heard = now;
        self.shared.meters.received.increment(bytes.len() as u64);
        self.charge_bytes(bytes.len(), now);
        if self.tail.is_empty() {
            let used = self.frames(bytes, now)?;
            // Exactly as much as is left: most often nothing.
            self.tail = bytes.get(used..).unwrap_or_default().to_vec();
            return Poll::Ready(Ok(()));
        }
        let mut tail = std::mem::take(&mut self.tail);
        tail.extend_from_slice(bytes);
        Poll::Ready(self.take(tail, now))
    }

    fn take(&mut self, mut tail: Vec<u8>, now: Instant) -> Result<(), End> {
        let used = self.frames(&tail, now)?;
        tail.drain(..used);
        self.tail = if tail.is_empty() { Vec::new() } else { tail };
        Ok(())
    }

    fn pause(&mut self, until: Instant, limit: &'static str) {
        metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
        self.paused = Some(self.paused.map_or(until, |paused| paused.max(until)));
    }

    /// Takes all complete frames, or as many as may be taken now. Returns how many bytes they were.
    fn frames(&mut self, buffer: &[u8], now: Instant) -> Result<usize, End> {
        self.held = false;
        let (mut used, mut count) = (0, 0);
        loop {
            let rest = buffer.get(used..).unwrap_or_default();
            match self.framer.next(rest).map_err(|e| End::error(e.condition()))? {
                Step::Need => return Ok(used),
                Step::Whitespace { len } | Step::Declaration { len } => used += len,
                Step::Element { len } => {
                    self.element(rest.get(..len).unwrap_or_default(), now)?;
                    used += len;
                    count += 1;
                    if self.paused.is_some() || count == BATCH {
                        self.held = true;
                        return Ok(used);
                    }
                }
                Step::Close { len } => {
                    // What was asked in front of it is answered before we close.
                    self.closing = Some(now + self.settings.limits.close);
                    return Ok(used + len);
                }
                Step::Open { .. } => return Err(End::error(StreamCondition::BadFormat)),
            }
        }
    }

    fn element(&mut self, frame: &[u8], now: Instant) -> Result<(), End> {
        match TopLevel::parse(frame, &self.scope, self.framer.limits()) {
            Ok(TopLevel::Stanza(stanza)) => {
                self.charge(now);
                self.charge_growth(&stanza, frame.len(), now);
                self.stanza(stanza)
            }
            // XEP-0198 section 3: not before it is enabled.
            Ok(TopLevel::AckRequest | TopLevel::Ack(_)) if self.sm == Sm::Off => {
                self.charge(now);
                self.refuse_sm();
                Ok(())
            }
            Ok(TopLevel::AckRequest) => {
                self.ack_request(now);
                Ok(())
            }
            Ok(TopLevel::Ack(h)) => {
                self.link.down_ack(h);
                Ok(())
            }
            Ok(TopLevel::Nonza(element)) => {
                self.charge(now);
                self.nonza(&element)
            }
            Err(stanza::Error::Malformed(malformed)) => {
                // A malformed stanza counts like any other (XEP-0198 section 4), and so does the answer: the session numbers the answer.
                self.charge(now);
                self.acks.count();
                self.link.answer(malformed.reply());
                Ok(())
            }
            Err(error) => Err(End::error(error.condition().unwrap_or(StreamCondition::BadFormat))),
        }
    }

    fn charge(&mut self, now: Instant) {
        if let Some(until) = self.meter.stanza(now, &self.settings.rates) {
            self.pause(until, "stanzas_per_second");
        }
    }

    fn charge_bytes(&mut self, bytes: usize, now: Instant) {
        if let Some(until) = self.meter.bytes(now, bytes, &self.settings.rates) {
            self.pause(until, "bytes_per_second");
        }
    }

    /// A stanza that is stored and sent on names its sender, its language and the meaning of its prefixes. Where the client wrote
    /// that once and sends little more, the client pays for what the stanza becomes.
    fn charge_growth(&mut self, stanza: &Stanza, sent: usize, now: Instant) {
        let lang = self.lang.as_ref().filter(|_| stanza.lang.is_none()).map_or(0, |lang| lang.len());
        let from = if stanza.from.is_none() { self.link.jid().as_str().len() } else { 0 };
        let grown = (stanza.size() + lang + from).saturating_sub(sent);
        if grown > 0 {
            self.charge_bytes(grown, now);
        }
    }

    fn stanza(&mut self, mut stanza: Stanza) -> Result<(), End> {
        // RFC 6120 section 8.1.2.1: the client may name itself, and nobody else. The session puts the full JID there.
        if let Some(from) = &stanza.from {
            let jid = self.link.jid();
            if from.as_str() != jid.as_str() && from.as_str() != jid.bare_str() {
                return Err(End::error(StreamCondition::InvalidFrom));
            }
        }
        // Section 8.1.5: what is for human eyes inherits the stream's language.
        if stanza.lang.is_none() && self.lang.is_some() && stanza.kind() != Kind::Iq {
            stanza.lang.clone_from(&self.lang);
        }
        self.acks.count();
        match self.establishes(&stanza) {
            true => self.link.answer(Some(stanza.result(Vec::new()))),
            false => self.link.up(stanza),
        }
        Ok(())
    }

    /// RFC 3921 section 3: old clients ask for a session. Binding has made it, so there is nothing to do but say yes.
    fn establishes(&self, stanza: &Stanza) -> bool {
        stanza.type_ == Type::Iq(IqType::Set)
            && stanza.has("session", ns::SESSION)
            && stanza.to.as_ref().is_none_or(|to| to.as_str() == self.link.jid().domain())
    }

    fn ack_request(&mut self, now: Instant) {
        match &mut self.sm {
            Sm::Off => {}
            Sm::Asked { early } => *early = true,
            Sm::On => {
                let settled = self.link.ledger().settled();
                if let Some(h) = self.acks.request(now, settled) {
                    self.write_ack(h);
                } else {
                    self.link.ledger().wait(&self.pipe);
                    self.answer_acks(now); // settled just before we began to wait
                }
            }
        }
    }

    /// Answers an `<r/>` that waits, if it is time.
    pub(super) fn answer_acks(&mut self, now: Instant) {
        if !self.acks.waiting() {
            return;
        }
        if let Some(h) = self.acks.look(now, self.link.ledger().settled()) {
            self.write_ack(h);
        }
        if self.acks.waiting() {
            self.link.ledger().wait(&self.pipe);
            if let Some(h) = self.acks.look(now, self.link.ledger().settled()) {
                self.write_ack(h);
            }
        }
    }

    /// For a client that has closed its stream: once all that it asked is settled the session closes the pipe behind the last
    /// answer. Until then this is looked at again whenever something is settled.
    pub(super) fn finish_if_settled(&mut self, now: Instant) {
        let ledger = self.link.ledger();
        let rest = |this: &Self| ledger.open() == 0 && !this.acks.waiting();
        if !rest(self) {
            ledger.wait(&self.pipe);
            self.answer_acks(now);
            if !rest(self) || !self.own.is_empty() {
                return;
            }
        }
        if !std::mem::replace(&mut self.finished, true) && !self.link.finish() {
            // The session is on another node: answers come in front of the word that they are settled, or just behind it.
            self.closing = self.closing.map(|latest| latest.min(now + GRACE));
        }
    }

    /// An `<r/>` that still waits is answered with what is settled by now.
    pub(super) fn last_ack(&mut self) {
        if self.acks.waiting() {
            self.write_ack(self.link.ledger().settled());
        }
    }

    /// XEP-0198 section 4.
    pub(super) fn write_ack(&mut self, h: u32) {
        use std::io::Write as _;
        W::Frames::element(&mut self.own, |out| drop(write!(out, "<a xmlns='urn:xmpp:sm:3' h='{h}'/>")));
    }

    /// XEP-0198 section 3: not now.
    pub(super) fn refuse_sm(&mut self) {
        W::Frames::element(&mut self.own, |out| bind::write_failed(out, "unexpected-request"));
    }
}
