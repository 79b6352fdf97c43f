//! What a link reads from the store when it is first needed, and which links must be there without being asked for.

use std::time::Duration;

use rookery_cluster::entity::{Entity, Shard};
use rookery_cluster::store::{self, Fut, Ops};
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::{Rows, Sid, links, seen};
use rookery_proto::xmpp::jid::BareJid;
use tokio::time::Instant;

use super::dialing::Lost;
use super::item;
use super::take::Step;
use super::waiting::PAGE;
use super::{Link, Msg};
use crate::host::Host;
use crate::host::kind::{Actors, PlacedActor as _};
use crate::routing::stored;
use crate::runtime::seen::Senders;
use crate::runtime::shares::Shares;

/// Links on record that one transaction reads.
const LINKS: usize = 200;

/// How many senders a link remembers, to know their stanzas when these come again.
const SENDERS: usize = 4_096;

/// Stanzas that one transaction reads only to count them, and about how many bytes.
const COUNTED: usize = 500;
const COUNTED_BYTES: usize = 1 << 20;

/// What a sender has sent comes again within that time or never, or within twice the time for which sessions are kept.
const AGAIN: Duration = Duration::from_secs(3_600);

/// Rows of senders that are removed when a link is read.
const PRUNED: usize = 1_000;

/// How often a link that stays forgets senders, and how many rows one transaction looks at.
const PRUNE: Duration = Duration::from_secs(1_800);
const PRUNE_ROWS: usize = 500;

/// A part of what waits in the store.
pub(crate) type Page = Rows<(ArchiveId, links::Waiting)>;

/// What the store knows of a link.
pub(crate) struct Loaded {
    record: Option<links::Record>,
    page: Page,
    last: Option<ArchiveId>,
    /// The senders that have sent something last.
    seen: Vec<(Sid, seen::Seen)>,
    /// Rows of those who can send nothing again.
    old: Vec<Sid>,
    /// How much waits in the store, and whose that is.
    rows: Shares,
}

/// Reads how much waits in the store.
struct Rowed<'a> {
    host: &'a Host,
    link: &'a BareJid,
    rows: Shares,
    after: Option<ArchiveId>,
}

impl Rowed<'_> {
    /// Counts a page; whether more pages follow.
    fn count(&mut self, page: &Page) -> bool {
        for (id, row) in &page.rows {
            self.after = Some(*id);
            if let Some(stanza) = stored::stanza(&row.stanza) {
                self.rows.came(&item::sender(self.host, self.link, &stanza), stanza.size());
            }
        }
        page.more
    }
}

/// What the store knows of a link. All that waits is counted, so that the limits hold also for the next home.
async fn read(host: &Host, link: &BareJid, name: &Entity, bytes: usize) -> store::Result<Loaded> {
    let first = host.store().read(|tx| {
        let name = name.clone();
        Box::pin(async move {
            Ok(Loaded {
                record: links::get(&mut **tx, &name).await?,
                page: links::waiting(&mut **tx, &name, None, PAGE, bytes).await?,
                last: links::last_id(&mut **tx, &name).await?,
                seen: Vec::new(),
                old: Vec::new(),
                rows: Shares::default(),
            })
        })
    });
    let mut loaded = first.await?;
    let mut rowed = Rowed { host, link, rows: Shares::default(), after: None };
    let mut more = rowed.count(&loaded.page);
    while more {
        let after = rowed.after;
        let page = host.store().read(|tx| {
            let name = name.clone();
            Box::pin(async move { links::waiting(&mut **tx, &name, after, COUNTED, COUNTED_BYTES).await })
        });
        more = rowed.count(&page.await?);
    }
    loaded.rows = rowed.rows;
    read_senders(host, name, &mut loaded).await?;
    Ok(loaded)
}

/// Reads whose stanzas were taken, of as many senders as are remembered: those of whom something came last.
async fn read_senders(host: &Host, name: &Entity, loaded: &mut Loaded) -> store::Result<()> {
    let (since, mut after) = (again_since(host), None);
    loop {
        let page = host
            .store()
            .read(|tx| Box::pin(async move { seen::page(&mut **tx, name, after.as_ref(), SENDERS).await }));
        let Rows { rows, more } = page.await?;
        after = rows.last().map(|(sender, _)| *sender);
        let (old, young): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, seen)| seen.at < since);
        let room = PRUNED - loaded.old.len().min(PRUNED); // the rest later
        loaded.old.extend(old.into_iter().map(|(sender, _)| sender).take(room));
        loaded.seen.extend(young);
        if loaded.seen.len() > SENDERS {
            loaded.seen.sort_unstable_by_key(|(_, seen)| std::cmp::Reverse(seen.at));
            loaded.seen.truncate(SENDERS);
        }
        if !more {
            return Ok(());
        }
    }
}

/// A sender that has sent nothing since then (microseconds since 1970) sends nothing again: its session is over, or all that was sent is settled.
fn again_since(host: &Host) -> u64 {
    let again = AGAIN.max(host.options().resume * 2);
    host.seams().clock.now_micros().saturating_sub(u64::try_from(again.as_micros()).unwrap_or(u64::MAX))
}

impl Link {
    /// Asks the store; the answer comes as [`Msg::Loaded`].
    pub(super) fn load(&self) {
        let Some(me) = self.me.clone() else { return };
        let (host, link) = (self.host.clone(), self.jid.clone());
        let (name, bytes) = (self.name.clone(), self.page_bytes());
        self.host.spawn(async move {
            let loaded = read(&host, &link, &name, bytes).await.map(Box::new);
            if let Err(error) = &loaded {
                tracing::warn!(link = %name, %error, "a link to another server could not be loaded from the store; stanzas to that server fail until the store answers");
            }
            let _ = me.cast_always(Msg::Loaded(loaded));
        });
    }

    pub(super) fn loaded(&mut self, loaded: Loaded) {
        let Loaded { record, page, last, seen, old, rows } = loaded;
        self.recorded = record.is_some();
        self.was_up = self.recorded; // by a former process, perhaps
        self.lost = record.and_then(Lost::of_record);
        self.clock.last = last;
        self.seen = Senders::of_rows(seen);
        if !old.is_empty() {
            let mut ops = Ops::new();
            old.iter().for_each(|name| seen::clear(&mut ops, &self.name, name));
            let _ = self.submit(ops, Step::Pruned);
        }
        self.waiting.rows = rows;
        if let Some(last) = last {
            self.waiting.begin_behind(last);
            self.take_page(page);
        }
    }
}

impl Link {
    /// Forgets who can send nothing again, from time to time: a link to a large server has new senders all the time, and may never go.
    pub(super) fn prune(&mut self) {
        if self.pruned.elapsed() < PRUNE {
            return;
        }
        self.pruned = Instant::now();
        let (host, name, before) = (self.host.clone(), self.name.clone(), again_since(&self.host));
        self.host.spawn(async move {
            let mut after: Option<Sid> = None;
            loop {
                let from = after;
                let pruned = host.store().write(store::Options::owner(&name), |tx| {
                    let (name, from) = (&name, &from);
                    Box::pin(async move { seen::prune(&mut **tx, name, before, from.as_ref(), PRUNE_ROWS).await })
                });
                match pruned.await {
                    Ok(seen::Pruned { next: Some(next), .. }) => after = Some(next),
                    Ok(_) => return,
                    Err(error) => {
                        tracing::debug!(link = %name, %error, "senders could not be forgotten; it comes again");
                        return;
                    }
                }
            }
        });
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
