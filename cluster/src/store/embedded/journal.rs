//! Checks fjall's journals before fjall reads them, and repairs what it would refuse or silently drop.
//!
//! A journal is a row of batches: `1, count u32, seqno u64`, then `count` items (`2, type u8, compression u8, keyspace u64,
//! key length u16, value length u32, stored length u32, key, value`, or `4, keyspace u64`), then `3, xxh3 of the items u64,
//! "FJL" 3`; numbers are little-endian. Behind the last batch come zeros (room made in advance) or a batch cut off by a
//! crash, which nobody was told to be committed: fjall removes both by itself. Anything else is damage: fjall 3.1 refuses to
//! start over a wrong checksum, and over a wrong tag drops everything behind without a word.
//!
//! The repair cuts out the damaged stretch and keeps every whole batch before and behind it, because those were
//! acknowledged, and because much of what lies in a journal is in the tables already. What was cut out is kept in a file, and the
//! log says how much it is. What whole batches are missing is not known: look into the archive of someone who complains.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use crate::store::Result;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: [u8; 4] = *b"FJL\x03";

/// Checks all journals in `rows`; stretches that are cut out go to files in `aside`.
pub(super) fn repair(rows: &Path, aside: &Path) -> Result<()> {
    let mut journals: Vec<PathBuf> = match fs::read_dir(rows) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(super::opened::disk(error)),
    };
    journals.retain(|path| path.extension().is_some_and(|extension| extension == "jnl"));
    journals.sort();
    for path in journals {
        repair_one(&path, aside).map_err(|e| super::opened::disk_at(&path, e))?;
    }
    Ok(())
}

fn repair_one(path: &Path, aside: &Path) -> std::io::Result<()> {
    let bytes = fs::read(path)?;
    let bytes = used(&bytes);
    let check = check(bytes);
    if check.damage.is_empty() {
        return Ok(());
    }
    super::files::own(aside)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut whole = Vec::with_capacity(bytes.len());
    let mut at = 0;
    for stretch in &check.damage {
        whole.extend_from_slice(bytes.get(at..stretch.start).unwrap_or_default());
        at = stretch.end;
        let cut = bytes.get(stretch.clone()).unwrap_or_default();
        let kept = new_file(aside, &format!("{name}.{}", stretch.start), cut)?;
        tracing::error!(
            journal = %path.display(), offset = stretch.start, bytes = cut.len(), kept = %kept.display(),
            "the store's journal is damaged: this part was removed, and its commits are lost unless the tables already have them"
        );
    }
    whole.extend_from_slice(bytes.get(at..check.end).unwrap_or_default());
    tracing::error!(journal = %path.display(), batches_kept = check.batches, "the store's journal was repaired");
    let repaired = path.with_extension("repaired");
    let mut file = super::files::options().truncate(true).open(&repaired)?;
    file.write_all(&whole)?;
    file.sync_all()?;
    fs::rename(&repaired, path)?;
    sync_parent(path)
}

/// The bytes without the zeros behind them: up to 64 MB of room, so compared in pieces.
pub(super) fn used(bytes: &[u8]) -> &[u8] {
    let zeros = [0; 4096];
    let mut rest = bytes;
    while let Some((head, tail)) = rest.split_last_chunk::<4096>()
        && *tail == zeros
    {
        rest = head;
    }
    let end = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    rest.get(..end).unwrap_or_default()
}

/// Writes a file that was not there before.
fn new_file(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<PathBuf> {
    for number in 0u32.. {
        let path = folder.join(format!("{name}.{number}"));
        match super::files::options().create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(bytes)?;
                file.sync_all()?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::ErrorKind::AlreadyExists.into())
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// What a look at a journal found.
#[derive(Debug, PartialEq, Eq)]
struct Check {
    /// Whole batches.
    batches: usize,
    /// Where they end.
    end: usize,
    /// Stretches that are no batch and not the end.
    damage: Vec<std::ops::Range<usize>>,
}

/// Walks through a journal.
fn check(bytes: &[u8]) -> Check {
    let mut check = Check { batches: 0, end: 0, damage: Vec::new() };
    let mut seqno = None;
    while let Some(found) = batch(bytes, check.end).or_else(|| find(bytes, check.end, seqno)) {
        if found.start > check.end {
            check.damage.push(check.end..found.start);
        }
        seqno = Some(found.seqno);
        check.batches += 1;
        check.end = found.end;
    }
    // Behind the last batch: zeros, or one batch cut off. A tail that is neither was a batch once.
    let tail = used(bytes.get(check.end..).unwrap_or_default());
    if !tail.is_empty() && !cut_off(tail) {
        check.damage.push(check.end..check.end + tail.len());
    }
    check
}

struct Found {
    start: usize,
    end: usize,
    seqno: u64,
}

/// The whole batch at `start`.
fn batch(bytes: &[u8], start: usize) -> Option<Found> {
    let mut reader = Reader { bytes, at: start };
    if reader.u8()? != START {
        return None;
    }
    let count = reader.u32()?;
    let seqno = reader.u64()?;
    let items = reader.at;
    for _ in 0..count {
        reader.item()?;
    }
    let body = bytes.get(items..reader.at)?;
    let sound = reader.u8()? == END && reader.u64()? == xxh3_64(body) && *reader.array::<4>()? == TRAILER;
    sound.then_some(Found { start, end: reader.at, seqno })
}

/// The next whole batch behind `start` that is younger than what came before. A value could hold bytes that look like a
/// batch (not the stanzas of a client: they hold no zero bytes), so its number must ascend too.
fn find(bytes: &[u8], start: usize, after: Option<u64>) -> Option<Found> {
    let rest = bytes.get(start + 1..)?;
    let starts =
        rest.windows(14).enumerate().filter(|(_, window)| matches!(window, [START, .., ITEM | CLEAR]));
    starts
        .filter_map(|(offset, _)| batch(bytes, start + 1 + offset))
        .find(|found| after.is_none_or(|before| found.seqno > before))
}

/// Whether `tail`, zeros at the end removed, is the beginning of a batch, as a crash leaves it: every entry is sound up to the
/// place where it ends. fjall removes such a tail by itself, and nobody was told that it was committed.
fn cut_off(tail: &[u8]) -> bool {
    let mut reader = Reader { bytes: tail, at: 0 };
    let Some(START) = reader.u8() else {
        return false;
    };
    let (Some(count), Some(_)) = (reader.u32(), reader.u64()) else {
        return true;
    };
    for _ in 0..count {
        // An item is either there, or the file ends in it. A wrong tag, or a length of more than may be written, is
        // neither.
        match reader.bytes.get(reader.at) {
            None => return true,
            Some(&ITEM) if reader.ends_in_item() => return true,
            Some(&ITEM | &CLEAR) => {
                if reader.item().is_none() {
                    return reader.bytes.len() <= reader.at + 9;
                }
            }
            Some(_) => return false,
        }
    }
    // All items are there: the end is not, or is cut off.
    tail.len() < reader.at + 13
}

/// Reads numbers as fjall writes them; `None` at the end of the bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let array = self.bytes.get(self.at..)?.first_chunk::<N>()?;
        self.at += N;
        Some(array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]: &[u8; 1]| *byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_le_bytes(*bytes))
    }

    /// The lengths of an item of which at least the head is there: key and value together.
    fn head(&mut self) -> Option<usize> {
        let [kind, compression] = *self.array::<2>()?;
        let _keyspace = self.u64()?;
        let key = u16::from_le_bytes(*self.array()?);
        let (value, stored) = (self.u32()?, self.u32()?);
        let sound = kind <= 2 && compression == 0 && value == stored && key > 0;
        sound.then(|| usize::from(key) + usize::try_from(stored).unwrap_or(usize::MAX))
    }

    /// Skips an item.
    fn item(&mut self) -> Option<()> {
        match self.u8()? {
            ITEM => {
                let body = self.head()?;
                self.at = self.at.checked_add(body)?;
                (self.at <= self.bytes.len()).then_some(())
            }
            CLEAR => self.u64().map(|_| ()),
            _ => None,
        }
    }

    /// Whether the item here goes on behind the end of the bytes, by lengths that we could have written.
    fn ends_in_item(&self) -> bool {
        let mut ahead = Reader { bytes: self.bytes, at: self.at + 1 };
        if self.bytes.len() < self.at + 21 {
            return true; // not even the head is whole
        }
        let longest = crate::store::limits::KEY + crate::store::limits::VALUE;
        ahead.head().is_some_and(|body| body <= longest && ahead.at + body > self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch of one item as fjall writes it.
    fn one(seqno: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut item = vec![ITEM, 0, 0];
        item.extend(1u64.to_le_bytes());
        item.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
        item.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        item.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        item.extend(key);
        item.extend(value);
        let mut batch = vec![START];
        batch.extend(1u32.to_le_bytes());
        batch.extend(seqno.to_le_bytes());
        batch.extend(&item);
        batch.push(END);
        batch.extend(xxh3_64(&item).to_le_bytes());
        batch.extend(TRAILER);
        batch
    }

    fn three() -> (Vec<u8>, usize) {
        let one_len = one(1, b"key", b"value").len();
        ([one(1, b"key", b"value"), one(2, b"key", b"value"), one(3, b"key", b"value")].concat(), one_len)
    }

    #[test]
    fn a_sound_journal_with_room_behind_it_stays() {
        let (mut bytes, len) = three();
        bytes.resize(4096, 0);
        assert_eq!(check(&bytes), Check { batches: 3, end: 3 * len, damage: vec![] });
        assert_eq!(check(&[]), Check { batches: 0, end: 0, damage: vec![] });
    }

    #[test]
    fn a_cut_tail_is_no_damage() {
        let (bytes, len) = three();
        for cut in 1..len {
            let mut bytes = bytes[..3 * len - cut].to_vec();
            let expected = Check { batches: 2, end: 2 * len, damage: vec![] };
            assert_eq!(check(&bytes), expected, "cut by {cut}");
            bytes.resize(4096, 0);
            assert_eq!(check(&bytes).end, 2 * len, "cut by {cut}, zeros behind");
        }
    }

    #[test]
    fn a_flipped_byte_costs_its_batch_only() {
        let (bytes, len) = three();
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= 0x40;
            let first = place / len * len;
            let check = check(&bytes);
            let seqno_only = (5..13).contains(&(place % len));
            if seqno_only {
                continue; // not under the checksum; only the order tells
            }
            assert_eq!(check.batches, 2, "byte {place}");
            if place < 2 * len {
                assert_eq!(check.damage, vec![first..first + len], "byte {place}");
            }
        }
    }

    #[test]
    fn a_hole_of_zeros_costs_what_was_in_it() {
        let (mut bytes, len) = three();
        bytes[len - 4..len + 4].fill(0);
        let check = check(&bytes);
        assert_eq!((check.batches, check.end), (1, 3 * len));
        assert_eq!(check.damage.first(), Some(&(0..2 * len)));
    }
}
