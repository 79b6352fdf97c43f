//! The seams to the world: wall clock and randomness. They are passed in so that a whole cluster can run in a
//! simulation. Monotonic time is tokio's (`tokio::time::Instant`), which a simulation pauses and turns itself.

use std::sync::Arc;

/// Where the wall clock is read. Only stamps and ids for people come from it; no decision between nodes does.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since 1970-01-01T00:00:00Z.
    fn now_micros(&self) -> u64;
}

/// Where randomness comes from. Every implementation outside a simulation is cryptographically secure.
pub trait Random: Send + Sync + 'static {
    /// Fills `buf` with random bytes.
    fn fill(&self, buf: &mut [u8]);
}

/// Both seams, cheap to clone and to hand on.
#[derive(Clone)]
pub struct Seams {
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The source of randomness.
    pub random: Arc<dyn Random>,
}

impl Seams {
    /// The clock and the random generator of the operating system.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), random: Arc::new(SystemRandom) }
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut buf = [0; N];
        self.random.fill(&mut buf);
        buf
    }
}

/// The operating system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // this file owns the wall clock
    fn now_micros(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

/// The operating system's random generator, through a per-thread ChaCha.
pub struct SystemRandom;

impl Random for SystemRandom {
    #[allow(clippy::disallowed_methods)] // this file owns randomness
    fn fill(&self, buf: &mut [u8]) {
        use rand::Rng as _;
        rand::rng().fill_bytes(buf);
    }
}
