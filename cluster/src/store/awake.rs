//! Waiting that counts only while this process runs.
//!
//! A process that was stopped for a while (SIGSTOP, a suspended machine, a debugger) finds all its deadlines over when it goes on,
//! though the store was never slow. So time is counted in slices: what happens within one slice counts as one slice.

use std::time::Duration;

use tokio::time::{Instant, timeout};

/// The longest stretch of time that counts at once.
const SLICE: Duration = Duration::from_millis(250);

/// Waits for `work`, for `limit` of time in which this process runs at most; `None` after that.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut left = limit;
    loop {
        let slice = left.min(SLICE);
        if let Ok(done) = timeout(slice, work.as_mut()).await {
            return Some(done);
        }
        left = left.saturating_sub(slice);
        if left.is_zero() {
            return None;
        }
    }
}

/// Waits for `work`, and says for how long in which this process has run.
pub(super) async fn measured<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = std::pin::pin!(work);
    let mut spent = Duration::ZERO;
    loop {
        let begun = Instant::now();
        match timeout(SLICE, work.as_mut()).await {
            Ok(done) => return (done, spent + begun.elapsed().min(SLICE)),
            Err(_) => spent += SLICE,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep};

    use super::*;

    /// The clock jumps, as it does for a process that was stopped.
    #[tokio::test(start_paused = true)]
    async fn a_time_in_which_nothing_ran_is_short() {
        let jumps = || async {
            advance(Duration::from_secs(60)).await;
            sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(within(Duration::from_secs(1), jumps()).await, Some(()));
        let ((), spent) = measured(jumps()).await;
        assert!(spent <= 2 * SLICE, "{spent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_in_which_the_process_ran_is_counted() {
        let begun = Instant::now();
        let limit = Duration::from_millis(1_100);
        assert_eq!(within(limit, std::future::pending::<()>()).await, None);
        assert_eq!(begun.elapsed().as_millis() / 100, 11);
        let ((), spent) = measured(sleep(Duration::from_secs(3))).await;
        assert!(spent >= Duration::from_millis(2_900) && spent <= Duration::from_millis(3_100), "{spent:?}");
    }
}
