//! What waits for the other server, in order, and what goes back to its sender.
//!
//! What fits in memory waits there. From the first stanza that does not fit, those behind it wait in the store alone, and are read page by
//! page; what is not stored waits beside them in its place.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use rookery_cluster::store;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::links;
use rookery_proto::xmpp::error::Condition;

use super::item::{self, Item, Kept};
use super::load::Page;
use super::returning::Returning;
use super::{Link, Msg};
use crate::host::options::Federation;
use crate::runtime::origin::Origin;

/// Stanzas that one transaction reads.
pub(super) const PAGE: usize = 100;

/// From fewer stanzas in memory on, the next page is read.
const LOW: usize = 32;

/// From so many on, what the other server has is removed at once; fewer wait for the next second.
pub(super) const REMOVE: usize = 64;

/// How long a stanza waits before it is stored, if it was not to be and its sender waits for it.
const KEEP: Duration = Duration::from_millis(1_500);

/// Stanzas that are stored so in one second.
const KEEP_AT_ONCE: usize = 256;

/// What waits in the store alone.
struct Behind {
    /// The last of it.
    last: ArchiveId,
    /// A page is being read, which shows at least what came up to here.
    reading: Option<ArchiveId>,
    /// The store did not answer; the next second asks again.
    failed: bool,
}

/// What waits. See the module.
#[derive(Default)]
pub(super) struct Waiting {
    /// The next to be sent come first.
    pub(super) queue: VecDeque<Item>,
    /// What is not stored, while others wait in the store alone.
    late: VecDeque<Item>,
    behind: Option<Behind>,
    /// Up to here, what the store has is in memory, or was.
    read: Option<ArchiveId>,
    /// The last that a former process has stored.
    loaded: Option<ArchiveId>,
    /// Tells a page that was asked for from one of another time.
    turn: u64,
    pub(super) returning: HashMap<ArchiveId, Returning>,
    /// What the other server has, or has gone back: to be removed from the store.
    pub(super) confirmed: Vec<ArchiveId>,
    /// Bytes in `queue` and `late`.
    bytes: usize,
    /// Stanzas in the store, as far as this process knows, and their bytes.
    rows: usize,
    rows_bytes: usize,
    /// What comes in pages and is covered by this count was confirmed.
    pub(super) covered: Option<(u64, u32)>,
    /// Everything goes back with this error.
    pub(super) refused: Option<Condition>,
}

impl Waiting {
    /// Whether nothing waits, and nothing is on its way back.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_some() && self.returning.is_empty() && self.confirmed.is_empty()
    }

    /// Whether something waits to be sent.
    pub(super) fn has_some(&self) -> bool {
        !self.queue.is_empty() || self.behind.is_some() || !self.late.is_empty()
    }

    /// How many stanzas will be sent before the next one, if all of them are in memory.
    pub(super) fn in_line(&self) -> Option<u32> {
        self.behind.is_none().then(|| u32::try_from(self.queue.len()).unwrap_or(u32::MAX))
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn rows_came(&mut self, rows: usize, bytes: usize) {
        self.rows += rows;
        self.rows_bytes += bytes;
    }

    pub(super) fn rows_went(&mut self, rows: usize, bytes: usize) {
        self.rows = self.rows.saturating_sub(rows);
        self.rows_bytes = self.rows_bytes.saturating_sub(bytes);
    }

    /// Whether one more stanza of that size is too much for the store.
    pub(super) fn is_full(&self, options: &Federation, size: usize) -> bool {
        self.rows >= options.queue_stanzas || self.rows_bytes + size > options.queue_bytes
    }

    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
        self.late.shrink_to_fit();
        self.returning.shrink_to_fit();
    }

    /// There is something in the store, up to this.
    pub(super) fn begin_behind(&mut self, last: ArchiveId) {
        self.loaded = Some(last);
        self.behind = Some(Behind { last, reading: Some(last), failed: false });
    }

    /// Whether a stored stanza is counted already.
    fn counts(&self, id: ArchiveId) -> bool {
        self.loaded < Some(id)
    }

    /// A stanza waits behind all others; what is stored may wait in the store alone.
    pub(super) fn enter(&mut self, item: Item, memory: usize) {
        let stored = item.kept == Kept::Yes;
        match &mut self.behind {
            Some(_) if !stored => {
                self.bytes += item.size;
                insert(&mut self.late, item);
            }
            _ if stored && self.read >= Some(item.id) => {} // a page had it already
            Some(behind) => behind.last = behind.last.max(item.id),
            None if stored && self.bytes + item.size > memory => {
                self.read = Some(item.id.before());
                self.behind = Some(Behind { last: item.id, reading: None, failed: false });
            }
            None => {
                self.bytes += item.size;
                insert(&mut self.queue, item);
            }
        }
    }

    /// A stanza that was sent waits again, before all others.
    pub(super) fn back(&mut self, item: Item) {
        self.bytes += item.size;
        self.queue.push_front(item);
    }

    /// The next stanza, which goes.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(item.size);
        Some(item)
    }

    /// The stanza at a place, which goes.
    pub(super) fn take_at(&mut self, at: usize) -> Option<Item> {
        let item = self.queue.remove(at)?;
        self.bytes = self.bytes.saturating_sub(item.size);
        Some(item)
    }

    /// The other server has a stanza, or it has gone back.
    pub(super) fn done(&mut self, item: &Item) {
        if item.kept == Kept::Yes {
            self.confirmed.push(item.id);
            self.rows_went(1, item.size);
        }
    }

    /// The stanza of that id, if it is in memory.
    pub(super) fn find(&mut self, id: ArchiveId) -> Option<&mut Item> {
        self.queue.iter_mut().chain(&mut self.late).find(|item| item.id == id)
    }

    /// What the other server has by its count is confirmed.
    pub(super) fn confirm(&mut self, count: (u64, u32)) {
        self.covered = Some(count);
        for item in std::mem::take(&mut self.queue) {
            if item.is_covered(count) {
                self.bytes = self.bytes.saturating_sub(item.size);
                self.done(&item);
            } else {
                self.queue.push_back(item);
            }
        }
    }

    /// Takes all that is in memory and not in the store.
    pub(super) fn take_unstored(&mut self) -> Vec<Item> {
        self.bytes = 0;
        let all = self.queue.drain(..).chain(self.late.drain(..));
        all.filter(|item| item.kept != Kept::Yes && item.sent.is_none()).collect()
    }

    /// What has waited long enough to be stored, with its rows.
    pub(super) fn keep_late(&mut self) -> Vec<(ArchiveId, links::Waiting, Option<Origin>)> {
        let waits = |item: &&mut Item| {
            item.kept == Kept::No
                && item.receipt.is_open()
                && item.since.elapsed() >= KEEP
                && item::is_kept_late(&item.stanza)
        };
        let all = self.queue.iter_mut().chain(&mut self.late).filter(waits).take(KEEP_AT_ONCE);
        all.map(|item| {
            item.kept = Kept::Writing;
            (item.id, item.row(None), item.origin)
        })
        .collect()
    }

    /// The next second has come: what failed is tried again.
    pub(super) fn second(&mut self) {
        if let Some(behind) = &mut self.behind {
            behind.failed = false;
        }
    }
}

/// In its place by id, almost always the last.
fn insert(queue: &mut VecDeque<Item>, item: Item) {
    match queue.back() {
        Some(last) if last.id > item.id => {
            let at = queue.partition_point(|other| other.id < item.id);
            queue.insert(at, item);
        }
        _ => queue.push_back(item),
    }
}

impl Link {
    /// How many bytes one page has.
    pub(super) fn page_bytes(&self) -> usize {
        (self.memory() / 2).min(256 << 10)
    }

    /// Reads on in the store, if there is more and little is left in memory.
    pub(super) fn read_on(&mut self) {
        let room = self.waiting.queue.len() < LOW && self.waiting.bytes < self.memory() / 2;
        let Some(behind) = &mut self.waiting.behind else { return };
        if !room || behind.failed || behind.reading.is_some() {
            return;
        }
        let Some(me) = self.me.clone() else { return };
        behind.reading = Some(behind.last);
        self.waiting.turn += 1;
        let (host, name, after, turn) =
            (self.host.clone(), self.name.clone(), self.waiting.read, self.waiting.turn);
        let bytes = self.page_bytes();
        self.host.spawn(async move {
            let read = host.store().read(|tx| {
                let name = name.clone();
                Box::pin(async move { links::waiting(&mut **tx, &name, after, PAGE, bytes).await })
            });
            let _ = me.cast_always(Msg::Page(turn, read.await));
        });
    }

    pub(super) fn page_read(&mut self, turn: u64, page: store::Result<Page>) {
        if turn != self.waiting.turn {
            return;
        }
        match page {
            Ok(page) => self.take_page(page),
            Err(error) => {
                tracing::warn!(link = %self.name, %error, "stanzas that wait for another server could not be read; retrying every second");
                if let Some(behind) = &mut self.waiting.behind {
                    (behind.reading, behind.failed) = (None, true);
                }
            }
        }
    }

    pub(super) fn take_page(&mut self, page: Page) {
        let now = self.now_micros();
        let mut returned = Vec::new();
        let waiting = &mut self.waiting;
        for (id, row) in &page.rows {
            // What is not stored goes in its place; what is stored because it waits is here already.
            while waiting.late.front().is_some_and(|late| late.id <= *id) {
                waiting.queue.extend(waiting.late.pop_front());
            }
            waiting.read = Some(*id);
            if waiting.queue.back().is_some_and(|last| last.id == *id) || waiting.returning.contains_key(id) {
                continue;
            }
            match Item::stored(*id, row, now) {
                Some(item) if waiting.covered.is_none_or(|count| !item.is_covered(count)) => {
                    if !waiting.counts(*id) {
                        waiting.rows_came(1, item.size);
                    }
                    match Condition::from_name(&row.returned) {
                        Some(condition) => returned.push((item, condition)),
                        None => {
                            waiting.bytes += item.size;
                            waiting.queue.push_back(item);
                        }
                    }
                }
                _ => {
                    // The other server has it, or it is no stanza.
                    waiting.confirmed.push(*id);
                    if waiting.counts(*id) {
                        waiting.rows_went(1, row.stanza.len());
                    }
                }
            }
        }
        if let Some(behind) = &mut waiting.behind {
            let seen = behind.reading.take();
            if !page.more && seen >= Some(behind.last) {
                waiting.behind = None;
                waiting.queue.append(&mut waiting.late);
            }
        }
        for (item, condition) in returned {
            self.go_on_returning(item, condition);
        }
    }
}
