//! What is in no row, and is neither confirmed nor given up: its sender waits, and not for long.
//!
//! A receipt that is open is more than patience: each holds a place in its sender's window, and between nodes a credit of the channel,
//! which all that goes to this node shares. So nobody waits longer than a second or two for a server that is away or slow.

use std::time::Duration;

use rookery_cluster::store::Ops;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::{links, seen};
use rookery_proto::xmpp::stanza::Stanza;

use super::Link;
use super::dialing::Stream;
use super::item::{self, Item, Kept};
use super::take::Step;
use crate::runtime::commit_queue::Outcome;
use crate::runtime::origin::Origin;

/// How long a sender waits before a stanza is stored that was not to be.
pub(super) const KEEP: Duration = Duration::from_millis(1_500);

/// Stanzas that are stored so in one second.
const AT_ONCE: usize = 1_024;

impl Link {
    /// What is in memory: sent and not confirmed, or waiting.
    fn in_memory(&mut self) -> impl Iterator<Item = &mut Item> {
        let unacked = match &mut self.stream {
            Stream::Up(up) => Some(up.unacked.iter_mut().map(|unacked| &mut unacked.item)),
            _ => None,
        };
        unacked.into_iter().flatten().chain(self.waiting.all_mut())
    }

    /// The stanza of that origin, if it is in memory alone: its sender is owed.
    pub(super) fn unsafe_one(&mut self, origin: Origin) -> Option<&mut Item> {
        self.in_memory().find(|item| item.origin == Some(origin) && item.kept != Kept::Yes)
    }

    /// Stores what is in memory alone and so old, so that its sender need not wait. Whoever has sent presence waits no longer: if this home
    /// dies, it is lost.
    pub(super) fn keep_late(&mut self, age: Duration) {
        // Nobody waits for the presence that a user tells to all contacts; its last word is kept all the same.
        let kept = |item: &Item| item.is_owed() || item::is_last_word(&item.stanza);
        let late = |item: &&mut Item| kept(item) && item.kept == Kept::No && item.since.elapsed() >= age;
        self.keep(late, item::is_kept_late);
    }

    /// Stores all that is in memory alone, as far as one goes at once: the next home has it in its place. Presence that is forwarded instead may
    /// come behind what was said later.
    pub(super) fn keep_all(&mut self) {
        self.keep(|item| item.kept == Kept::No, |_| true);
    }

    fn keep(&mut self, late: impl Fn(&&mut Item) -> bool, is_kept: impl Fn(&Stanza) -> bool) {
        let mut rows = Vec::new();
        for item in self.in_memory().filter(late) {
            if !is_kept(&item.stanza) {
                item.settle();
            } else if rows.len() < AT_ONCE {
                (item.kept, item.row) = (Kept::Writing, item.sent);
                rows.push((item.id, item.row(item.sent), item.origin));
            }
        }
        let now = self.now_micros();
        for (id, row, origin) in rows {
            let mut ops = Ops::new();
            if links::put_waiting(&mut ops, &self.name, id, &row).is_err() {
                self.kept(id, false); // larger than any stanza may be
                continue;
            }
            if let Some(origin) = origin {
                seen::put(&mut ops, &self.name, &origin.name.0, self.seen.take_kept(origin, now));
            }
            self.put_record(&mut ops);
            if let Err(step) = self.submit(ops, Step::Kept(id)) {
                self.step(step, Outcome::Later);
            }
        }
    }

    /// The row is stored, or could not be.
    pub(super) fn kept(&mut self, id: ArchiveId, stored: bool) {
        let item = self.in_memory().find(|item| item.id == id);
        match item {
            Some(item) if stored => {
                item.kept = Kept::Yes;
                item.settle();
                let (sender, size) = (item.sender.clone(), item.size);
                self.waiting.rows.came(&sender, size);
            }
            Some(item) => item.kept = Kept::No,
            None if stored => self.waiting.confirmed.push(id), // it has gone meanwhile
            None => {}
        }
    }

    /// Takes all that is in memory alone, in order.
    pub(super) fn take_unstored(&mut self) -> Vec<Item> {
        let sent = match &mut self.stream {
            Stream::Up(up) => up.unacked.drain(..).map(|unacked| unacked.item).collect(),
            _ => Vec::new(),
        };
        let sent = sent.into_iter().filter(|item| item.kept != Kept::Yes);
        sent.chain(self.waiting.take_unstored()).collect()
    }
}
