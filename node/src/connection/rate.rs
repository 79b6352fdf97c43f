//! Token buckets, kept as one instant each (the "generic cell rate algorithm"): a client that sends faster than its rate
//! is read more slowly; nothing is refused.

use std::time::Duration;

use tokio::time::Instant;

/// A rate with a burst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// What one unit costs.
    unit: Duration,
    /// How far a client may be ahead.
    burst: Duration,
}

impl Rate {
    /// `per_second` units over time, `burst` at once.
    pub(super) fn new(per_second: u64, burst: u64) -> Self {
        let unit = Duration::from_nanos(1_000_000_000 / per_second.max(1));
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        Self { unit, burst: unit.saturating_mul(burst) }
    }
}

/// A bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// When all that was taken is paid for.
    paid: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { paid: now }
    }

    /// Takes `units`; returns until when to wait before taking more, if at all.
    pub(super) fn take(&mut self, now: Instant, units: usize, rate: &Rate) -> Option<Instant> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.paid = self.paid.max(now) + rate.unit.saturating_mul(units);
        let free = now + rate.burst;
        (self.paid > free).then(|| now + (self.paid - free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_rate() {
        let rate = Rate::new(10, 5);
        let now = Instant::now();
        let mut bucket = Bucket::full(now);
        for _ in 0..5 {
            assert_eq!(bucket.take(now, 1, &rate), None);
        }
        let until = bucket.take(now, 1, &rate).unwrap();
        assert_eq!(until - now, Duration::from_millis(100));
        // Having waited, one more costs the same again; after long silence the burst is back.
        assert_eq!(bucket.take(until, 1, &rate).unwrap() - until, Duration::from_millis(100));
        assert_eq!(bucket.take(now + Duration::from_secs(60), 5, &rate), None);
    }

    #[tokio::test(start_paused = true)]
    async fn absurd_numbers_do_no_harm() {
        let now = Instant::now();
        let rate = Rate::new(0, u64::MAX);
        assert_eq!(Bucket::full(now).take(now, 1, &rate), None);
        let rate = Rate::new(u64::MAX, 0);
        assert_eq!(Bucket::full(now).take(now, 1_000_000, &rate), None);
    }
}
