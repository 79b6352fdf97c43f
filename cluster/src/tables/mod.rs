//! Typed tables: functions over a transaction, one file each. A table never commits.
//!
//! What only writes is written over [`Mutate`](crate::store::Mutate) and so serves a transaction and the batcher
//! alike; what must read first takes a transaction. Records are protobuf messages that only grow: a field's number
//! and meaning are fixed for ever, and each record has a test that old bytes still decode.
//!
//! No table limits what a user may keep unless a function says so: the caller, who knows the operator's limits and
//! the error to answer with, passes them in. Reads of many rows always take a limit.

use std::ops::Range;

use bytes::Bytes;

use crate::store::{Class, Error, Isolation, Page, Result, Row, Select, Transaction, split};

pub mod accounts;
pub mod archive;
pub mod blocks;
pub mod certificates;
pub mod last;
pub mod links;
pub mod mam_prefs;
pub mod nodes;
pub mod offline;
pub mod private;
pub mod roster;
pub mod secrets;
pub mod seen;
pub mod sessions;
pub mod vcard;

#[cfg(test)]
mod double;
#[cfg(test)]
mod on_memory;

/// What a limited read of many rows returns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rows<T> {
    /// The rows, in the order of their keys.
    pub rows: Vec<T>,
    /// Whether the limit was reached and more is stored behind the last row.
    pub more: bool,
}

/// The name of a session: random, made by its user's home.
pub type Sid = [u8; 16];

/// Rows in one range read where values may have many parts.
const CHUNK: usize = 256;

/// The first `limit` rows of a range, over as many pages as the engine needs.
async fn scan(
    tx: &mut dyn Transaction,
    range: Range<Bytes>,
    limit: usize,
    isolation: Isolation,
) -> Result<Page> {
    let mut select = Select::range(range, limit);
    let mut all = Page::default();
    loop {
        let page = tx.range(select.clone(), isolation).await?;
        all.more = page.more;
        let Some((last, _)) = page.rows.last() else { return Ok(all) };
        select = select.after(last);
        all.rows.extend(page.rows);
        select.limit = limit.saturating_sub(all.rows.len());
        if !all.more || select.limit == 0 {
            return Ok(all);
        }
    }
}

/// The first `limit` split values of a range, with their keys (without part).
async fn join(
    tx: &mut dyn Transaction,
    range: Range<Bytes>,
    limit: usize,
    isolation: Isolation,
) -> Result<Rows<Row>> {
    // One more row than values are wanted: most values have one part, and the last row tells whether there is more.
    let mut select = Select::range(range, limit.saturating_add(1).min(CHUNK));
    let mut joiner = split::Joiner::default();
    let mut rows = Vec::new();
    loop {
        let page = tx.range(select.clone(), isolation).await?;
        for row in &page.rows {
            if rows.len() == limit {
                return Ok(Rows { rows, more: true });
            }
            rows.extend(joiner.push(row)?);
        }
        match page.rows.last() {
            Some((last, _)) if page.more => select = select.after(last),
            _ => return joiner.end().map(|()| Rows { rows, more: false }),
        }
    }
}

/// Reads a record; corrupt if it is none.
fn decode<M: prost::Message + Default>(value: Bytes) -> Result<M> {
    M::decode(value).map_err(|e| Error::new(Class::Corrupt, "a stored record does not decode").with(e))
}

/// A record's bytes.
fn encode(record: &impl prost::Message) -> Bytes {
    record.encode_to_vec().into()
}
