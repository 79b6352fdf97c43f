//! What a node does in the background, a little at a time: removes messages that are older than the operator keeps them, or
//! more, and rows that only served to tell repetitions.
//!
//! An hour is a round of 1024 turns, one for each shard. Every turn does a few small transactions and none that waits for
//! another, so that nobody notices; what a turn does not finish the next one goes on with.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::entity::{Entity, SHARDS, Shard};
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::archive::{self, Collection};
use rookery_cluster::tables::{Sid, accounts, seen};

use crate::host::options::Options;
use quota::Quotas;

pub(crate) mod quota;

/// Between two turns: an hour for all shards.
const TURN: Duration = Duration::from_millis(3_600_000 / SHARDS as u64);

/// Between two transactions of a turn that has more to do.
const BUSY: Duration = Duration::from_millis(100);

const HOUR: u64 = 3_600_000_000;
const DAY: u64 = 24 * HOUR;

/// Days of archives that one transaction removes: each may be thousands of rows.
const ARCHIVE_DAYS: usize = 8;

/// Accounts whose repetition rows a turn looks at: two and a half million a day.
const ACCOUNTS: usize = 100;

/// Repetition rows that one transaction looks at.
const SEEN_ROWS: usize = 500;

/// A stanza that may come again does so while its session can be resumed: minutes. Two days are beyond any doubt.
const SEEN_FOR: u64 = 2 * DAY;

/// Marks of operations that one transaction removes.
const MARKS: usize = 500;

/// What was done since the last line of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Done {
    /// Days of archives and of queues that were removed.
    pub(crate) archive_days: u64,
    /// Rows that told repetitions.
    pub(crate) seen_rows: u64,
    /// Marks of operations that are over.
    pub(crate) marks: u64,
    /// Sequence that failed; they come again.
    pub(crate) failures: u64,
}

/// What a turn has to do. Each is one step of [`Maintenance::step`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    Retention(Collection),
    Seen,
    Marks,
}

/// Where the walk over accounts is, which takes a day at most.
#[derive(Clone, Default)]
struct Walk {
    /// The index of the domain in the options.
    domain: usize,
    /// The account that was done last.
    after: Option<String>,
    /// The day of the clock on which the walk began; the next one begins on another.
    began: Option<u64>,
    over: bool,
}

/// The jobs and where they are.
pub(crate) struct Maintenance {
    store: Store,
    seams: Seams,
    quotas: Arc<Quotas>,
    shard: u16,
    job: Job,
    walk: Walk,
    done: Done,
    /// The day of the last line of the log.
    day: u64,
}

/// Does the jobs for as long as `options` gives options.
pub(crate) async fn run(
    store: Store,
    seams: Seams,
    quotas: Arc<Quotas>,
    options: impl Fn() -> Option<Arc<Options>> + Send,
) {
    let mut maintenance = Maintenance::new(store, seams, quotas);
    let mut pause = TURN;
    loop {
        tokio::time::sleep(pause).await;
        let Some(options) = options() else { return };
        pause = maintenance.step(&options).await;
    }
}

impl Maintenance {
    pub(crate) fn new(store: Store, seams: Seams, quotas: Arc<Quotas>) -> Self {
        // Nodes that start together begin at different shards.
        let shard = u16::from_be_bytes(seams.bytes()) % SHARDS;
        let day = seams.clock.now_micros() / DAY;
        Self {
            store,
            seams,
            quotas,
            shard,
            job: Job::Retention(Collection::Archive),
            walk: Walk::default(),
            done: Done::default(),
            day,
        }
    }

    /// One transaction or a few, and how long to wait before the next step.
    pub(crate) async fn step(&mut self, options: &Options) -> Duration {
        let now = self.seams.clock.now_micros();
        if now / DAY != self.day {
            self.day = now / DAY;
            self.tell();
        }
        let outcome = match self.job {
            Job::Retention(collection) => self.retention(options, collection, now).await,
            Job::Seen => self.seen(options, now).await.map(|()| false),
            Job::Marks => self.marks(now).await,
        };
        let more = outcome.unwrap_or_else(|error| {
            self.done.failures += 1;
            metrics::counter!("rookery_maintenance_failures_total").increment(1);
            tracing::debug!(job = ?self.job, shard = self.shard, %error, "maintenance failed; it comes again");
            false
        });
        if !more {
            self.turn();
        }
        if more || self.job != Job::Retention(Collection::Archive) { BUSY } else { TURN }
    }

    /// On to the next job or shard.
    fn turn(&mut self) {
        self.job = match self.job {
            Job::Retention(Collection::Archive) => Job::Retention(Collection::Queue),
            Job::Retention(Collection::Queue) => Job::Seen,
            Job::Seen if self.shard == 0 => Job::Marks,
            Job::Seen | Job::Marks => {
                self.shard = (self.shard + 1) % SHARDS;
                Job::Retention(Collection::Archive)
            }
        };
    }

    fn tell(&mut self) {
        let Done { archive_days, seen_rows, marks, failures } = std::mem::take(&mut self.done);
        tracing::info!(archive_days, seen_rows, marks, failures, "maintenance of the last day");
    }

    /// Removes the days of archives that are over. Returns whether the shard has more of them.
    async fn retention(
        &mut self,
        options: &Options,
        collection: Collection,
        now: u64,
    ) -> store::Result<bool> {
        let keep = u64::try_from(options.retention.as_micros()).unwrap_or(u64::MAX);
        let (shard, before) = (Shard(self.shard), u32::try_from(now.saturating_sub(keep) / DAY).unwrap_or(0));
        if keep == 0 || before == 0 || !self.store.owns(shard) {
            return Ok(false);
        }
        let write = store::Options { shards: vec![shard], ..store::Options::default() };
        let retained = self
            .store
            .write(write, |tx| {
                Box::pin(
                    async move { archive::retain(&mut **tx, collection, shard, before, ARCHIVE_DAYS).await },
                )
            })
            .await?;
        removed("archive_days", retained.removed, &mut self.done.archive_days);
        Ok(retained.more)
    }

    /// Prunes the repetition rows of the next accounts, and weighs their archives; once a day, all of them.
    async fn seen(&mut self, options: &Options, now: u64) -> store::Result<()> {
        if self.walk.over && self.walk.began == Some(now / DAY) {
            return Ok(());
        }
        if self.walk.over || self.walk.began.is_none() {
            self.walk = Walk { began: Some(now / DAY), ..Walk::default() };
        }
        let Some(domain) = options.domains.get(self.walk.domain) else {
            self.walk.over = true;
            return Ok(());
        };
        let (domain, after) = (domain.name.as_str(), self.walk.after.clone());
        let after = after.as_deref();
        let page = self
            .store
            .read(|tx| Box::pin(async move { accounts::list(&mut **tx, domain, after, ACCOUNTS).await }))
            .await?;
        for account in &page.rows {
            self.prune(&account.user, now.saturating_sub(SEEN_FOR)).await?;
            quota::enforce(&self.store, &self.quotas, &account.user, now, options).await?;
            self.walk.after = Some(account.name.clone());
        }
        if !page.more {
            self.walk.domain += 1;
            self.walk.after = None;
            self.walk.over = self.walk.domain >= options.domains.len();
        }
        Ok(())
    }

    async fn prune(&mut self, user: &Entity, before: u64) -> store::Result<()> {
        if !self.store.owns(user.shard()) {
            return Ok(()); // its node does it
        }
        let mut after: Option<Sid> = None;
        loop {
            let from = after;
            let pruned = self
                .store
                .write(store::Options::owner(user), |tx| {
                    Box::pin(
                        async move { seen::prune(&mut **tx, user, before, from.as_ref(), SEEN_ROWS).await },
                    )
                })
                .await?;
            removed("seen_rows", pruned.removed, &mut self.done.seen_rows);
            match pruned.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Removes marks of operations that only a crash leaves behind. Returns whether there are more.
    async fn marks(&mut self, now: u64) -> store::Result<bool> {
        let swept = self.store.sweep(now.saturating_sub(HOUR), MARKS).await?;
        removed("marks", swept, &mut self.done.marks);
        Ok(swept >= MARKS)
    }
}

fn removed(what: &'static str, count: usize, total: &mut u64) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if count > 0 {
        metrics::counter!("rookery_maintenance_removed_total", "what" => what).increment(count);
    }
    *total = total.saturating_add(count);
}

#[cfg(test)]
mod tests;
