//! What every engine must do, as cases that run on each. A case gets an empty database.
//!
//! Nothing in here may ask for more than FoundationDB does.

mod conflicts;
mod fenced;
mod limit;
mod reads;
mod running;
mod stamps;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Class, Committed, Database, Isolation, Page, Result, Select};

pub use conflicts::*;
pub use fenced::*;
pub use limit::*;
pub use reads::*;
pub use running::*;
pub use stamps::*;
pub use watches::*;

/// What a case is run on.
#[derive(Clone)]
pub struct Subject {
    /// An empty database.
    pub db: Arc<dyn Database>,
    /// Lets time pass for the age of transactions; an engine elsewhere has to wait in truth.
    pub pass: Arc<dyn Fn(Duration) + Send + Sync>,
}

/// Calls a macro with the name of every case, so that a runner makes one test of each.
#[macro_export]
macro_rules! for_every_conformance_case {
    ($run:ident) => {
        $run! {
            reads_see_own_writes,
            ranges_see_own_writes,
            nothing_is_visible_before_the_commit,
            reads_repeat_within_a_transaction,
            pages_go_forward_to_the_end,
            pages_go_backward_to_the_end,
            large_pages_end_early,
            values_above_100_kb_are_kept_in_parts,
            scans_follow_pages_over_transactions,
            scans_backward_follow_pages_over_transactions,
            an_old_version_can_be_read_again,
            lost_updates_are_prevented,
            write_skew_is_prevented,
            blind_writes_do_not_conflict,
            what_was_written_at_a_version_that_is_set_conflicts,
            snapshot_reads_do_not_conflict,
            own_writes_read_back_do_not_conflict,
            phantoms_conflict,
            what_lies_behind_a_page_does_not_conflict,
            clear_range_conflicts_with_inserts_that_were_read,
            clear_range_removes_what_came_before_and_not_after,
            explicit_conflicts_count,
            read_only_transactions_never_conflict,
            adds_do_not_conflict_and_sum_up,
            adds_follow_their_transaction,
            versionstamps_ascend_with_commits,
            versionstamps_fill_keys_and_values,
            versionstamped_keys_lie_in_the_order_of_commits,
            unknown_versionstamps_cannot_be_read,
            keys_and_values_have_limits,
            transactions_have_a_limit,
            illegal_keys_are_refused,
            old_transactions_are_refused,
            a_future_version_is_refused,
            watches_fire_on_change,
            watches_of_failed_transactions_end,
            concurrent_counters_lose_nothing,
            the_runner_repeats_conflicts,
            unknown_commits_have_one_effect,
            late_commits_have_one_effect,
            late_commits_of_failed_calls_come_to_nothing,
            random_faults_have_one_effect_each,
            the_runner_tells_the_stamp_of_the_commit,
            the_runner_keeps_its_deadline,
            the_runner_keeps_its_budget,
            marks_of_operations_go,
            a_fenced_write_goes_through_while_its_node_lives,
            a_fenced_write_fails_after_the_takeover,
            a_late_commit_of_who_was_fenced_comes_to_nothing,
            a_fenced_body_that_writes_nothing_sees_the_newest,
            batched_writes_are_ordered,
            batches_survive_faults,
            a_full_batcher_refuses,
        }
    };
}

pub(crate) const SERIAL: Isolation = Isolation::Serializable;

fn all(limit: usize) -> Select {
    Select::range(Bytes::new()..Bytes::from_static(&[0xff]), limit)
}

/// Commits some rows.
async fn fill(db: &Arc<dyn Database>, rows: &[(&str, &str)]) -> Committed {
    let mut tx = db.begin();
    for (key, value) in rows {
        tx.set(key.as_bytes(), value.as_bytes());
    }
    expect(tx.commit().await)
}

/// The value of a key in a transaction of its own.
async fn value(db: &Arc<dyn Database>, key: &str) -> Option<Bytes> {
    expect(db.begin().get(key.as_bytes(), SERIAL).await)
}

/// The keys of a page, as text.
fn names(page: &Page) -> String {
    let keys = page.rows.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned());
    keys.collect::<Vec<_>>().join(" ")
}

/// What must not fail.
#[allow(clippy::panic)] // a case that fails is a test that fails
fn expect<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{:?}: {error} ({:?})", error.class, error.detail),
    }
}

/// What must fail, and how.
fn class<T>(result: Result<T>) -> Option<Class> {
    result.err().map(|error| error.class)
}
