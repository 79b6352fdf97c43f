//! A transaction's hold on an engine in this process.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::backend::Backend;
use super::commit::Request;
use super::watch::Watch;
use super::{Shared, Snapshot};
use crate::store::buffered::{Base, Commit, Sink};
use crate::store::{Class, Committed, Error, Page, Result, Select, Version};

/// Reads a snapshot, taken at the first read; too old after its time.
pub(crate) struct Local<B: Backend> {
    shared: Arc<Shared<B>>,
    seen: Option<(Arc<Snapshot<B::View>>, Instant)>,
    /// At which version to read, and by which to be judged.
    wanted: Option<(Version, Version)>,
}

impl<B: Backend> Local<B> {
    pub(crate) fn new(shared: Arc<Shared<B>>) -> Self {
        Self { shared, seen: None, wanted: None }
    }

    fn snapshot(&mut self) -> Result<Arc<Snapshot<B::View>>> {
        let engine = &self.shared.engine;
        if let Some((snapshot, began)) = &self.seen {
            engine.check_age(snapshot.version, *began, engine.now())?;
            return Ok(Arc::clone(snapshot));
        }
        let now = engine.now();
        let snapshot = match self.wanted {
            Some((version, _)) => engine.at(version, now)?,
            None => engine.latest()?,
        };
        self.seen = Some((Arc::clone(&snapshot), now));
        Ok(snapshot)
    }

    /// The watches with what was seen, to be set when the commit is through.
    fn watches(&mut self, commit: &mut Commit) -> Result<Vec<Watch>> {
        let mut watches = Vec::new();
        for watched in std::mem::take(&mut commit.watches) {
            let (key, wake) = (watched.key, watched.wake);
            let written = commit.pending.writes.contains_key(&key) || commit.pending.is_cleared(&key);
            let snapshot = self.snapshot()?;
            let expected =
                if written { None } else { self.shared.engine.backend.get(&snapshot.view, &key)? };
            watches.push(Watch { key, expected, written, wake });
        }
        Ok(watches)
    }

    fn send(mut self, mut commit: Commit) -> Result<Sent> {
        let watches = self.watches(&mut commit)?;
        let Self { shared, seen, wanted } = self;
        let Commit { reads, pending, .. } = commit;
        if pending.is_empty() {
            let version = match &seen {
                Some((snapshot, _)) => snapshot.version,
                None => shared.engine.latest()?.version,
            };
            shared.engine.arm(watches);
            return Ok(Sent::Nothing(version));
        }
        let (done, answer) = oneshot::channel();
        let read =
            seen.map(|(snapshot, began)| (wanted.map_or(snapshot.version, |(_, judged)| judged), began));
        let now = shared.engine.now();
        shared.lane.send(&shared.engine, Request { read, reads, pending, watches, now, done });
        Ok(Sent::Request(answer))
    }
}

/// What became of a commit.
enum Sent {
    /// There was nothing to write.
    Nothing(Version),
    /// The commit is on its way.
    Request(oneshot::Receiver<Result<Committed>>),
}

impl<B: Backend> Base for Local<B> {
    fn pin(&mut self, version: Version, judged: Version) {
        self.wanted = Some((version, judged));
    }

    async fn version(&mut self) -> Result<Version> {
        self.snapshot().map(|snapshot| snapshot.version)
    }

    async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        let snapshot = self.snapshot()?;
        self.shared.engine.backend.get(&snapshot.view, key)
    }

    async fn page(&mut self, select: &Select) -> Result<Page> {
        let snapshot = self.snapshot()?;
        let Select { begin, end, reverse, limit } = select;
        let mut sink = Sink::new(*limit);
        let visit = &mut |key, value| sink.row(key, value);
        self.shared.engine.backend.scan(&snapshot.view, begin, end, *reverse, visit)?;
        Ok(sink.page)
    }

    async fn commit(self, commit: Commit) -> Result<Committed> {
        match self.send(commit)? {
            Sent::Nothing(version) => Ok(Committed { version, versionstamp: [0; 10] }),
            Sent::Request(answer) => {
                let lost = || Error::new(Class::MaybeCommitted, "the commit thread ended");
                answer.await.unwrap_or_else(|_| Err(lost()))
            }
        }
    }
}
