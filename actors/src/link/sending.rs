//! What is written to the stream, and how it is known to have arrived.
//!
//! With XEP-0198 the other server is asked by `<r/>` and says by `<a/>` what it has. Without, it is pinged (XEP-0199): a server
//! takes what comes on a stream in order, so its answer, of any kind, says that everything before was taken.
//!
//! Whoever has sent what is in no row waits until the other server has confirmed that, for the death of this home would lose it. If the
//! other server takes its time, the stanza gets a row after all ([`late`](super::late)).

use std::time::Duration;

use rookery_cluster::store::Ops;
use rookery_cluster::tables::archive::{ArchiveId, Sent};
use rookery_cluster::tables::links;
use rookery_proto::xml::write;
use rookery_proto::xmpp::error::Condition;
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
            self.asked = Some(Asked { n: self.sent, at: Instant::now(), ping: None });
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
            if up.max_bytes.is_some_and(|max| item.size > max) {
                if let Some(item) = self.waiting.pop() {
                    self.give_one_back(item, Condition::PolicyViolation);
                }
                continue;
            }
            let n = up.sent.wrapping_add(1);
            let sent = up.numbering.map(|numbering| Sent { numbering, n });
            if sent.is_some() && item.kept == Kept::Writing {
                break; // its number is written next
            }
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
                self.failed(&Failure {
                    condition: Condition::RemoteServerTimeout,
                    permanent: false,
                    text: "the other server's count is too high".to_owned(),
                });
                self.lost = None;
            }
        }
    }

    /// Pings the other server, if it does not count and nothing is asked.
    fn ping(&mut self) {
        let Some(pair) = &self.pair else { return };
        let Stream::Up(up) = &mut self.stream else { return };
        if up.managed || up.asked.is_some() || up.unacked.is_empty() {
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
        up.asked = Some(Asked { n: up.sent, at: Instant::now(), ping: Some(id) });
    }

    /// The other server answers this one: a ping.
    pub(super) fn answered(&mut self, answer: &Stanza) {
        let Stream::Up(up) = &mut self.stream else { return };
        let asked = |up: &Up| {
            let asked = up.asked.as_ref()?;
            (asked.ping.as_deref() == answer.id.as_deref() && asked.ping.is_some()).then_some(asked.n)
        };
        let Some(n) = asked(up).filter(|_| item::is_answer(answer)) else { return };
        let items = up.confirm(n).unwrap_or_default();
        self.arrived(items);
    }

    /// The other server has these.
    fn arrived(&mut self, items: Vec<Item>) {
        if !items.is_empty() {
            self.reached = Some(Instant::now());
        }
        items.into_iter().for_each(|item| self.waiting.done(item));
    }

    /// Looks whether the other server takes too long to confirm.
    fn look_at_confirmations(&mut self) {
        let Stream::Up(up) = &mut self.stream else { return };
        let Some(asked) = up.asked.as_ref().filter(|asked| asked.at.elapsed() >= CONFIRM) else { return };
        let written = up.outbox.written();
        let taken = up.unacked.front().is_some_and(|unacked| unacked.place <= written);
        if up.managed || !taken {
            return self.failed(&Failure {
                condition: Condition::RemoteServerTimeout,
                permanent: false,
                text: "the other server did not confirm in time what it was sent".to_owned(),
            });
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
        let busy = !self.waiting.is_empty() || self.leaving.is_some();
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

/// Whether an IQ may be an answer to a link's ping.
pub(super) fn may_be_pong(stanza: &Stanza) -> bool {
    matches!(stanza.type_, Type::Iq(IqType::Result | IqType::Error))
        && stanza.id.as_ref().is_some_and(|id| id.starts_with(PING_ID))
        && stanza.from.as_ref().is_some_and(|from| from.local().is_none() && from.resource().is_none())
        && stanza.to.as_ref().is_some_and(|to| to.local().is_none() && to.resource().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_wrap() {
        assert!(covers(3, 3) && covers(3, 1) && !covers(3, 4));
        assert!(covers(1, u32::MAX) && !covers(u32::MAX, 1));
    }
}
