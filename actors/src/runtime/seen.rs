//! Which numbers of a sender were taken: what makes a stanza known that comes again.

use std::collections::HashMap;

use rookery_cluster::invariant;
use rookery_cluster::tables::seen as table;

use super::origin::{Origin, OriginName};

/// How many senders are remembered, and how many of them are forgotten to make room.
const SENDERS: usize = 4_096;
const FORGET: usize = 1_024;

/// Whose stanzas an entity has taken.
#[derive(Default)]
pub(crate) struct Senders(HashMap<OriginName, Known>);

impl Senders {
    /// What the rows say.
    pub(crate) fn of_rows(rows: impl IntoIterator<Item = ([u8; 16], table::Seen)>) -> Self {
        Self(rows.into_iter().map(|(name, row)| (OriginName(name), Known::row(row))).collect())
    }

    /// Whether this stanza was taken before.
    pub(crate) fn has(&self, origin: Origin) -> bool {
        self.0.get(&origin.name).is_some_and(|known| known.taken.has(origin.number))
    }

    /// This stanza is taken.
    pub(crate) fn take(&mut self, Origin { name, number }: Origin) {
        if self.0.len() >= SENDERS && !self.0.contains_key(&name) {
            // The rows in the store are pruned by age; memory may forget any of them, at the price of one read at the
            // next activation.
            let forget: Vec<OriginName> = self.0.keys().take(FORGET).copied().collect();
            for name in forget {
                self.0.remove(&name);
            }
        }
        let known = self.0.entry(name).or_insert_with(|| Known::before(number));
        known.taken.take(number);
        invariant!("taken_is_known", known.taken.has(number), "{number} is not in {known:?}");
    }

    /// The same of what is about to be stored; returns the row that goes with it.
    pub(crate) fn take_kept(&mut self, origin: Origin, at: u64) -> table::Seen {
        self.take(origin);
        let Origin { name, number } = origin;
        let Some(known) = self.0.get_mut(&name) else {
            return Known::before(number).to_row(Seen::only(number), at);
        };
        let kept = known.kept.get_or_insert(Seen::only(number));
        kept.take(number);
        let kept = *kept;
        known.to_row(kept, at)
    }

    /// The store did not take what goes with this stanza: no later row may say that it is there.
    pub(crate) fn not_kept(&mut self, origin: Origin) {
        if let Some(kept) = self.0.get_mut(&origin.name).and_then(|known| known.kept.as_mut()) {
            kept.untake(origin.number);
        }
    }

    /// A message is refused, for good: if its sender has not heard so when this home dies, it comes again behind what was sent
    /// later.
    pub(crate) fn refuse(&mut self, origin: Origin) {
        if let Some(known) = self.0.get_mut(&origin.name) {
            known.refuse(origin.number);
        }
    }

    /// Whether that was said of this message, here or by a home before.
    pub(crate) fn was_refused(&self, origin: Origin) -> bool {
        self.0.get(&origin.name).is_some_and(|known| known.refused.contains(&origin.number))
    }

    /// A stanza that was taken is refused: no answer may say that it was taken.
    pub(crate) fn not_taken(&mut self, origin: Origin) {
        if let Some(known) = self.0.get_mut(&origin.name) {
            known.taken.untake(origin.number);
        }
    }

    /// The same of one that was stored, and is removed; returns the row that goes with that.
    pub(crate) fn taken_out(&mut self, origin: Origin, at: u64) -> Option<table::Seen> {
        self.not_taken(origin);
        let known = self.0.get_mut(&origin.name)?;
        let kept = known.kept.as_mut()?;
        kept.untake(origin.number);
        let kept = *kept;
        Some(known.to_row(kept, at))
    }

    /// Keeps no more room than is needed.
    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}

/// What is known of a sender's numbers.
#[derive(Clone, Debug)]
struct Known {
    /// Those that were taken.
    taken: Seen,
    /// Those of which the store knows. What was taken and is kept nowhere, as a request, comes again when this home has died.
    kept: Option<Seen>,
    /// Those that were refused, the newest of them.
    refused: Vec<u32>,
}

/// How many refused numbers of a sender are known.
const REFUSED: usize = 32;

impl Known {
    /// What a row says.
    fn row(row: table::Seen) -> Self {
        let kept =
            Seen { last: u32::try_from(row.last).unwrap_or(0), before: row.before.unwrap_or(u64::MAX) };
        Self { taken: kept, kept: Some(kept), refused: row.refused }
    }

    /// What is known before `number` is taken.
    fn before(number: u32) -> Self {
        Self { taken: Seen::only(number), kept: None, refused: Vec::new() }
    }

    fn refuse(&mut self, number: u32) {
        self.refused.retain(|refused| *refused != number);
        let over = (self.refused.len() + 1).saturating_sub(REFUSED);
        self.refused.drain(..over);
        self.refused.push(number);
    }

    /// The row of what is kept.
    fn to_row(&self, kept: Seen, at: u64) -> table::Seen {
        table::Seen { last: kept.last.into(), at, before: Some(kept.before), refused: self.refused.clone() }
    }
}

/// Which of a sender's numbers were taken. Most come in order; one that another node held up may come late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    last: u32,
    /// Those before the last, the next one lowest.
    before: u64,
}

impl Seen {
    /// One number, and nothing before it.
    pub(crate) fn only(n: u32) -> Self {
        Self { last: n, before: 0 }
    }

    /// Numbers wrap (XEP-0198 section 4): older means behind by less than half the circle.
    pub(crate) fn has(self, n: u32) -> bool {
        let behind = self.last.wrapping_sub(n);
        match behind {
            0 => true,
            1..=64 => self.before >> (behind - 1) & 1 == 1,
            _ => behind < u32::MAX / 2,
        }
    }

    pub(crate) fn take(&mut self, n: u32) {
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

    /// And what another has taken.
    pub(crate) fn add(&mut self, other: Self) {
        let (mut last, earlier) =
            if other.last.wrapping_sub(self.last) < u32::MAX / 2 { (other, *self) } else { (*self, other) };
        let gap = last.last.wrapping_sub(earlier.last);
        if let Some(bit) = gap.checked_sub(1).filter(|bit| *bit < 64) {
            last.before |= 1 << bit;
        }
        last.before |= earlier.before.checked_shl(gap).unwrap_or(0);
        *self = last;
    }

    /// For a record, or another node: see [`Seen::of_parts`].
    pub(crate) fn parts(self) -> (u32, u64) {
        (self.last, self.before)
    }

    /// The last number, and which of the 64 before it were taken.
    pub(crate) fn of_parts(last: u32, before: u64) -> Self {
        Self { last, before }
    }

    /// What was taken and is refused after all: it may come again.
    pub(crate) fn untake(&mut self, n: u32) {
        match self.last.wrapping_sub(n) {
            0 => {
                // The next one before it is the last; with none among 64, the first of those of which nothing is known.
                let step = self.before.trailing_zeros() + 1;
                let shifted = self.before.checked_shr(step).unwrap_or(0);
                let unknown = u64::MAX.checked_shl(64u32.saturating_sub(step)).unwrap_or(u64::MAX);
                self.before = if step > 64 { u64::MAX } else { shifted | unknown };
                self.last = self.last.wrapping_sub(step);
            }
            behind @ 1..=64 => self.before &= !(1 << (behind - 1)),
            _ => {}
        }
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
        for n in [199, 200, 64, 300] {
            let mut other = seen;
            other.untake(n);
            for number in [1u32, 63, 64, 65, 69, 134, 135, 136, 198, 199, 200, 201] {
                assert_eq!(other.has(number), seen.has(number) && number != n || n == 64 && number == 64);
            }
        }
        seen.take(198);
        seen.untake(200);
        assert!(seen.has(198) && !seen.has(200) && !seen.has(199) && !seen.has(197) && seen.has(134));
        let row = |before| Known::row(table::Seen { last: 7, before, ..table::Seen::default() }).taken;
        assert!((0..=7).all(|n| row(None).has(n)) && !row(None).has(8));
        assert!(row(Some(2)).has(7) && !row(Some(2)).has(6) && row(Some(2)).has(5));
    }

    #[test]
    fn what_two_have_taken_is_one() {
        let of = |numbers: &[u32]| {
            let mut seen = Seen::only(numbers[0]);
            numbers.iter().for_each(|n| seen.take(*n));
            seen
        };
        for (a, b) in [(&[3, 4, 9][..], &[5, 7][..]), (&[3], &[67]), (&[1], &[60, 61]), (&[u32::MAX], &[2])] {
            let (mut one, mut two) = (of(a), of(b));
            one.add(of(b));
            two.add(of(a));
            assert_eq!(one, two);
            assert!(a.iter().chain(b).all(|n| one.has(*n)) && !one.has(6));
        }
    }

    #[test]
    fn what_was_refused_goes_with_the_rows_of_what_came_later() {
        let mut known = Known::before(1);
        (1..=40).for_each(|n| known.refuse(n));
        known.refuse(20);
        let row = known.to_row(Seen::only(41), 7);
        assert_eq!(
            (row.refused.len(), row.refused.first(), row.refused.last()),
            (REFUSED, Some(&9), Some(&20))
        );
        assert_eq!(Known::row(row).refused, known.refused);
    }
}
