//! A page of the stored rows with a transaction's own writes laid over them.

use std::iter::Peekable;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::base::{Base, Sink};
use super::pending::{Pending, Write, keys_in, sum};
use crate::store::{Class, Error, Page, Result, Select};

/// Own writes in the order of the read.
type Own<'a> = Peekable<Box<dyn Iterator<Item = (&'a Bytes, &'a Write)> + Send + 'a>>;

/// Reads a page, own writes included, of a range that is not empty.
pub(crate) async fn page<B: Base>(base: &mut B, pending: &Pending, select: &Select) -> Result<Page> {
    let Select { begin, end, reverse, limit } = select;
    if !pending.touches(begin, end) {
        return base.page(select).await;
    }
    let inside = keys_in(&pending.writes, begin, end);
    let mut own: Own<'_> = if *reverse {
        (Box::new(inside.rev()) as Box<dyn Iterator<Item = _> + Send>).peekable()
    } else {
        (Box::new(inside) as Box<dyn Iterator<Item = _> + Send>).peekable()
    };
    let mut sink = Sink::new(*limit);
    let mut rest = select.clone();
    loop {
        // One more than there is room for tells whether there is more.
        rest.limit = sink.room().saturating_add(1);
        let stored = base.page(&rest).await?;
        let last = stored.rows.last().map(|(key, _)| key.clone()).filter(|_| stored.more);
        for (key, value) in stored.rows {
            if merge_row(pending, &mut own, &mut sink, *reverse, key, value)?.is_break() {
                return Ok(sink.page);
            }
        }
        match last {
            Some(last) => rest = rest.after(&last),
            None => break,
        }
        if rest.begin >= rest.end {
            break;
        }
    }
    while !sink.page.more
        && let Some((key, write)) = own.next()
    {
        let _ = own_row(&mut sink, key, write, None)?;
    }
    Ok(sink.page)
}

/// Takes a stored row: the own writes before it, then it, or what became of it.
fn merge_row(
    pending: &Pending,
    own: &mut Own<'_>,
    sink: &mut Sink,
    reverse: bool,
    key: Bytes,
    value: Bytes,
) -> Result<ControlFlow<()>> {
    let before = |other: &Bytes| if reverse { *other > key } else { *other < key };
    while let Some((other, write)) = own.next_if(|&(other, _)| before(other)) {
        if own_row(sink, other, write, None)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    match own.next_if(|&(other, _)| *other == key) {
        Some((_, write)) => own_row(sink, &key, write, Some(value)),
        None if pending.is_cleared(&key) => Ok(ControlFlow::Continue(())),
        None => Ok(sink.row(key, value)),
    }
}

fn own_row(sink: &mut Sink, key: &Bytes, write: &Write, stored: Option<Bytes>) -> Result<ControlFlow<()>> {
    Ok(match write {
        Write::Set(value) => sink.row(key.clone(), value.clone()),
        Write::Clear => ControlFlow::Continue(()),
        Write::Add(delta) => sink.row(key.clone(), sum(stored.as_ref(), *delta)),
        Write::Stamped(..) => return Err(unknown()),
    })
}

/// The error of reading what the commit will complete.
pub(crate) fn unknown() -> Error {
    Error::new(Class::Misuse, "a read of a versionstamp that is not known yet")
}
