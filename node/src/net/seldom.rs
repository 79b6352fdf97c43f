//! Log lines that strangers can cause: one a minute is enough.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long nothing is said after something was.
const PAUSE: Duration = Duration::from_secs(60);

/// When something was said last, and how often it was not since.
pub struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Nothing was said yet.
    pub const fn new() -> Self {
        Self(Mutex::new((None, 0)))
    }

    /// Whether to say it now: how often it was kept back before.
    pub fn now(&self) -> Option<u64> {
        let (last, silent) = &mut *self.0.lock();
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            *silent += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(silent))
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_said_once_a_minute() {
        let seldom = Seldom::new();
        assert_eq!((seldom.now(), seldom.now(), seldom.now()), (Some(0), None, None));
        tokio::time::advance(PAUSE).await;
        assert_eq!((seldom.now(), seldom.now()), (Some(2), None));
    }
}
