//! Places for what waits for other servers: for their answers to DNS, for their streams. Where all are taken, somebody makes room: whoever has
//! had its time, or one of whose kind there are most. Honest servers answer soon, and those that never answer keep nobody out.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until};

struct Inner<K> {
    next: u64,
    /// Oldest first.
    taken: BTreeMap<u64, Taken<K>>,
    /// How many each has.
    shares: HashMap<K, usize>,
}

struct Taken<K> {
    since: Instant,
    whose: K,
    away: Arc<Notify>,
}

impl<K: Clone + Eq + Hash> Inner<K> {
    fn share(&self, whose: &K) -> usize {
        self.shares.get(whose).copied().unwrap_or_default()
    }

    fn remove(&mut self, number: u64) -> Option<Taken<K>> {
        let taken = self.taken.remove(&number)?;
        if let Some(share) = self.shares.get_mut(&taken.whose) {
            *share = share.saturating_sub(1);
            if *share == 0 {
                self.shares.remove(&taken.whose);
            }
        }
        Some(taken)
    }

    /// The oldest place of whoever has most, if that is more than `whose` would have.
    fn heaviest(&self, whose: &K) -> Option<u64> {
        let (heaviest, share) = self.shares.iter().max_by_key(|(_, share)| **share)?;
        let its = || self.taken.iter().find(|(_, taken)| taken.whose == *heaviest).map(|(number, _)| *number);
        (*share > self.share(whose) + 1).then(its).flatten()
    }
}

/// See the module. `K`: in whose share a place is, as a network address or a domain.
pub(crate) struct Places<K: Clone + Eq + Hash> {
    /// The limit's name in the metric.
    limit: &'static str,
    /// How long everybody may have a place.
    fair: Duration,
    inner: Mutex<Inner<K>>,
    freed: Notify,
    /// Those that wait come in order.
    next: Semaphore,
}

/// A place; it goes with the drop.
pub(crate) struct Place<K: Clone + Eq + Hash> {
    places: Arc<Places<K>>,
    number: u64,
    away: Arc<Notify>,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// All are free. `limit` names them in the metric of limits; `fair` is how long everybody may have one.
    pub(crate) fn new(limit: &'static str, fair: Duration) -> Arc<Self> {
        let inner = Inner { next: 0, taken: BTreeMap::new(), shares: HashMap::new() };
        Arc::new(Self {
            limit,
            fair,
            inner: Mutex::new(inner),
            freed: Notify::new(),
            next: Semaphore::new(1),
        })
    }

    /// A place for `whose`, if there are fewer than `most`, if the oldest has had its time, or if somebody has more of them.
    pub(crate) fn try_take(self: &Arc<Self>, most: usize, whose: &K) -> Option<Place<K>> {
        let mut inner = self.inner.lock();
        if inner.taken.len() < most {
            return Some(self.enter(&mut inner, whose));
        }
        let old =
            |(number, taken): (&u64, &Taken<K>)| (taken.since.elapsed() >= self.fair).then_some(*number);
        let goes = inner.taken.first_key_value().and_then(old).or_else(|| inner.heaviest(whose))?;
        Some(self.displace(&mut inner, goes, whose))
    }

    /// The place of somebody who has more, past all who wait in line.
    fn jump(self: &Arc<Self>, most: usize, whose: &K) -> Option<Place<K>> {
        let mut inner = self.inner.lock();
        let goes = inner.heaviest(whose).filter(|_| inner.taken.len() >= most)?;
        Some(self.displace(&mut inner, goes, whose))
    }

    fn displace(self: &Arc<Self>, inner: &mut Inner<K>, number: u64, whose: &K) -> Place<K> {
        metrics::counter!("rookery_limits_hit_total", "limit" => self.limit).increment(1);
        if let Some(goes) = inner.remove(number) {
            goes.away.notify_one();
        }
        self.enter(inner, whose)
    }

    fn enter(self: &Arc<Self>, inner: &mut Inner<K>, whose: &K) -> Place<K> {
        let (number, away) = (inner.next, Arc::<Notify>::default());
        inner.next += 1;
        inner.taken.insert(number, Taken { since: Instant::now(), whose: whose.clone(), away: away.clone() });
        *inner.shares.entry(whose.clone()).or_default() += 1;
        Place { places: self.clone(), number, away }
    }

    /// Waits for a place. Whoever has few does not stand in line behind those who have many.
    pub(crate) async fn take(self: &Arc<Self>, most: usize, whose: &K) -> Place<K> {
        if let Some(place) = self.jump(most, whose) {
            return place;
        }
        let _next = self.next.acquire().await;
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(place) = self.try_take(most, whose) {
                return place;
            }
            let oldest = self.inner.lock().taken.first_key_value().map(|(_, taken)| taken.since + self.fair);
            tokio::select! {
                () = freed => {}
                () = sleep_until(oldest.unwrap_or_else(Instant::now)) => {}
            }
        }
    }
}

impl<K: Clone + Eq + Hash> Place<K> {
    /// Waits until the place is another's.
    pub(crate) async fn sent_away(&self) {
        self.away.notified().await;
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let removed = self.places.inner.lock().remove(self.number);
        drop(removed);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIR: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_when_it_has_had_its_time() {
        let places = Places::new("test", FAIR);
        let slow = [places.take(2, &0).await, places.take(2, &0).await];
        assert!(places.try_take(2, &0).is_none());
        let begun = Instant::now();
        let third = places.take(2, &0).await;
        assert_eq!(begun.elapsed(), FAIR);
        slow[0].sent_away().await;
        // The second has had its time as well.
        let fourth = places.take(2, &0).await;
        slow[1].sent_away().await;
        assert_eq!(begun.elapsed(), FAIR);
        // One that is given back is there at once; one that was sent away gives nothing back.
        drop(slow);
        assert!(places.try_take(2, &0).is_none());
        drop(third);
        assert!(places.try_take(2, &0).is_some());
        drop(fourth);
        assert!(places.inner.lock().shares.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_wait_come_in_order() {
        let places = Places::new("test", FAIR);
        let first = places.take(1, &0).await;
        let (told, mut order) = tokio::sync::mpsc::channel(10);
        for n in 0..5 {
            let (places, told) = (places.clone(), told.clone());
            tokio::spawn(async move {
                let _place = places.take(1, &0).await;
                told.send(n).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        drop(first);
        for n in 0..5 {
            assert_eq!(order.recv().await, Some(n));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_most_makes_room_for_those_who_have_less() {
        let places = Places::new("test", FAIR);
        let mut many = Vec::new();
        for _ in 0..8 {
            many.push(places.take(8, &"evil").await);
        }
        // However many of them stand in line.
        let waits = tokio::spawn({
            let places = places.clone();
            async move { places.take(8, &"evil").await }
        });
        tokio::task::yield_now().await;
        let begun = Instant::now();
        let mut others = Vec::new();
        for _ in 0..4 {
            others.push(places.take(8, &"good").await);
        }
        let one = places.try_take(8, &"third");
        assert!(one.is_some() && begun.elapsed().is_zero());
        for sent in many.iter().take(4) {
            sent.sent_away().await;
        }
        // No more than that: from then on it is a matter of time.
        assert!(places.try_take(8, &"good").is_none() && places.try_take(8, &"evil").is_none());
        drop(many);
        waits.await.unwrap();
    }
}
