//! A store that does what the test waits for only when the test says so.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::sync::Arc;

use bytes::Bytes;
use rookery_actors::options::{Archive, Domain};
use rookery_actors::{Host, Options};
use rookery_cluster::seams::Seams;
use rookery_cluster::store::faults::Faults;
use rookery_cluster::store::keys::Kind;
use rookery_cluster::store::memory::Memory;
use rookery_cluster::store::{
    Committed, Database, Fut, Isolation, Page, Result, Select, Store, Transaction, Version,
};
use tokio::sync::watch;

use crate::support::World;

/// A world whose store waits where the test says.
pub async fn gated(archive: Archive) -> (World, Arc<Gate>) {
    let memory = Arc::new(Memory::new());
    let faults = Arc::new(Faults::new(memory.clone()));
    let gate = Gate::new(faults.clone());
    let store = Store::new(gate.clone(), Seams::system());
    let mut options =
        Options::new(vec![Domain { name: "localhost".into(), open_registration: true, contact: vec![] }]);
    options.archive = archive;
    let host = Host::start(options.clone(), store.clone(), Seams::system()).await.unwrap();
    let world = World { memory, store, faults, host, options };
    for name in ["romeo", "juliet", "nurse"] {
        world.account(name).await;
    }
    (world, gate)
}

/// What waits while the gate is shut: reads, or commits, of rows of one kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shut {
    Nothing,
    Reads(Kind),
    Commits(Kind),
}

pub struct Gate {
    inner: Arc<dyn Database>,
    shut: watch::Sender<Shut>,
    /// How many commits have come while it was shut for them.
    held: watch::Sender<usize>,
}

impl Gate {
    pub fn new(inner: Arc<dyn Database>) -> Arc<Self> {
        Arc::new(Self { inner, shut: watch::Sender::new(Shut::Nothing), held: watch::Sender::new(0) })
    }

    /// So many commits have come while it was shut for them.
    pub async fn holds(&self, commits: usize) {
        self.held.subscribe().wait_for(|held| *held >= commits).await.unwrap();
    }

    pub fn shut(&self, shut: Shut) {
        self.shut.send_replace(shut);
    }

    pub fn open(&self) {
        self.shut(Shut::Nothing);
    }
}

impl Database for Gate {
    fn begin(&self) -> Box<dyn Transaction> {
        let (shut, held) = (self.shut.subscribe(), self.held.clone());
        Box::new(Gated { inner: self.inner.begin(), shut, held, written: Vec::new() })
    }

    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn close(&self) -> Fut<'_, Result<()>> {
        self.inner.close()
    }
}

struct Gated {
    inner: Box<dyn Transaction>,
    shut: watch::Receiver<Shut>,
    held: watch::Sender<usize>,
    /// The kinds of the rows that it writes.
    written: Vec<u16>,
}

fn kind_of(key: &[u8]) -> u16 {
    key.first_chunk().map_or(0, |kind| u16::from_be_bytes(*kind))
}

impl Gated {
    async fn may_read(&mut self, kind: u16) {
        let shut = |shut: &Shut| matches!(shut, Shut::Reads(shut) if shut.number() == kind);
        self.shut.wait_for(|now| !shut(now)).await.unwrap();
    }
}

impl Transaction for Gated {
    fn get<'a>(&'a mut self, key: &'a [u8], isolation: Isolation) -> Fut<'a, Result<Option<Bytes>>> {
        Box::pin(async move {
            self.may_read(kind_of(key)).await;
            self.inner.get(key, isolation).await
        })
    }

    fn range(&mut self, select: Select, isolation: Isolation) -> Fut<'_, Result<Page>> {
        Box::pin(async move {
            self.may_read(kind_of(&select.begin)).await;
            self.inner.range(select, isolation).await
        })
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.written.push(kind_of(key));
        self.inner.set(key, value);
    }

    fn clear(&mut self, key: &[u8]) {
        self.written.push(kind_of(key));
        self.inner.clear(key);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.written.push(kind_of(begin));
        self.inner.clear_range(begin, end);
    }

    fn add(&mut self, key: &[u8], delta: i64) {
        self.inner.add(key, delta);
    }

    fn set_versionstamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]) {
        self.inner.set_versionstamped_key(key, offset, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: usize) {
        self.inner.set_versionstamped_value(key, value, offset);
    }

    fn add_read_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.add_read_conflict(begin, end);
    }

    fn add_write_conflict(&mut self, begin: &[u8], end: &[u8]) {
        self.inner.add_write_conflict(begin, end);
    }

    fn set_read_version(&mut self, version: Version, judged: Version) {
        self.inner.set_read_version(version, judged);
    }

    fn read_version(&mut self) -> Fut<'_, Result<Version>> {
        self.inner.read_version()
    }

    fn watch(&mut self, key: &[u8]) -> Fut<'static, Result<()>> {
        self.inner.watch(key)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn commit(self: Box<Self>) -> Fut<'static, Result<Committed>> {
        let Self { inner, mut shut, held, written } = *self;
        Box::pin(async move {
            let mine = |shut: &Shut| matches!(shut, Shut::Commits(kind) if written.contains(&kind.number()));
            if mine(&shut.borrow()) {
                held.send_modify(|held| *held += 1);
            }
            shut.wait_for(|now| !mine(now)).await.unwrap();
            inner.commit().await
        })
    }
}
