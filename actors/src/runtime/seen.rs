//! Which numbers of a sender were taken: what makes a stanza known that comes again.

use std::collections::HashMap;

use rookery_cluster::invariant;
use rookery_cluster::tables::seen as table;

use super::origin::{Origin, OriginName};

/// How many senders are remembered after newer ones have come; twice as many are at most.
const SENDERS: usize = 2_048;

/// The senders whose stanzas an entity has taken: the last few thousand, since what comes again was taken a short time ago.
#[derive(Default)]
pub(crate) struct Senders {
    young: HashMap<OriginName, Known>,
    /// Those of whom nothing came while the young ones came. They go when there are too many of these.
    old: HashMap<OriginName, Known>,
}

impl Senders {
    /// What the rows say.
    pub(crate) fn of_rows(rows: impl IntoIterator<Item = ([u8; 16], table::Seen)>) -> Self {
        let old = rows.into_iter().map(|(name, row)| (OriginName(name), Known::row(row))).collect();
        Self { young: HashMap::new(), old }
    }

    fn known(&self, name: &OriginName) -> Option<&Known> {
        self.young.get(name).or_else(|| self.old.get(name))
    }

    fn known_mut(&mut self, name: &OriginName) -> Option<&mut Known> {
        self.young.get_mut(name).or_else(|| self.old.get_mut(name))
    }

    /// Whether this stanza was taken before.
    pub(crate) fn has(&self, origin: Origin) -> bool {
        self.known(&origin.name).is_some_and(|known| known.taken.has(origin.number))
    }

    /// This stanza is taken.
    pub(crate) fn take(&mut self, Origin { name, number }: Origin) {
        if !self.young.contains_key(&name) {
            let known = self.old.remove(&name).unwrap_or_else(|| Known::before(number));
            if self.young.len() >= SENDERS {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(name, known);
        }
        let Some(known) = self.young.get_mut(&name) else { return };
        known.taken.take(number);
        invariant!("taken_is_known", known.taken.has(number), "{number} is not in {known:?}");
    }

    /// The same of what is about to be stored; returns the row that goes with it.
    pub(crate) fn take_kept(&mut self, origin: Origin, at: u64) -> table::Seen {
        self.take(origin);
        let Origin { name, number } = origin;
        let Some(known) = self.known_mut(&name) else {
            return Known::before(number).to_row(Seen::only(number), at);
        };
        let kept = known.kept.get_or_insert(Seen::only(number));
        kept.take(number);
        let kept = *kept;
        known.to_row(kept, at)
    }

    /// The store did not take what goes with this stanza: no later row may say that it is there.
    pub(crate) fn not_kept(&mut self, origin: Origin) {
        if let Some(kept) = self.known_mut(&origin.name).and_then(|known| known.kept.as_mut()) {
            kept.untake(origin.number);
        }
    }

    /// A message is refused, for good: if its sender has not heard so when this home dies, it comes again behind what was sent
    /// later.
    pub(crate) fn refuse(&mut self, origin: Origin) {
        if let Some(known) = self.known_mut(&origin.name) {
            known.refuse(origin.number);
        }
    }

    /// Whether that was said of this message, here or by a home before.
    pub(crate) fn was_refused(&self, origin: Origin) -> bool {
        self.known(&origin.name).is_some_and(|known| known.refused.contains(&origin.number))
    }

    /// A stanza that was taken is refused: no answer may say that it was taken.
    pub(crate) fn not_taken(&mut self, origin: Origin) {
        if let Some(known) = self.known_mut(&origin.name) {
            known.taken.untake(origin.number);
        }
    }

    /// The same of one that was stored, and is removed; returns the row that goes with that.
    pub(crate) fn taken_out(&mut self, origin: Origin, at: u64) -> Option<table::Seen> {
        self.not_taken(origin);
        let known = self.known_mut(&origin.name)?;
        let kept = known.kept.as_mut()?;
        kept.untake(origin.number);
        let kept = *kept;
        Some(known.to_row(kept, at))
    }

    /// Keeps no more room than is needed.
    pub(crate) fn shrink(&mut self) {
        self.young.shrink_to_fit();
        self.old.shrink_to_fit();
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
        let words = row.before.into_iter().chain(row.older);
        let mut before = [u64::MAX; WORDS]; // where a row says nothing, all were taken
        before.iter_mut().zip(words).for_each(|(word, known)| *word = known);
        let kept = Seen { last: u32::try_from(row.last).unwrap_or(0), before };
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
        let [before, older @ ..] = kept.before;
        let older = if older == [u64::MAX; WORDS - 1] { Vec::new() } else { older.to_vec() };
        table::Seen { last: kept.last.into(), at, before: Some(before), refused: self.refused.clone(), older }
    }
}

/// Words of 64 numbers each of which it is known whether they were taken: as many numbers as a sender may have open. What is further
/// behind is settled.
const WORDS: usize = 4;
const WINDOW: u32 = 64 * 4;
/// How many bytes [`Seen::to_bytes`] gives.
pub(crate) const SEEN_BYTES: usize = 4 + 8 * WORDS;

/// Which of a sender's numbers were taken. Most come in order; one that another node held up may come late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    last: u32,
    /// Those before the last, the next one lowest.
    before: [u64; WORDS],
}

/// The word and the bit of the number so far behind the last.
fn place(behind: u32) -> Option<(usize, u32)> {
    let at = behind.checked_sub(1).filter(|at| *at < WINDOW)?;
    Some(((at / 64) as usize, at % 64))
}

impl Seen {
    /// One number, and nothing before it.
    pub(crate) fn only(n: u32) -> Self {
        Self { last: n, before: [0; WORDS] }
    }

    /// Numbers wrap (XEP-0198 section 4): older means behind by less than half the circle.
    pub(crate) fn has(self, n: u32) -> bool {
        let behind = self.last.wrapping_sub(n);
        match place(behind) {
            Some((word, bit)) => self.before.get(word).is_some_and(|word| word >> bit & 1 == 1),
            None => behind < u32::MAX / 2,
        }
    }

    fn mark(&mut self, behind: u32, taken: bool) {
        let Some((word, bit)) = place(behind) else { return };
        let Some(word) = self.before.get_mut(word) else { return };
        if taken { *word |= 1 << bit } else { *word &= !(1 << bit) }
    }

    /// Moves what is known by so many numbers: further behind, or nearer. Where nothing is known, `fill` stands.
    fn shift(&mut self, by: u32, nearer: bool, fill: u64) {
        let (words, bits) = ((by / 64) as usize, by % 64);
        let before = self.before;
        let word = |at: Option<usize>| at.and_then(|at| before.get(at)).copied().unwrap_or(fill);
        self.before = std::array::from_fn(|at| match nearer {
            true => {
                let (low, high) = (word(at.checked_add(words)), word(at.checked_add(words + 1)));
                low >> bits | high.checked_shl(64 - bits).unwrap_or(0)
            }
            false => {
                let (high, low) = (word(at.checked_sub(words)), word(at.checked_sub(words + 1)));
                high << bits | low.checked_shr(64 - bits).unwrap_or(0)
            }
        });
    }

    pub(crate) fn take(&mut self, n: u32) {
        let ahead = n.wrapping_sub(self.last);
        if ahead == 0 || ahead > u32::MAX / 2 {
            return self.mark(self.last.wrapping_sub(n), true);
        }
        self.shift(ahead.min(WINDOW), false, 0);
        self.mark(ahead, true);
        self.last = n;
    }

    /// And what another has taken.
    pub(crate) fn add(&mut self, other: Self) {
        let newer = other.last.wrapping_sub(self.last) < u32::MAX / 2;
        let (mut last, mut earlier) = if newer { (other, *self) } else { (*self, other) };
        let gap = last.last.wrapping_sub(earlier.last);
        last.mark(gap, true);
        earlier.shift(gap.min(WINDOW), false, 0);
        last.before.iter_mut().zip(earlier.before).for_each(|(word, more)| *word |= more);
        *self = last;
    }

    /// For a record, or another node: the last number, and which of those before it were taken, the next one lowest.
    pub(crate) fn to_bytes(self) -> [u8; SEEN_BYTES] {
        let mut bytes = [0; SEEN_BYTES];
        let parts =
            self.last.to_le_bytes().into_iter().chain(self.before.into_iter().flat_map(u64::to_le_bytes));
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    /// What [`Seen::to_bytes`] has written.
    pub(crate) fn of_bytes(bytes: &[u8; SEEN_BYTES]) -> Self {
        let (last, before) = bytes.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let mut words = before.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
        Self { last: u32::from_le_bytes(*last), before: std::array::from_fn(|_| words.next().unwrap_or(0)) }
    }

    /// What was taken and is refused after all: it may come again.
    pub(crate) fn untake(&mut self, n: u32) {
        match self.last.wrapping_sub(n) {
            0 => {
                // The next one before it is the last; with none in the window, the first of those of which nothing is known.
                let zeros = self.before.iter().take_while(|word| **word == 0).count();
                let bits = self.before.get(zeros).map_or(0, |word| word.trailing_zeros());
                let step = u32::try_from(zeros * 64).unwrap_or(WINDOW) + bits + 1;
                self.shift(step, true, u64::MAX);
                self.last = self.last.wrapping_sub(step);
            }
            behind => self.mark(behind, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_is_taken_once() {
        let mut seen = Seen::only(u32::MAX);
        for n in [2, 4, 270] {
            assert!(!seen.has(n));
            seen.take(n);
        }
        // Too far behind to say: taken.
        for (n, had) in [
            (270, true),
            (269, false),
            (206, false),
            (100, false),
            (14, false),
            (13, true),
            (4, true),
            (u32::MAX, true),
            (271, false),
        ] {
            assert_eq!(seen.has(n), had, "{n}");
        }
        seen.take(269);
        assert!(seen.has(269) && !seen.has(268));
        seen.take(400);
        assert!(seen.has(143) && !seen.has(144) && seen.has(270) && seen.has(269) && !seen.has(399));
        seen.take(200);
        for n in [399, 400, 270, 200, 143, 500] {
            let mut other = seen;
            other.untake(n);
            for number in [1u32, 143, 144, 145, 200, 206, 207, 268, 269, 270, 271, 399, 400, 401] {
                let same = other.has(number) == seen.has(number);
                assert_eq!(same, number != n || !seen.has(n) || n == 143, "{n} {number}");
            }
        }
        seen.take(398);
        seen.untake(400);
        assert!(seen.has(398) && !seen.has(400) && !seen.has(399) && !seen.has(397) && seen.has(142));
        let mut none = Seen::only(1_000);
        none.untake(1_000);
        assert!(!none.has(1_000) && !none.has(744) && none.has(743));
        let row = |before| Known::row(table::Seen { last: 7, before, ..table::Seen::default() }).taken;
        assert!((0..=7).all(|n| row(None).has(n)) && !row(None).has(8));
        assert!(row(Some(2)).has(7) && !row(Some(2)).has(6) && row(Some(2)).has(5));
    }

    /// The same as a list of all numbers would say.
    #[test]
    fn the_window_says_what_was_taken() {
        let (mut seen, mut taken) = (Seen::only(1_000), std::collections::BTreeSet::from([1_000u32]));
        let mut n = 12_345u32;
        for step in 0..4_000 {
            n = n.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            let number =
                seen.last.wrapping_add(n >> 16 & 127).wrapping_sub(if step % 3 == 0 { 0 } else { 100 });
            if seen.last.wrapping_sub(number) > WINDOW && number < seen.last {
                continue;
            }
            seen.take(number);
            taken.insert(number);
            for behind in 0..=WINDOW {
                let number = seen.last.wrapping_sub(behind);
                let known = number >= 1_000 - WINDOW;
                assert!(!known || seen.has(number) == taken.contains(&number), "{number} after {step}");
            }
            let known = Known { taken: seen, kept: Some(seen), refused: Vec::new() };
            let again = Known::row(known.to_row(seen, 1)).taken;
            assert_eq!((again.last, again.before), (seen.last, seen.before));
        }
    }

    #[test]
    fn who_has_sent_something_last_is_known() {
        let mut senders = Senders::default();
        let origin = |n: u32| Origin { name: OriginName(u128::from(n).to_be_bytes()), number: 1 };
        let many = u32::try_from(SENDERS).unwrap();
        for n in 0..10 * many {
            senders.take(origin(0)); // speaks all the time
            senders.take(origin(n + 1));
            let first = (n + 1).saturating_sub(many - 2).max(1);
            assert!(senders.has(origin(0)) && senders.has(origin(first)), "{n}");
        }
        assert!(senders.young.len() + senders.old.len() <= 2 * SENDERS);
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
