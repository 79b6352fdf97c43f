//! The ordered queue "commit, then do, in order" of one entity.
//!
//! An entity (a user, a room) decides something, writes it to the store, and may tell others only when the commit is there. Its
//! steps are taken in the order in which they were decided, whatever the order of their commits:
//!
//! 1. [`CommitQueue::commit`] enters a step and submits its writes, or holds them while they or those before are prepared ([`Commit`]). [`CommitQueue::follow`] enters a step without writes behind
//!    those that wait.
//! 2. The batcher answers with a [`Committed`], which comes to the actor as a message. The actor hands it to
//!    [`CommitQueue::answered`].
//! 3. The actor then takes steps from the front with [`CommitQueue::next`], until the front waits for its own commit.
//!
//! **Writes build on each other.** All writes of a queue are in one [`Line`]: a row may say what the rows before it have done.
//! When the store refuses one, it refuses also those that were submitted before the queue has heard of that.
//!
//! **A refusal by the fence** ([`Class::Fenced`]) is no failure: the shard has another owner, and this actor is about to be
//! told so. Until then it must say nothing of the step, because the next home has read the same rows and may take the step
//! itself. So the outcome [`Outcome::Elsewhere`] comes only after [`ELSEWHERE`], to an actor that is still there.

use std::collections::VecDeque;
use std::time::Duration;

use rookery_cluster::entity::Entity;
use rookery_cluster::invariant;
use rookery_cluster::store::{self, Batcher, Class, Edit, Line, Ops, Writes};

use super::actor::{Actor, Handle};
use super::wheel::Wheel;

mod held;

pub(crate) use held::{Commit, Preparation};

/// How long a step that the fence refused waits for the news that the entity lives on another node.
pub(crate) const ELSEWHERE: Duration = Duration::from_secs(5);

/// The room of an empty queue that has been long is given back from this many places on.
const KEPT: usize = 32;

/// What became of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// The writes are durable.
    Stored,
    /// The store did not take the writes now. The same writes may be taken later.
    Later,
    /// The store will never take these writes.
    Never,
    /// The entity lives on another node.
    Elsewhere,
}

impl Outcome {
    /// What the store's answer means for a step.
    pub(crate) fn of(result: Result<(), Class>) -> Self {
        match result {
            Ok(()) => Self::Stored,
            Err(Class::Fenced) => Self::Elsewhere,
            Err(class) if class.repeats() || class == Class::Full => Self::Later,
            Err(_) => Self::Never,
        }
    }
}

/// The answer to the commit of one step, which comes to the actor as a message, and goes on to [`CommitQueue::answered`].
#[derive(Debug)]
pub(crate) struct Committed {
    seq: u64,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Outcome {
        outcome: Outcome,
        /// The line counts this refusal.
        counted: bool,
    },
    /// The writes are prepared.
    Prepared(store::Result<Vec<Edit>>),
}

impl Committed {
    fn new(seq: u64, outcome: Outcome, counted: bool) -> Self {
        Self { seq, answer: Answer::Outcome { outcome, counted } }
    }

    /// The same answer for an entity that is no more: its step fails, whatever the store has done.
    pub(crate) fn refused(self) -> Self {
        let counted = matches!(self.answer, Answer::Outcome { counted: true, .. });
        Self::new(self.seq, Outcome::Never, counted)
    }
}

/// The limit of a queue.
#[derive(Debug)]
pub(crate) struct Limit {
    /// The value of the label `limit` of the metric `rookery_limits_hit_total`.
    pub(crate) name: &'static str,
    /// How many steps may wait.
    pub(crate) steps: usize,
}

struct Waiting<S> {
    step: S,
    /// `None` while the commit is under way.
    outcome: Option<Outcome>,
}

/// A step that has its outcome, and is the next in order.
pub(crate) struct Settled<S> {
    /// Its number in the queue.
    pub(crate) seq: u64,
    pub(crate) step: S,
    pub(crate) outcome: Outcome,
}

/// The steps of one entity that wait for their commit, or behind one that does. See the module.
pub(crate) struct CommitQueue<S> {
    entity: Entity,
    batcher: Batcher,
    wheel: Wheel,
    limit: &'static Limit,
    waiting: VecDeque<Waiting<S>>,
    /// The number of the front. Numbers only grow.
    first: u64,
    /// There is one only while something waits: an entity at rest needs none.
    line: Option<Line>,
    held: held::Held<S>,
}

impl<S> CommitQueue<S> {
    /// An empty queue for the writes of `entity`.
    pub(crate) fn new(entity: Entity, batcher: Batcher, wheel: Wheel, limit: &'static Limit) -> Self {
        Self {
            entity,
            batcher,
            wheel,
            limit,
            waiting: VecDeque::new(),
            first: 0,
            line: None,
            held: held::Held::default(),
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many steps wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no step may be entered.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.limit.steps
    }

    /// The number that the next step gets.
    pub(crate) fn next_seq(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    /// Enters a step, and submits its writes.
    ///
    /// # Errors
    /// The queue is full: the step comes back, nothing is written, and the limit is counted.
    pub(crate) fn commit<R>(&mut self, me: &Handle<R>, commit: impl Into<Commit>, step: S) -> Result<(), S>
    where
        R: Actor,
        R::Msg: From<Committed>,
    {
        let seq = self.next_seq();
        self.enter(step, None)?;
        self.submit(me, seq, commit);
        Ok(())
    }

    /// Enters a step without writes: it is taken after those that wait.
    ///
    /// # Errors
    /// The queue is full: the step comes back, and the limit is counted.
    pub(crate) fn follow(&mut self, step: S) -> Result<(), S> {
        self.enter(step, Some(Outcome::Stored))
    }

    fn enter(&mut self, step: S, outcome: Option<Outcome>) -> Result<(), S> {
        if self.is_full() {
            metrics::counter!("rookery_limits_hit_total", "limit" => self.limit.name).increment(1);
            return Err(step);
        }
        self.waiting.push_back(Waiting { step, outcome });
        Ok(())
    }

    /// Submits writes of a step that waits: those it came with, or others after these were refused.
    fn submit_now<R>(&mut self, me: &Handle<R>, seq: u64, ops: Ops, edits: Vec<Edit>)
    where
        R: Actor,
        R::Msg: From<Committed>,
    {
        let line = self.line.get_or_insert_default();
        let writes = Writes::new(&self.entity, ops).with_edits(edits).in_line(line);
        let (wheel, to) = (self.wheel.clone(), me.clone());
        let submitted = self.batcher.submit(writes, move |result| {
            let outcome = Outcome::of(result.map_err(|error| error.class));
            if outcome == Outcome::Elsewhere {
                metrics::counter!("rookery_stanzas_elsewhere_total").increment(1);
                let to = to.downgrade();
                return wheel.after(ELSEWHERE, move || {
                    if let Some(to) = to.upgrade() {
                        let _ = to.cast_always(Committed::new(seq, outcome, false).into());
                    }
                });
            }
            let counted = outcome != Outcome::Stored;
            let _ = to.cast_always(Committed::new(seq, outcome, counted).into());
        });
        if submitted.is_err() {
            // As a message as well: what the actor does now is not interrupted by the steps that this ends.
            let _ = me.cast_always(Committed::new(seq, Outcome::Later, false).into());
        }
    }

    /// The answer to a commit. Returns its step and outcome, if the step still waits. [`CommitQueue::next`] follows.
    pub(crate) fn answered(&mut self, committed: Committed) -> Option<(&S, Outcome)> {
        let seq = committed.seq;
        let (outcome, counted) = match committed.answer {
            Answer::Outcome { outcome, counted } => (outcome, counted),
            Answer::Prepared(edits) => (self.prepared(seq, edits)?, false),
        };
        if let Some(line) = self.line.as_mut().filter(|_| counted) {
            line.heard();
        }
        let step = self.settle(seq, outcome)?;
        Some((step, outcome))
    }

    /// Sets the outcome of a step that waits, and returns the step.
    pub(crate) fn settle(&mut self, seq: u64, outcome: Outcome) -> Option<&S> {
        let at = self.place(seq)?;
        let waiting = self.waiting.get_mut(at)?;
        let before = waiting.outcome.replace(outcome);
        invariant!("commit_settled_once", before.is_none(), "{outcome:?} after {before:?}");
        Some(&waiting.step)
    }

    /// The step that is the next in order, if its outcome is known.
    pub(crate) fn front(&self) -> Option<(&S, Outcome)> {
        let front = self.waiting.front()?;
        Some((&front.step, front.outcome?))
    }

    /// Takes the next step, if its outcome is known.
    pub(crate) fn next(&mut self) -> Option<Settled<S>> {
        self.front()?;
        let Waiting { step, outcome } = self.waiting.pop_front()?;
        let seq = self.first;
        self.first += 1;
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT {
            self.waiting = VecDeque::new();
        }
        self.go_on();
        Some(Settled { seq, step, outcome: outcome? })
    }

    /// The front waits again, until [`CommitQueue::submit`] or [`CommitQueue::settle`] ends that. Returns its number.
    pub(crate) fn hold_front(&mut self) -> u64 {
        if let Some(front) = self.waiting.front_mut() {
            front.outcome = None;
        }
        self.first
    }

    /// The steps that wait, in order.
    pub(crate) fn steps(&self) -> impl DoubleEndedIterator<Item = &S> {
        self.waiting.iter().map(|waiting| &waiting.step)
    }

    fn place(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.wrapping_sub(self.first)).ok().filter(|at| *at < self.waiting.len())
    }

    /// The step with this number, if it waits.
    pub(crate) fn get(&self, seq: u64) -> Option<&S> {
        self.waiting.get(self.place(seq)?).map(|waiting| &waiting.step)
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, seq: u64) -> Option<&mut S> {
        let at = self.place(seq)?;
        self.waiting.get_mut(at).map(|waiting| &mut waiting.step)
    }

    /// Takes out all that waits: the entity lives on another node. Answers that come later find nothing.
    pub(crate) fn take_all(&mut self) -> Vec<S> {
        self.first += self.waiting.len() as u64;
        self.held = held::Held::default();
        std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.step).collect()
    }

    /// Keeps no more room than is needed.
    pub(crate) fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
        if self.waiting.is_empty() {
            self.line = None;
        }
    }
}

#[cfg(test)]
mod tests;
