//! What the engines count alike.

use std::time::Instant;

use metrics::{counter, histogram};

use super::{Class, Error};

/// A commit (or a group of them) of so many bytes that began at `since` is durable.
pub(crate) fn committed(since: Instant, bytes: usize) {
    histogram!("rookery_store_commit_seconds").record(since.elapsed().as_secs_f64());
    #[allow(clippy::cast_precision_loss)] // a group is far below 2^52 bytes
    histogram!("rookery_store_commit_bytes").record(bytes as f64);
}

/// A read that left the process and began at `since` was answered.
pub(crate) fn read(since: Instant) {
    histogram!("rookery_store_read_seconds").record(since.elapsed().as_secs_f64());
}

/// A transaction ended with this error.
pub(crate) fn refused(error: &Error) {
    match error.class {
        Class::Conflict => counter!("rookery_store_conflicts_total").increment(1),
        Class::MaybeCommitted => counter!("rookery_store_unknown_results_total").increment(1),
        Class::Retry if error.is_too_old() => counter!("rookery_store_too_old_total").increment(1),
        _ => {}
    }
}
