//! Token buckets, kept as one instant each (the "generic cell rate algorithm"): a client that sends faster than its rate
//! is read more slowly; nothing is refused.
//!
//! What was sent is counted for the account (for the domain, if another server sends), over all its connections to this node, and
//! before login for the address: a client that comes back with another connection finds the rate as it was.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rookery_proto::xmpp::jid::BareJid;
use tokio::time::Instant;

use crate::config::{Limits, Traffic};
use crate::net::Origin;

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
        Self::each(Duration::from_nanos(1_000_000_000 / per_second.max(1)), burst)
    }

    /// One unit every `unit` over time, `burst` at once.
    pub(super) fn each(unit: Duration, burst: u64) -> Self {
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

    /// Until when to wait before anything is taken, if at all.
    fn due(&self, now: Instant, rate: &Rate) -> Option<Instant> {
        let free = now + rate.burst;
        (self.paid > free).then(|| now + (self.paid - free))
    }

    /// Takes `units`; returns until when to wait before taking more, if at all.
    pub(super) fn take(&mut self, now: Instant, units: usize, rate: &Rate) -> Option<Instant> {
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.paid = self.paid.max(now) + rate.unit.saturating_mul(units);
        self.due(now, rate)
    }
}

/// The rates in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce {
    pub(super) bytes: Rate,
    pub(super) stanzas: Rate,
}

impl From<Traffic> for InForce {
    fn from(traffic: Traffic) -> Self {
        Self {
            bytes: Rate::new(traffic.bytes_per_second, traffic.bytes_burst),
            stanzas: Rate::new(traffic.stanzas_per_second, traffic.stanzas_burst),
        }
    }
}

impl InForce {
    /// Those of a component.
    pub(super) fn of_component(limits: &Limits) -> Self {
        let rate = |per_second: u64| Rate::new(per_second, per_second.saturating_mul(2));
        Self {
            bytes: rate(limits.component_bytes_per_second),
            stanzas: rate(limits.component_stanzas_per_second),
        }
    }
}

struct Taken {
    bytes: Bucket,
    stanzas: Bucket,
}

/// What one account or address has sent. Shared by its connections.
pub(super) struct Meter(Mutex<Taken>);

impl Meter {
    fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Taken { bytes: Bucket::full(now), stanzas: Bucket::full(now) })))
    }

    /// So many bytes came; until when to read nothing more.
    pub(super) fn bytes(&self, now: Instant, count: usize, rates: &InForce) -> Option<Instant> {
        self.0.lock().bytes.take(now, count, &rates.bytes)
    }

    /// One stanza came; until when to take nothing more.
    pub(super) fn stanza(&self, now: Instant, rates: &InForce) -> Option<Instant> {
        self.0.lock().stanzas.take(now, 1, &rates.stanzas)
    }

    /// Until when to read nothing, because of what this connection or another one has sent.
    pub(super) fn due(&self, now: Instant, rates: &InForce) -> Option<Instant> {
        let taken = self.0.lock();
        taken.bytes.due(now, &rates.bytes).max(taken.stanzas.due(now, &rates.stanzas))
    }

    /// When all that was taken is paid for: from then on it is as good as a new one.
    fn paid(&self) -> Instant {
        let taken = self.0.lock();
        taken.bytes.paid.max(taken.stanzas.paid)
    }
}

/// How many meters without a connection are remembered; beyond, those go that are paid for first.
const REMEMBERED: usize = 16_384;

struct Table<K> {
    meters: HashMap<K, Arc<Meter>>,
    /// At how many the table is looked through.
    look: usize,
}

impl<K: Eq + Hash + Clone> Table<K> {
    fn new() -> Self {
        Self { meters: HashMap::new(), look: REMEMBERED }
    }

    fn of<Q>(&mut self, key: &Q, now: Instant) -> Arc<Meter>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(meter) = self.meters.get(key) {
            return meter.clone();
        }
        if self.meters.len() >= self.look {
            self.forget(now);
        }
        let meter = Meter::new(now);
        self.meters.insert(key.to_owned(), meter.clone());
        meter
    }

    /// Forgets what nobody uses and what is paid for, and of the rest the least.
    fn forget(&mut self, now: Instant) {
        let used = |meter: &Arc<Meter>| Arc::strong_count(meter) > 1;
        self.meters.retain(|_, meter| used(meter) || meter.paid() > now);
        let idle = self.meters.iter().filter(|(_, meter)| !used(meter));
        let mut idle: Vec<(Instant, K)> = idle.map(|(key, meter)| (meter.paid(), key.clone())).collect();
        if idle.len() > REMEMBERED / 2 {
            idle.sort_unstable_by_key(|(paid, _)| *paid);
            let over = idle.len() - REMEMBERED / 2;
            for (_, key) in idle.into_iter().take(over) {
                self.meters.remove(&key);
            }
        }
        self.meters.shrink_to(2 * self.meters.len());
        self.look = (2 * self.meters.len()).max(REMEMBERED);
    }
}

/// What was sent to this node, by account and by address. Bounded.
pub struct Rates {
    accounts: Mutex<Table<String>>,
    addresses: Mutex<Table<Origin>>,
}

impl Rates {
    /// Nothing was sent yet.
    pub fn new() -> Self {
        Self { accounts: Mutex::new(Table::new()), addresses: Mutex::new(Table::new()) }
    }

    /// That of an account, or of another server's domain.
    pub(super) fn account(&self, user: &BareJid) -> Arc<Meter> {
        self.accounts.lock().of(user.as_str(), Instant::now())
    }

    /// That of an address, for what comes before login.
    pub(super) fn address(&self, origin: Origin) -> Arc<Meter> {
        self.addresses.lock().of(&origin, Instant::now())
    }
}

impl Default for Rates {
    fn default() -> Self {
        Self::new()
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
    async fn the_next_connection_finds_what_the_last_has_taken() {
        let rates = Rates::new();
        let force = InForce { bytes: Rate::new(10, 5), stanzas: Rate::new(1, 1) };
        let (user, now) = (BareJid::parse("romeo@example.org").unwrap(), Instant::now());
        let until = rates.account(&user).bytes(now, 25, &force).unwrap();
        assert_eq!(until - now, Duration::from_secs(2));
        assert_eq!(rates.account(&user).due(now, &force), Some(until));
        assert_eq!(rates.account(&user).due(until, &force), None);
        let other = BareJid::parse("juliet@example.org").unwrap();
        assert_eq!(rates.account(&other).due(now, &force), None);
        // And the stanzas of two connections come to one sum.
        let (one, two) = (rates.account(&other), rates.account(&other));
        assert!(one.stanza(now, &force).is_none() && two.stanza(now, &force).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded_and_forgets_the_least() {
        let rates = Rates::new();
        let force = InForce { bytes: Rate::new(1, 1), stanzas: Rate::new(1, 1) };
        let origin = |n: u32| Origin::from(std::net::IpAddr::V4(n.into()));
        let (used, now) = (rates.address(origin(0)), Instant::now());
        for n in 1..=40_000 {
            rates.address(origin(n)).bytes(now, n as usize, &force);
        }
        let len = rates.addresses.lock().meters.len();
        assert!(len <= REMEMBERED, "{len}");
        assert!(Arc::ptr_eq(&used, &rates.address(origin(0))));
        assert!(rates.address(origin(40_000)).due(now, &force).is_some());
        assert!(rates.address(origin(1)).due(now, &force).is_none());
        tokio::time::advance(Duration::from_secs(100_000)).await;
        rates.addresses.lock().forget(Instant::now());
        assert_eq!(rates.addresses.lock().meters.len(), 1);
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
