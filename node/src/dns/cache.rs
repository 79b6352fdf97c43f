//! What was found, for as long as it holds, within bounds.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How many domains are remembered at most.
const MOST: usize = 10_000;

/// Values by domain, each with its end.
pub(super) struct Cache<T>(Mutex<HashMap<String, (Instant, T)>>);

impl<T: Clone> Cache<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// What is known of `domain` and still holds.
    pub(super) fn get(&self, domain: &str) -> Option<T> {
        let all = self.0.lock();
        let (end, value) = all.get(domain)?;
        (*end > Instant::now()).then(|| value.clone())
    }

    /// Remembers `value` for `ttl`.
    pub(super) fn put(&self, domain: &str, value: T, ttl: Duration) {
        let now = Instant::now();
        let mut all = self.0.lock();
        if all.len() >= MOST && !all.contains_key(domain) {
            all.retain(|_, (end, _)| *end > now);
            if all.len() >= MOST {
                // Full of entries that still hold: every second one goes. Each costs one question to DNS later.
                let mut keep = false;
                all.retain(|_, _| {
                    keep = !keep;
                    keep
                });
            }
        }
        all.insert(domain.to_owned(), (now + ttl, value));
        #[allow(clippy::cast_precision_loss)] // at most MOST
        metrics::gauge!("rookery_dns_domains").set(all.len() as f64);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn holds_for_its_time_and_within_its_bound() {
        let cache = Cache::new();
        cache.put("a.example", 1, Duration::from_secs(10));
        assert_eq!(cache.get("a.example"), Some(1));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(cache.get("a.example"), None);
        for n in 0..3 * MOST {
            cache.put(&n.to_string(), n, Duration::from_secs(10));
            assert!(cache.0.lock().len() <= MOST);
        }
        assert_eq!(cache.get(&(3 * MOST - 1).to_string()), Some(3 * MOST - 1));
        cache.clear();
        assert_eq!(cache.get(&(3 * MOST - 1).to_string()), None);
    }
}
