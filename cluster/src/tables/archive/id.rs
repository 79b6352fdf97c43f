//! Ids of archive entries: how they are made, and what clients see of them.

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::invariant;
use crate::store::{Class, Error, Result};

/// Microseconds of a day.
const DAY: u64 = 86_400_000_000;

/// Ids end in the year 2255: what lies behind was made by nobody.
const MICROS_END: u64 = 1 << 53;

/// The place of an entry in its archive. The order of ids is the order of entries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ArchiveId {
    /// Microseconds since 1970; never runs backwards within an archive, so it can be ahead of the clock.
    pub micros: u64,
    /// The epoch of the shard in which the id was made.
    pub epoch: u32,
    /// Tells apart what was archived in the same microsecond.
    pub counter: u32,
}

impl ArchiveId {
    /// Before all others of that microsecond.
    pub const fn first_at(micros: u64) -> Self {
        Self { micros, epoch: 0, counter: 0 }
    }

    /// The greatest id that is less than this one: "everything from here on" for what takes "everything behind".
    pub fn before(self) -> Self {
        Self::from_bytes(u128::from_be_bytes(self.to_bytes()).saturating_sub(1).to_be_bytes())
    }

    /// Whether an entry of this id came after a home of the user had noted `place` as the last id. That home may have lost what
    /// it made last, and its clock may have been ahead of the next home's: ids of a later epoch come later whatever they say.
    pub fn comes_after(self, place: Self) -> bool {
        place.epoch < self.epoch || place < self
    }

    /// The 16 bytes in keys, whose order is that of ids.
    pub fn to_bytes(self) -> [u8; 16] {
        let number = u128::from(self.micros) << 64 | u128::from(self.epoch) << 32 | u128::from(self.counter);
        number.to_be_bytes()
    }

    /// The id of those bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            micros: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            epoch: u32::from_be_bytes([i, j, k, l]),
            counter: u32::from_be_bytes([m, n, o, p]),
        }
    }

    /// The id in a record; corrupt if it has not 16 bytes.
    pub(in crate::tables) fn read(bytes: &[u8]) -> Result<Self> {
        let corrupt = |_| Error::new(Class::Corrupt, "a stored archive id is not 16 bytes long");
        bytes.try_into().map(Self::from_bytes).map_err(corrupt)
    }

    /// The day, counted from 1970-01-01, UTC.
    pub fn day(self) -> u32 {
        u32::try_from(self.micros / DAY).unwrap_or(u32::MAX)
    }

    /// The first possible id of a day.
    pub fn first_of_day(day: u32) -> Self {
        Self::first_at(u64::from(day) * DAY)
    }
}

/// Makes the ids of one archive: each greater than all before it, whatever the clock of the computer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    /// The last id that was made; `None` in an empty archive.
    pub last: Option<ArchiveId>,
}

impl Clock {
    /// Goes on after `last`, the newest id of the archive.
    pub fn after(last: Option<ArchiveId>) -> Self {
        Self { last }
    }

    /// The next id, at `now` microseconds since 1970 or, if the clock was set back, right after the last one.
    pub fn next(&mut self, now: u64, epoch: u32) -> ArchiveId {
        let now = now.min(MICROS_END - 1);
        let mut id = ArchiveId { micros: now, epoch, counter: 0 };
        if let Some(last) = self.last.filter(|last| *last >= id) {
            id.micros = last.micros;
            // Only ids of the same epoch are told apart by the counter; a greater epoch is greater in itself.
            if id <= last {
                id.counter = last.counter.saturating_add(1);
            }
            if id <= last {
                // The counter is used up, or the epoch went back, which it never should.
                id = ArchiveId { micros: last.micros.saturating_add(1), epoch, counter: 0 };
            }
        }
        let last = self.last.replace(id);
        invariant!("archive_ids_grow", last.is_none_or(|last| last < id), "{id:?} after {last:?}");
        id
    }
}

/// Sequence ids into what clients see, and back: one AES-128 block under a key of the deployment, in base64url. An id
/// says nothing about time or order without the key, and cannot be guessed (XEP-0359 section 4).
#[derive(Clone)]
pub struct IdCipher(Aes128);

impl IdCipher {
    /// The cipher with the deployment's key.
    pub fn new(key: &[u8; 16]) -> Self {
        Self(Aes128::new(&Array::from(*key)))
    }

    /// The 22 characters that clients see.
    pub fn seal(&self, id: ArchiveId) -> String {
        let mut block = Array::from(id.to_bytes());
        self.0.encrypt_block(&mut block);
        URL_SAFE_NO_PAD.encode(block)
    }

    /// The id that was sealed; `None` for what [`IdCipher::seal`] cannot have made. What was made up at random
    /// passes once in two thousand times and then names no entry.
    pub fn open(&self, text: &str) -> Option<ArchiveId> {
        let mut bytes = [0; 16];
        // The decoder's buffer must hold 16 bytes and not one more; longer texts are refused before.
        if text.len() != 22 || URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) != Ok(16) {
            return None;
        }
        let mut block = Array::from(bytes);
        self.0.decrypt_block(&mut block);
        Some(ArchiveId::from_bytes(block.into())).filter(|id| id.micros < MICROS_END)
    }
}

/// Without the key.
impl std::fmt::Debug for IdCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IdCipher")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_and_the_sealed_form_never_change() {
        let id = ArchiveId { micros: 1_700_000_000_000_000, epoch: 7, counter: 9 };
        assert_eq!(id.to_bytes(), [0, 6, 0x0a, 0x24, 0x18, 0x1e, 0x40, 0, 0, 0, 0, 7, 0, 0, 0, 9]);
        assert_eq!(id.day(), 19_675);
        assert_eq!(IdCipher::new(&[1; 16]).seal(id), "Fn6AA-BKBfF7-VoKKqO2mg");
    }

    #[test]
    fn garbage_opens_to_nothing() {
        let cipher = IdCipher::new(&[1; 16]);
        let good = cipher.seal(ArchiveId::first_at(5));
        assert!(cipher.open(&good).is_some());
        let mut padded = good.clone();
        padded.push_str("==");
        let unlike_canonical = format!("{}{}", &good[..21], if good.ends_with('A') { 'B' } else { 'Z' });
        for bad in ["", "x", &good[1..], &padded, &"+".repeat(22), &"é".repeat(11), &unlike_canonical] {
            assert_eq!(cipher.open(bad), None, "{bad}");
        }
        // Under another key nearly all ids open to nothing, or else to another id.
        let other = IdCipher::new(&[2; 16]);
        let opened = (0..1000).filter_map(|n| other.open(&cipher.seal(ArchiveId::first_at(n))));
        assert!(opened.count() < 20);
    }

    #[test]
    fn a_used_up_counter_and_a_wild_clock_go_on() {
        let mut clock = Clock::after(Some(ArchiveId { micros: 5, epoch: 1, counter: u32::MAX }));
        assert_eq!(clock.next(3, 1), ArchiveId { micros: 6, epoch: 1, counter: 0 });
        assert_eq!(clock.next(3, 2), ArchiveId { micros: 6, epoch: 2, counter: 0 });
        assert_eq!(clock.next(3, 1), ArchiveId { micros: 7, epoch: 1, counter: 0 });
        assert_eq!(clock.next(u64::MAX, 1).micros, MICROS_END - 1);
    }

    proptest! {
        #[test]
        fn ids_never_run_backwards(steps in prop::collection::vec((0u64..6, 0u32..3), 1..60)) {
            let mut clock = Clock::default();
            let mut last = None;
            for (now, epoch) in steps {
                let id = clock.next(now, epoch);
                prop_assert!(Some(id) > last);
                prop_assert!(last.is_none_or(|l| l.to_bytes() < id.to_bytes()));
                prop_assert!(id.micros >= now && id.epoch == epoch);
                last = Some(id);
            }
        }

        #[test]
        fn what_was_sealed_opens(micros in 0..MICROS_END, epoch: u32, counter: u32, key: [u8; 16]) {
            let id = ArchiveId { micros, epoch, counter };
            let cipher = IdCipher::new(&key);
            let sealed = cipher.seal(id);
            prop_assert_eq!(sealed.len(), 22);
            prop_assert_eq!(cipher.open(&sealed), Some(id));
            prop_assert_eq!(ArchiveId::from_bytes(id.to_bytes()), id);
        }
    }
}
