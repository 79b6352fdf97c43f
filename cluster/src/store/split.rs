//! Values of any size a stanza may have, in rows of at most [`PART`] bytes that one range read fetches.
//!
//! Behind a split value's key come two bytes: the part's number and the number of the last part. So every row
//! says what is missing, whichever way a range is read and wherever a page ends. Small values have one row, `00 00`.

use bytes::{Bytes, BytesMut};

use super::{Class, Error, Isolation, Mutate, Result, Row, Select, Transaction, keys};

/// The most bytes in one row; FoundationDB recommends not more.
pub const PART: usize = 10_000;

/// The most bytes in one value: 256 parts.
pub const MAX: usize = 256 * PART;

/// How many bytes the number of the part adds to a key.
pub const SUFFIX: usize = 2;

/// Writes a value at a key where nothing is stored yet. [`Class::TooLarge`] above [`MAX`] bytes.
pub fn insert(out: &mut (impl Mutate + ?Sized), key: &[u8], value: &Bytes) -> Result<()> {
    let last = value.len().saturating_sub(1) / PART;
    let last =
        u8::try_from(last).map_err(|_| Error::new(Class::TooLarge, "a value is too large to be split"))?;
    for number in 0..=last {
        let begin = usize::from(number) * PART;
        let end = value.len().min(begin + PART);
        let mut row = BytesMut::with_capacity(key.len() + SUFFIX);
        row.extend_from_slice(key);
        row.extend_from_slice(&[number, last]);
        out.put(row.freeze(), value.slice(begin..end));
    }
    Ok(())
}

/// Writes a value in place of what is stored. [`Class::TooLarge`] above [`MAX`] bytes, and then nothing is written.
pub fn replace(out: &mut (impl Mutate + ?Sized), key: &[u8], value: &Bytes) -> Result<()> {
    if value.len() > MAX {
        return Err(Error::new(Class::TooLarge, "a value is too large to be split"));
    }
    remove(out, key);
    insert(out, key, value)
}

/// Removes a value.
pub fn remove(out: &mut (impl Mutate + ?Sized), key: &[u8]) {
    let range = rows_of(key);
    out.delete_range(range.start, range.end);
}

/// The value at `key`.
pub async fn get(tx: &mut dyn Transaction, key: &[u8], isolation: Isolation) -> Result<Option<Bytes>> {
    let mut select = Select::range(rows_of(key), 256);
    let mut joiner = Joiner::default();
    loop {
        let page = tx.range(select.clone(), isolation).await?;
        for row in &page.rows {
            if let Some((_, value)) = joiner.push(row)? {
                return Ok(Some(value));
            }
            select = select.after(&row.0);
        }
        if !page.more || page.rows.is_empty() {
            return joiner.end().map(|()| None);
        }
    }
}

fn rows_of(key: &[u8]) -> std::ops::Range<Bytes> {
    keys::range_of(&Bytes::copy_from_slice(key))
}

/// Puts values together from the rows of a range read in either direction.
#[derive(Default)]
pub struct Joiner {
    /// The key (without part) of the value under way, and its parts in the order in which they came.
    parts: Vec<Bytes>,
    key: Bytes,
    number: u8,
    last: u8,
    reverse: bool,
}

impl Joiner {
    /// Takes the next row; returns key (without part) and value when it completes one. [`Class::Corrupt`] if a
    /// part is missing.
    pub fn push(&mut self, row: &Row) -> Result<Option<Row>> {
        let corrupt = Error::new(Class::Corrupt, "a part of a split value is missing");
        let Some((key, [number, last])) = row.0.split_last_chunk::<SUFFIX>() else { return Err(corrupt) };
        if number > last {
            return Err(corrupt);
        }
        if self.parts.is_empty() {
            if *last == 0 {
                return Ok(Some((row.0.slice(..key.len()), row.1.clone())));
            }
            self.key = row.0.slice(..key.len());
            self.reverse = number == last;
            if !self.reverse && *number != 0 {
                return Err(corrupt);
            }
        } else {
            let next = if self.reverse { self.number.checked_sub(1) } else { self.number.checked_add(1) };
            if self.key != *key || self.last != *last || next != Some(*number) {
                return Err(corrupt);
            }
        }
        (self.number, self.last) = (*number, *last);
        self.parts.push(row.1.clone());
        if *number != if self.reverse { 0 } else { *last } {
            return Ok(None);
        }
        if self.reverse {
            self.parts.reverse();
        }
        let value = self.parts.concat().into();
        self.parts.clear();
        Ok(Some((std::mem::take(&mut self.key), value)))
    }

    /// Whether no value is half read: the place where a scan may stop.
    pub fn is_between(&self) -> bool {
        self.parts.is_empty()
    }

    /// Ensures that the range did not end within a value.
    pub fn end(&self) -> Result<()> {
        if self.is_between() { Ok(()) } else { Err(Error::new(Class::Corrupt, "a split value has no end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{Op, Ops};

    fn rows(values: &[(Bytes, Bytes)]) -> Vec<Row> {
        let mut ops = Ops::new();
        for (key, value) in values {
            insert(&mut ops, key, value).unwrap();
        }
        ops.into_iter()
            .map(|op| match op {
                Op::Set { key, value } => (key, value),
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    fn join(rows: &[Row]) -> Result<Vec<Row>> {
        let mut joiner = Joiner::default();
        let mut out = Vec::new();
        for row in rows {
            out.extend(joiner.push(row)?);
        }
        joiner.end().map(|()| out)
    }

    #[test]
    fn too_large_is_refused_before_anything_is_written() {
        let mut ops = Ops::new();
        let error = replace(&mut ops, b"k", &vec![0; MAX + 1].into()).unwrap_err();
        assert_eq!((error.class, ops.len()), (Class::TooLarge, 0));
        replace(&mut ops, b"k", &vec![0; MAX].into()).unwrap();
        assert_eq!(ops.len(), 257);
    }

    #[test]
    fn a_missing_part_is_corrupt() {
        let all = rows(&[(Bytes::from_static(b"k"), vec![1; 3 * PART].into())]);
        assert_eq!(all.len(), 3);
        for missing in 0..3 {
            let mut some = all.clone();
            some.remove(missing);
            assert_eq!(join(&some).unwrap_err().class, Class::Corrupt, "part {missing} forwards");
            some.reverse();
            assert_eq!(join(&some).unwrap_err().class, Class::Corrupt, "part {missing} backwards");
        }
        assert!(join(&[(Bytes::from_static(b"k"), Bytes::new())]).is_err());
        assert!(join(&[(Bytes::from_static(b"k\x02\x01"), Bytes::new())]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_split_comes_back_both_ways(
            sizes in prop::collection::vec(prop_oneof![0..20usize, PART - 2..PART + 3, 0..4 * PART], 1..5)
        ) {
            let values: Vec<Row> = sizes.iter().enumerate().map(|(n, size)| {
                let key = Bytes::from(format!("key{n}"));
                (key, (0..*size).map(|i| u8::try_from(i % 251).unwrap()).collect())
            }).collect();
            let mut all = rows(&values);
            prop_assert!(all.iter().all(|(_, part)| part.len() <= PART));
            prop_assert!(all.is_sorted());
            prop_assert_eq!(join(&all).unwrap(), values.clone());
            all.reverse();
            prop_assert_eq!(join(&all).unwrap(), values.into_iter().rev().collect::<Vec<_>>());
        }
    }
}
