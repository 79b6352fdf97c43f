//! XEP-0198 Stream Management, version 1.6.2: numbers, acknowledgements, resumption. The connection answers `<r/>`
//! from the ledger; everything about what goes down to the client is here.
//!
//! Length: the numbers, the queue and the marks are one state, and every step keeps all three in agreement.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use rookery_cluster::invariant;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::sessions;
use rookery_proto::xml::write;
use rookery_proto::xmpp::ns;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::roster::Has;
use super::timers::Timers;
use super::{Event, Session, SessionId};
use crate::connection::budget::MOVED;
use crate::connection::ledger::Receipt;
use crate::connection::left_behind::LeftBehind;
use crate::connection::pipe::{Close, Down, Kept, Outgoing};
use crate::host::options::Limits;

/// A stanza that the client has not confirmed.
pub(crate) struct Unacked {
    pub(crate) outgoing: Outgoing,
    /// Where it lies; in the offline queue also if it was put there because the client took long.
    pub(crate) kept: Kept,
    pub(crate) receipt: Receipt,
    bytes: usize,
    /// A request that the client has answered.
    pub(crate) answered: bool,
    /// The client's stanza that it answers, or the first of them.
    pub(super) answers: Option<u32>,
    /// The stanza has waited for a tick.
    pub(super) aged: bool,
    /// Somebody else answers for it: it is on its way into the offline queue.
    pub(super) safe: bool,
}

impl Unacked {
    /// One that is about to be sent, or came too late for that.
    pub(crate) fn new(outgoing: Outgoing, kept: Kept, receipt: Receipt) -> Self {
        let bytes = outgoing.size();
        Self { bytes, outgoing, kept, receipt, answered: false, answers: None, aged: false, safe: false }
    }

    /// What it takes of a message between two nodes, about, bytes.
    fn counted(&self) -> usize {
        self.bytes + OVERHEAD
    }

    /// What the client is to get.
    pub(super) fn stanza(&self) -> &rookery_proto::xmpp::stanza::Stanza {
        &self.outgoing.stanza
    }

    /// For the pipe.
    pub(super) fn down(&self) -> Down {
        Down::Stanza(self.outgoing.clone(), self.kept.clone())
    }
}

/// The record's way to the store: at most one write is under way.
#[derive(PartialEq, Eq)]
enum Record {
    Clean,
    Due,
    Writing,
    WritingAndDue,
}

/// The state of stream management, after `<enable/>`.
pub(super) struct Sm {
    /// How long the session may be resumed.
    pub(super) max: Duration,
    /// SHA-256 of the secret half of the resumption id; `None` if it was enabled without resumption.
    key_hash: Option<[u8; 32]>,
    /// The name of its numbers in the store.
    pub(super) numbering: u64,
    sent: u32,
    pub(super) acked: u32,
    pub(super) unacked: VecDeque<Unacked>,
    bytes: usize,
    /// What was sent when the last `<r/>` went out, until it is answered.
    pub(super) asked: Option<u32>,
    /// Bytes that were sent since.
    unasked: usize,
    /// Something was sent since that is pressing ([`Receipt::is_pressing`]).
    pressing: bool,
    /// What was sent when the user asked to be told.
    mark: Option<(u32, u64)>,
    record: Record,
    pub(super) timers: Timers,
    created_at: u64,
    /// More than the cursor has changed.
    changed: bool,
    /// The newest of what was offline for all devices that was sent.
    pub(super) drained: Option<ArchiveId>,
    /// What of ended sessions was sent last.
    pub(super) left_behind: LeftBehind,
    /// What the client has of the roster.
    pub(super) has: Has,
}

/// What a stanza may be longer on the way than what is counted of it: its start tag and ids.
const OVERHEAD: usize = 128;

/// An `<r/>` goes out at the latest after so many stanzas without a confirmation.
const ASK_AFTER: u32 = 24;
/// The same in bytes: what is not confirmed takes the room of what comes.
const ASK_BYTES: usize = 64 << 10;

impl Sm {
    pub(super) fn new(max: Duration, key: Option<&[u8; 16]>, created_at: u64, numbering: u64) -> Self {
        Self::hashed(max, key.map(key_hash), created_at, numbering)
    }

    fn hashed(max: Duration, key_hash: Option<[u8; 32]>, created_at: u64, numbering: u64) -> Self {
        Self {
            max,
            key_hash,
            numbering,
            sent: 0,
            acked: 0,
            unacked: VecDeque::new(),
            bytes: 0,
            asked: None,
            unasked: 0,
            pressing: false,
            mark: None,
            record: Record::Clean,
            timers: Timers::default(),
            created_at,
            changed: true,
            drained: None,
            left_behind: LeftBehind::default(),
            has: Has::default(),
        }
    }

    pub(super) fn restored(max: Duration, stored: &sessions::Stored) -> Self {
        let record = &stored.record;
        let key_hash = record.token_hash[..].try_into().ok();
        let mut sm = Self::hashed(max, key_hash, record.created_at, record.numbering);
        sm.sent = stored.cursor.down_acked;
        sm.acked = stored.cursor.down_acked;
        sm.has = Has::all(sessions::roster(record));
        sm
    }

    pub(super) fn resumable(&self) -> bool {
        self.key_hash.is_some()
    }

    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Numbers and keeps a stanza; false if there are too many.
    /// Among other nodes all of it must fit into a message between two.
    pub(super) fn keep(&mut self, item: Unacked, limits: &Limits, moves: bool) -> bool {
        self.sent = self.sent.wrapping_add(1);
        self.drained = self.drained.max(item.kept.id().filter(|_| item.kept.offline()));
        item.kept.left().into_iter().for_each(|id| self.left_behind.note(id));
        self.unasked += item.bytes;
        self.pressing |= item.receipt.is_pressing();
        self.bytes += item.counted();
        self.unacked.push_back(item);
        self.check();
        // Bytes are counted with all that waits (`budget`).
        self.unacked.len() <= limits.unacked_stanzas && (!moves || self.bytes <= MOVED)
    }

    /// What waits for the client's confirmation is what was counted.
    fn check(&self) {
        let (sent, acked, len) = (self.sent, self.acked, self.unacked.len());
        invariant!("unacked_numbered", sent.wrapping_sub(acked) as usize == len, "{len} of {acked}..{sent}");
        let sum = || self.unacked.iter().map(Unacked::counted).sum::<usize>();
        let counted = if cfg!(debug_assertions) { sum() == self.bytes } else { len > 0 || self.bytes == 0 };
        invariant!("unacked_counted", counted, "{} bytes of {len} stanzas", self.bytes);
    }

    pub(super) fn wants_ack(&self) -> bool {
        let unasked = self.sent.wrapping_sub(self.asked.unwrap_or(self.acked));
        unasked >= ASK_AFTER || self.unasked >= ASK_BYTES || self.is_pressing() && self.asked.is_none()
    }

    /// Whether something was sent that its sender's stream cannot wait for long, and the client was not asked since.
    fn is_pressing(&self) -> bool {
        self.pressing && !self.unacked.is_empty()
    }

    /// An `<r/>` goes out.
    pub(super) fn ask(&mut self) {
        (self.asked, self.unasked, self.pressing) = (Some(self.sent), 0, false);
    }

    /// A tick is to come; and one that comes soon, if something is pressing.
    pub(super) fn want_tick(&mut self, pressing: bool) {
        if pressing {
            self.timers.want_hurry(self.sent);
        }
        self.timers.want_tick();
    }

    /// The client has not confirmed something pressing that was sent after the last timer for that was ordered: there is another one.
    pub(super) fn hurry_on(&mut self) {
        if self.unacked.iter().any(|item| item.receipt.is_pressing()) {
            self.timers.want_hurry(self.sent);
        }
    }

    /// Keeps no more room than is needed.
    pub(super) fn shrink(&mut self) {
        self.unacked.shrink_to_fit();
    }

    pub(super) fn has_unacked(&self) -> bool {
        !self.unacked.is_empty()
    }

    pub(super) fn unacked(&self) -> impl Iterator<Item = Down> {
        self.unacked.iter().map(Unacked::down)
    }

    /// Whether a client can have got so many.
    pub(super) fn knows(&self, h: u32) -> bool {
        h.wrapping_sub(self.acked) <= self.sent.wrapping_sub(self.acked)
    }

    /// What was sent after so many, and is not confirmed.
    pub(super) fn after(&self, got: u32) -> impl Iterator<Item = Down> {
        let skip = got.wrapping_sub(self.acked) as usize;
        self.unacked.iter().skip(skip).map(Unacked::down)
    }

    /// The client has `h` stanzas, and was sent these after that.
    pub(super) fn attached(&mut self, h: u32, numbering: u64, unacked: impl Iterator<Item = Unacked>) {
        self.unacked = unacked.collect();
        self.bytes = self.unacked.iter().map(Unacked::counted).sum();
        self.count_from(h, numbering);
    }

    pub(super) fn forget_bytes(&mut self, item: &Unacked) {
        self.bytes = self.bytes.saturating_sub(item.counted());
    }

    pub(super) fn take_unacked(&mut self) -> Vec<Unacked> {
        self.bytes = 0;
        std::mem::take(&mut self.unacked).into()
    }

    pub(super) fn mark(&mut self, number: u64) {
        self.mark = Some((self.sent, number));
    }

    /// The mark that the client has everything before, once.
    pub(super) fn mark_reached(&mut self) -> Option<u64> {
        let (_, number) = self.mark.take_if(|(sent, _)| self.acked.wrapping_sub(*sent) < u32::MAX / 2)?;
        Some(number)
    }

    /// Whether the client has everything up to that number.
    pub(super) fn has_confirmed(&self, number: u32) -> bool {
        self.acked.wrapping_sub(number) < u32::MAX / 2
    }

    pub(super) fn record_due(&self) -> bool {
        self.record == Record::Due
    }

    /// Whether `key` is the secret of this session and `h` a number it can have reached.
    pub(super) fn may_resume(&self, key: &[u8; 16], h: u32, restored: bool) -> bool {
        let Some(hash) = &self.key_hash else { return false };
        let known: bool = hash.ct_eq(&key_hash(key)).into();
        // After a restart nobody remembers how much was sent beyond what was confirmed.
        known && (restored || self.knows(h))
    }

    /// The client is back and has got `h` stanzas. Returns what [`Sm::confirm`] does.
    pub(super) fn resume(&mut self, h: u32) -> (Option<ArchiveId>, Vec<ArchiveId>) {
        self.asked = None;
        self.confirm(h)
    }

    /// The client of a restored session has got `h` stanzas. What came while the session had no home to count it
    /// follows after that, in a new numbering.
    pub(super) fn count_from(&mut self, h: u32, numbering: u64) {
        self.numbering = numbering;
        (self.mark, self.asked) = (None, None);
        self.acked = h;
        self.sent = h.wrapping_add(u32::try_from(self.unacked.len()).unwrap_or(u32::MAX));
        self.timers.renumber(self.sent);
        self.recount_roster();
    }

    /// What a cursor and a record say, before they are written by somebody else.
    pub(super) fn claiming(&mut self) {
        self.record = Record::Writing;
    }

    /// Forgets what is confirmed by `h`; returns the newest archived message among it, and ids in the offline queue.
    fn confirm(&mut self, h: u32) -> (Option<ArchiveId>, Vec<ArchiveId>) {
        let mut last = None;
        let mut queued = Vec::new();
        while self.acked != h {
            let Some(item) = self.unacked.pop_front() else { break };
            self.acked = self.acked.wrapping_add(1);
            self.forget_bytes(&item);
            // What was offline comes behind what is newer: the last is not the newest.
            last = last.max(item.kept.id());
            queued.extend(item.kept.queued());
            queued.extend(item.outgoing.among.came());
            item.receipt.done();
        }
        self.check();
        if self.unacked.is_empty() && self.unacked.capacity() > 32 {
            self.unacked = VecDeque::new();
        }
        (last, queued)
    }
}

/// What the store keeps of the resumption secret.
fn key_hash(key: &[u8; 16]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The resumption id: the session's id and its secret.
pub(crate) fn resumption_id(sid: SessionId, key: &[u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode([sid.0, *key].concat())
}

/// The way back.
pub(crate) fn parse_resumption_id(id: &str) -> Option<(SessionId, [u8; 16])> {
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    let (sid, key) = bytes.split_at_checked(16)?;
    Some((SessionId::from_slice(sid)?, key.try_into().ok()?))
}

/// `<resumed/>`
pub(super) fn resumed(h: u32, sid: SessionId, key: &[u8; 16]) -> Bytes {
    let id = resumption_id(sid, key);
    write::bytes(|w| {
        w.start("resumed", ns::SM).attr_display("h", h).attr("previd", &id).end();
    })
    .into()
}

fn ask() -> Down {
    Down::Nonza(Bytes::from_static(b"<r xmlns='urn:xmpp:sm:3'/>"))
}

impl Session {
    pub(super) fn request_ack(&mut self) {
        if let (Some(sm), Some(pipe), None) = (&mut self.sm, &self.pipe, &self.enabling) {
            sm.ask();
            let _ = pipe.push(ask());
        }
    }

    pub(super) fn mark(&mut self, number: u64) {
        match (&mut self.sm, &self.pipe) {
            (Some(sm), _) => {
                sm.mark(number);
                match sm.mark_reached() {
                    None => self.request_ack(),
                    reached => self.marked(reached),
                }
            }
            (None, Some(pipe)) => {
                self.unwritten = Some(number);
                let _ = pipe.push(Down::Mark(number));
            }
            (None, None) => {}
        }
    }

    /// The client has everything before that mark, if it is one.
    pub(super) fn marked(&self, number: Option<u64>) {
        if let Some(number) = number {
            self.tell(Event::Marked(number));
        }
    }

    pub(super) fn want_tick(&mut self) {
        if let Some(sm) = &mut self.sm {
            sm.want_tick(false);
        }
    }

    pub(super) fn down_ack(&mut self, h: u32) {
        let Some(sm) = &mut self.sm else { return };
        if h < sm.acked && sm.acked - h < u32::MAX / 2 {
            return; // by the connection before, whose word was on its way when the client came back with more
        }
        if h.wrapping_sub(sm.acked) > sm.sent.wrapping_sub(sm.acked) {
            let close = Close::HandledTooHigh { h, sent: sm.sent };
            tracing::info!(jid = %self.jid, reason = "handled-count-too-high", "session closed");
            self.close(close);
            return self.end("handled-count-too-high");
        }
        if sm.asked.is_some_and(|asked| h.wrapping_sub(asked) < u32::MAX / 2) {
            sm.asked = None;
        }
        let (last, queued) = sm.confirm(h);
        let again = sm.wants_ack();
        self.recent.confirmed(h);
        let (marked, roster) = (sm.mark_reached(), sm.confirm_roster());
        tracing::trace!(jid = %self.jid, h, sent = sm.sent, ?marked, "confirmed");
        self.unqueue(&queued);
        self.tell_more();
        if let Some(last) = last {
            // What was offline is older than what is confirmed already.
            self.acked = self.acked.max(Some(last));
            self.write_cursor(); // an acknowledged message never comes again
        }
        if roster {
            self.write_record();
        }
        self.marked(marked);
        if again {
            self.request_ack(); // what was sent since the question is pressing
        }
    }
}

impl Sm {
    /// Of the client's stanzas that are settled up to here, those that its record may call settled.
    pub(super) fn tellable(&self, settled: u32) -> u32 {
        // What has an id of the queue was submitted before the record will be.
        let first = self.unacked.iter().filter(|item| item.is_nowhere() && !item.answered);
        let first = first.into_iter().find_map(|item| item.answers);
        match first {
            Some(n) if settled.wrapping_sub(n) < u32::MAX / 2 => n.wrapping_sub(1),
            _ => settled,
        }
    }

    pub(super) fn counts(&self) -> (u32, u64, Option<[u8; 32]>) {
        (self.acked, self.created_at, self.key_hash)
    }

    /// Whether the record must be written, and not only the cursor.
    pub(super) fn changed(&mut self) -> &mut bool {
        &mut self.changed
    }

    pub(super) fn need_record(&mut self) {
        self.record = match self.record {
            Record::Clean | Record::Due => Record::Due,
            Record::Writing | Record::WritingAndDue => Record::WritingAndDue,
        };
    }

    /// The same if it can be resumed.
    pub(super) fn need_cursor(&mut self) {
        if self.resumable() {
            self.need_record();
        }
    }

    pub(super) fn writing(&mut self) {
        self.record = Record::Writing;
    }

    pub(super) fn written(&mut self) {
        self.record = if self.record == Record::WritingAndDue { Record::Due } else { Record::Clean };
    }
}

#[cfg(test)]
mod tests;
