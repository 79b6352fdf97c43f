//! What a transaction has written and not yet committed: read back by its own reads, resolved by the commit.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::span::Span;
use crate::store::{Class, Error, Result, Versionstamp, limits};

/// What was last done to a key.
#[derive(Clone)]
pub(crate) enum Write {
    /// Set to a value.
    Set(Bytes),
    /// Removed.
    Clear,
    /// Added to whatever is there.
    Add(i64),
    /// Set to a value with the versionstamp at an offset.
    Stamped(Bytes, usize),
}

/// A key that is complete only at the commit.
pub(crate) struct StampedKey {
    /// The key with ten bytes of room.
    pub(crate) key: Bytes,
    /// Where the room begins.
    pub(crate) offset: usize,
    /// The value.
    pub(crate) value: Bytes,
    /// How many ranges had been cleared before it; later ones remove it.
    pub(crate) after: usize,
}

/// One write, for a caller that does them one after another.
pub(crate) enum Step {
    /// Removes the keys from the first (included) to the second (excluded).
    ClearRange(Bytes, Bytes),
    /// Sets a key that is to be completed.
    StampedKey(StampedKey),
    /// Does this to a key.
    Key(Bytes, Write),
}

/// All writes of a transaction. Their effect: first the ranges are cleared, then come the keys.
#[derive(Default)]
pub(crate) struct Pending {
    /// Key by key; never a key of a range cleared later.
    pub(crate) writes: BTreeMap<Bytes, Write>,
    /// The ranges, in the order in which they were cleared.
    pub(crate) cleared: Vec<(Bytes, Bytes)>,
    /// Keys with versionstamps.
    pub(crate) stamped: Vec<StampedKey>,
    /// Write conflicts without writes.
    pub(crate) conflicts: Vec<Span>,
    size: usize,
    broken: Option<Error>,
}

/// Bytes that may be written with each removal when only removals are taken: a count, a mark, what is left of a list.
const ASIDE: usize = 4_096;

/// FoundationDB counts the place of a versionstamp, four bytes, with the key or value.
const OFFSET: usize = 4;

impl Pending {
    /// Bytes written as the limit counts them; see [`crate::store::Transaction::size`].
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether a commit has nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.size == 0 && self.broken.is_none()
    }

    /// Whether it adds to what is stored more than the little that goes with what it removes.
    pub(crate) fn grows(&self) -> bool {
        let (mut added, mut removed) = (0, self.cleared.len());
        for (key, write) in &self.writes {
            match write {
                Write::Clear => removed += 1,
                Write::Set(value) | Write::Stamped(value, _) => added += key.len() + value.len(),
                Write::Add(_) => added += key.len() + size_of::<i64>(),
            }
        }
        added += self.stamped.iter().map(|stamped| stamped.key.len() + stamped.value.len()).sum::<usize>();
        outgrows(added, removed)
    }

    /// The first rule that a write broke.
    pub(crate) fn broken(&self) -> Option<&Error> {
        self.broken.as_ref()
    }

    /// Remembers a broken rule for the commit.
    pub(crate) fn fail(&mut self, class: Class, message: &'static str) {
        self.broken.get_or_insert(Error::new(class, message));
    }

    fn check(&mut self, key: &[u8], value: &[u8]) -> bool {
        let cost = cost_of_key(key, value);
        self.charge(cost)
    }

    /// Adds what a write costs, or remembers that it broke a rule. Whether it may be done.
    fn charge(&mut self, cost: Result<usize>) -> bool {
        match cost {
            Ok(bytes) => {
                self.size += bytes;
                true
            }
            Err(error) => {
                self.fail(error.class, error.message);
                false
            }
        }
    }

    pub(crate) fn set(&mut self, key: Bytes, value: Bytes) {
        if self.check(&key, &value) {
            self.writes.insert(key, Write::Set(value));
        }
    }

    pub(crate) fn clear(&mut self, key: &[u8]) {
        if self.check(key, &[]) {
            self.writes.insert(Bytes::copy_from_slice(key), Write::Clear);
        }
    }

    pub(crate) fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        if !self.charge(cost_of_range(begin, end)) || begin == end {
            return;
        }
        let inside: Vec<Bytes> = keys_in(&self.writes, begin, end).map(|(key, _)| key.clone()).collect();
        for key in inside {
            self.writes.remove(&key);
        }
        self.cleared.push((Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end)));
    }

    pub(crate) fn add(&mut self, key: &[u8], delta: i64) {
        if !self.check(key, &[0; 8]) {
            return;
        }
        let write = match self.writes.get(key) {
            Some(Write::Set(value)) => Write::Set(sum(Some(value), delta)),
            Some(Write::Clear) => Write::Set(sum(None, delta)),
            Some(Write::Add(before)) => Write::Add(before.wrapping_add(delta)),
            Some(Write::Stamped(..)) => {
                return self
                    .fail(Class::Misuse, "an addition to a value whose versionstamp is not known yet");
            }
            None if self.is_cleared(key) => Write::Set(sum(None, delta)),
            None => Write::Add(delta),
        };
        self.writes.insert(Bytes::copy_from_slice(key), write);
    }

    pub(crate) fn set_stamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]) {
        if !has_room(key, offset) {
            return self.fail(Class::Misuse, "no room for the versionstamp");
        }
        if key.len() > limits::KEY - OFFSET {
            return self.fail(Class::TooLarge, "a key is longer than 10 kB with the place of its stamp");
        }
        if self.check(key, value) {
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            self.stamped.push(StampedKey { key, offset, value, after: self.cleared.len() });
        }
    }

    pub(crate) fn set_stamped_value(&mut self, key: &[u8], value: &[u8], offset: usize) {
        if !has_room(value, offset) {
            return self.fail(Class::Misuse, "no room for the versionstamp");
        }
        if value.len() > limits::VALUE - OFFSET {
            return self.fail(Class::TooLarge, "a value is longer than 100 kB with the place of its stamp");
        }
        if self.check(key, value) {
            let write = Write::Stamped(Bytes::copy_from_slice(value), offset);
            self.writes.insert(Bytes::copy_from_slice(key), write);
        }
    }

    pub(crate) fn add_conflict(&mut self, begin: &[u8], end: &[u8]) {
        if begin > end || end.len() > limits::KEY + 1 {
            return self.fail(Class::Misuse, "a conflict range is not a range of keys");
        }
        if begin == end {
            return;
        }
        let span = Span::new(begin, end);
        self.size += span.size();
        self.conflicts.push(span);
    }

    /// The writes in an order in which they have the same effect; the conflicts stay.
    pub(crate) fn take_steps(&mut self) -> Vec<Step> {
        let (writes, cleared) = (std::mem::take(&mut self.writes), std::mem::take(&mut self.cleared));
        let mut stamped = std::mem::take(&mut self.stamped).into_iter().peekable();
        let mut steps = Vec::with_capacity(writes.len() + cleared.len() + stamped.len());
        // A range removes the stamped keys before it and leaves those after it; the other writes are all after it.
        for (place, (begin, end)) in cleared.into_iter().enumerate() {
            while let Some(key) = stamped.next_if(|key| key.after <= place) {
                steps.push(Step::StampedKey(key));
            }
            steps.push(Step::ClearRange(begin, end));
        }
        steps.extend(stamped.map(Step::StampedKey));
        steps.extend(writes.into_iter().map(|(key, write)| Step::Key(key, write)));
        steps
    }

    /// Whether `key` lies in a cleared range (it may have been written after that).
    pub(crate) fn is_cleared(&self, key: &[u8]) -> bool {
        self.cleared.iter().any(|(begin, end)| begin <= key && key < end)
    }

    /// Whether anything of the range was written or cleared.
    pub(crate) fn touches(&self, begin: &[u8], end: &[u8]) -> bool {
        keys_in(&self.writes, begin, end).next().is_some()
            || self.cleared.iter().any(|(from, to)| &from[..] < end && begin < &to[..])
    }

    /// Whether reading the range would depend on a key whose versionstamp is not known yet.
    pub(crate) fn hides(&self, begin: &[u8], end: &[u8]) -> bool {
        self.stamped.iter().any(|stamped| {
            let first = filled(&stamped.key, stamped.offset, &[0; 10]);
            let last = filled(&stamped.key, stamped.offset, &[0xff; 10]);
            last >= begin && first < end
        })
    }
}

/// Bytes that the limit of a transaction counts for setting or clearing a key: key and value, and the two ends of its conflict
/// range. An error if the rules forbid the write.
pub(crate) fn cost_of_key(key: &[u8], value: &[u8]) -> Result<usize> {
    if key.is_empty() || key.first() == Some(&0xff) {
        Err(Error::new(Class::Misuse, "a key outside the legal range"))
    } else if key.len() > limits::KEY {
        Err(Error::new(Class::TooLarge, "a key is longer than 10 kB"))
    } else if value.len() > limits::VALUE {
        Err(Error::new(Class::TooLarge, "a value is larger than 100 kB"))
    } else {
        Ok(key.len() * 3 + 1 + value.len())
    }
}

/// The same for clearing the keys from `begin` (included) to `end` (excluded).
pub(crate) fn cost_of_range(begin: &[u8], end: &[u8]) -> Result<usize> {
    if begin > end {
        Err(Error::new(Class::Misuse, "a range ends before it begins"))
    } else if end.len() > limits::KEY || begin.len() > limits::KEY {
        Err(Error::new(Class::TooLarge, "a key is longer than 10 kB"))
    } else if end > [0xff].as_slice() {
        Err(Error::new(Class::Misuse, "a range outside the legal keys"))
    } else if begin == end {
        Ok(0)
    } else {
        Ok((begin.len() + end.len()) * 2)
    }
}

/// Whether so many bytes are more than the little that goes with so many removals.
pub(crate) fn outgrows(added: usize, removed: usize) -> bool {
    added > removed * ASIDE
}

/// The entries of `map` from `begin` (included) to `end` (excluded).
pub(crate) fn keys_in<'a, V>(
    map: &'a BTreeMap<Bytes, V>,
    begin: &[u8],
    end: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a V)> {
    use std::ops::Bound::{Excluded, Included};
    let end = if end < begin { begin } else { end };
    map.range::<[u8], _>((Included(begin), Excluded(end)))
}

/// The sum as FoundationDB's ADD makes it: little-endian, eight bytes, cut or filled up, wrapping.
pub(crate) fn sum(base: Option<&Bytes>, delta: i64) -> Bytes {
    let mut bytes = [0; 8];
    if let Some(base) = base {
        for (to, from) in bytes.iter_mut().zip(base) {
            *to = *from;
        }
    }
    Bytes::copy_from_slice(&i64::from_le_bytes(bytes).wrapping_add(delta).to_le_bytes())
}

fn has_room(bytes: &[u8], offset: usize) -> bool {
    offset.checked_add(10).is_some_and(|end| end <= bytes.len())
}

/// `template` with the versionstamp at `offset`.
pub(crate) fn filled(template: &[u8], offset: usize, stamp: &Versionstamp) -> Bytes {
    let mut bytes = BytesMut::from(template);
    if let Some(room) = bytes.get_mut(offset..offset + stamp.len()) {
        room.copy_from_slice(stamp);
    }
    bytes.freeze()
}

/// Refuses a read that an engine could not answer.
pub(crate) fn check_range(begin: &[u8], end: &[u8]) -> Result<()> {
    if begin > end {
        return Err(Error::new(Class::Misuse, "a range ends before it begins"));
    }
    if end > [0xff].as_slice() {
        return Err(Error::new(Class::Misuse, "a range outside the legal keys"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_wrap_cut_and_fill_up() {
        assert_eq!(sum(None, -1), [0xff; 8].as_slice());
        assert_eq!(sum(Some(&Bytes::from_static(&[0xff])), 1), [0, 1, 0, 0, 0, 0, 0, 0].as_slice());
        assert_eq!(sum(Some(&Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 9])), 1).len(), 8);
    }

    #[test]
    fn the_first_broken_rule_stays() {
        let mut pending = Pending::default();
        pending.clear(b"");
        pending.set_stamped_value(b"k", b"123456789", 0);
        assert_eq!(pending.broken().unwrap().message, "a key outside the legal range");
        assert!(!pending.is_empty());
    }

    #[test]
    fn what_only_removes_does_not_grow() {
        let mut pending = Pending::default();
        pending.add_conflict(b"a", b"b");
        assert!(!pending.grows(), "nothing is stored");
        pending.clear(b"message");
        pending.set(Bytes::from_static(b"count"), Bytes::from_static(b"3"));
        pending.set_stamped_value(b"mark", &[0; 22], 12);
        assert!(!pending.grows());
        pending.set(Bytes::from_static(b"message"), Bytes::from(vec![0; ASIDE]));
        assert!(pending.grows(), "a message in place of another");
        let mut pending = Pending::default();
        pending.set(Bytes::from_static(b"count"), Bytes::from_static(b"3"));
        assert!(pending.grows());
    }

    #[test]
    fn steps_keep_stamped_keys_between_their_ranges() {
        let mut pending = Pending::default();
        pending.set_stamped_key(b"a..........", 1, b"1");
        pending.clear_range(b"a", b"b");
        pending.set_stamped_key(b"a..........", 1, b"2");
        pending.clear_range(b"c", b"d");
        pending.set(Bytes::from_static(b"c"), Bytes::new());
        pending.set_stamped_key(b"a..........", 1, b"3");
        let steps = pending.take_steps();
        let text = steps.iter().map(|step| match step {
            Step::ClearRange(begin, _) => format!("-{}", begin[0] as char),
            Step::StampedKey(key) => format!("{}", key.value[0] as char),
            Step::Key(key, _) => format!("+{}", key[0] as char),
        });
        assert_eq!(text.collect::<String>(), "1-a2-c3+c");
    }

    #[test]
    fn what_a_range_clears_is_gone_and_what_comes_after_stays() {
        let mut pending = Pending::default();
        pending.set(Bytes::from_static(b"b"), Bytes::new());
        pending.clear_range(b"a", b"c");
        assert!(pending.writes.is_empty());
        pending.add(b"b", 2);
        assert!(matches!(pending.writes.get(b"b".as_slice()), Some(Write::Set(v)) if v[0] == 2));
    }
}
