//! When a link tries again to open a stream.

use std::time::Duration;

use rookery_proto::xmpp::error::Condition;
use tokio::time::Instant;

use super::stream::Failure;

/// The first pause after a stream could not be opened, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// The longest while the other server is there and does not prove its domain.
const UNPROVED: Duration = Duration::from_secs(30);

/// After a failure, what comes while nothing waits is tried no sooner than this; after one that was said to be permanent, than that.
const SOON: Duration = FIRST;
const REFUSED: Duration = Duration::from_secs(5);

/// A stream that has lasted so long was a good one: the next is opened at once. After one that broke sooner the pauses go on growing, or a
/// server that accepts and closes would be called in a circle; but if that had confirmed something, they begin anew.
const GOOD: Duration = Duration::from_secs(5);

/// When to try again.
#[derive(Default)]
pub(super) struct Retry {
    /// The last pause.
    pause: Duration,
    failed: Option<Instant>,
    at: Option<Instant>,
    /// Until `at` everything that comes goes back at once.
    permanent: bool,
    /// Since when the other server does not prove its domain.
    unproved: Option<Instant>,
    /// Why the last stream could not be opened: what senders are told, and the operator.
    pub(super) condition: Option<Condition>,
    pub(super) text: String,
    /// The log has said that stanzas went back.
    pub(super) said: bool,
}

impl Retry {
    /// Whether it is time.
    pub(super) fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at <= Instant::now())
    }

    /// Something has come while nothing waited.
    pub(super) fn hurry(&mut self) {
        if let (Some(at), Some(failed)) = (self.at, self.failed) {
            self.at = Some(at.min(failed + if self.permanent { REFUSED } else { SOON }));
        }
    }

    /// With which error everything goes back now.
    pub(super) fn refuses(&self) -> Option<Condition> {
        self.condition.filter(|_| self.permanent && !self.is_due())
    }

    /// When the last stream could not be opened.
    pub(super) fn last(&self) -> Option<Instant> {
        self.failed
    }

    /// For how long the other server has been there and has not proved its domain, if it is so.
    pub(super) fn unproved(&self) -> Option<Duration> {
        self.unproved.map(|since| since.elapsed())
    }

    /// Whether nothing has failed since the last stream.
    pub(super) fn is_new(&self) -> bool {
        self.failed.is_none()
    }

    /// A stream that had come is lost, after that time; the other server had confirmed something on it, or not.
    pub(super) fn lost(&mut self, time: Duration, confirmed: bool, why: &Failure, random: u64) {
        if time >= GOOD {
            return *self = Self::default();
        }
        if confirmed {
            self.pause = Duration::ZERO; // each such stream brings something there
        }
        // That there was one shows that trying is of use, whatever it was that ended it.
        self.failed(&Failure::passing(why.text.clone()), random);
    }

    /// A stream has come.
    pub(super) fn opened(&mut self) {
        *self = Self { pause: self.pause, ..Self::default() };
    }

    /// There is no stream; `random` spreads the next attempts of many.
    pub(super) fn failed(&mut self, failure: &Failure, random: u64) {
        // A certificate may be renewed at any time, and what waits does not wait long.
        self.pause = (self.pause * 2).clamp(FIRST, if failure.unproved { UNPROVED } else { LONGEST });
        let now = Instant::now();
        (self.failed, self.at) = (Some(now), Some(now + jittered(self.pause, random)));
        (self.permanent, self.condition) = (failure.permanent, Some(failure.condition));
        self.unproved = failure.unproved.then(|| self.unproved.unwrap_or(now));
        self.text.clone_from(&failure.text);
    }
}

/// Between three and five quarters of a time.
fn jittered(pause: Duration, random: u64) -> Duration {
    pause.mul_f64(0.75 + f64::from(u16::try_from(random % 1_024).unwrap_or(0)) / 2_048.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let mut retry = Retry::default();
        let failure = Failure::passing("");
        assert!(retry.is_due());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            retry.failed(&failure, 0);
            pauses.push(retry.pause.as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert!(!retry.is_due());
        let (shortest, longest) = (jittered(LONGEST, 0), jittered(LONGEST, 1_023));
        assert!(shortest == LONGEST * 3 / 4 && longest > LONGEST && longest < LONGEST * 5 / 4);
        let at = retry.at;
        retry.hurry();
        assert!(retry.at < at && retry.refuses().is_none());
        retry.failed(&Failure { permanent: true, ..failure }, 0);
        assert_eq!(retry.refuses(), Some(Condition::RemoteServerTimeout));
    }

    #[test]
    fn after_a_good_stream_the_next_is_opened_at_once() {
        let why = Failure::permanent("");
        let mut retry = Retry::default();
        for round in 0..2 {
            let mut pauses = Vec::new();
            for _ in 0..5 {
                // It opens well, and breaks.
                retry.opened();
                retry.lost(GOOD / 2, false, &why, 0);
                assert!(!retry.is_due() && retry.refuses().is_none() && !retry.is_new());
                pauses.push(retry.pause.as_secs());
            }
            assert_eq!(pauses, [1, 2, 4, 8, 16], "round {round}");
            retry.lost(GOOD / 2, true, &why, 0);
            assert!(!retry.is_due() && retry.pause == FIRST);
            retry.opened();
            retry.lost(GOOD, false, &why, 0);
            assert!(retry.is_due() && retry.is_new());
        }
        retry.failed(&why, 0);
        assert_eq!(retry.pause, FIRST, "the pauses begin anew");
    }
}
