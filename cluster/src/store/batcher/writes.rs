//! What is handed to a batcher.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::entity::{Entity, Shard};
use crate::store::{Class, Error, Fut, Op, Ops, Result, Transaction, runner};

/// A write that depends on what is stored: a function that reads and writes in the transaction of a commit, behind the writes of
/// all bodies. The function shares that transaction with the bodies of others, so it reads a few rows by their keys and no ranges that may be
/// long. The function may run more than once: running twice must do nothing more than running once.
#[derive(Clone)]
pub struct Edit(Arc<EditFn>);

type EditFn = dyn for<'t> Fn(&'t mut dyn Transaction) -> Fut<'t, Result<()>> + Send + Sync;

impl Edit {
    /// What an edit may write, bytes: so much of a commit is set aside for each.
    pub const SIZE: usize = 16_000;

    /// An edit that calls `run` in the transaction.
    pub fn new(
        run: impl for<'t> Fn(&'t mut dyn Transaction) -> Fut<'t, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(run))
    }

    pub(super) fn run<'t>(&self, tx: &'t mut dyn Transaction) -> Fut<'t, Result<()>> {
        (self.0)(tx)
    }
}

impl std::fmt::Debug for Edit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Edit")
    }
}

/// Writes that belong together.
#[derive(Clone, Debug)]
pub struct Writes {
    /// What to do, in order.
    pub ops: Ops,
    /// What to do behind that; most have none.
    pub edits: Vec<Edit>,
    /// The shard of the entity they are about, for the fence.
    pub shard: Shard,
    /// The line that they belong to, if any: they are refused with the earlier writes of the line.
    pub line: Option<Line>,
}

/// Writes of one writer that build on each other: the later say what the earlier have done. When one is refused, those that were
/// submitted before its writer heard of that are refused too.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// How many were refused.
    pub(super) refused: Arc<AtomicU32>,
    /// How many of those the writer has heard of.
    heard: u32,
}

impl Line {
    /// The writer has heard that one was refused.
    pub fn heard(&mut self) {
        self.heard = self.heard.wrapping_add(1);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.refused.load(Ordering::Acquire) != self.heard
    }
}

impl Writes {
    /// Writes about `entity`.
    pub fn new(entity: &Entity, ops: Ops) -> Self {
        Self { ops, edits: Vec::new(), shard: entity.shard(), line: None }
    }

    /// The same writes, with these edits.
    #[must_use]
    pub fn with_edits(self, edits: Vec<Edit>) -> Self {
        Self { edits, ..self }
    }

    /// The same writes, in a line with others.
    #[must_use]
    pub fn in_line(self, line: &Line) -> Self {
        Self { line: Some(line.clone()), ..self }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.edits.is_empty()
    }

    /// What they cost, if they may be committed at all.
    pub(super) fn check(&self) -> Result<usize> {
        let size = self.ops.iter().map(Op::cost).sum::<Result<usize>>()? + self.edits.len() * Edit::SIZE;
        if size > runner::BUDGET / 2 {
            return Err(Error::new(Class::TooLarge, "the writes are larger than half a transaction"));
        }
        Ok(size)
    }
}
