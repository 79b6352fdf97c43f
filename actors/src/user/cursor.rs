//! How the offline cursor moves: on, as devices get what waits; and back, before what an ended session has left.

use rookery_cluster::store::{self, Options, Transaction};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection};
use rookery_cluster::tables::offline::{self, Cursor};

use super::User;
use super::deliver::Ops;
use super::share::{self, Owed};

impl User {
    /// Behind which entry of the archive what waits for a device begins; nothing if nothing waits.
    pub(super) fn waits_after(&self) -> Option<ArchiveId> {
        self.offline.map(|cursor| cursor.after)
    }

    /// Up to where everything that came for any device has been given to one.
    pub(super) fn drained(&self) -> Option<ArchiveId> {
        match self.offline {
            Some(cursor) => cursor.drained.max(Some(cursor.after)),
            None => self.ids.last,
        }
    }

    /// Moves the cursor, in the store too.
    pub(super) fn move_cursor(&mut self, cursor: Option<Cursor>) {
        if self.offline != cursor {
            self.offline = cursor;
            self.write_cursor();
        }
    }

    pub(super) fn write_cursor(&self) {
        let mut ops = Ops::new();
        match self.offline {
            Some(cursor) => offline::set(&mut ops, &self.entity, cursor),
            None => offline::clear(&mut ops, &self.entity),
        }
        self.submit(ops);
    }

    /// A device has what ended sessions had left: that waits no longer, also when the cursor goes back once more. Should the
    /// store not take this, the message may come to a second device then.
    pub(super) fn settle_left(&self, ids: Vec<ArchiveId>) {
        if ids.is_empty() {
            return;
        }
        let (store, user) = (self.host.store().clone(), self.entity.clone());
        self.host.spawn(async move {
            let settled = store.write(Options::owner(&user), |tx| {
                let (user, ids) = (user.clone(), ids.clone());
                Box::pin(async move { settle(&mut **tx, &user, &ids).await })
            });
            if let Err(error) = settled.await {
                tracing::debug!(%user, %error, "what ended sessions had left is not noted as delivered");
            }
        });
    }
}

async fn settle(
    tx: &mut dyn Transaction,
    user: &rookery_cluster::entity::Entity,
    ids: &[ArchiveId],
) -> store::Result<()> {
    for id in ids {
        let change = |entry: &archive::Entry| {
            let left = Owed::of(entry) == Owed::LeftBehind;
            left.then(|| share::owed_to(Owed::Nobody, entry.flags))
        };
        archive::reflag(tx, Collection::Archive, user, *id, change).await?;
    }
    Ok(())
}
