//! Commits, a group at a time.

use std::time::Instant as Stopwatch;

use bytes::Bytes;
use metrics::{counter, histogram};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backend::{Backend, Changes};
use super::watch::Watch;
use super::window::{Window, touched};
use super::{Engine, Snapshot};
use crate::store::buffered::pending::{Pending, Write, filled, keys_in, sum};
use crate::store::buffered::span::Span;
use crate::store::{Class, Committed, Error, Result, Version, Versionstamp, meter};

/// A transaction that wants to be committed.
pub(crate) struct Request {
    /// The version it read at, and when it got it. Without one nothing was read, and nothing can conflict.
    pub(crate) read: Option<(Version, Instant)>,
    /// What it read.
    pub(crate) reads: Vec<Span>,
    /// What it writes.
    pub(crate) pending: Pending,
    /// What it watches from now on.
    pub(crate) watches: Vec<Watch>,
    /// When it was sent.
    pub(crate) now: Instant,
    /// The waiter.
    pub(crate) done: oneshot::Sender<Result<Committed>>,
}

/// What only the committing thread touches.
pub(crate) struct Committer {
    pub(super) last: Version,
    pub(super) window: Window,
}

impl Committer {
    pub(crate) fn starting_at(version: Version) -> Self {
        Self { last: version, window: Window::starting_at(version) }
    }
}

/// A group while it is put together.
struct Group<'a, B: Backend> {
    engine: &'a Engine<B>,
    latest: &'a B::View,
    /// Why what adds is refused.
    full: Option<Error>,
    changes: Changes,
    ranges: Vec<Span>,
}

/// A request that passed, with the place it got.
struct Accepted {
    done: oneshot::Sender<Result<Committed>>,
    watches: Vec<Watch>,
    committed: Committed,
}

impl<B: Backend> Engine<B> {
    /// Commits a group of at most 65,535 requests and answers each.
    pub(crate) fn commit(&self, requests: Vec<Request>) {
        let stopwatch = Stopwatch::now();
        let mut committer = self.committer.lock();
        let Some(now) = requests.iter().map(|request| request.now).max() else {
            return;
        };
        let latest = match self.latest().and_then(|latest| self.check_standing().map(|()| latest)) {
            Ok(latest) => latest,
            Err(error) => return refuse(requests, &error),
        };
        let version = Version(committer.last.0 + 1);
        let full = self.backend.room().err();
        let mut group =
            Group { engine: self, latest: &latest.view, full, changes: Changes::new(), ranges: Vec::new() };
        let mut accepted: Vec<Accepted> = Vec::with_capacity(requests.len());
        let mut bytes = 0;
        for request in requests {
            let size = request.pending.size();
            let place = u16::try_from(accepted.len()).unwrap_or(u16::MAX);
            match group.take(&committer.window, request, version, place) {
                Ok(passed) => {
                    bytes += size;
                    accepted.push(passed);
                }
                Err((done, error)) => {
                    meter::refused(&error);
                    let _ = done.send(Err(error));
                }
            }
        }
        if accepted.is_empty() {
            return;
        }
        let Group { changes, ranges, .. } = group;
        let keys: Vec<Bytes> = changes.keys().cloned().collect();
        committer.last = version;
        match self.backend.apply(version, changes) {
            Ok(view) => {
                committer.window.push(version, keys.clone(), ranges);
                let oldest = self.publish(Snapshot { version, view }, now);
                committer.window.forget(oldest);
                self.backend.forget(oldest);
            }
            Err(error) => {
                self.fail(&error);
                for passed in accepted {
                    let error = Error { class: Class::MaybeCommitted, ..error.clone() };
                    meter::refused(&error);
                    let _ = passed.done.send(Err(error));
                }
                return;
            }
        }
        drop(committer);
        meter::committed(stopwatch, bytes);
        histogram!("rookery_store_batch_size", "of" => "commits")
            .record(u32::try_from(accepted.len()).unwrap_or(u32::MAX));
        self.fire(&keys);
        for passed in accepted {
            self.arm(passed.watches);
            let _ = passed.done.send(Ok(passed.committed));
        }
    }
}

fn refuse(requests: Vec<Request>, error: &Error) {
    for request in requests {
        let _ = request.done.send(Err(error.clone()));
    }
}

type Refused = (oneshot::Sender<Result<Committed>>, Error);

impl<B: Backend> Group<'_, B> {
    /// Judges a request and adds what it writes.
    fn take(
        &mut self,
        window: &Window,
        request: Request,
        version: Version,
        place: u16,
    ) -> Result<Accepted, Refused> {
        let Request { read, reads, pending, mut watches, now, done } = request;
        if let Some(full) = self.full.as_ref().filter(|_| pending.grows()) {
            counter!("rookery_limits_hit_total", "limit" => "store_free_megabytes").increment(1);
            return Err((done, full.clone()));
        }
        if let Err(error) = self.judge(window, read, &reads, now) {
            return Err((done, error));
        }
        let mut versionstamp: Versionstamp = [0; 10];
        let (high, low) = versionstamp.split_at_mut(8);
        high.copy_from_slice(&version.0.to_be_bytes());
        low.copy_from_slice(&place.to_be_bytes());
        if let Err(error) = self.write(pending, &versionstamp) {
            return Err((done, error));
        }
        for watch in &mut watches {
            if let Some(own) = self.changes.get(&watch.key).filter(|_| watch.written) {
                watch.expected.clone_from(own);
            }
        }
        Ok(Accepted { done, watches, committed: Committed { version, versionstamp } })
    }

    fn judge(
        &self,
        window: &Window,
        read: Option<(Version, Instant)>,
        reads: &[Span],
        now: Instant,
    ) -> Result<()> {
        let Some((seen, began)) = read else {
            return Ok(());
        };
        self.engine.check_age(seen, began, now)?;
        if reads.is_empty() {
            return Ok(());
        }
        if seen < window.floor() {
            return Err(Error::too_old());
        }
        if touched(&self.changes, &self.ranges, reads) || window.conflicts(seen, reads) {
            return Err(Error::new(Class::Conflict, "another transaction wrote what this one read"));
        }
        Ok(())
    }

    /// The value before this request, those of the group before it included.
    fn value(&self, key: &Bytes) -> Result<Option<Bytes>> {
        match self.changes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.engine.backend.get(self.latest, key),
        }
    }

    /// Resolves writes into changes. All reads come first: when one fails, nothing was changed.
    fn write(&mut self, pending: Pending, stamp: &Versionstamp) -> Result<()> {
        let mut cleared = Vec::new();
        for (begin, end) in &pending.cleared {
            self.engine.backend.scan(self.latest, begin, end, false, &mut |key, _| {
                cleared.push(key);
                std::ops::ControlFlow::Continue(())
            })?;
            cleared.extend(keys_in(&self.changes, begin, end).map(|(key, _)| key.clone()));
        }
        let mut sums = Vec::new();
        for (key, write) in &pending.writes {
            if let Write::Add(delta) = write {
                sums.push((key.clone(), sum(self.value(key)?.as_ref(), *delta)));
            }
        }
        for key in cleared {
            self.changes.insert(key, None);
        }
        for (key, write) in pending.writes {
            match write {
                Write::Set(value) => self.changes.insert(key, Some(value)),
                Write::Clear => self.changes.insert(key, None),
                Write::Stamped(value, offset) => {
                    self.changes.insert(key, Some(filled(&value, offset, stamp)))
                }
                Write::Add(_) => None,
            };
        }
        for (key, value) in sums {
            self.changes.insert(key, Some(value));
        }
        for stamped in pending.stamped {
            let key = filled(&stamped.key, stamped.offset, stamp);
            let later = pending.cleared.get(stamped.after..).unwrap_or_default();
            if !later.iter().any(|(begin, end)| *begin <= key && key < *end) {
                self.changes.insert(key, Some(stamped.value));
            }
        }
        self.ranges.extend(pending.cleared.into_iter().map(|(begin, end)| Span::Range(begin, end)));
        self.ranges.extend(pending.conflicts);
        Ok(())
    }
}
