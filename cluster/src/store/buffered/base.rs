//! What a buffered transaction needs of an engine.

use std::ops::ControlFlow;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::pending::Pending;
use super::span::Span;
use crate::store::{Committed, Page, Result, Select, Version, limits};

/// One transaction's hold on an engine: reads at one version, which the first of them takes, and a commit.
pub(crate) trait Base: Send + 'static {
    /// Read at this version instead of the newest. Only before the first read.
    fn pin(&mut self, version: Version, judged: Version);

    /// The version that is read at. Fails when the transaction is too old.
    fn version(&mut self) -> impl Future<Output = Result<Version>> + Send;

    /// The stored value of `key`.
    fn get(&mut self, key: &[u8]) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// A page of stored rows, of a range that is not empty.
    fn page(&mut self, select: &Select) -> impl Future<Output = Result<Page>> + Send;

    /// Commits. Without writes it sets the watches and tells the version.
    fn commit(self, commit: Commit) -> impl Future<Output = Result<Committed>> + Send + 'static;
}

/// What a transaction has gathered.
pub(crate) struct Commit {
    /// What was read and must not have changed.
    pub(crate) reads: Vec<Span>,
    /// What is to be written.
    pub(crate) pending: Pending,
    /// What is to be watched from then on.
    pub(crate) watches: Vec<Watched>,
}

/// A key, and the waiter for another value of it than the transaction saw or wrote.
pub(crate) struct Watched {
    /// The key.
    pub(crate) key: Bytes,
    /// The waiter.
    pub(crate) wake: oneshot::Sender<Result<()>>,
}

/// Collects rows until a page is full.
pub(crate) struct Sink {
    /// What was collected.
    pub(crate) page: Page,
    limit: usize,
    bytes: usize,
}

impl Sink {
    /// For at most `limit` rows.
    pub(crate) fn new(limit: usize) -> Self {
        Self { page: Page::default(), limit, bytes: 0 }
    }

    /// How many more rows it would take.
    pub(crate) fn room(&self) -> usize {
        self.limit.saturating_sub(self.page.rows.len())
    }

    /// Takes a row; when it is full the row is only noted as there.
    pub(crate) fn row(&mut self, key: Bytes, value: Bytes) -> ControlFlow<()> {
        if self.page.rows.len() >= self.limit || self.bytes >= limits::PAGE {
            self.page.more = true;
            return ControlFlow::Break(());
        }
        self.bytes += key.len() + value.len();
        self.page.rows.push((key, value));
        ControlFlow::Continue(())
    }
}
