//! The notice board of a node: the map that all look at, and the task that keeps it fresh by a watch on one row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::{counter, gauge};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::map::Rows;
use super::{Core, Epoch, Map};
use crate::entity::{SHARDS, Shard};
use crate::invariant;
use crate::store::{Class, Error, Fut, Isolation, Result};
use crate::tables::nodes::{self, State};

/// How long a reading may take.
const READING: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Board {
    map: RwLock<Arc<Map>>,
    /// Held while the next map is made, so that none is lost.
    making: Mutex<()>,
    /// Counts the maps.
    changed: watch::Sender<u64>,
    /// Readings begun …
    begun: AtomicU64,
    /// … and the last of them that came to its end.
    done: watch::Sender<u64>,
    wanted: Notify,
}

/// What a reading brought.
enum Read {
    /// The version row is what it was.
    Same,
    New(Box<Rows>, Bytes),
}

type Watch = Fut<'static, Result<()>>;

impl Board {
    pub(super) fn new(map: Map) -> Self {
        Self {
            map: RwLock::new(Arc::new(map)),
            making: Mutex::new(()),
            changed: watch::Sender::new(0),
            begun: AtomicU64::new(0),
            done: watch::Sender::new(0),
            wanted: Notify::new(),
        }
    }

    /// The map as it is now.
    pub(super) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read())
    }

    /// Tells of every new map.
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes the watchers, with no new map.
    pub(super) fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Has the map read soon.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Waits for a reading that began after this call.
    pub(super) async fn refreshed(&self) {
        let mut done = self.done.subscribe();
        let wanted = self.begun.load(Ordering::Acquire) + 1;
        self.want();
        let _ = done.wait_for(|done| *done >= wanted).await;
    }
}

impl Core {
    /// Puts up a map with what the node holds now, and with these rows if there are any.
    pub(super) fn publish(&self, rows: Option<Rows>) {
        let making = self.board.making.lock();
        let before = self.board.map();
        let rows = rows.map_or_else(|| Arc::clone(&before.rows), Arc::new);
        if rows.version < before.rows.version {
            return;
        }
        let here = self.guard.held();
        let map = Map { node: before.node.clone(), generation: before.generation, rows, here };
        let grows = |(before, now): (&Option<Epoch>, &Option<Epoch>)| now.is_none() || now >= before;
        invariant!(
            "epochs_of_maps_grow",
            !cfg!(debug_assertions) || before.here.iter().zip(&map.here).all(grows)
        );
        gauge!("rookery_mesh_shards_held").set(count(map.held().count()));
        *self.board.map.write() = Arc::new(map);
        drop(making);
        self.board.touch();
    }

    /// Reads the rows if the version row is another than `known`.
    async fn read_rows(&self, known: Option<&Bytes>, arm: bool) -> Result<(Read, Option<Watch>)> {
        let mut tx = self.store.database().begin();
        let key = nodes::version_key();
        let watch = arm.then(|| tx.watch(&key));
        let count = tx.get(&key, Isolation::Snapshot).await?.unwrap_or_default();
        let read = if known == Some(&count) {
            Read::Same
        } else {
            let (statuses, owners) = (nodes::statuses(&mut *tx).await?, nodes::owners(&mut *tx).await?);
            let version = tx.read_version().await?;
            let rows = Rows::new(version, statuses, owners, &self.board.map().rows);
            Read::New(Box::new(rows), count)
        };
        tx.commit().await?;
        Ok((read, watch))
    }

    /// Reads the map once, outside the rounds.
    pub(super) async fn read_map(&self) -> Result<()> {
        let late = || Error::new(Class::Unavailable, "the store did not answer in time");
        let (read, _) =
            timeout(READING, self.read_rows(None, false)).await.unwrap_or_else(|_| Err(late()))?;
        if let Read::New(rows, _) = read {
            self.take_in(*rows);
        }
        Ok(())
    }

    /// Draws the conclusions and puts the rows up.
    fn take_in(&self, rows: Rows) {
        counter!("rookery_mesh_map_readings_total").increment(1);
        for state in [State::Joining, State::Active, State::Draining, State::Dead] {
            let number = rows.members.iter().filter(|member| member.status.state() == state).count();
            gauge!("rookery_mesh_nodes", "state" => state.name()).set(count(number));
        }
        let free = (0..SHARDS).filter(|shard| rows.owner(Shard(*shard)).is_none()).count();
        gauge!("rookery_mesh_shards_free").set(count(free));
        let own = rows.member(&self.node);
        if own.is_some_and(|own| !own.status.lives(self.generation)) {
            self.die();
        } else {
            let mine = |shard| rows.owner(shard).is_some_and(|(owner, _)| owner.node == self.node);
            self.guard.compare(rows.version, mine);
        }
        self.publish(Some(rows));
    }

    /// Keeps the map fresh, for ever.
    pub(super) async fn keep_map(&self) {
        let (mut watch, mut known): (Option<Watch>, Option<Bytes>) = (None, None);
        while !self.lease.is_over() {
            let began = Instant::now();
            let round = self.board.begun.fetch_add(1, Ordering::AcqRel) + 1;
            let reading = timeout(READING, self.read_rows(known.as_ref(), watch.is_none())).await;
            match reading {
                Ok(Ok((read, armed))) => {
                    watch = watch.or(armed);
                    if let Read::New(rows, count) = read {
                        self.take_in(*rows);
                        known = Some(count);
                    }
                    self.board.done.send_replace(round);
                }
                failed => {
                    tracing::debug!(error = ?failed.map(|read| read.err()), "the map could not be read");
                    watch = None;
                    sleep(self.jitter(self.timing.beat / 2)).await;
                    continue;
                }
            }
            let timer = sleep(self.jitter(self.timing.refresh));
            tokio::select! {
                biased;
                _ = async { match watch.as_mut() { Some(watch) => watch.await, None => std::future::pending().await } } => {
                    watch = None;
                }
                () = self.board.wanted.notified() => {}
                () = self.guard.doubt.notified() => known = None,
                // Should the watch have been lost with a connection, the next reading sets another.
                () = timer => watch = None,
            }
            // Of many changes one after the other, not each is worth a reading.
            sleep_until(began + self.jitter(self.timing.pace)).await;
        }
    }
}

/// For gauges.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
