//! What comes in on a running stream: bytes to frames, as many as may be taken now.

use rookery_proto::xml::framer::Step;
use rookery_proto::xmpp::error::StreamCondition;
use tokio::time::Instant;

use super::conn::{self, End};
use super::running::Running;

/// How many stanzas of one stream may be on their way to being settled; then its socket is not read.
const WINDOW: usize = 256;
/// What a stream may have to say itself while the other side does not read; then the other side is not listened to either.
const OWN: usize = 64 * 1024;

impl Running {
    pub(super) fn frames(&mut self, now: Instant) -> Result<(), End> {
        let tail = std::mem::take(&mut self.io.tail);
        let mut used = 0;
        let done = self.frames_in(&tail, &mut used, now);
        self.io.tail = tail;
        if used == self.io.tail.len() {
            self.io.tail = Vec::new();
        } else {
            self.io.tail.drain(..used);
        }
        done
    }

    /// Takes all complete frames, or as many as may be taken now.
    fn frames_in(&mut self, tail: &[u8], used: &mut usize, now: Instant) -> Result<(), End> {
        while self.may_take(now) {
            let rest = tail.get(*used..).unwrap_or_default();
            match self.framer.next(rest).map_err(|e| End::error(e.condition()))? {
                Step::Need => {
                    self.held = false;
                    return Ok(());
                }
                Step::Whitespace { len } | Step::Declaration { len } => *used += len,
                Step::Element { len } => {
                    let bytes = rest.get(..len).unwrap_or_default();
                    let frame = conn::frame(bytes, &self.scope, self.framer.limits())?;
                    *used += len;
                    self.take_frame(frame, now)?;
                }
                Step::Close { len } => {
                    *used += len;
                    (self.peer_closed, self.held) = (true, false);
                    self.place.set_free(false);
                    return Ok(());
                }
                Step::Open { .. } => return Err(End::error(StreamCondition::BadFormat)),
            }
        }
        Ok(())
    }

    pub(super) fn pause(&mut self, until: Instant, limit: &'static str) {
        metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
        self.paused = Some(self.paused.map_or(until, |paused| paused.max(until)));
    }

    /// One element was taken.
    pub(super) fn charge(&mut self, now: Instant) {
        if let Some(until) = self.meter.stanza(now, &self.settings.rates) {
            self.pause(until, "federation.stanzas_per_second");
        }
    }

    /// Whether one more frame may be taken now.
    pub(super) fn may_take(&mut self, now: Instant) -> bool {
        if self.peer_closed || self.resuming.is_some() || self.own.len() > OWN {
            return false;
        }
        if self.closing.as_ref().is_some_and(|closing| !closing.said) {
            return false;
        }
        if self.paused.is_some_and(|until| until > now) {
            return false;
        }
        if self.ledger.open() < WINDOW {
            return true;
        }
        // Looked at twice, since what was settled in between wakes nobody.
        self.ledger.wait(&self.pipe);
        self.ledger.open() < WINDOW
    }

    pub(super) fn may_read(&mut self, now: Instant) -> bool {
        if self.peer_closed {
            return false;
        }
        // What another stream of the domain has sent counts as well.
        if self.paused.is_none() {
            self.paused = self.meter.due(now, &self.settings.rates);
        }
        !self.held && self.may_take(now)
    }
}
