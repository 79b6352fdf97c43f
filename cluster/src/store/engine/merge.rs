//! A page of the stored rows with a transaction's own writes laid over them.

use std::iter::Peekable;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::backend::Backend;
use super::pending::{Pending, Write, keys_in, sum};
use crate::store::{Class, Error, Page, Result, Select, limits};

/// Own writes in the order of the read.
type Own<'a> = Peekable<Box<dyn Iterator<Item = (&'a Bytes, &'a Write)> + 'a>>;

/// Reads a page at `view`, own writes included.
pub(crate) fn page<B: Backend>(
    backend: &B,
    view: &B::View,
    pending: &Pending,
    select: &Select,
) -> Result<Page> {
    let Select { begin, end, reverse, limit } = select;
    if *limit == 0 || begin >= end {
        return Ok(Page::default());
    }
    let inside = keys_in(&pending.writes, begin, end);
    let mut own: Own<'_> = if *reverse {
        (Box::new(inside.rev()) as Box<dyn Iterator<Item = _>>).peekable()
    } else {
        (Box::new(inside) as Box<dyn Iterator<Item = _>>).peekable()
    };
    let mut sink = Sink { page: Page::default(), limit: *limit, bytes: 0 };
    let mut failed = None;
    backend.scan(view, begin, end, *reverse, &mut |key, value| {
        let outcome = merge_row(pending, &mut own, &mut sink, *reverse, key, value);
        outcome.unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    while !sink.page.more
        && let Some((key, write)) = own.next()
    {
        let _ = sink.own(key, write, None)?;
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
        if sink.own(other, write, None)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    match own.next_if(|&(other, _)| *other == key) {
        Some((_, write)) => sink.own(&key, write, Some(value)),
        None if pending.is_cleared(&key) => Ok(ControlFlow::Continue(())),
        None => Ok(sink.row(key, value)),
    }
}

/// Collects rows until the page is full.
struct Sink {
    page: Page,
    limit: usize,
    bytes: usize,
}

impl Sink {
    fn row(&mut self, key: Bytes, value: Bytes) -> ControlFlow<()> {
        if self.page.rows.len() >= self.limit || self.bytes >= limits::PAGE {
            self.page.more = true;
            return ControlFlow::Break(());
        }
        self.bytes += key.len() + value.len();
        self.page.rows.push((key, value));
        ControlFlow::Continue(())
    }

    fn own(&mut self, key: &Bytes, write: &Write, stored: Option<Bytes>) -> Result<ControlFlow<()>> {
        Ok(match write {
            Write::Set(value) => self.row(key.clone(), value.clone()),
            Write::Clear => ControlFlow::Continue(()),
            Write::Add(delta) => self.row(key.clone(), sum(stored.as_ref(), *delta)),
            Write::Stamped(..) => return Err(unknown()),
        })
    }
}

/// The error of reading what the commit will complete.
pub(crate) fn unknown() -> Error {
    Error::new(Class::Misuse, "a read of a versionstamp that is not known yet")
}
