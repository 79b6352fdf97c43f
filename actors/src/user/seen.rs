//! What was taken already: a stanza that may come again carries its session and number.

use super::User;
use crate::session::SessionId;

/// Which of a session's numbers were taken. Most come in order; one that another node held up may come late.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) last: u32,
    /// Those before the last, the next one lowest.
    before: u64,
}

impl Seen {
    /// All up to a number: what the store knows.
    pub(super) fn upto(last: u32) -> Self {
        Self { last, before: u64::MAX }
    }

    /// One number, and nothing before it.
    pub(super) fn only(n: u32) -> Self {
        Self { last: n, before: 0 }
    }

    /// Numbers wrap (XEP-0198 section 4): older means behind by less than half the circle.
    pub(super) fn has(self, n: u32) -> bool {
        let behind = self.last.wrapping_sub(n);
        match behind {
            0 => true,
            1..=64 => self.before >> (behind - 1) & 1 == 1,
            _ => behind < u32::MAX / 2,
        }
    }

    pub(super) fn take(&mut self, n: u32) {
        let ahead = n.wrapping_sub(self.last);
        if ahead == 0 || ahead > u32::MAX / 2 {
            let behind = self.last.wrapping_sub(n);
            if (1..=64).contains(&behind) {
                self.before |= 1 << (behind - 1);
            }
            return;
        }
        self.before = match ahead {
            1..=63 => self.before << ahead | 1 << (ahead - 1),
            64 => 1 << 63,
            _ => 0,
        };
        self.last = n;
    }
}

impl User {
    /// Whether this stanza of a resumable session was taken before.
    pub(super) fn taken_before(&self, origin: Option<(SessionId, u32)>) -> bool {
        origin.is_some_and(|(sid, n)| self.seen.get(&sid).is_some_and(|seen| seen.has(n)))
    }

    pub(super) fn remember(&mut self, sid: SessionId, n: u32) {
        if self.seen.len() >= 4_096 && !self.seen.contains_key(&sid) {
            // The rows in the store are pruned by age; memory may forget any of them, at the price of one read at the
            // next activation.
            let forget: Vec<SessionId> = self.seen.keys().take(1_024).copied().collect();
            for sid in forget {
                self.seen.remove(&sid);
            }
        }
        self.seen.entry(sid).or_insert(Seen::only(n)).take(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_is_taken_once() {
        let mut seen = Seen::only(u32::MAX);
        for n in [2, 4, 70] {
            assert!(!seen.has(n));
            seen.take(n);
        }
        // Too far behind to say: taken.
        for (n, had) in [
            (70, true),
            (69, false),
            (6, false),
            (4, true),
            (3, true),
            (2, true),
            (u32::MAX, true),
            (71, false),
        ] {
            assert_eq!(seen.has(n), had, "{n}");
        }
        seen.take(69);
        assert!(seen.has(69) && !seen.has(68));
        seen.take(200);
        assert!(seen.has(100) && !seen.has(150) && !seen.has(199) && !seen.has(201));
        assert!((0..=7).all(|n| Seen::upto(7).has(n)) && !Seen::upto(7).has(8));
    }
}
