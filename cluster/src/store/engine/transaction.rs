//! The transaction of the engines in this process.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backend::Backend;
use super::commit::Request;
use super::merge::{page, unknown};
use super::pending::{Pending, Write, check_range, sum};
use super::span::{Span, next_key};
use super::watch::Watch;
use super::{Shared, Snapshot};
use crate::store::{
    Class, Committed, Error, Fut, Isolation, Page, Result, Select, Transaction, Version, limits,
};

/// Buffers writes, remembers reads.
pub(crate) struct Buffered<B: Backend> {
    shared: Arc<Shared<B>>,
    seen: Option<(Arc<Snapshot<B::View>>, Instant)>,
    wanted: Option<Version>,
    reads: Vec<Span>,
    reads_size: usize,
    pending: Pending,
    watches: Vec<(Bytes, oneshot::Sender<Result<()>>)>,
}

impl<B: Backend> Buffered<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>) -> Self {
        Self {
            shared,
            seen: None,
            wanted: None,
            reads: Vec::new(),
            reads_size: 0,
            pending: Pending::default(),
            watches: Vec::new(),
        }
    }

    /// The snapshot, taken at the first call; too old after its time.
    fn snapshot(&mut self) -> Result<Arc<Snapshot<B::View>>> {
        let engine = &self.shared.engine;
        if let Some((snapshot, began)) = &self.seen {
            engine.check_age(snapshot.version, *began, engine.now())?;
            return Ok(Arc::clone(snapshot));
        }
        let now = engine.now();
        let snapshot = match self.wanted {
            Some(version) => engine.at(version, now)?,
            None => engine.latest()?,
        };
        self.seen = Some((Arc::clone(&snapshot), now));
        Ok(snapshot)
    }

    fn remember(&mut self, span: Span, isolation: Isolation) {
        // A loop over one key shall not grow the list.
        if isolation == Isolation::Serializable && self.reads.last() != Some(&span) {
            self.reads_size += span.size();
            self.reads.push(span);
        }
    }

    fn read_key(&mut self, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>> {
        let snapshot = self.snapshot()?;
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
        self.remember(Span::Key(Bytes::copy_from_slice(key)), isolation);
        let stored = self.shared.engine.backend.get(&snapshot.view, key)?;
        Ok(match delta {
            Some(delta) => Some(sum(stored.as_ref(), delta)),
            None => stored,
        })
    }

    fn read_range(&mut self, select: &Select, isolation: Isolation) -> Result<Page> {
        let snapshot = self.snapshot()?;
        check_range(&select.begin, &select.end)?;
        if self.pending.hides(&select.begin, &select.end) {
            return Err(unknown());
        }
        let page = page(&self.shared.engine.backend, &snapshot.view, &self.pending, select)?;
        // What lies behind the last row of a full page was not read.
        let (mut begin, mut end) = (select.begin.clone(), select.end.clone());
        match page.rows.last().filter(|_| page.more) {
            Some((last, _)) if select.reverse => begin = last.clone(),
            Some((last, _)) => end = next_key(last),
            None if select.limit == 0 => return Ok(page),
            None => {}
        }
        if begin < end {
            self.remember(Span::Range(begin, end), isolation);
        }
        Ok(page)
    }

    /// The watches with what was seen, to be set when the commit is through.
    fn take_watches(&mut self) -> Result<Vec<Watch>> {
        let mut watches = Vec::new();
        for (key, wake) in std::mem::take(&mut self.watches) {
            let written = self.pending.writes.contains_key(&key) || self.pending.is_cleared(&key);
            let snapshot = self.snapshot()?;
            let expected =
                if written { None } else { self.shared.engine.backend.get(&snapshot.view, &key)? };
            watches.push(Watch { key, expected, written, wake });
        }
        Ok(watches)
    }

    /// What can be said before the engine is asked.
    fn check(&mut self) -> Result<()> {
        if let Some(error) = self.pending.broken() {
            return Err(error.clone());
        }
        if self.pending.size() + self.reads_size > limits::TRANSACTION {
            return Err(Error::new(Class::TooLarge, "the transaction is larger than 10 MB"));
        }
        if !self.reads.is_empty() || self.wanted.is_some() {
            self.snapshot()?;
        }
        Ok(())
    }

    fn commit_read_only(mut self) -> Result<Committed> {
        let watches = self.take_watches()?;
        let version = match &self.seen {
            Some((snapshot, _)) => snapshot.version,
            None => self.shared.engine.latest()?.version,
        };
        self.shared.engine.arm(watches);
        Ok(Committed { version, versionstamp: [0; 10] })
    }

    fn send(mut self) -> Result<oneshot::Receiver<Result<Committed>>> {
        let watches = self.take_watches()?;
        let (done, answer) = oneshot::channel();
        let Self { shared, seen, reads, pending, .. } = self;
        let read = seen.map(|(snapshot, began)| (snapshot.version, began));
        let now = shared.engine.now();
        shared.lane.send(&shared.engine, Request { read, reads, pending, watches, now, done });
        Ok(answer)
    }
}

impl<B: Backend> Transaction for Buffered<B> {
    fn get<'a>(&'a mut self, key: &'a [u8], isolation: Isolation) -> Fut<'a, Result<Option<Bytes>>> {
        let value = self.read_key(key, isolation);
        Box::pin(std::future::ready(value))
    }

    fn range(&mut self, select: Select, isolation: Isolation) -> Fut<'_, Result<Page>> {
        let page = self.read_range(&select, isolation);
        Box::pin(std::future::ready(page))
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

    fn set_read_version(&mut self, version: Version) {
        if self.seen.is_some() {
            return self.pending.fail(Class::Misuse, "the read version was set after the first read");
        }
        self.wanted = Some(version);
    }

    fn read_version(&mut self) -> Fut<'_, Result<Version>> {
        let version = self.snapshot().map(|snapshot| snapshot.version);
        Box::pin(std::future::ready(version))
    }

    fn watch(&mut self, key: &[u8]) -> Fut<'static, Result<()>> {
        let (wake, woken) = oneshot::channel();
        if self.watches.len() >= limits::WATCHES {
            self.pending.fail(Class::TooLarge, "too many watches");
        } else {
            self.watches.push((Bytes::copy_from_slice(key), wake));
        }
        let gone = || Error::new(Class::Retry, "the transaction of this watch did not commit");
        Box::pin(async move { woken.await.unwrap_or_else(|_| Err(gone())) })
    }

    fn size(&self) -> usize {
        self.pending.size()
    }

    fn commit(mut self: Box<Self>) -> Fut<'static, Result<Committed>> {
        if let Err(error) = self.check() {
            return Box::pin(std::future::ready(Err(error)));
        }
        if self.pending.is_empty() {
            return Box::pin(std::future::ready(self.commit_read_only()));
        }
        match self.send() {
            Err(error) => Box::pin(std::future::ready(Err(error))),
            Ok(answer) => Box::pin(async move {
                let lost = || Error::new(Class::MaybeCommitted, "the commit thread ended");
                answer.await.unwrap_or_else(|_| Err(lost()))
            }),
        }
    }
}
