//! What is written to the stream, and how it is known to have arrived.
//!
//! With XEP-0198 the other server is asked by `<r/>` and says by `<a/>` what it has. Without, it is pinged (XEP-0199): a server
//! takes what comes on a stream in order, so its answer says that everything before was taken. An error is such an answer too (a server
//! need not know pings), unless it says that the domain does not work now: a server that stops may have dropped what came before as well.
//!
//! What was confirmed is the other server's, and is never sent again. Should that server lose it, as ejabberd 23.01 may while it stops, this one
//! cannot know: to send again what was confirmed shortly before an end would double messages at each restart of each server without XEP-0198.
//!
//! The sender of a stanza that is in no row waits until the other server has confirmed the stanza, for the death of this home would lose it. If
//! the other server takes its time, the stanza gets a row after all ([`late`](super::late)).

use std::time::Duration;

use rookery_cluster::store::Ops;
use rookery_cluster::tables::archive::{ArchiveId, Sent};
use rookery_cluster::tables::links;
use rookery_proto::xml::write;
use rookery_proto::xmpp::error::{Condition, ErrorType};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};
use tokio::time::Instant;

use super::dialing::{Stream, Up};
use super::item::{self, Item, Kept};
use super::late::KEEP;
use super::stream::Failure;
use super::take::Step;
use super::{Link, Msg};
use crate::runtime::actor::Handle;

/// Stanzas that may be sent and not confirmed.
const WINDOW: usize = 1_000;

/// So many stanzas are not confirmed: a ping need not wait for the next second. Nor does it where a sender waits.
const PING: u32 = 100;

/// How long the other server may take to confirm.
const CONFIRM: Duration = Duration::from_secs(60);

/// Stanzas that get their numbers in one transaction, and about how many bytes.
const NUMBERED: usize = 64;
const NUMBERED_BYTES: usize = 400_000;

/// What the ids of pings begin with.
pub(super) const PING_ID: &str = "link-";

/// A stanza that was sent and is not confirmed.
pub(super) struct Unacked {
    n: u32,
    /// Its place in the outbox.
    place: u64,
    pub(super) item: Item,
}

/// The other server was asked what it has.
pub(super) struct Asked {
    /// The number of the last stanza before the question.
    n: u32,
    at: Instant,
    /// The id of the ping; none on a managed stream.
    ping: Option<String>,
    /// The answer was no proof: the next second asks again.
    refused: bool,
}

/// Whether the number `n` is among the first `h`. Numbers wrap (XEP-0198 section 4).
pub(super) fn covers(h: u32, n: u32) -> bool {
    h.wrapping_sub(n) < u32::MAX / 2
}

impl Up {
    /// What is confirmed now that the other server has `h` stanzas; `None` if it cannot have so many.
    fn confirm(&mut self, h: u32) -> Option<Vec<Item>> {
        if !covers(self.sent, h) {
            return None;
        }
        let mut items = Vec::new();
        while self.unacked.front().is_some_and(|unacked| covers(h, unacked.n)) {
            let Some(Unacked { item, .. }) = self.unacked.pop_front() else { break };
            self.unacked_bytes = self.unacked_bytes.saturating_sub(item.size);
            items.push(item);
        }
        if self.asked.as_ref().is_some_and(|asked| covers(h, asked.n)) {
            self.asked = None;
        }
        Some(items)
    }

    /// Asks what has arrived, unless that was asked already or nothing is on its way.
    fn ask(&mut self) {
        if self.managed && self.asked.is_none() && !self.unacked.is_empty() {
            self.outbox.put(|out| out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>"));
            self.asked = Some(Asked { n: self.sent, at: Instant::now(), ping: None, refused: false });
        }
    }
}

impl Link {
    /// Writes what waits, as far as the stream and the other server take it.
    pub(super) fn pump(&mut self) {
        if !self.host.has_lease() {
            return; // another home may send it by now
        }
        let memory = self.memory();
        let mut count = 0;
        while let Stream::Up(up) = &mut self.stream {
            let full = up.unacked.len() >= WINDOW || up.unacked_bytes >= memory;
            if up.numbering_now || up.held || full {
                break;
            }
            let Some(item) = self.waiting.queue.front() else { break };
            let large = up.max_bytes.is_some_and(|max| item.size > max);
            if item.kept == Kept::Writing && (large || up.numbering.is_some()) {
                break; // its row is written next
            }
            if large {
                if let Some(item) = self.waiting.pop() {
                    self.give_one_back(item, Condition::PolicyViolation);
                }
                continue;
            }
            let n = up.sent.wrapping_add(1);
            let sent = up.numbering.map(|numbering| Sent { numbering, n });
            if sent.is_some() && item.kept == Kept::Yes && item.row != sent {
                self.number();
                break;
            }
            if !up.outbox.has_room() {
                break;
            }
            let Some(mut item) = self.waiting.pop() else { break };
            let place = up.outbox.put(|out| item.stanza.write(out));
            (up.sent, item.sent) = (n, sent);
            up.unacked_bytes += item.size;
            up.owed |= item.is_owed();
            up.unacked.push_back(Unacked { n, place, item });
            count += 1;
        }
        let Stream::Up(up) = &mut self.stream else { return };
        if count > 0 {
            metrics::counter!("rookery_remote_stanzas_total", "direction" => "out").increment(count);
            up.used = Instant::now();
            up.ask();
        }
        let first = up.unacked.front().map_or(up.sent, |unacked| unacked.n);
        if !up.managed && (up.owed || up.sent.wrapping_sub(first) >= PING) {
            self.ping();
        }
    }

    /// Writes down the numbers that the next stanzas will have.
    fn number(&mut self) {
        let Stream::Up(up) = &mut self.stream else { return };
        let (Some(numbering), attempt) = (up.numbering, up.attempt) else { return };
        let (mut ops, mut rows, mut bytes) = (Ops::new(), Vec::new(), 0);
        for (n, item) in (1..).zip(self.waiting.queue.iter().take(NUMBERED)) {
            if item.kept == Kept::Writing || bytes + item.size > NUMBERED_BYTES && !rows.is_empty() {
                break;
            }
            let sent = Sent { numbering, n: up.sent.wrapping_add(n) };
            if item.kept == Kept::Yes && item.row != Some(sent) {
                if links::put_waiting(&mut ops, &self.name, item.id, &item.row(Some(sent))).is_err() {
                    break;
                }
                bytes += item.size;
                rows.push((item.id, sent));
            }
        }
        up.numbering_now = true;
        metrics::counter!("rookery_link_renumbered_total").increment(rows.len() as u64);
        if let Err(Step::Numbered { attempt, rows }) = self.submit(ops, Step::Numbered { attempt, rows }) {
            self.numbered(attempt, &rows, false);
        }
    }

    /// Numbers are written down, or could not be.
    pub(super) fn numbered(&mut self, attempt: u64, rows: &[(ArchiveId, Sent)], stored: bool) {
        if let Stream::Up(up) = &mut self.stream
            && up.attempt == attempt
        {
            (up.numbering_now, up.held) = (false, !stored);
        }
        if stored {
            let mut rows = rows.iter().peekable();
            for item in &mut self.waiting.queue {
                while rows.peek().is_some_and(|(id, _)| *id < item.id) {
                    rows.next();
                }
                if let Some((_, sent)) = rows.next_if(|(id, _)| *id == item.id) {
                    item.row = Some(*sent);
                }
            }
        } else {
            // Nobody knows what the rows say: before they are sent, they are written.
            for item in self.waiting.queue.iter_mut().take(NUMBERED) {
                item.row = None;
            }
        }
    }

    /// The peer's `<a/>` is there.
    pub(super) fn stream_confirmed(&mut self) {
        let Stream::Up(up) = &mut self.stream else { return };
        let Some(h) = up.outbox.confirmed().filter(|_| up.managed) else { return };
        match up.confirm(h) {
            Some(items) => {
                up.ask();
                self.arrived(items);
            }
            None => {
                tracing::info!(link = %self.name, h, sent = up.sent, "another server confirms stanzas that it was never sent; the stream is closed");
                self.failed(&Failure::passing("the other server's count is too high"));
                self.lost = None;
            }
        }
    }

    /// Pings the other server, if it does not count and nothing is asked.
    fn ping(&mut self) {
        let Some(pair) = &self.pair else { return };
        let Stream::Up(up) = &mut self.stream else { return };
        let waits = up.asked.as_ref().is_some_and(|asked| !asked.refused);
        if up.managed || waits || up.unacked.is_empty() {
            return;
        }
        let id = format!("{PING_ID}{}", self.host.random_id());
        let payload = write::bytes(|w| {
            w.start("ping", ns::PING);
        });
        let ping = Stanza::new(IqType::Get)
            .from(pair.local().clone())
            .to(pair.remote().clone())
            .id(id.as_str())
            .payload(payload);
        up.outbox.put(|out| ping.write(out));
        up.owed = false;
        // A server that never says more than that it does not work is waited for as long as one that says nothing.
        let at = up.asked.as_ref().map_or_else(Instant::now, |asked| asked.at);
        up.asked = Some(Asked { n: up.sent, at, ping: Some(id), refused: false });
    }

    /// The other server answers this one: a ping.
    pub(super) fn answered(&mut self, answer: &Stanza) {
        let Stream::Up(up) = &mut self.stream else { return };
        let asked = |up: &Up| {
            let asked = up.asked.as_ref()?;
            (asked.ping.as_deref() == answer.id.as_deref() && asked.ping.is_some()).then_some(asked.n)
        };
        let Some(n) = asked(up).filter(|_| item::is_answer(answer)) else { return };
        if !is_proof(answer) {
            let error = answer.error().map(|error| error.condition.name().to_string());
            tracing::debug!(link = %self.name, error, "another server answers a ping, but does not work: nothing is confirmed by that");
            if let Some(asked) = &mut up.asked {
                asked.refused = true;
            }
            return;
        }
        let items = up.confirm(n).unwrap_or_default();
        self.arrived(items);
    }

    /// The other server has these.
    fn arrived(&mut self, items: Vec<Item>) {
        let mut ids = items.iter().filter_map(|item| item.stanza.id.as_deref());
        let first = ids.next();
        let last = ids.next_back().or(first);
        tracing::trace!(link = %self.name, stanzas = items.len(), first, last, "another server has confirmed what it was sent");
        self.reached = (!items.is_empty()).then(Instant::now).or(self.reached);
        items.into_iter().for_each(|item| self.waiting.done(item));
    }

    /// Looks whether the other server takes too long to confirm.
    fn look_at_confirmations(&mut self) {
        let Stream::Up(up) = &mut self.stream else { return };
        let Some(asked) = up.asked.as_ref().filter(|asked| asked.at.elapsed() >= CONFIRM) else { return };
        let written = up.outbox.written();
        let taken = up.unacked.front().is_some_and(|unacked| unacked.place <= written);
        if up.managed || !taken {
            return self
                .failed(&Failure::passing("the other server did not confirm in time what it was sent"));
        }
        // A server that cannot reach this one cannot answer. What has left the socket, and the stream lives: nobody will say more.
        let asked = asked.n;
        let last = up
            .unacked
            .iter()
            .take_while(|unacked| unacked.place <= written && covers(asked, unacked.n))
            .last();
        let n = last.map_or(asked, |unacked| unacked.n);
        up.asked = None;
        let items = up.confirm(n).unwrap_or_default();
        metrics::counter!("rookery_link_unproven_total").increment(items.len() as u64);
        self.arrived(items);
    }

    /// The timer has run out.
    pub(super) fn tick(&mut self, number: u64) {
        if number != self.timer.number {
            return;
        }
        self.timer.due = None;
        self.waiting.second();
        self.look_at_dialer();
        self.look_at_confirmations();
        self.return_again();
        self.keep_late(KEEP);
        self.tell_untold();
        self.prune();
        let idle = self.options().idle;
        let mut closes = false;
        if let Stream::Up(up) = &mut self.stream {
            up.held = false;
            up.ask();
            closes = up.unacked.is_empty()
                && up.used.elapsed() >= idle
                && !self.waiting.has_some()
                && self.settling == 0;
        }
        self.ping();
        self.remove_confirmed(true);
        if closes {
            self.close();
        }
    }

    /// Asks for the next tick: in a second if something is under way; else when the stream has been idle for long.
    pub(super) fn want_tick(&mut self) {
        let idle = self.options().idle;
        let busy = self.is_busy() || self.leaving.is_some();
        let delay = match &self.stream {
            Stream::Up(up) if !busy && up.unacked.is_empty() => idle.saturating_sub(up.used.elapsed()),
            Stream::Down if !busy => return,
            _ => Duration::from_secs(1),
        };
        let due = Instant::now() + delay;
        if self.timer.due.is_some_and(|before| before <= due) {
            return;
        }
        self.timer.number += 1;
        self.timer.due = Some(due);
        let (number, Some(me)) = (self.timer.number, self.me.as_ref().map(Handle::downgrade)) else { return };
        self.host.wheel().after(delay, move || {
            if let Some(me) = me.upgrade() {
                let _ = me.cast_always(Msg::Tick(number));
            }
        });
    }
}

/// Whether the answer to a ping says that the other server takes what comes.
fn is_proof(answer: &Stanza) -> bool {
    use Condition::{InternalServerError, RemoteServerNotFound, RemoteServerTimeout};
    answer.error().is_none_or(|error| {
        let works =
            !matches!(error.condition, InternalServerError | RemoteServerNotFound | RemoteServerTimeout);
        works && error.type_ != ErrorType::Wait
    })
}

/// Whether an IQ may be an answer to a link's ping.
pub(super) fn may_be_pong(stanza: &Stanza) -> bool {
    matches!(stanza.type_, Type::Iq(IqType::Result | IqType::Error))
        && stanza.id.as_ref().is_some_and(|id| id.starts_with(PING_ID))
        && stanza.from.as_ref().is_some_and(|from| from.local().is_none() && from.resource().is_none())
        && stanza.to.as_ref().is_some_and(|to| to.local().is_none() && to.resource().is_none())
}

#[cfg(test)]
mod tests {
    use rookery_proto::xmpp::error::StanzaError;

    use super::*;

    #[test]
    fn an_error_proves_that_a_server_takes_stanzas_unless_it_says_that_it_does_not() {
        let ping = Stanza::new(IqType::Get).id("link-1");
        let answer = |error: StanzaError| ping.error_reply(&error).unwrap();
        assert!(is_proof(&Stanza::new(IqType::Result)));
        for (condition, proves) in [
            (Condition::ServiceUnavailable, true),
            (Condition::FeatureNotImplemented, true),
            (Condition::NotAllowed, true),
            (Condition::RemoteServerNotFound, false),
            (Condition::RemoteServerTimeout, false),
            (Condition::InternalServerError, false),
            (Condition::ResourceConstraint, false),
        ] {
            assert_eq!(is_proof(&answer(StanzaError::new(condition))), proves, "{condition:?}");
        }
        let later = StanzaError::new(Condition::ServiceUnavailable).type_(ErrorType::Wait);
        assert!(!is_proof(&answer(later)));
    }

    #[test]
    fn counts_wrap() {
        assert!(covers(3, 3) && covers(3, 1) && !covers(3, 4));
        assert!(covers(1, u32::MAX) && !covers(u32::MAX, 1));
    }
}
