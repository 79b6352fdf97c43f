//! Failed logins by origin, and the delay that they earn. Registrations by origin are counted the same way.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Origin;

/// How many origins are remembered; beyond, the one that was quiet longest is forgotten first.
const ORIGINS: usize = 16_384;

#[derive(Clone, Copy)]
struct Entry {
    count: u32,
    since: Instant,
}

/// Counts events by origin within a window of time. Bounded.
pub struct Failures {
    window: Duration,
    by_origin: Mutex<HashMap<Origin, Entry>>,
}

impl Failures {
    /// Events count for `window` after the first.
    pub fn new(window: Duration) -> Self {
        Self { window, by_origin: Mutex::new(HashMap::new()) }
    }

    /// One more from `origin`; returns how many there are in the window.
    pub fn add(&self, origin: Origin) -> u32 {
        let now = Instant::now();
        let mut all = self.by_origin.lock();
        if all.len() >= ORIGINS && !all.contains_key(&origin) {
            all.retain(|_, e| now.duration_since(e.since) < self.window);
            if all.len() >= ORIGINS
                && let Some(oldest) = all.iter().min_by_key(|(_, e)| e.since).map(|(o, _)| *o)
            {
                all.remove(&oldest);
            }
        }
        let entry = all.entry(origin).or_insert(Entry { count: 0, since: now });
        if now.duration_since(entry.since) >= self.window {
            *entry = Entry { count: 0, since: now };
        }
        entry.count = entry.count.saturating_add(1);
        entry.count
    }

    /// How many there are from `origin` in the window.
    pub fn count(&self, origin: Origin) -> u32 {
        let mut all = self.by_origin.lock();
        match all.get(&origin) {
            Some(entry) if entry.since.elapsed() < self.window => entry.count,
            Some(_) => {
                all.remove(&origin);
                0
            }
            None => 0,
        }
    }

    /// How long the next attempt from `origin` waits: a second for each event beyond `free`, at most `longest`.
    pub fn delay(&self, origin: Origin, free: u32, longest: Duration) -> Duration {
        let over = self.count(origin).saturating_sub(free);
        Duration::from_secs(u64::from(over)).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(n: u32) -> Origin {
        std::net::IpAddr::V4(n.into()).into()
    }

    #[tokio::test(start_paused = true)]
    async fn delays_grow_to_a_ceiling_and_are_forgotten() {
        let failures = Failures::new(Duration::from_secs(600));
        let delay = || failures.delay(origin(1), 2, Duration::from_secs(3)).as_secs();
        let mut delays = Vec::new();
        for _ in 0..7 {
            delays.push(delay());
            failures.add(origin(1));
        }
        assert_eq!(delays, [0, 0, 0, 1, 2, 3, 3]);
        assert_eq!(failures.count(origin(2)), 0);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(delay(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let failures = Failures::new(Duration::from_secs(600));
        failures.add(origin(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        for n in 1..=u32::try_from(ORIGINS).unwrap() {
            failures.add(origin(n));
        }
        assert_eq!(failures.by_origin.lock().len(), ORIGINS);
        assert_eq!((failures.count(origin(0)), failures.count(origin(1))), (0, 1));
    }
}
