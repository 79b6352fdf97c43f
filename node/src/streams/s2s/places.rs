//! Places for what waits for other servers. Where all are taken, the oldest makes room once it has had its time: honest servers answer
//! soon, and those that never answer keep nobody out.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

/// How long everybody may have a place.
const FAIR: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Inner {
    next: u64,
    /// Oldest first.
    taken: BTreeMap<u64, Taken>,
}

struct Taken {
    since: Instant,
    away: Arc<Notify>,
}

/// See the module.
pub(super) struct Places {
    /// The limit's name in the metric.
    limit: &'static str,
    inner: Mutex<Inner>,
    freed: Notify,
    /// Those that wait come in order.
    next: Semaphore,
}

/// A place; it goes with the drop.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    away: Arc<Notify>,
}

impl Places {
    /// All are free. `limit` names them in the metric of limits.
    pub(super) fn new(limit: &'static str) -> Arc<Self> {
        Arc::new(Self { limit, inner: Mutex::default(), freed: Notify::new(), next: Semaphore::new(1) })
    }

    /// A place, if there are fewer than `most`, or if the oldest has had its time.
    pub(super) fn try_take(self: &Arc<Self>, most: usize) -> Option<Place> {
        let mut inner = self.inner.lock();
        if inner.taken.len() >= most {
            let oldest = inner.taken.first_entry().filter(|oldest| oldest.get().since.elapsed() >= FAIR)?;
            oldest.remove().away.notify_one();
            metrics::counter!("rookery_limits_hit_total", "limit" => self.limit).increment(1);
        }
        let (number, away) = (inner.next, Arc::<Notify>::default());
        inner.next += 1;
        inner.taken.insert(number, Taken { since: Instant::now(), away: away.clone() });
        drop(inner);
        Some(Place { places: self.clone(), number, away })
    }

    /// Waits for a place.
    pub(super) async fn take(self: &Arc<Self>, most: usize) -> Place {
        let _next = self.next.acquire().await;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(place) = self.try_take(most) {
                return place;
            }
            let oldest = self.inner.lock().taken.first_key_value().map(|(_, taken)| taken.since + FAIR);
            tokio::select! {
                () = freed => {}
                () = sleep_until(oldest.unwrap_or_else(Instant::now)) => {}
            }
        }
    }
}

impl Place {
    /// Waits until the place is another's.
    pub(super) async fn sent_away(&self) {
        self.away.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.inner.lock().taken.remove(&self.number);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_when_it_has_had_its_time() {
        let places = Places::new("test");
        let slow = [places.take(2).await, places.take(2).await];
        assert!(places.try_take(2).is_none());
        let begun = Instant::now();
        let third = places.take(2).await;
        assert_eq!(begun.elapsed(), FAIR);
        slow[0].sent_away().await;
        // The second has had its time as well.
        let fourth = places.take(2).await;
        slow[1].sent_away().await;
        assert_eq!(begun.elapsed(), FAIR);
        // One that is given back is there at once; one that was sent away gives nothing back.
        drop(slow);
        assert!(places.try_take(2).is_none());
        drop(third);
        assert!(places.try_take(2).is_some());
        drop(fourth);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_come_in_order() {
        let places = Places::new("test");
        let first = places.take(1).await;
        let (told, mut order) = tokio::sync::mpsc::channel(10);
        for n in 0..5 {
            let (places, told) = (places.clone(), told.clone());
            tokio::spawn(async move {
                let _place = places.take(1).await;
                told.send(n).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop(first);
        for n in 0..5 {
            assert_eq!(order.recv().await, Some(n));
        }
    }
}
