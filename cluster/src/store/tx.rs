//! A transaction as the bodies of [`super::Store::read`] and [`super::Store::write`] get it.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

use bytes::Bytes;

use super::{Isolation, Page, Result, Row, Select, Transaction};

/// A transaction that the runner will commit. All verbs of [`Transaction`] are there by dereference; those below are the same
/// with the usual isolation filled in.
///
/// `'env` is what the body may borrow from around it: `store.write(options, |tx| Box::pin(async move { … }))` with references
/// taken before (`let key = &key;`). (Async closures would read better, but futures that hold them are not `Send` for the
/// compiler as soon as they borrow: rust-lang/rust#110338.)
pub struct Tx<'env>(Box<dyn Transaction>, PhantomData<&'env ()>);

impl Tx<'_> {
    /// Wraps a transaction.
    pub fn new(transaction: Box<dyn Transaction>) -> Self {
        Self(transaction, PhantomData)
    }

    /// The transaction, to be committed.
    pub fn into_inner(self) -> Box<dyn Transaction> {
        self.0
    }

    /// The value of `key`; the commit fails if another changes it meanwhile.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn get(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(key, Isolation::Serializable).await
    }

    /// The value of `key`, without conflicts.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn peek(&mut self, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(key, Isolation::Snapshot).await
    }

    /// One page; the commit fails if another changes what was read (a row that appears counts).
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn range(&mut self, select: Select) -> Result<Page> {
        self.0.range(select, Isolation::Serializable).await
    }

    /// The first `limit` rows of a range, page after page; `more` says whether there are others behind them.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn scan(&mut self, range: Range<Bytes>, limit: usize) -> Result<Page> {
        self.follow(Select::range(range, limit)).await
    }

    /// The last `limit` rows of a range, from the end.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn scan_back(&mut self, range: Range<Bytes>, limit: usize) -> Result<Page> {
        self.follow(Select::range(range, limit).reverse()).await
    }

    async fn follow(&mut self, mut select: Select) -> Result<Page> {
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let wanted = select.limit;
            let page = self.range(select.clone()).await?;
            let got = page.rows.len();
            rows.extend(page.rows);
            let Some((last, _)) = rows.last().filter(|_| page.more && got < wanted) else {
                return Ok(Page { rows, more: page.more });
            };
            select = select.after(last);
            select.limit = wanted - got;
        }
    }

    /// Sets `key` without copying.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.0.set_owned(key, value);
    }
}

impl Deref for Tx<'_> {
    type Target = dyn Transaction;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl DerefMut for Tx<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}
