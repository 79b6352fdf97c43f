//! When to answer `<r/>` (XEP-0198 section 4): as soon as everything received before it is settled, after a second at
//! the latest with what is settled by then, and then once more when the rest is.

use std::time::Duration;

use tokio::time::Instant;

/// How long a client waits for an answer at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// The requests that wait.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// What the oldest waits for.
    first: u32,
    /// What the newest waits for.
    last: u32,
    /// When to answer with what there is; `None`: that was done.
    deadline: Option<Instant>,
}

/// What was received, and what the client wants to know of it.
#[derive(Debug, Default)]
pub(super) struct Acks {
    received: u32,
    asked: Option<Asked>,
}

/// Whether `settled` has come to `number`, modulo 2^32.
fn reached(settled: u32, number: u32) -> bool {
    settled.wrapping_sub(number) < u32::MAX / 2
}

impl Acks {
    /// A stream on which `received` stanzas have come already.
    pub(super) fn new(received: u32) -> Self {
        Self { received, asked: None }
    }

    /// A stanza has come.
    pub(super) fn count(&mut self) {
        self.received = self.received.wrapping_add(1);
    }

    /// An `<r/>` has come; returns the `h` to answer at once, if it can be.
    pub(super) fn request(&mut self, now: Instant, settled: u32) -> Option<u32> {
        if reached(settled, self.received) {
            self.asked = None;
            return Some(settled);
        }
        match &mut self.asked {
            Some(asked) => asked.last = self.received,
            None => {
                let (first, last) = (self.received, self.received);
                self.asked = Some(Asked { first, last, deadline: Some(now + PATIENCE) });
            }
        }
        None
    }

    /// Something may be settled, or time has passed; returns the `h` to answer now, if any.
    pub(super) fn look(&mut self, now: Instant, settled: u32) -> Option<u32> {
        let asked = self.asked.as_mut()?;
        if reached(settled, asked.last) {
            self.asked = None;
            return Some(settled);
        }
        if reached(settled, asked.first) {
            asked.first = asked.last;
            asked.deadline = Some(now + PATIENCE);
            return Some(settled);
        }
        if asked.deadline.is_some_and(|deadline| deadline <= now) {
            asked.deadline = None;
            return Some(settled);
        }
        None
    }

    /// Whether a request waits.
    pub(super) fn waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// When to look again at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.and_then(|asked| asked.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(n: u32) -> Acks {
        Acks::new(n)
    }

    #[tokio::test(start_paused = true)]
    async fn at_once_if_all_is_settled() {
        let now = Instant::now();
        assert_eq!(received(3).request(now, 3), Some(3));
        assert_eq!(received(0).request(now, 0), Some(0));
        let mut wrapped = received(u32::MAX);
        wrapped.count();
        assert_eq!(wrapped.request(now, 0), Some(0));
        assert_eq!(wrapped.request(now, u32::MAX), None);
    }

    #[tokio::test(start_paused = true)]
    async fn as_soon_as_the_oldest_is_answered_then_the_newest() {
        let now = Instant::now();
        let mut acks = received(1);
        assert_eq!(acks.request(now, 0), None);
        acks.count();
        acks.count();
        assert_eq!(acks.request(now, 0), None);
        assert_eq!(acks.look(now, 0), None);
        assert_eq!(acks.look(now, 1), Some(1));
        assert_eq!(acks.look(now, 2), None);
        assert_eq!(acks.look(now, 3), Some(3));
        assert!(!acks.waiting());
    }

    #[tokio::test(start_paused = true)]
    async fn late_with_what_there_is_and_once_more() {
        let now = Instant::now();
        let mut acks = received(5);
        acks.request(now, 3);
        assert_eq!(acks.deadline(), Some(now + PATIENCE));
        assert_eq!(acks.look(now + PATIENCE, 4), Some(4));
        assert_eq!((acks.look(now + 2 * PATIENCE, 4), acks.deadline()), (None, None));
        assert_eq!(acks.look(now + 3 * PATIENCE, 5), Some(5));
        assert_eq!(acks.look(now + 3 * PATIENCE, 5), None);
    }
}
