//! What waits for the other server, in order, and what goes back to its sender.
//!
//! What fits in memory waits there. From the first stanza that does not fit, those behind it wait in the store alone, and are read page by
//! page; what is not stored waits beside them in its place.

use std::collections::{HashMap, VecDeque};

use rookery_cluster::store;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::links;
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;

use super::item::{self, Item, Kept};
use super::load::Page;
use super::returning::Returning;
use super::{Link, Msg};
use crate::host::options::Federation;
use crate::runtime::shares::{Amount, Full, Shares};

/// Stanzas that one transaction reads.
pub(super) const PAGE: usize = 100;

/// From fewer stanzas in memory on, the next page is read.
const LOW: usize = 32;

/// From so many on, what the other server has is removed at once; fewer wait for the next second.
pub(super) const REMOVE: usize = 64;

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
    /// Tells a page that was asked for from one of another time.
    turn: u64,
    pub(super) returning: HashMap<ArchiveId, Returning>,
    /// What the other server has, or has gone back: to be removed from the store.
    pub(super) confirmed: Vec<ArchiveId>,
    /// Bytes in `queue`, of what was stored when it came.
    bytes: usize,
    /// What is in the store.
    pub(super) rows: Shares,
    /// What was not stored when it came, and is in memory: in `queue`, in `late`, or behind a commit that is under way.
    passing: Shares,
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
    fn bytes(&self) -> usize {
        self.bytes + self.passing.all().bytes
    }

    pub(super) fn row_came(&mut self, item: &Item) {
        self.rows.came(&item.sender, item.size);
    }

    pub(super) fn row_went(&mut self, item: &Item) {
        self.rows.went(&item.sender, item.size);
    }

    /// What is not stored has come: it takes memory from now on.
    pub(super) fn passing_came(&mut self, item: &Item) {
        self.passing.came(&item.sender, item.size);
    }

    /// Whether one more stanza of a sender is too much for the store.
    pub(super) fn has_room_for_row(
        &self,
        options: &Federation,
        sender: &BareJid,
        size: usize,
    ) -> Result<(), Full> {
        let limit = Amount { stanzas: options.queue_stanzas, bytes: options.queue_bytes };
        self.rows.fits(sender, size, limit, Amount::default())
    }

    /// The same of what is not stored, and memory.
    pub(super) fn has_room_for_passing(
        &self,
        memory: usize,
        sender: &BareJid,
        size: usize,
    ) -> Result<(), Full> {
        let limit = Amount { stanzas: usize::MAX, bytes: memory };
        self.passing.fits(sender, size, limit, Amount { stanzas: 0, bytes: self.bytes })
    }

    pub(super) fn shrink(&mut self) {
        self.queue.shrink_to_fit();
        self.late.shrink_to_fit();
        self.returning.shrink_to_fit();
        self.rows.shrink();
        self.passing.shrink();
    }

    /// There is something in the store, up to this.
    pub(super) fn begin_behind(&mut self, last: ArchiveId) {
        self.behind = Some(Behind { last, reading: Some(last), failed: false });
    }

    /// A stanza is in memory.
    fn hold(&mut self, item: &Item) {
        if item.passing { self.passing.came(&item.sender, item.size) } else { self.bytes += item.size }
    }

    /// It is not any more.
    fn release(&mut self, item: &Item) {
        if item.passing {
            self.passing.went(&item.sender, item.size);
        } else {
            self.bytes = self.bytes.saturating_sub(item.size);
        }
    }

    /// A stanza that had come is not kept after all.
    pub(super) fn gave_up(&mut self, item: &Item) {
        if item.passing { self.release(item) } else { self.row_went(item) }
    }

    /// A stanza waits behind all others; what is stored may wait in the store alone, so that room is left for what is not.
    pub(super) fn enter(&mut self, item: Item, memory: usize) {
        let stored = item.kept == Kept::Yes;
        let full = self.bytes() + item.size > memory - memory / 4;
        match &mut self.behind {
            Some(_) if !stored => insert(&mut self.late, item),
            _ if stored && self.read >= Some(item.id) => {} // a page had it already
            Some(behind) => behind.last = behind.last.max(item.id),
            None if stored && full => {
                self.read = Some(item.id.before());
                self.behind = Some(Behind { last: item.id, reading: None, failed: false });
            }
            None => {
                if !item.passing {
                    self.hold(&item); // what is passing takes memory since it came
                }
                insert(&mut self.queue, item);
            }
        }
    }

    /// A stanza that was sent waits again, before all others.
    pub(super) fn back(&mut self, item: Item) {
        self.hold(&item);
        self.queue.push_front(item);
    }

    /// The next stanza, which goes.
    pub(super) fn pop(&mut self) -> Option<Item> {
        self.take_at(0)
    }

    /// The stanza at a place, which goes.
    pub(super) fn take_at(&mut self, at: usize) -> Option<Item> {
        let item = self.queue.remove(at)?;
        self.release(&item);
        Some(item)
    }

    /// The other server has a stanza, or it is given up.
    pub(super) fn done(&mut self, mut item: Item) {
        item.settle();
        if item.kept == Kept::Yes {
            self.confirmed.push(item.id);
            self.row_went(&item);
        }
    }

    /// What the other server has by its count is confirmed.
    pub(super) fn confirm(&mut self, count: (u64, u32)) {
        self.covered = Some(count);
        for item in std::mem::take(&mut self.queue) {
            if item.is_covered(count) {
                self.release(&item);
                self.done(item);
            } else {
                self.queue.push_back(item);
            }
        }
    }

    /// Takes all that is in memory and not in the store.
    pub(super) fn take_unstored(&mut self) -> impl Iterator<Item = Item> {
        let all = self.queue.drain(..).chain(self.late.drain(..));
        all.filter(|item| item.kept != Kept::Yes)
    }

    /// All that is in memory.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.queue.iter_mut().chain(&mut self.late)
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
    /// Senders of presence that had no room may come, if there is much of it.
    pub(super) fn tell_untold(&mut self) {
        if self.waiting.bytes() < self.memory() / 4 {
            self.untold.tell_some(&self.host);
        }
    }

    /// How many bytes one page has.
    pub(super) fn page_bytes(&self) -> usize {
        (self.memory() / 2).min(256 << 10)
    }

    /// Reads on in the store, if there is more and little is left in memory.
    pub(super) fn read_on(&mut self) {
        let room = self.waiting.queue.len() < LOW && self.waiting.bytes() < self.memory() / 2;
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
            match Item::stored(*id, row, now, |stanza| item::sender(&self.host, &self.jid, stanza)) {
                Some(item) if waiting.covered.is_none_or(|count| !item.is_covered(count)) => {
                    match Condition::from_name(&row.returned) {
                        Some(condition) => returned.push((item, condition)),
                        None => {
                            waiting.hold(&item);
                            waiting.queue.push_back(item);
                        }
                    }
                }
                Some(item) => waiting.done(item), // the other server has it
                None => waiting.confirmed.push(*id), // it is no stanza, and not counted
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
