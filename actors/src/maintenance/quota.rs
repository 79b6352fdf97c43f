//! How much each account's archive may hold. Nothing is counted in the store: an archive is weighed by the maintenance, once a
//! day, and when this node has written a sixteenth of the quota to it since.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::archive::{self, Collection};
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::Semaphore;

use crate::host::Host;
use crate::host::options::{Full, Options};

/// Archives of which is remembered what was written; with more, all of them begin anew.
const REMEMBERED: usize = 100_000;

/// How many archives a node weighs at a time.
static WEIGHING: Semaphore = Semaphore::const_new(2);

/// Rows that one transaction weighs, of up to 10 kB each.
const ROWS: usize = 500;

/// Days whose index one transaction removes.
const DAYS: usize = 500;

const DAY: u64 = 86_400_000_000;

/// What is known of quotas in memory.
#[derive(Default)]
pub(crate) struct Quotas {
    /// Bytes that were written since an archive was weighed last.
    written: Mutex<HashMap<BareJid, u64>>,
    /// Those that take no more.
    full: Mutex<HashSet<String>>,
}

impl Quotas {
    /// Whether an archive takes no more.
    pub(crate) fn is_full(&self, user: &str) -> bool {
        self.full.lock().contains(user)
    }

    /// Whether an archive is to be weighed, now that so much more is written.
    fn wrote(&self, user: &BareJid, bytes: u64, quota: u64) -> bool {
        let mut written = self.written.lock();
        match written.get_mut(user) {
            Some(sum) if sum.saturating_add(bytes) > quota / 16 => {
                *sum = 0;
                true
            }
            Some(sum) => {
                *sum += bytes;
                false
            }
            None => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(user.clone(), bytes);
                bytes > quota / 16
            }
        }
    }
}

impl Host {
    /// Whether the archive of a user who lives here takes a message of so many bytes.
    pub(crate) fn archives(&self, user: &BareJid, bytes: usize) -> bool {
        let options = self.options();
        if options.quota == 0 {
            return true;
        }
        if options.when_full == Full::Refuse && self.quotas().is_full(user.as_str()) {
            metrics::counter!("rookery_limits_hit_total", "limit" => "archive_quota").increment(1);
            return false;
        }
        if self.quotas().wrote(user, bytes as u64, options.quota) {
            let (host, user) = (self.clone(), Entity::new(user.as_str()));
            self.spawn(async move {
                let Ok(_turn) = WEIGHING.acquire().await else { return };
                let now = host.seams().clock.now_micros();
                // What is on its way is there before it is weighed.
                let flushed = host.batcher().flush().await;
                let done = match flushed {
                    Ok(()) => enforce(host.store(), &host.quotas(), &user, now, &options).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = done {
                    tracing::debug!(%user, %error, "an archive could not be weighed; it is tried again");
                }
            });
        }
        true
    }
}

/// Weighs a user's archive, and does what is to be done if it holds more than it may.
pub(crate) async fn enforce(
    store: &Store,
    quotas: &Quotas,
    user: &Entity,
    now: u64,
    options: &Options,
) -> store::Result<()> {
    if options.quota == 0 || !store.owns(user.shard()) {
        return Ok(());
    }
    let over = weigh(store, user, u32::try_from(now / DAY).unwrap_or(0), options.quota).await?;
    let full = over.is_some() && options.when_full == Full::Refuse;
    {
        let mut known = quotas.full.lock();
        let changed = if full { known.insert(user.as_str().to_owned()) } else { known.remove(user.as_str()) };
        if changed {
            tracing::info!(%user, full, "an archive became full, or has room again");
        }
    }
    let Some(over) = over.filter(|_| !full) else { return Ok(()) };
    metrics::counter!("rookery_limits_hit_total", "limit" => "archive_quota").increment(1);
    loop {
        let over = &over;
        let more = store.write(store::Options::owner(user), |tx| {
            Box::pin(async move {
                archive::quota::cut(&mut **tx, (Collection::Archive, user), over.through, over.kept, DAYS)
                    .await
            })
        });
        if !more.await? {
            return Ok(());
        }
    }
}

/// What does not fit: an entry and everything older.
struct Over {
    through: archive::ArchiveId,
    /// What is left of its day, if that is over.
    kept: Option<u64>,
}

async fn weigh(store: &Store, user: &Entity, today: u32, quota: u64) -> store::Result<Option<Over>> {
    let at = (Collection::Archive, user);
    let days =
        store.read(|tx| Box::pin(async move { archive::quota::days(&mut **tx, at.0, at.1).await })).await?;
    let mut sum = 0u64;
    for (day, known) in days {
        let ended = day < today;
        let room = quota.saturating_sub(sum);
        if let Some(bytes) = known.filter(|bytes| ended && *bytes <= room) {
            sum += bytes;
            continue;
        }
        let (mut bytes, mut before) = (0, None);
        loop {
            let left = (room.saturating_sub(bytes), ROWS);
            let part = store
                .read(|tx| {
                    Box::pin(async move { archive::quota::weigh(&mut **tx, at, (day, before), left).await })
                })
                .await?;
            bytes += part.bytes;
            if let Some(through) = part.beyond {
                return Ok(Some(Over { through, kept: ended.then_some(bytes) }));
            }
            before = part.last.or(before);
            if !part.more {
                break;
            }
        }
        sum += bytes;
        if ended {
            let note = store.write(store::Options::owner(user), |tx| {
                Box::pin(async move { archive::quota::note(&mut **tx, at.0, at.1, day, bytes).await })
            });
            note.await?;
        }
    }
    Ok(None)
}

impl Host {
    /// What is known of quotas.
    pub(crate) fn quotas(&self) -> Arc<Quotas> {
        self.state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::{Scene, Session};

    const QUOTA: u64 = 64_000;

    /// The stanzas of Juliet's archive, the oldest first.
    async fn archived(scene: &Scene) -> Vec<String> {
        let user = &Entity::new("juliet@localhost");
        scene.host.batcher().flush().await.unwrap();
        let query = &archive::Query::all(1_000);
        let page = scene.host.store().read(|tx| {
            Box::pin(async move { archive::page(&mut **tx, Collection::Archive, user, query).await })
        });
        let entries = page.await.unwrap().entries;
        entries.into_iter().map(|(_, entry)| String::from_utf8(entry.stanza.to_vec()).unwrap()).collect()
    }

    async fn flooded(when_full: Full) -> (Scene, Session, Session) {
        let scene = Scene::with(&["romeo", "juliet"], |options| {
            (options.quota, options.when_full) = (QUOTA, when_full);
        })
        .await;
        let mut romeo = scene.session("romeo/orchard").await;
        let mut juliet = scene.session("juliet/balcony").await;
        juliet.available("").await;
        let long = "x".repeat(2_000);
        for n in 0..100 {
            romeo.send(&format!(
                "<message to='juliet@localhost' type='chat'><body>m{n} {long}</body></message>"
            ));
            assert!(juliet.next().await.contains(&format!("m{n} ")));
        }
        (scene, romeo, juliet)
    }

    #[tokio::test]
    async fn the_oldest_go_soon_after_it_is_full() {
        let (scene, ..) = flooded(Full::Oldest).await;
        let left = loop {
            let left = archived(&scene).await;
            let bytes: usize = left.iter().map(String::len).sum();
            // What was written since it was weighed last is a sixteenth, and less than a message.
            if (bytes as u64) <= QUOTA + QUOTA / 16 + 4_000 {
                break left;
            }
            tokio::task::yield_now().await;
        };
        assert!(left.len() > 20 && left.last().is_some_and(|last| last.contains("m99 ")), "{}", left.len());
    }

    #[tokio::test]
    async fn or_nothing_more_is_archived() {
        let (scene, mut romeo, mut juliet) = flooded(Full::Refuse).await;
        while !scene.host.quotas().is_full("juliet@localhost") {
            tokio::task::yield_now().await;
        }
        let before = archived(&scene).await;
        assert!(before[0].contains("m0 "));
        romeo.send("<message to='juliet@localhost' type='chat'><body>no more</body></message>");
        assert!(juliet.next().await.contains("no more"));
        assert_eq!(archived(&scene).await.len(), before.len());
    }
}
