//! Archives read page by page, each page a transaction of its own: what comes while an export runs may be in it or not.

use std::collections::VecDeque;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection, Direction, End, Entry, Query};
use rookery_cluster::tables::offline::Cursor;
use rookery_proto::xmpp::stanza::Stanza;

use crate::user::{waits_for_any, worth_keeping};

/// Entries per page.
const PAGE: usize = 200;

/// A cursor before all there is.
const EVERYTHING: Cursor = Cursor::at(ArchiveId::first_at(0));

/// A walk over one archive, from the oldest entry to the newest.
pub(super) struct Walk<'a> {
    store: &'a Store,
    collection: Collection,
    owner: &'a Entity,
    /// The next page; `None` behind the last one.
    query: Option<Query>,
    rows: VecDeque<(ArchiveId, Entry)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        store: &'a Store,
        collection: Collection,
        owner: &'a Entity,
        after: Option<ArchiveId>,
    ) -> Self {
        let query = Some(Query { after, ..Query::all(PAGE) });
        Self { store, collection, owner, query, rows: VecDeque::new() }
    }

    /// A walk that is over.
    fn nowhere(store: &'a Store, collection: Collection, owner: &'a Entity) -> Self {
        Self { query: None, ..Self::new(store, collection, owner, None) }
    }

    pub(super) async fn next(&mut self) -> store::Result<Option<(ArchiveId, Entry)>> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Ok(Some(row));
            }
            let Some(query) = self.query.take() else { return Ok(None) };
            let slice = page(self.store, self.collection, self.owner, &query).await?;
            self.rows = slice.entries.into();
            if slice.end != End::Complete {
                self.query = Some(query.onwards(slice.cursor));
            }
        }
    }
}

/// One page of an archive.
pub(super) async fn page(
    store: &Store,
    collection: Collection,
    owner: &Entity,
    query: &Query,
) -> store::Result<archive::Slice> {
    store.read(|tx| Box::pin(async move { archive::page(&mut **tx, collection, owner, query).await })).await
}

/// What waits for a device of a user: the queue, and what came to the archive and no device has got, merged by time.
pub(super) struct Waiting<'a> {
    queue: Walk<'a>,
    archive: Walk<'a>,
    heads: [Option<(ArchiveId, Stanza)>; 2],
    cursor: Cursor,
}

impl<'a> Waiting<'a> {
    /// `cursor` is where what waits in the archive begins.
    pub(super) fn new(store: &'a Store, owner: &'a Entity, cursor: Option<Cursor>) -> Self {
        let archive = match cursor {
            Some(cursor) => Walk::new(store, Collection::Archive, owner, Some(cursor.after)),
            None => Walk::nowhere(store, Collection::Archive, owner),
        };
        let cursor = cursor.unwrap_or(EVERYTHING);
        Self { queue: Walk::new(store, Collection::Queue, owner, None), archive, heads: [None, None], cursor }
    }

    pub(super) async fn next(&mut self) -> store::Result<Option<(ArchiveId, Stanza)>> {
        let [queued, archived] = &mut self.heads;
        if queued.is_none() {
            *queued = next_waiting(&mut self.queue, EVERYTHING).await?;
        }
        if archived.is_none() {
            *archived = next_waiting(&mut self.archive, self.cursor).await?;
        }
        let queue_first = match (&*queued, &*archived) {
            (Some((a, _)), Some((b, _))) => a <= b,
            (queued, _) => queued.is_some(),
        };
        Ok(if queue_first { queued.take() } else { archived.take() })
    }
}

/// The next entry that a device is to get.
async fn next_waiting(walk: &mut Walk<'_>, cursor: Cursor) -> store::Result<Option<(ArchiveId, Stanza)>> {
    while let Some((id, entry)) = walk.next().await? {
        if entry.direction() == Direction::Out || !waits_for_any(cursor, id, &entry) {
            continue;
        }
        if let Some(stanza) = crate::routing::stored::stanza(&entry.stanza).filter(worth_keeping) {
            return Ok(Some((id, stanza)));
        }
    }
    Ok(None)
}
