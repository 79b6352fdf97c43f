//! The receiver's half of the channel from one node, without I/O: what has been taken, what has become of it, and which
//! outcomes the sender has not confirmed.
//!
//! Envelopes come in the order of their numbers; a number that is not above the highest taken is dropped, so that what
//! is sent again after a break is taken once. An outcome is kept until the sender confirms the message it was in, and
//! is sent again on a new stream. All that is bounded by the window: an envelope counts against it until its outcome is
//! on its way, and outcomes do not go out while too many are not confirmed.
//!
//! Length: what was taken, its outcomes and the window are one state, and every step keeps all three in agreement.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use parking_lot::Mutex;
use rookery_rpc::mesh::v1 as wire;

use super::Receiver;
use super::envelope::{Envelope, MESSAGE_MAX, REPLY_MAX};
use super::node::NodeId;
use super::options::Limit;
use super::outbox::Next;
use crate::invariant;

/// Messages of outcomes that may be without a confirmation.
const UNCONFIRMED_MESSAGES: usize = 256;
/// Bytes of replies that may be so, unless one alone is larger.
const UNCONFIRMED_BYTES: usize = 2 * MESSAGE_MAX;
/// The most outcomes, and bytes of replies, of one message; a last reply may go beyond.
const BATCH_OUTCOMES: usize = 1024;
const BATCH_BYTES: usize = 64 * 1024;
/// Pings and questions whose answers wait. A peer that sends more without reading does not get them answered.
const ANSWERS: usize = 256;

enum What {
    Taken,
    Other(wire::outcome::What, usize),
}

struct Out {
    stream: Option<u64>,
    streams: u64,
    /// Envelopes without an outcome that is on its way.
    open: usize,
    open_bytes: usize,
    ready: VecDeque<(u64, usize, What)>,
    /// There is more among `ready` than what may wait for others.
    urgent: bool,
    /// The task that sends knows that something waits, and looks at the clock.
    timed: bool,
    unconfirmed: VecDeque<(wire::Back, usize)>,
    unconfirmed_bytes: usize,
    /// How many of `unconfirmed` have gone on this stream.
    gone: usize,
    number: u64,
    pongs: Vec<u64>,
    unwell: Vec<u64>,
    probed: Vec<wire::Probed>,
    waker: Option<Waker>,
    closed: bool,
}

/// See the module.
pub(super) struct Inbox {
    pub(super) from: NodeId,
    pub(super) generation: u64,
    pub(super) numbering: u64,
    window: Limit,
    /// The highest number taken. Locked while envelopes are handed on, so that two streams never mix.
    taken_to: Mutex<u64>,
    out: Mutex<Out>,
}

/// No fault: the caller has begun anew, or this node has closed.
pub(super) const REPLACED: &str = "the stream was closed, or another took its place";

/// What a message brought, for the meters.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Brought {
    pub(super) envelopes: u64,
    pub(super) bytes: u64,
    pub(super) again: u64,
}

impl Inbox {
    pub(super) fn new(from: NodeId, generation: u64, numbering: u64, window: Limit) -> Self {
        Self {
            from,
            generation,
            numbering,
            window,
            taken_to: Mutex::new(0),
            out: Mutex::new(Out {
                stream: None,
                streams: 0,
                open: 0,
                open_bytes: 0,
                ready: VecDeque::new(),
                urgent: false,
                timed: false,
                unconfirmed: VecDeque::new(),
                unconfirmed_bytes: 0,
                gone: 0,
                number: 0,
                pongs: Vec::new(),
                unwell: Vec::new(),
                probed: Vec::new(),
                waker: None,
                closed: false,
            }),
        }
    }

    /// A new stream takes the place of the one before: its number, and the highest number taken. The sender has the
    /// outcomes up to `seen`.
    pub(super) fn attach(&self, seen: u64) -> (u64, u64) {
        // Waits until the stream before has handed on what it was handing on.
        let taken_to = self.taken_to.lock();
        let mut out = self.out.lock();
        out.streams += 1;
        let stream = out.streams;
        out.stream = (!out.closed).then_some(stream);
        out.confirm(seen);
        out.gone = 0;
        out.pongs.clear();
        out.unwell.clear();
        out.probed.clear();
        let waker = out.waker.take();
        drop(out);
        wake(waker);
        (stream, *taken_to)
    }

    /// Stream `stream` is gone, if it was still the one.
    pub(super) fn detach(&self, stream: u64) {
        let mut out = self.out.lock();
        if out.stream == Some(stream) {
            out.stream = None;
        }
        let waker = out.waker.take();
        drop(out);
        wake(waker);
    }

    /// The sender is dead or begins anew: its stream ends, outcomes go nowhere.
    pub(super) fn close(&self) {
        let mut out = self.out.lock();
        out.closed = true;
        out.stream = None;
        out.ready.clear();
        out.unconfirmed.clear();
        out.unconfirmed_bytes = 0;
        let waker = out.waker.take();
        drop(out);
        wake(waker);
    }

    /// Hands on what stream `stream` brought. `Err` ends the stream: it is not the one any more, or what came breaks the
    /// rules.
    pub(super) fn take(
        self: &Arc<Self>,
        stream: u64,
        forth: wire::Forth,
        receiver: &dyn Receiver,
    ) -> Result<Brought, &'static str> {
        let mut brought = Brought::default();
        let mut taken_to = self.taken_to.lock();
        if self.out.lock().stream != Some(stream) {
            return Err(REPLACED);
        }
        let well = forth.pings.is_empty() || receiver.is_well();
        self.answer(|out| {
            out.confirm(forth.seen);
            let pongs = if well { &mut out.pongs } else { &mut out.unwell };
            let room = ANSWERS.saturating_sub(pongs.len());
            pongs.extend(forth.pings.iter().take(room));
            !forth.pings.is_empty() || out.may_send()
        });
        for envelope in forth.envelopes {
            let Some(envelope) = Envelope::from_wire(envelope) else { return Err("no such shard") };
            let size = envelope.size();
            if envelope.number <= *taken_to {
                brought.again += 1;
                continue;
            }
            {
                let mut out = self.out.lock();
                let open = out.open;
                if out.stream != Some(stream) {
                    return Err(REPLACED);
                }
                if open >= self.window.envelopes || (open > 0 && out.open_bytes + size > self.window.bytes) {
                    return Err("more than the window allows");
                }
                out.open += 1;
                out.open_bytes += size;
            }
            *taken_to = envelope.number;
            brought.envelopes += 1;
            brought.bytes += size as u64;
            let done = Done { inbox: Arc::clone(self), number: envelope.number, size, said: false };
            receiver.take(&self.from, envelope, done);
        }
        Ok(brought)
    }

    /// The answer to a question about another node.
    pub(super) fn probed(&self, probed: wire::Probed) {
        self.answer(|out| {
            let room = out.probed.len() < ANSWERS;
            if room {
                out.probed.push(probed);
            }
            room
        });
    }

    /// The next message of stream `stream`; with `now`, also of what may wait for others.
    pub(super) fn next(&self, stream: u64, waker: &Waker, now: bool) -> Next<wire::Back> {
        let mut out = self.out.lock();
        if out.stream != Some(stream) {
            return Next::Over;
        }
        out.timed = !now && out.may_wait();
        if !out.timed
            && let Some(back) = out.next()
        {
            return Next::Message(back);
        }
        out.waker = Some(waker.clone());
        if out.timed { Next::Later } else { Next::Nothing }
    }

    fn answer(&self, change: impl FnOnce(&mut Out) -> bool) {
        let mut out = self.out.lock();
        let waker = if change(&mut out) { out.waker.take() } else { None };
        drop(out);
        wake(waker);
    }

    fn say(&self, number: u64, size: usize, what: What) {
        self.answer(|out| {
            if out.closed {
                return false;
            }
            // A quarter of the window: the sender must not stand still for it.
            out.urgent |= !matches!(what, What::Taken)
                || out.ready.len() >= self.window.envelopes / 4
                || out.open_bytes > self.window.bytes / 4;
            out.ready.push_back((number, size, what));
            // Each envelope has one outcome, so there are never more outcomes than envelopes without one.
            let (open, ready) = (out.open, out.ready.len());
            invariant!("inbox_one_outcome", ready <= open, "{ready} outcomes of {open} envelopes");
            out.may_send() && (out.urgent || !out.timed)
        });
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Out {
    fn confirm(&mut self, seen: u64) {
        while self.unconfirmed.front().is_some_and(|(back, _)| back.number <= seen)
            && let Some((_, bytes)) = self.unconfirmed.pop_front()
        {
            self.unconfirmed_bytes -= bytes;
            self.gone = self.gone.saturating_sub(1);
        }
        let counted = !self.unconfirmed.is_empty() || self.unconfirmed_bytes == 0;
        invariant!("inbox_counted", counted, "{} bytes of nothing", self.unconfirmed_bytes);
    }

    fn may_confirm_more(&self) -> bool {
        self.unconfirmed.len() < UNCONFIRMED_MESSAGES && self.unconfirmed_bytes < UNCONFIRMED_BYTES
    }

    /// Whether nothing is to be said but that something was taken.
    fn may_wait(&self) -> bool {
        let answers = self.pongs.len() + self.unwell.len() + self.probed.len();
        self.gone == self.unconfirmed.len() && !self.ready.is_empty() && !self.urgent && answers == 0
    }

    fn may_send(&self) -> bool {
        self.gone < self.unconfirmed.len()
            || (!self.ready.is_empty() && self.may_confirm_more())
            || !self.pongs.is_empty()
            || !self.unwell.is_empty()
            || !self.probed.is_empty()
    }

    fn next(&mut self) -> Option<wire::Back> {
        let mut back = wire::Back::default();
        if let Some((again, _)) = self.unconfirmed.get(self.gone) {
            back = again.clone();
            self.gone += 1;
        } else if !self.ready.is_empty() && self.may_confirm_more() {
            back = self.batch();
            self.gone += 1;
        }
        back.pongs = std::mem::take(&mut self.pongs);
        back.unwell = std::mem::take(&mut self.unwell);
        back.probed = std::mem::take(&mut self.probed);
        let answers = back.pongs.len() + back.unwell.len() + back.probed.len();
        (back.number > 0 || answers > 0).then_some(back)
    }

    /// As many outcomes as fit into a message, which is kept until it is confirmed.
    fn batch(&mut self) -> wire::Back {
        self.number += 1;
        let mut back = wire::Back { number: self.number, ..wire::Back::default() };
        let mut taken = Vec::new();
        let (mut count, mut bytes) = (0, 0);
        while count < BATCH_OUTCOMES
            && bytes < BATCH_BYTES
            && let Some((number, size, what)) = self.ready.pop_front()
        {
            count += 1;
            self.open -= 1;
            self.open_bytes -= size;
            match what {
                What::Taken => taken.push(number),
                What::Other(what, reply) => {
                    bytes += reply;
                    back.outcomes.push(wire::Outcome { number, what: Some(what) });
                }
            }
        }
        self.urgent &= !self.ready.is_empty();
        back.taken = ranges(taken);
        self.unconfirmed_bytes += bytes;
        self.unconfirmed.push_back((back.clone(), bytes));
        back
    }
}

/// Numbers as pairs of a first one and how many follow it.
fn ranges(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    let mut pairs: Vec<u64> = Vec::new();
    for number in numbers {
        match pairs.as_mut_slice() {
            [.., first, count] if *first + *count == number => *count += 1,
            _ => pairs.extend([number, 1]),
        }
    }
    pairs
}

/// The duty to say what became of an envelope. Dropped without a word, the sender is told
/// [`Lost`](super::Outcome::Lost). The sender's credit comes back with it.
#[must_use = "dropped, it tells the sender that the envelope is lost"]
pub struct Done {
    inbox: Arc<Inbox>,
    number: u64,
    size: usize,
    said: bool,
}

impl Done {
    /// The envelope is taken: it need not be sent again, whatever happens to the connection.
    pub fn taken(mut self) {
        self.say(What::Taken);
    }

    /// Taken, and here is the answer.
    ///
    /// # Errors
    /// The reply itself if it is larger than [`REPLY_MAX`]; the sender gets an empty one then.
    pub fn reply(mut self, reply: Bytes) -> Result<(), Bytes> {
        if reply.is_empty() || reply.len() > REPLY_MAX {
            self.say(What::Taken);
            return if reply.is_empty() { Ok(()) } else { Err(reply) };
        }
        let bytes = reply.len();
        self.say(What::Other(wire::outcome::What::Reply(reply), bytes));
        Ok(())
    }

    /// This node is not the home of the shard: the newest epoch that it knows, and the node it takes for the home.
    pub fn not_owner(mut self, epoch: u64, hint: Option<&NodeId>) {
        let hint = hint.map(|hint| hint.as_str().to_owned()).unwrap_or_default();
        let bytes = hint.len();
        self.say(What::Other(wire::outcome::What::NotOwner(wire::NotOwner { epoch, hint }), bytes));
    }

    /// The generation of the node that sent the envelope.
    pub fn generation(&self) -> u64 {
        self.inbox.generation
    }

    fn say(&mut self, what: What) {
        if !std::mem::replace(&mut self.said, true) {
            self.inbox.say(self.number, self.size, what);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.say(What::Other(wire::outcome::What::Lost(true), 0));
    }
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done")
            .field("from", &self.inbox.from)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}
