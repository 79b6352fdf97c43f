//! What a link reads from the store when it is first needed, and which links must be there without being asked for.

use rookery_cluster::entity::Shard;
use rookery_cluster::store::{self, Fut, Ops};
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::{Rows, links, seen};
use rookery_proto::xmpp::jid::BareJid;

use super::dialing::Lost;
use super::take::Step;
use super::waiting::PAGE;
use super::{Link, Msg};
use crate::host::Host;
use crate::host::kind::{Actors, PlacedActor as _};
use crate::runtime::seen::Senders;

/// Links on record that one transaction reads.
const LINKS: usize = 200;

/// How many senders a link remembers, to know their stanzas when these come again.
const SENDERS: usize = 4_096;

/// What a sender has sent comes again within a day or never, microseconds.
const AGAIN: u64 = 24 * 3_600 * 1_000_000;

/// A part of what waits in the store.
pub(crate) type Page = Rows<(ArchiveId, links::Waiting)>;

/// What the store knows of a link.
pub(crate) struct Loaded {
    record: Option<links::Record>,
    page: Page,
    last: Option<ArchiveId>,
    seen: Rows<([u8; 16], seen::Seen)>,
}

impl Link {
    /// Asks the store; the answer comes as [`Msg::Loaded`].
    pub(super) fn load(&self) {
        let Some(me) = self.me.clone() else { return };
        let (host, name, bytes) = (self.host.clone(), self.name.clone(), self.page_bytes());
        self.host.spawn(async move {
            let read = host.store().read(|tx| {
                let name = name.clone();
                Box::pin(async move {
                    Ok(Box::new(Loaded {
                        record: links::get(&mut **tx, &name).await?,
                        page: links::waiting(&mut **tx, &name, None, PAGE, bytes).await?,
                        last: links::last_id(&mut **tx, &name).await?,
                        seen: seen::load(&mut **tx, &name, SENDERS).await?,
                    }))
                })
            });
            let loaded = read.await;
            if let Err(error) = &loaded {
                tracing::warn!(link = %name, %error, "a link to another server could not be loaded from the store; stanzas to that server fail until the store answers");
            }
            let _ = me.cast_always(Msg::Loaded(loaded));
        });
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { record, page, last, seen } = loaded;
        self.recorded = record.is_some();
        self.lost = record.and_then(Lost::of_record);
        self.clock.last = last;
        let old = self.now_micros().saturating_sub(AGAIN);
        let (old, seen): (Vec<_>, Vec<_>) = seen.rows.into_iter().partition(|(_, seen)| seen.at < old);
        self.seen = Senders::of_rows(seen);
        if !old.is_empty() {
            let mut ops = Ops::new();
            old.iter().for_each(|(name, _)| seen::clear(&mut ops, &self.name, name));
            let _ = self.submit(ops, Step::Pruned);
        }
        if let Some(last) = last {
            self.waiting.begin_behind(last);
            self.take_page(page);
        }
    }
}

/// Wakes the links of a shard that have a record: what waits goes on.
pub(super) fn restore<'a>(
    host: &'a Host,
    shard: Shard,
    still: &'a (dyn Fn() -> bool + Sync),
) -> Fut<'a, store::Result<u64>> {
    Box::pin(async move {
        let mut after = None;
        loop {
            let from = after.clone();
            let read = host.store().read(|tx| {
                let from = from.clone();
                Box::pin(async move { links::of_shard(&mut **tx, shard, from.as_ref(), LINKS).await })
            });
            let page = read.await?;
            for link in &page.rows {
                if !still() {
                    return Ok(0);
                }
                if let (Ok(jid), Some(links)) = (BareJid::parse(link.as_str()), host.links()) {
                    let _ = links.cast(host, &jid, Link::wake());
                }
            }
            match page.rows.into_iter().last() {
                Some(last) if page.more => after = Some(last),
                _ => return Ok(0), // what is counted are sessions
            }
        }
    })
}

impl Host {
    /// The links that are at home on this node.
    pub(crate) fn links(&self) -> Option<&Actors<Link>> {
        self.kinds().of()
    }
}
