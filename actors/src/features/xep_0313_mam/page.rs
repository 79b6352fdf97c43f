//! How a page of the archive is found and sent.

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{Result as StoreResult, Store, Tx};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection, End, Entry, IdCipher};
use rookery_proto::xml::write;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{MessageType, Stanza};
use rookery_proto::xmpp::{ns, rsm};

use super::query::Query;
use crate::connection::pipe::Outgoing;
use crate::features::contract::{Done, Request};
use crate::features::{xep_0203_delay as delay, xep_0297_forwarding as forwarding};
use crate::host::Host;

/// A page ends behind the message with which it reaches so many bytes: less than a session may have unacknowledged.
const PAGE_BYTES: usize = 1_000_000;
/// How many transactions look for the messages of one page, when few of many match; then the client is told to ask
/// for less. With [`archive::Query::all`] that is a million rows.
const ROUNDS: usize = 200;

/// A page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// What was found, the oldest first.
    pub(super) entries: Vec<(ArchiveId, Entry)>,
    /// Nothing that matches lies beyond.
    pub(super) complete: bool,
}

/// Answers a query: the results go before the reply (section 4).
pub(super) async fn answer(host: Host, request: Request) -> Result<Done, StanzaError> {
    let started = tokio::time::Instant::now();
    let query = Query::parse(&request.element()?, host.ids(), host.options().limits.archive_page)?;
    let query = query.of(&request.account);
    // What the client has sent before it asked is to be found; if that could not be stored, it was told so.
    host.batcher().flush().await.ok();
    let page = find(host.store(), &Entity::new(request.account.as_str()), &query).await;
    let outcome = if page.is_ok() { "ok" } else { "error" };
    metrics::counter!("rookery_archive_queries_total", "outcome" => outcome).increment(1);
    let page = page?;
    let reply = fin(&page, host.ids());
    let results = page.entries.iter().map(|(id, entry)| {
        let sealed = host.ids().seal(*id);
        Outgoing::new(result(&request.account, &request.from, &query, *id, &sealed, entry))
    });
    let mut before: Vec<Outgoing> = results.collect();
    if query.flip {
        before.reverse();
    }
    metrics::histogram!("rookery_archive_query_seconds").record(started.elapsed());
    Ok(Done { reply, before, ..Done::default() })
}

/// The page of `user`'s archive that `query` asks for.
pub(super) async fn find(store: &Store, user: &Entity, query: &Query) -> Result<Page, StanzaError> {
    let known = store.read(|tx| Box::pin(known(tx, user, query))).await;
    if !known.map_err(|error| crate::features::store_failed(&error))? {
        // Sections 4.1.3 and 4.3.2: whatever the client refers to must be there.
        return Err(Condition::ItemNotFound.into());
    }
    let mut page = match &query.ids {
        Some(ids) => chosen(store, user, query, ids).await?,
        None => scanned(store, user, query).await?,
    };
    if query.backwards {
        page.entries.reverse();
    }
    Ok(page)
}

/// Whether all messages that the query names are in the archive.
async fn known(tx: &mut Tx<'_>, user: &Entity, query: &Query) -> StoreResult<bool> {
    for id in query.after.iter().chain(&query.before).chain(query.ids.iter().flatten()) {
        if !archive::contains(&mut **tx, Collection::Archive, user, *id).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn scanned(store: &Store, user: &Entity, query: &Query) -> Result<Page, StanzaError> {
    let mut next = archive::Query {
        after: query.after.iter().max().copied(),
        before: query.before.iter().min().copied(),
        start: query.start,
        end: query.end,
        with: query.with.clone(),
        backwards: query.backwards,
        ..archive::Query::all(query.max)
    };
    let (mut page, mut bytes) = (Page::default(), 0);
    for _ in 0..ROUNDS {
        next.max_bytes = PAGE_BYTES.saturating_sub(bytes).max(1);
        let ask = &next;
        let slice = store.read(|tx| {
            Box::pin(async move { archive::page(&mut **tx, Collection::Archive, user, ask).await })
        });
        let slice = slice.await.map_err(|error| crate::features::store_failed(&error))?;
        bytes += slice.entries.iter().map(|(_, entry)| entry.stanza.len()).sum::<usize>();
        page.entries.extend(slice.entries);
        match slice.end {
            End::Complete => {
                page.complete = true;
                return Ok(page);
            }
            End::Limit => return Ok(page),
            End::Budget if bytes >= PAGE_BYTES => return Ok(page),
            End::Budget => {
                next = next.onwards(slice.cursor);
                next.limit = query.max.saturating_sub(page.entries.len());
            }
        }
    }
    if page.entries.is_empty() {
        let few = "too many messages lie between those that match: give a narrower time";
        return Err(crate::features::over("archive_scan", Condition::ResourceConstraint, few));
    }
    Ok(page)
}

/// The messages named one by one (section 4.1.3), as far as they match the rest of the query too.
async fn chosen(store: &Store, user: &Entity, query: &Query, ids: &[ArchiveId]) -> Result<Page, StanzaError> {
    let mut ids: Vec<ArchiveId> = ids.iter().copied().filter(|id| in_range(query, *id)).collect();
    ids.sort_unstable();
    ids.dedup();
    if query.backwards {
        ids.reverse();
    }
    let (mut page, mut bytes) = (Page::default(), 0);
    for id in ids {
        let entry = store
            .read(|tx| Box::pin(async move { archive::get(&mut **tx, Collection::Archive, user, id).await }))
            .await;
        let Some(entry) = entry.map_err(|error| crate::features::store_failed(&error))? else { continue };
        if !query.with.matches(&entry) {
            continue;
        }
        if page.entries.len() >= query.max || bytes >= PAGE_BYTES {
            return Ok(page);
        }
        bytes += entry.stanza.len();
        page.entries.push((id, entry));
    }
    page.complete = true;
    Ok(page)
}

fn in_range(query: &Query, id: ArchiveId) -> bool {
    query.start.is_none_or(|start| id.micros >= start)
        && query.end.is_none_or(|end| id.micros <= end)
        && query.after.iter().all(|after| id > *after)
        && query.before.iter().all(|before| id < *before)
}

/// `<fin/>` (section 4.3.2). Archives are committed in order, so results are stable, which needs no saying.
fn fin(page: &Page, ids: &IdCipher) -> Vec<u8> {
    let ends =
        page.entries.first().zip(page.entries.last()).map(|((a, _), (b, _))| (ids.seal(*a), ids.seal(*b)));
    let ends = ends.as_ref().map(|(first, last)| (first.as_str(), last.as_str()));
    write::bytes(|w| {
        w.start("fin", ns::MAM).attr_opt("complete", page.complete.then_some("true"));
        rsm::Page { ends, ..rsm::Page::default() }.write(w);
    })
}

/// The message that carries one result (section 4.2).
fn result(account: &BareJid, to: &Jid, query: &Query, id: ArchiveId, sealed: &str, entry: &Entry) -> Stanza {
    let forwarded = forwarding::forwarded_raw(&entry.stanza, &delay::stamp(id.micros));
    let payload = write::bytes(|w| {
        w.start("result", ns::MAM)
            .attr_opt("queryid", query.queryid.as_deref())
            .attr("id", sealed)
            .raw(&forwarded);
    });
    Stanza::new(MessageType::Normal).from(account).to(to.clone()).payload(Bytes::from(payload))
}
