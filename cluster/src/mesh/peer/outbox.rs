//! The sender's half of the channel to one node, without I/O: what waits, what is on its way, which credit is left.
//!
//! Numbers grow by one with each envelope accepted. What is sent stays here until its outcome comes; on a new stream to
//! the same generation everything above the number that the peer has taken is sent again, in order, before anything
//! else. Credit is what the peer's window leaves beside what is sent and without an outcome, so it needs no messages
//! of its own: it comes back with outcomes.
//!
//! Length: numbers, credit and outcomes are one state, and every step keeps all three in agreement.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;

use rookery_rpc::mesh::v1 as wire;

use super::envelope::{ENVELOPE_MAX, Envelope, Outcome, Refused, Why};
use super::node::NodeId;
use super::options::{Limit, Options};
use crate::invariant;

/// Is told what became of an envelope.
pub(super) type OnOutcome = Box<dyn FnOnce(Outcome) + Send>;

/// What has been settled, to be told when no lock is held.
pub(super) type Settled = Vec<(OnOutcome, Outcome)>;

/// Numbers of [`wire::Back`] are confirmed by themselves, when nothing else goes that way, after so many messages …
const CONFIRM_MESSAGES: u64 = 16;
/// … or so many bytes of replies.
const CONFIRM_BYTES: usize = 128 * 1024;

/// What goes next on a stream.
pub(super) enum Next<T> {
    /// This.
    Message(T),
    /// Nothing now; the waker is kept.
    Nothing,
    /// Nothing that would not wait a little for more; the waker is kept.
    Later,
    /// Nothing ever: the stream is not the one any more.
    Over,
}

struct Entry {
    envelope: Envelope,
    size: usize,
    /// `None`: its sender was told that it is lost, but the peer may have it and it takes credit.
    on_outcome: Option<OnOutcome>,
}

/// What a message to be sent holds, for the meters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) envelopes: u64,
    pub(super) bytes: u64,
    pub(super) again: u64,
}

/// How full it is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) waiting: usize,
    pub(super) waiting_bytes: usize,
    pub(super) sent: usize,
    pub(super) sent_bytes: usize,
}

/// See the module.
pub(super) struct Outbox {
    limit: Limit,
    batch: Limit,
    queue: VecDeque<Entry>,
    sent: BTreeMap<u64, Entry>,
    level: Level,
    /// The number of the next envelope.
    next: u64,
    /// The stream that is attached, and whether the peer has greeted on it.
    stream: Option<u64>,
    streams: u64,
    greeted: bool,
    /// What is sent has to go again on this stream from this number on.
    resend: Option<u64>,
    window: Limit,
    /// The generation of the peer that took what is sent.
    pub(super) generation: Option<u64>,
    seen: u64,
    seen_said: u64,
    unsaid_bytes: usize,
    pings: Vec<u64>,
    probes: Vec<wire::Probe>,
    /// The task that sends, when it has nothing to send.
    waker: Option<Waker>,
    closed: bool,
    /// Somebody waits for room.
    pub(super) was_full: bool,
}

impl Outbox {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            limit: options.queue,
            batch: options.batch,
            queue: VecDeque::new(),
            sent: BTreeMap::new(),
            level: Level::default(),
            next: 1,
            stream: None,
            streams: 0,
            greeted: false,
            resend: None,
            window: Limit { envelopes: 0, bytes: 0 },
            generation: None,
            seen: 0,
            seen_said: 0,
            unsaid_bytes: 0,
            pings: Vec::new(),
            probes: Vec::new(),
            waker: None,
            closed: false,
            was_full: false,
        }
    }

    /// Takes an envelope, or gives it back. The waker is of the task that has to send it.
    pub(super) fn push<F>(
        &mut self,
        mut envelope: Envelope,
        on_outcome: F,
    ) -> Result<Option<Waker>, Refused<F>>
    where
        F: FnOnce(Outcome) + Send + 'static,
    {
        let size = envelope.size();
        let why = if self.closed {
            Why::Closed
        } else if size > ENVELOPE_MAX {
            Why::TooLarge { size }
        } else if !self.has_room(size) {
            self.was_full = true;
            Why::Full
        } else {
            envelope.number = self.next;
            self.next += 1;
            self.level.waiting += 1;
            self.level.waiting_bytes += size;
            self.queue.push_back(Entry { envelope, size, on_outcome: Some(Box::new(on_outcome)) });
            return Ok(if self.may_send() { self.waker.take() } else { None });
        };
        Err(Refused { envelope, on_outcome, why })
    }

    /// Whether an envelope of that size would be taken. One alone always is.
    pub(super) fn has_room(&self, size: usize) -> bool {
        let Level { waiting, waiting_bytes, sent, sent_bytes } = self.level;
        let bytes = waiting_bytes + sent_bytes;
        waiting + sent < self.limit.envelopes && (bytes == 0 || bytes + size <= self.limit.bytes)
    }

    /// Whether a connection is wanted.
    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty() || !self.sent.is_empty() || !self.pings.is_empty() || !self.probes.is_empty()
    }

    /// What waits, and what is on its way, is what was counted.
    fn check_level(&self) {
        let Level { waiting, waiting_bytes, sent, sent_bytes } = self.level;
        let numbers = waiting == self.queue.len() && sent == self.sent.len();
        let bytes = (waiting > 0 || waiting_bytes == 0) && (sent > 0 || sent_bytes == 0);
        invariant!("outbox_counted", numbers && bytes, "{:?}", self.level);
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether envelopes wait that the peer's window does not let through.
    pub(super) fn is_stalled(&self) -> bool {
        self.greeted && self.resend.is_none() && self.queue.front().is_some_and(|next| !self.fits(next.size))
    }

    fn fits(&self, size: usize) -> bool {
        let Level { sent, sent_bytes, .. } = self.level;
        sent < self.window.envelopes && (sent == 0 || sent_bytes + size <= self.window.bytes)
    }

    fn may_send(&self) -> bool {
        self.greeted
            && (self.resend.is_some()
                || !self.pings.is_empty()
                || !self.probes.is_empty()
                || self.seen - self.seen_said >= CONFIRM_MESSAGES
                || self.unsaid_bytes >= CONFIRM_BYTES
                || self.queue.front().is_some_and(|next| self.fits(next.size)))
    }

    /// Adds a ping; `false` if there is no stream.
    pub(super) fn ping(&mut self, number: u64) -> (bool, Option<Waker>) {
        if self.greeted {
            self.pings.push(number);
        }
        (self.greeted, self.waker.take())
    }

    /// Adds a question about a third node; `false` if there is no stream.
    pub(super) fn probe(&mut self, probe: wire::Probe) -> (bool, Option<Waker>) {
        if self.greeted {
            self.probes.push(probe);
        }
        (self.greeted, self.waker.take())
    }

    /// A new stream, which takes the place of the one before. Nothing but the greeting goes until the peer's came.
    pub(super) fn attach(&mut self) -> u64 {
        self.detach_quietly();
        self.streams += 1;
        self.stream = Some(self.streams);
        self.streams
    }

    /// The stream is gone. Its task must be woken, to end.
    pub(super) fn detach(&mut self) -> Option<Waker> {
        self.detach_quietly();
        self.waker.take()
    }

    fn detach_quietly(&mut self) {
        self.stream = None;
        self.greeted = false;
        self.resend = None;
        self.pings.clear();
        self.probes.clear();
    }

    /// The peer of `generation` greets: it has taken everything up to `taken_to` and lets `window` be open. What cannot
    /// be known any more is lost.
    pub(super) fn greet(
        &mut self,
        generation: u64,
        resumed: bool,
        taken_to: u64,
        window: Limit,
    ) -> Result<(Settled, Option<Waker>), &'static str> {
        if taken_to >= self.next {
            return Err("a number was taken that was never sent");
        }
        let knows = self.generation == Some(generation) && resumed;
        let mut settled = Settled::new();
        if !knows {
            if self.generation.is_some() {
                settled = self.lose();
                self.forget_sent();
            }
            (self.seen, self.seen_said, self.unsaid_bytes) = (0, 0, 0);
        }
        self.generation = Some(generation);
        self.window = window;
        self.greeted = true;
        // What was given up and has not arrived never will.
        let given_up: Vec<u64> = self
            .sent
            .range(taken_to.saturating_add(1)..)
            .filter_map(|(number, entry)| entry.on_outcome.is_none().then_some(*number))
            .collect();
        for number in given_up {
            self.remove_sent(number);
        }
        self.resend = self.sent.range(taken_to.saturating_add(1)..).next().map(|(number, _)| *number);
        Ok((settled, self.waker.take()))
    }

    /// Everything is lost: the peer is dead, or out of reach for too long.
    pub(super) fn lose(&mut self) -> Settled {
        let mut settled = Settled::new();
        for entry in self.sent.values_mut() {
            if let Some(on_outcome) = entry.on_outcome.take() {
                settled.push((on_outcome, Outcome::Lost));
                entry.envelope.body.clear();
            }
        }
        for entry in self.queue.drain(..) {
            settled.extend(entry.on_outcome.map(|on_outcome| (on_outcome, Outcome::Lost)));
        }
        (self.level.waiting, self.level.waiting_bytes) = (0, 0);
        self.check_level();
        settled
    }

    /// The peer is dead: what it had is lost, and the next process under its name knows nothing of it.
    pub(super) fn bury(&mut self) -> Settled {
        let settled = self.lose();
        self.forget_sent();
        self.generation = None;
        settled
    }

    /// Nothing is taken any more.
    pub(super) fn close(&mut self) -> Settled {
        self.closed = true;
        self.bury()
    }

    /// Nobody has what was sent any more.
    fn forget_sent(&mut self) {
        self.sent.clear();
        self.resend = None;
        (self.level.sent, self.level.sent_bytes) = (0, 0);
    }

    fn remove_sent(&mut self, number: u64) -> Option<Entry> {
        let entry = self.sent.remove(&number)?;
        self.level.sent -= 1;
        self.level.sent_bytes -= entry.size;
        Some(entry)
    }

    /// The next message of stream `stream`.
    pub(super) fn next(&mut self, stream: u64, waker: &Waker) -> Next<(wire::Forth, Load)> {
        if self.stream != Some(stream) {
            return Next::Over;
        }
        if !self.may_send() {
            self.waker = Some(waker.clone());
            return Next::Nothing;
        }
        let mut load = Load::default();
        let mut envelopes = Vec::new();
        let mut bytes = 0;
        let batch = self.batch;
        let full = |count: usize, bytes: usize, size: usize| {
            count >= batch.envelopes || (count > 0 && bytes + size > batch.bytes)
        };
        if let Some(from) = self.resend {
            self.resend = None;
            for (number, entry) in self.sent.range(from..) {
                if full(envelopes.len(), bytes, entry.size) {
                    self.resend = Some(*number);
                    break;
                }
                bytes += entry.size;
                envelopes.push(entry.envelope.to_wire());
            }
            load.again = envelopes.len() as u64;
        }
        while self.resend.is_none()
            && self
                .queue
                .front()
                .is_some_and(|next| self.fits(next.size) && !full(envelopes.len(), bytes, next.size))
            && let Some(entry) = self.queue.pop_front()
        {
            bytes += entry.size;
            self.level.waiting -= 1;
            self.level.waiting_bytes -= entry.size;
            self.level.sent += 1;
            self.level.sent_bytes += entry.size;
            envelopes.push(entry.envelope.to_wire());
            self.sent.insert(entry.envelope.number, entry);
        }
        self.check_level();
        (load.envelopes, load.bytes) = (envelopes.len() as u64, bytes as u64);
        (self.seen_said, self.unsaid_bytes) = (self.seen, 0);
        let forth = wire::Forth {
            hello: None,
            envelopes,
            seen: self.seen,
            pings: std::mem::take(&mut self.pings),
            probes: std::mem::take(&mut self.probes),
        };
        Next::Message((forth, load))
    }

    /// What the peer says about envelopes; `Err` if it makes no sense.
    pub(super) fn settle(&mut self, back: wire::Back) -> Result<(Settled, Option<Waker>), &'static str> {
        let mut settled = Settled::new();
        if back.number == 0 {
            return Ok((settled, None));
        }
        if back.number <= self.seen {
            return Ok((settled, None)); // sent again on a new stream, and had
        }
        if back.number != self.seen + 1 {
            return Err("a number of outcomes is missing");
        }
        self.seen = back.number;
        let mut known: Vec<(u64, Outcome)> = Vec::with_capacity(back.outcomes.len());
        let (pairs, rest) = back.taken.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("an odd number of numbers");
        }
        for [first, count] in pairs {
            // Only what is here is looked at, whatever the peer says.
            let numbers = self.sent.range(*first..first.saturating_add(*count)).map(|(number, _)| *number);
            known.extend(numbers.map(|number| (number, Outcome::Taken(bytes::Bytes::new()))));
        }
        for outcome in back.outcomes {
            let number = outcome.number;
            let outcome = match outcome.what {
                Some(wire::outcome::What::Reply(reply)) => {
                    self.unsaid_bytes += reply.len();
                    Outcome::Taken(reply)
                }
                Some(wire::outcome::What::NotOwner(not)) => {
                    Outcome::NotOwner { epoch: not.epoch, hint: NodeId::new(&not.hint).ok() }
                }
                // What a newer node may say and this one does not know: nobody knows.
                Some(wire::outcome::What::Lost(_)) | None => Outcome::Lost,
            };
            known.push((number, outcome));
        }
        // Those of one entity are told in the order they were sent in.
        known.sort_by_key(|(number, _)| *number);
        settled.reserve(known.len());
        for (number, outcome) in known {
            if let Some(on_outcome) = self.remove_sent(number).and_then(|entry| entry.on_outcome) {
                settled.push((on_outcome, outcome));
            }
        }
        self.check_level();
        let waker = if self.may_send() { self.waker.take() } else { None };
        Ok((settled, waker))
    }
}
