//! Changes run one at a time. Those of the entity's own sources and those of others take turns: neither waits for more than
//! one of the other.

use rookery_cluster::invariant;

use super::{Counted, Limits, Queued};

/// Where a change comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lane {
    /// One of the entity's sources. What a source sends behind its change waits, so there is one of each, and those of
    /// sources that have ended.
    Own,
    /// What others have changed, and what nobody waits for.
    Others,
}

/// The changes of one entity: `C` waits, `U` is kept of the one that runs.
pub(crate) struct Changes<C, U> {
    limits: &'static Limits,
    running: Option<U>,
    own: Counted<C>,
    others: Counted<C>,
    /// The last one was of [`Lane::Own`].
    own_ran: bool,
}

impl<C: Queued, U> Changes<C, U> {
    pub(super) fn new(limits: &'static Limits) -> Self {
        Self { limits, running: None, own: Counted::default(), others: Counted::default(), own_ran: false }
    }

    fn lane(&self, lane: Lane) -> &Counted<C> {
        match lane {
            Lane::Own => &self.own,
            Lane::Others => &self.others,
        }
    }

    /// Whether one more may wait in this lane.
    pub(crate) fn have_room(&self, lane: Lane) -> bool {
        let (lane, most) = (self.lane(lane), self.limits.changes);
        lane.len() < most.items && lane.bytes < most.bytes
    }

    /// Enters a change. [`Changes::next`] says when it is its turn.
    ///
    /// # Errors
    /// There is no room: the change comes back.
    pub(crate) fn push(&mut self, lane: Lane, change: C) -> Result<(), C> {
        if !self.have_room(lane) {
            return Err(change);
        }
        self.push_always(lane, change);
        Ok(())
    }

    /// The same whether there is room or not: for a change of which the entity has one at most.
    pub(crate) fn push_always(&mut self, lane: Lane, change: C) {
        match lane {
            Lane::Own => self.own.push_back(change),
            Lane::Others => self.others.push_back(change),
        }
    }

    /// Those of a lane that have not begun, in order.
    pub(crate) fn waiting(&self, lane: Lane) -> impl Iterator<Item = &C> {
        self.lane(lane).items.iter()
    }

    /// The next change, if none runs. The actor starts it and calls [`Changes::run`], or settles it otherwise and asks again.
    pub(crate) fn next(&mut self) -> Option<C> {
        if self.running.is_some() {
            return None;
        }
        let own = !self.own_ran || self.others.is_empty();
        self.own_ran = own && !self.own.is_empty();
        if own { self.own.pop_front().or_else(|| self.others.pop_front()) } else { self.others.pop_front() }
    }

    /// A change runs now, of which this is kept.
    pub(crate) fn run(&mut self, of: U) {
        let before = self.running.replace(of);
        invariant!("one_change_at_a_time", before.is_none());
    }

    /// The change that ran is done. [`Changes::next`] follows.
    pub(crate) fn done(&mut self) -> Option<U> {
        self.running.take()
    }

    /// Whether one runs.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(super) fn shrink(&mut self) {
        self.own.items.shrink_to_fit();
        self.others.items.shrink_to_fit();
    }
}
