//! Chance and time from a seed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rookery_cluster::seams::{Clock, Random, Seams};

/// A die (splitmix64): the same seed, the same throws.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The die of a part of the world: what one part throws changes nothing for another.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let mut chance =
            Self(seed.wrapping_mul(0xd134_2543_de82_ef95) ^ part.wrapping_mul(0x2545_f491_4f6c_dd1d));
        chance.next();
        chance
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// So often in a thousand.
    pub(crate) fn hits(&mut self, per_mille: u64) -> bool {
        self.next() % 1_000 < per_mille
    }

    /// A time between two, in milliseconds.
    pub(crate) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.next() % (most - least + 1))
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// The time at the last step, for what is outside of the simulation's hosts.
static LAST: AtomicU64 = AtomicU64::new(0);

/// The simulated time since the world's beginning.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_else(|| Duration::from_millis(LAST.load(Ordering::Relaxed)))
}

pub(crate) fn set_now(now: Duration) {
    LAST.store(u64::try_from(now.as_millis()).unwrap_or(0), Ordering::Relaxed);
}

struct Seeded(Mutex<Chance>);

impl Random for Seeded {
    fn fill(&self, buf: &mut [u8]) {
        let mut chance = self.0.lock();
        buf.fill_with(|| chance.next().to_le_bytes()[0]);
    }
}

/// A wall clock that goes wrong by so many microseconds.
struct Skewed(i64);

impl Clock for Skewed {
    fn now_micros(&self) -> u64 {
        let now = 1_700_000_000_000_000 + u64::try_from(now().as_micros()).unwrap_or(0);
        now.saturating_add_signed(self.0)
    }
}

/// The seams of a node.
pub(crate) fn seams(chance: Chance, skew_micros: i64) -> Seams {
    Seams { clock: Arc::new(Skewed(skew_micros)), random: Arc::new(Seeded(Mutex::new(chance))) }
}
