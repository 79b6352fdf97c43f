//! What becomes of a message that another server refuses. The link, or the other server, sends an error long after the message was
//! acknowledged: the error goes to the session that has sent the message, and the sender's archive forgets the message, as if one of
//! this deployment's homes had refused it (`sent`).
//!
//! A recipient can send such an error at will, and so take the message out of the sender's archive. So only a young message is taken
//! out, and only for an error that comes from the address the message was sent to.

use std::collections::VecDeque;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Options, Transaction};
use rookery_cluster::tables::archive::{self, ArchiveId, Collection};
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};
use sha2::Digest as _;

use crate::features::contract::Then;
use crate::host::Host;
use crate::user::User;
use crate::user::sent::is_answered;

/// How old a message is at most that an error takes out, microseconds: longer than a link keeps a message for a server that cannot
/// be reached.
const YOUNG: u64 = 15 * 60 * 1_000_000;

/// How many messages are remembered in memory. Older ones are looked for in the store.
const REMEMBERED: usize = 1_024;

/// Among how many of the newest entries a message is looked for in the store.
const LAST: usize = 200;

/// How many errors wait for the next look at the store. Errors beyond that take nothing out.
const WAITING: usize = 256;

/// Messages that were sent elsewhere, and archived, a short time ago.
#[derive(Default)]
pub(super) struct Sent {
    newest: VecDeque<(ArchiveId, [u8; 16])>,
    /// Errors whose messages are looked for in the store next.
    waiting: Vec<Stanza>,
    looking: bool,
}

impl Sent {
    pub(super) fn is_busy(&self) -> bool {
        self.looking
    }
}

/// What identifies both a message and its error: the address the message went to, and its id.
fn key(with: &str, id: &str) -> [u8; 16] {
    let digest = sha2::Sha256::new().chain_update(with).chain_update([0]).chain_update(id).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

/// Whether a message is the error of one that has left for another server. That message was acknowledged when it left, so somebody must hear
/// the error, also when the session that had sent the message has gone: the error is for any device then. RFC 6121 section 8.5.3.2.1 and
/// XEP-0160 section 3 would have it ignored; but nothing else says any more that the message was lost, and the archive forgets the message.
pub(in crate::user) fn is_bounce(host: &Host, stanza: &Stanza) -> bool {
    let error = stanza.type_ == Type::Message(MessageType::Error) && stanza.id.is_some();
    error && stanza.from.as_ref().is_some_and(|from| !host.answers(from.domain())) && !is_warning(stanza)
}

/// Whether the sender of an error goes on nevertheless (RFC 6120 section 8.3.2): then it was a warning.
fn is_warning(error: &Stanza) -> bool {
    let child = error.child("error", rookery_proto::xmpp::ns::CLIENT);
    child.is_some_and(|error| error.attr("type").as_deref() == Some("continue"))
}

impl User {
    /// Remembers a message that one of the sessions sends elsewhere.
    pub(in crate::user) fn remember_sent(&mut self, entry: ArchiveId, stanza: &Stanza) {
        let (Some(to), Some(id)) = (&stanza.to, &stanza.id) else { return }; // no error could name it
        let newest = &mut self.foreign.sent.newest;
        let old = entry.micros.saturating_sub(YOUNG);
        while newest.len() >= REMEMBERED || newest.front().is_some_and(|(first, _)| first.micros < old) {
            newest.pop_front();
        }
        newest.push_back((entry, key(to.bare_str(), id)));
    }

    /// An error about a message has come from elsewhere.
    pub(in crate::user) fn refused_elsewhere(&mut self, error: &Stanza) {
        let (Some(from), Some(id)) = (&error.from, &error.id) else { return };
        if is_warning(error) {
            return;
        }
        let key = key(from.bare_str(), id);
        let newest = &mut self.foreign.sent.newest;
        if let Some(at) = newest.iter().rposition(|(_, known)| *known == key) {
            if let Some((entry, _)) = newest.remove(at) {
                self.take_back(entry, error, 0);
            }
            return;
        }
        self.look_for_refused(error);
    }

    /// The same of a message that was sent before this user was read. A link that gives up returns all that waits at once, so errors
    /// that come during one look share the next.
    fn look_for_refused(&mut self, error: &Stanza) {
        let sent = &mut self.foreign.sent;
        if sent.waiting.len() >= WAITING {
            metrics::counter!("rookery_limits_hit_total", "limit" => "remote_errors").increment(1);
            return;
        }
        sent.waiting.push(error.header());
        if !sent.looking {
            self.look_for_all();
        }
    }

    fn look_for_all(&mut self) {
        let errors = std::mem::take(&mut self.foreign.sent.waiting);
        self.foreign.sent.looking = !errors.is_empty();
        if errors.is_empty() {
            return;
        }
        let (store, own) = (self.host.store().clone(), self.entity.clone());
        let since = self.host.seams().clock.now_micros().saturating_sub(YOUNG);
        self.spawn(async move {
            let removed = store.write(Options::owner(&own), |tx| {
                let (own, errors) = (&own, &errors);
                Box::pin(async move { remove(&mut **tx, own, errors, since).await })
            });
            if let Err(error) = removed.await {
                tracing::warn!(user = %own, %error, "messages that another server refused could not be removed from the sender's archive");
            }
            let then: Then = Box::new(User::look_for_all);
            then
        });
    }
}

/// Removes the messages that these errors answer, of those that were sent after `since` (microseconds since 1970).
async fn remove(tx: &mut dyn Transaction, own: &Entity, errors: &[Stanza], since: u64) -> store::Result<()> {
    let all = archive::Query { start: Some(since), backwards: true, ..archive::Query::all(LAST) };
    let page = archive::page(tx, Collection::Archive, own, &all).await?;
    let sent = |entry: &archive::Entry| {
        let sent = entry.direction() == archive::Direction::Out;
        sent.then(|| crate::routing::stored::stanza(&entry.stanza)).flatten()
    };
    let mut sent: Vec<(ArchiveId, Stanza)> =
        page.entries.iter().filter_map(|(id, entry)| Some((*id, sent(entry)?))).collect();
    for error in errors {
        if let Some(at) = sent.iter().position(|(_, stanza)| is_answered(stanza, error)) {
            let (id, _) = sent.remove(at);
            archive::remove(tx, Collection::Archive, own, id);
        }
    }
    Ok(())
}
