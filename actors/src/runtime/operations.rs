//! The operations of one entity on the store: what its sources (a user's sessions, a room's occupants) and others ask for.
//!
//! RFC 6120 section 10.1: what a source sends takes effect in the order in which it was sent. The actor takes one stanza after
//! the other, so most of that comes by itself. What needs the store is of two kinds:
//!
//! - A **change** bears on what follows. The changes of an entity run one at a time, so that each sees what the one before has
//!   done ([`Changes`]). Whatever a source sends behind its change waits until the change is done ([`Sources`]).
//! - A **read** bears on nothing: what follows does not wait. The reads of one source run one after the other, beside changes.
//!
//! **Strangers** have a small lane of their own ([`Strangers`]): the entity's own sources never wait for them.
//!
//! These parts hold what waits and say what is next. They run nothing: the actor starts what they give out, and says when that
//! is done. Everything is bounded in number and in bytes by [`Limits`]; what finds no room comes back, and the actor answers.

use std::collections::VecDeque;

use rookery_cluster::invariant;

mod changes;
mod sources;
mod strangers;

pub(crate) use changes::{Changes, Lane};
pub(crate) use sources::{Reading, Sources, Turn};
pub(crate) use strangers::Strangers;

/// What waits in a queue.
pub(crate) trait Queued {
    /// What it takes while it waits, bytes.
    fn size(&self) -> usize;

    /// The operation is not done here: its sender sends it again, to the next home of the entity.
    fn leave(self);
}

/// How much may wait for one entity.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Changes of each lane that wait, and their bytes.
    pub(crate) changes: Most,
    /// What one source has sent, and waits; its reads are not counted in the number.
    pub(crate) source: Most,
    /// The bytes that wait for all sources.
    pub(crate) all_sources_bytes: usize,
    /// Reads of one source that wait before what follows them waits too.
    pub(crate) reads: usize,
    /// What strangers have asked. The number includes what is being read.
    pub(crate) strangers: Most,
    /// How much is read for strangers at a time.
    pub(crate) strangers_at_once: usize,
    /// What is asked from one domain that is not served here.
    pub(crate) strangers_of_domain: usize,
    /// What is asked by one account, whatever its resources.
    pub(crate) strangers_of_account: usize,
}

/// A number of items, and their bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) items: usize,
    pub(crate) bytes: usize,
}

/// All operations of one entity: `S` names a source, `C` is a change and `U` what is kept of the one that runs, `I` is what a
/// source has sent, `R` is a read.
pub(crate) struct Operations<S, C, U, I: Queued, R: Queued> {
    pub(crate) changes: Changes<C, U>,
    pub(crate) sources: Sources<S, I, R>,
    pub(crate) strangers: Strangers<R>,
}

impl<S, C, U, I, R> Operations<S, C, U, I, R>
where
    S: Copy + Eq,
    C: Queued,
    I: Queued + From<R>,
    R: Queued,
{
    /// Nothing waits.
    pub(crate) fn new(limits: &'static Limits) -> Self {
        Self {
            changes: Changes::new(limits),
            sources: Sources::new(limits),
            strangers: Strangers::new(limits),
        }
    }

    /// Whether something is under way.
    pub(crate) fn busy(&self) -> bool {
        self.changes.is_running() || self.sources.are_reading() || self.strangers.are_reading()
    }

    /// Keeps no more room than is needed.
    pub(crate) fn shrink(&mut self) {
        self.changes.shrink();
        self.sources.shrink();
        self.strangers.shrink();
    }
}

/// A queue that counts the bytes of what is in it.
struct Counted<T> {
    items: VecDeque<T>,
    bytes: usize,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Queued> Counted<T> {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn push_back(&mut self, item: T) {
        self.bytes += item.size();
        self.items.push_back(item);
    }

    fn push_front(&mut self, item: T) {
        self.bytes += item.size();
        self.items.push_front(item);
    }

    fn pop_front(&mut self) -> Option<T> {
        let item = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(item.size());
        self.check();
        Some(item)
    }

    /// What waits is what was counted.
    fn check(&self) {
        let sum = || self.items.iter().map(Queued::size).sum::<usize>();
        let counted = if cfg!(debug_assertions) {
            sum() == self.bytes
        } else {
            !self.items.is_empty() || self.bytes == 0
        };
        invariant!("operations_counted", counted, "{} bytes of {} items", self.bytes, self.items.len());
    }

    fn take_all(&mut self) -> VecDeque<T> {
        self.check();
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests;
