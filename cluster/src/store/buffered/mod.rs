//! The transaction that keeps its writes to itself until the commit: read-your-writes, conflict ranges, limits. What it reads
//! from and commits to is a [`Base`]: an engine in this process, or a server at the other end of a wire.

mod base;
mod merge;
pub(crate) mod pending;
pub(crate) mod span;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Class, Committed, Error, Fut, Isolation, Page, Result, Select, Transaction, Version, limits};
pub(crate) use base::{Base, Commit, Sink, Watched};
use merge::{page, unknown};
use pending::{Pending, Write, check_range, sum};
use span::{Span, next_key};

/// Buffers writes, remembers reads.
pub(crate) struct Buffered<B> {
    base: B,
    /// Whether the base was read; its version is fixed then.
    begun: bool,
    /// Whether the version was set from outside.
    pinned: bool,
    reads: Vec<Span>,
    reads_size: usize,
    pending: Pending,
    watches: Vec<Watched>,
}

impl<B: Base> Buffered<B> {
    pub(crate) fn new(base: B) -> Self {
        Self {
            base,
            begun: false,
            pinned: false,
            reads: Vec::new(),
            reads_size: 0,
            pending: Pending::default(),
            watches: Vec::new(),
        }
    }

    fn remember(&mut self, span: Span, isolation: Isolation) {
        // A loop over one key shall not grow the list.
        if isolation == Isolation::Serializable && self.reads.last() != Some(&span) {
            self.reads_size += span.size();
            self.reads.push(span);
        }
    }

    async fn read_key(&mut self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>> {
        if key.is_empty() || key.len() > limits::KEY {
            return Ok(None); // no such key can exist
        }
        check_range(key, key)?;
        if self.pending.hides(key, &next_key(key)) {
            return Err(unknown());
        }
        let delta = match self.pending.writes.get(key) {
            Some(Write::Set(value)) => return Ok(Some(value.clone())),
            Some(Write::Clear) => return Ok(None),
            Some(Write::Stamped(..)) => return Err(unknown()),
            Some(Write::Add(delta)) => Some(*delta),
            None if self.pending.is_cleared(key) => return Ok(None),
            None => None,
        };
        self.begun = true;
        let stored = self.base.get(key).await?;
        self.remember(Span::Key(Bytes::copy_from_slice(key)), isolation);
        Ok(match delta {
            Some(delta) => Some(sum(stored.as_ref(), delta)),
            None => stored,
        })
    }

    async fn read_range(&mut self, select: Select, isolation: Isolation) -> Result<Page> {
        check_range(&select.begin, &select.end)?;
        if self.pending.hides(&select.begin, &select.end) {
            return Err(unknown());
        }
        if select.limit == 0 || select.begin >= select.end {
            return Ok(Page::default());
        }
        self.begun = true;
        let page = page(&mut self.base, &self.pending, &select).await?;
        // What lies behind the last row of a full page was not read.
        let (mut begin, mut end) = (select.begin, select.end);
        match page.rows.last().filter(|_| page.more) {
            Some((last, _)) if select.reverse => begin = last.clone(),
            Some((last, _)) => end = next_key(last),
            None => {}
        }
        self.remember(Span::Range(begin, end), isolation);
        Ok(page)
    }

    /// What can be said before the engine is asked.
    fn check(&self) -> Result<()> {
        if let Some(error) = self.pending.broken() {
            return Err(error.clone());
        }
        if self.pending.size() + self.reads_size > limits::TRANSACTION {
            return Err(Error::new(Class::TooLarge, "the transaction is larger than 10 MB"));
        }
        Ok(())
    }
}

impl<B: Base> Transaction for Buffered<B> {
    fn get<'a>(&'a mut self, key: &'a [u8], isolation: Isolation) -> Fut<'a, Result<Option<Bytes>>> {
        Box::pin(self.read_key(key, isolation))
    }

    fn range(&mut self, select: Select, isolation: Isolation) -> Fut<'_, Result<Page>> {
        Box::pin(self.read_range(select, isolation))
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.pending.set(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    }

    fn set_owned(&mut self, key: Bytes, value: Bytes) {
        self.pending.set(key, value);
    }

    fn clear(&mut self, key: &[u8]) {
        self.pending.clear(key);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.pending.clear_range(begin, end);
    }

    fn add(&mut self, key: &[u8], delta: i64) {
        self.pending.add(key, delta);
    }

    fn set_versionstamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]) {
        self.pending.set_stamped_key(key, offset, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: usize) {
        self.pending.set_stamped_value(key, value, offset);
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        if begin > end || end.len() > limits::KEY + 1 {
            return self.pending.fail(Class::Misuse, "a conflict range is not a range of keys");
        }
        self.remember(Span::new(begin, end), Isolation::Serializable);
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.pending.add_conflict(begin, end);
    }

    fn set_read_version(&mut self, version: Version, judged: Version) {
        if self.begun {
            return self.pending.fail(Class::Misuse, "the read version was set after the first read");
        }
        self.pinned = true;
        self.base.pin(version, judged);
    }

    fn read_version(&mut self) -> Fut<'_, Result<Version>> {
        self.begun = true;
        Box::pin(self.base.version())
    }

    fn watch(&mut self, key: &[u8]) -> Fut<'static, Result<()>> {
        let (wake, woken) = oneshot::channel();
        if self.watches.len() >= limits::WATCHES {
            self.pending.fail(Class::TooLarge, "too many watches");
        } else {
            self.watches.push(Watched { key: Bytes::copy_from_slice(key), wake });
        }
        let gone = || Error::new(Class::Retry, "the transaction of this watch did not commit");
        Box::pin(async move { woken.await.unwrap_or_else(|_| Err(gone())) })
    }

    fn size(&self) -> usize {
        self.pending.size()
    }

    fn commit(mut self: Box<Self>) -> Fut<'static, Result<Committed>> {
        Box::pin(async move {
            self.check()?;
            if !self.reads.is_empty() || self.pinned {
                // A commit that is late must be judged by the version of its sender, not by one it gets on arrival.
                self.base.version().await?;
            }
            let Self { base, reads, pending, watches, .. } = *self;
            base.commit(Commit { reads, pending, watches }).await
        })
    }
}
