//! One timer for all: a wheel of seconds. A caller enters a deadline; firing is a plain call that
//! must not block. A deadline comes up to a second before its time, which is right for everything that uses the wheel
//! (resumption timeouts, acknowledgement requests, records to be written). What is shorter than a second has no place on it:
//! [`Wheel::soon`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// How many seconds the wheel spans; later deadlines go round more than once.
const SLOTS: usize = 512;

type Call = Box<dyn FnOnce() + Send>;

struct Entry {
    rounds: u32,
    call: Call,
}

#[derive(Default)]
struct Inner {
    slots: Vec<Vec<Entry>>,
    now: usize,
}

/// The wheel; cheap to clone.
#[derive(Clone)]
pub(crate) struct Wheel(Arc<Mutex<Inner>>);

impl Wheel {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner { slots: (0..SLOTS).map(|_| Vec::new()).collect(), now: 0 })))
    }

    /// Calls `call` after `delay`, rounded up to whole seconds.
    pub(crate) fn after(&self, delay: Duration, call: impl FnOnce() + Send + 'static) {
        let secs = usize::try_from(delay.as_secs()).unwrap_or(usize::MAX - 1)
            + usize::from(delay.subsec_nanos() > 0);
        let ticks = secs.max(1);
        let mut inner = self.0.lock();
        let at = (inner.now + ticks % SLOTS) % SLOTS;
        let rounds = u32::try_from((ticks - 1) / SLOTS).unwrap_or(u32::MAX);
        if let Some(slot) = inner.slots.get_mut(at) {
            slot.push(Entry { rounds, call: Box::new(call) });
        }
    }

    /// Calls `call` after `delay`, exactly: by a task of its own. For what is seldom, and cannot wait for a second.
    pub(crate) fn soon(delay: Duration, call: impl FnOnce() + Send + 'static) {
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            call();
        });
    }

    /// One second has passed.
    pub(crate) fn tick(&self) {
        let due = {
            let mut inner = self.0.lock();
            inner.now = (inner.now + 1) % SLOTS;
            let now = inner.now;
            let Some(slot) = inner.slots.get_mut(now) else { return };
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(slot).into_iter().partition(|e| e.rounds == 0);
            slot.extend(later.into_iter().map(|e| Entry { rounds: e.rounds - 1, ..e }));
            due
        };
        for entry in due {
            (entry.call)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn fires_once_and_not_before_its_time() {
        let wheel = Wheel::new();
        let fired = Arc::new(AtomicUsize::new(0));
        for secs in [1, 3, 512, 513, 1_500] {
            let fired = fired.clone();
            wheel.after(Duration::from_secs(secs), move || {
                fired.fetch_add(1, Ordering::Relaxed);
            });
        }
        let mut seen = Vec::new();
        for second in 1..=2_000 {
            let before = fired.load(Ordering::Relaxed);
            wheel.tick();
            if fired.load(Ordering::Relaxed) > before {
                seen.push(second);
            }
        }
        assert_eq!(seen, [1, 3, 512, 513, 1_500]);
    }
}
