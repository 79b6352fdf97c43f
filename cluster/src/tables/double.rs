//! A transaction on a plain map, for the tables' tests: no isolation, no commit, and small pages so that every
//! reader has to follow them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::store::{Committed, Error, Fut, Isolation, Page, Result, Select, Transaction, Version};

/// See the module.
pub(crate) struct Double {
    /// What is stored.
    pub(crate) rows: BTreeMap<Bytes, Bytes>,
    /// At most that many rows in a page.
    pub(crate) page: usize,
    /// How many range reads there were.
    pub(crate) reads: usize,
    stamp: u64,
}

impl Double {
    /// An empty one with pages of three rows.
    pub(crate) fn new() -> Self {
        Self { rows: BTreeMap::new(), page: 3, reads: 0, stamp: 0 }
    }

    fn stamped(&mut self, bytes: &[u8], offset: usize) -> Bytes {
        self.stamp += 1;
        let mut out = bytes.to_vec();
        out[offset..offset + 8].copy_from_slice(&self.stamp.to_be_bytes());
        out[offset + 8..offset + 10].fill(0);
        out.into()
    }
}

impl Transaction for Double {
    fn get<'a>(&'a mut self, key: &'a [u8], _: Isolation) -> Fut<'a, Result<Option<Bytes>>> {
        let value = self.rows.get(key).cloned();
        Box::pin(async { Ok(value) })
    }

    fn range(&mut self, select: Select, _: Isolation) -> Fut<'_, Result<Page>> {
        self.reads += 1;
        let mut rows: Vec<_> = if select.begin < select.end {
            self.rows.range(select.begin..select.end).map(|(k, v)| (k.clone(), v.clone())).collect()
        } else {
            Vec::new()
        };
        if select.reverse {
            rows.reverse();
        }
        let limit = select.limit.min(self.page);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Box::pin(async move { Ok(Page { rows, more }) })
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.rows.insert(Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
    }

    fn clear(&mut self, key: &[u8]) {
        self.rows.remove(key);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.rows.retain(|k, _| !(begin <= &k[..] && &k[..] < end));
    }

    fn add(&mut self, _: &[u8], _: i64) {
        panic!("no table adds");
    }

    fn set_versionstamped_key(&mut self, key: &[u8], offset: usize, value: &[u8]) {
        let key = self.stamped(key, offset);
        self.set(&key, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], value: &[u8], offset: usize) {
        let value = self.stamped(value, offset);
        self.set(key, &value);
    }

    fn add_read_conflict(&mut self, _: &[u8], _: &[u8]) {}

    fn add_write_conflict(&mut self, _: &[u8], _: &[u8]) {}

    fn set_read_version(&mut self, _: Version, _: Version) {}

    fn read_version(&mut self) -> Fut<'_, Result<Version>> {
        Box::pin(async { Ok(Version(0)) })
    }

    fn watch(&mut self, _: &[u8]) -> Fut<'static, Result<()>> {
        Box::pin(std::future::pending())
    }

    fn size(&self) -> usize {
        0
    }

    fn commit(self: Box<Self>) -> Fut<'static, Result<Committed>> {
        Box::pin(async { Err(Error::new(crate::store::Class::Unavailable, "a double commits nothing")) })
    }
}

/// Bytes from hexadecimal digits, for records as older versions wrote them.
pub(crate) fn unhex(digits: &str) -> Bytes {
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

/// Ensures that `bytes` (hex, as an older version wrote it) reads as `record`, and that what we write now is read
/// the same way.
#[track_caller]
pub(crate) fn still_decodes<M>(bytes: &str, record: &M)
where
    M: prost::Message + Default + PartialEq + std::fmt::Debug,
{
    let now: String = record.encode_to_vec().iter().map(|b| format!("{b:02x}")).collect();
    let old = M::decode(unhex(bytes)).unwrap_or_else(|e| panic!("{e}; written now: {now}"));
    assert!(old == *record, "stored bytes read as {old:?}; written now: {now}");
    assert_eq!(&M::decode(unhex(&now)).unwrap(), record);
}
