//! How much may be in a roster, whatever way it comes in.

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::roster::{self as table, Item};
use rookery_proto::xmpp::error::{Condition, StanzaError};

use crate::features;
use crate::host::options::Limits;

/// The limits of a roster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    items: usize,
    item_bytes: usize,
    bytes: usize,
    /// Requests that wait for an answer.
    pub(in crate::user) requests: usize,
    /// The rows that are read at most.
    pub(in crate::user) rows: usize,
}

/// A limit that a change would pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    Items,
    ItemBytes,
    Bytes,
}

impl Room {
    pub(crate) fn of(limits: &Limits) -> Self {
        Self {
            items: limits.roster_items,
            item_bytes: limits.roster_item_bytes,
            bytes: limits.roster_bytes,
            requests: limits.requests,
            rows: limits.roster_rows(),
        }
    }

    /// The limit that stands in the way of a change to an item. Only what grows is looked at: lower limits take nothing away,
    /// and do not keep anybody from writing less.
    pub(crate) async fn refuses(
        self,
        tx: &mut dyn Transaction,
        user: &Entity,
        before: Option<&Item>,
        after: &Item,
    ) -> store::Result<Option<Full>> {
        let before = before.filter(|item| !item.unlisted);
        let old = before.map_or(0, Item::weight);
        if after.unlisted || after.weight() <= old {
            return Ok(None);
        }
        if after.weight() > self.item_bytes {
            return Ok(Some(Full::ItemBytes));
        }
        let count = table::count(tx, user, self.rows).await?;
        if before.is_none() && count.listed >= self.items {
            return Ok(Some(Full::Items));
        }
        let more = count.bytes.saturating_sub(old).saturating_add(after.weight()) > self.bytes;
        Ok(more.then_some(Full::Bytes))
    }
}

impl Full {
    /// The answer, which is counted.
    pub(crate) fn error(self) -> StanzaError {
        match self {
            Self::Items => {
                features::over("roster_items", Condition::ResourceConstraint, "the roster is full")
            }
            Self::Bytes => {
                features::over("roster_bytes", Condition::ResourceConstraint, "the roster is full")
            }
            // RFC 6121 section 2.3.3: as for a name that is too long.
            Self::ItemBytes => {
                let text = "the name and the groups of this contact are too long";
                features::over("roster_item_bytes", Condition::NotAcceptable, text)
            }
        }
    }
}
