//! What goes back to its sender: because the other server is not to be had, or does not take it.
//!
//! That a stored stanza goes back is written down first: from then on the stanza is never sent. When the error is safe (the sender's client has
//! it, or the store), the stanza is removed. If this process dies between the two, the error comes again. A user who has stored the error
//! recognises the second one by its origin; a client that had just got the error gets it twice. So few errors are on their way to one sender at
//! a time.
//!
//! A domain that becomes this deployment's own by a reload is no other server any more: what waits for it goes to those who live there, by the
//! same way.

use std::collections::HashMap;
use std::sync::Arc;

use rookery_cluster::store::Ops;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::links;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::BareJid;
use sha2::Digest as _;

use super::dialing::Stream;
use super::item::{self, Item, Kept};
use super::take::Step;
use super::{Link, Msg};
use crate::connection::ledger::Receipt;
use crate::connection::reply::Reply;
use crate::runtime::actor::Handle;
use crate::runtime::origin::{Origin, OriginName};

/// Stanzas that are on their way back to their senders at one time.
const RETURNING: usize = 256;

/// The same for one sender. When this process dies, these errors may come twice.
const FOR_ONE: usize = 16;

/// What senders are told of a server that does not prove its domain.
const UNPROVED: &str =
    "the other server could not prove that it serves this domain: its certificate is not valid for it";

/// A stanza on its way back.
pub(super) struct Returning {
    item: Item,
    condition: Condition,
    /// The store knows.
    marked: bool,
    /// The sender has the error, or will have it.
    safe: bool,
    /// The store did not take that, or nobody knows whether the error is safe: the next second tries again.
    again: bool,
}

impl Link {
    /// Gives back what has waited too long, or everything if the other server is not to be had.
    pub(super) fn give_back(&mut self) {
        if matches!(self.stream, Stream::Up(_)) {
            return;
        }
        let options = self.options();
        // What has waited in the store while no process ran is tried before it goes back.
        let tried = !self.retry.is_new() || self.since.elapsed() >= options.queue;
        // What waits for a slow server does not go back because one stream was lost.
        let tried = tried && self.reached.is_none_or(|reached| reached.elapsed() >= options.queue);
        let refused = self.waiting.refused.is_some();
        // For each stanza it was tried at least once whether the certificate is another by now.
        let unproved = self.retry.unproved().filter(|since| *since >= options.unproved);
        let failed = unproved.and_then(|_| self.retry.last());
        let late = |item: &Item| {
            if item.kept == Kept::Writing {
                return false; // else the row is there when the error is on its way, and the next home sends it
            }
            let waited = item.since.elapsed();
            let soon = failed.is_some_and(|at| at >= item.since && waited >= options.unproved);
            refused || soon || tried && waited >= options.queue
        };
        if !self.waiting.queue.front().is_some_and(late) {
            return self.all_refused(); // almost always
        }
        let mut senders: HashMap<BareJid, usize> = HashMap::new();
        for sender in
            self.waiting.returning.values().filter_map(|returning| returning.item.stanza.from_bare())
        {
            *senders.entry(sender).or_default() += 1;
        }
        let (mut count, mut bytes, mut at) = (0u64, 0, 0);
        while self.waiting.returning.len() < RETURNING {
            let Some(item) = self.waiting.queue.get(at).filter(|item| late(item)) else { break };
            let sender = item.stanza.from_bare().filter(|_| item.kept == Kept::Yes);
            let open = sender.map(|sender| senders.entry(sender).or_default());
            match open {
                Some(open) if *open >= FOR_ONE => {
                    at += 1;
                    continue;
                }
                Some(open) => *open += 1,
                None => {}
            }
            let Some(item) = self.waiting.take_at(at) else { break };
            (count, bytes) = (count + 1, bytes + item.size);
            let condition = self.waiting.refused.or(self.retry.condition);
            self.give_one_back(item, condition.unwrap_or(Condition::RemoteServerTimeout));
        }
        if count > 0 && self.waiting.refused.is_none() && !std::mem::replace(&mut self.retry.said, true) {
            tracing::warn!(link = %self.name, stanzas = count, bytes, reason = self.retry.text, "another server could not be reached in time: what was sent to it goes back to its senders. Check the other server's name, and that this node reaches it");
        }
        self.all_refused();
    }

    /// What a sender is told.
    fn error(&self, condition: Condition) -> StanzaError {
        let error = StanzaError::new(condition);
        match self.retry.unproved() {
            Some(_) if condition == Condition::RemoteServerTimeout => error.text(UNPROVED),
            _ => error,
        }
    }

    /// When everything has gone back, what comes is tried again.
    fn all_refused(&mut self) {
        if self.waiting.refused.is_some() && !self.waiting.has_some() && self.settling == 0 {
            self.waiting.refused = None;
        }
    }

    /// Whether the other domain is this deployment's own by now: what waits for it has arrived.
    pub(super) fn is_at_home(&self) -> bool {
        self.pair.as_ref().is_some_and(|pair| self.host.answers(pair.remote().domain()))
    }

    /// A stanza goes back to its sender; or to its recipient, who lives here by now.
    pub(super) fn give_one_back(&mut self, mut item: Item, condition: Condition) {
        let home = self.is_at_home();
        if !home {
            metrics::counter!("rookery_link_returned_total", "condition" => condition.name()).increment(1);
        }
        if !home && item::is_dropped(&item.stanza) {
            return self.waiting.done(item); // nobody waits for an answer
        }
        if item.kept != Kept::Yes {
            if home && let Some(origin) = item.origin {
                self.seen.not_taken(origin);
            } else {
                self.refused_for_good(&item.stanza, item.origin);
            }
            // The last who sent it waits; those before are gone, or would get the error twice.
            let first = std::mem::replace(&mut item.receipt, Receipt::none());
            let last = item.again.pop();
            item.settle();
            let receipt = match last {
                Some(last) => {
                    first.done();
                    last
                }
                None => first,
            };
            if home {
                return self.host.route_from(item.stanza.clone(), receipt, item.origin);
            }
            return self.host.bounce_with(&item.stanza, receipt, &self.error(condition));
        }
        let id = item.id;
        self.waiting
            .returning
            .insert(id, Returning { item, condition, marked: false, safe: false, again: false });
        self.mark(id);
    }

    /// Writes down that a stanza goes back: whatever happens, it is not sent any more.
    fn mark(&mut self, id: ArchiveId) {
        let Some(Returning { item, condition, .. }) = self.waiting.returning.get(&id) else { return };
        let row = links::Waiting { returned: condition.name().to_owned(), ..item.row(None) };
        let mut ops = Ops::new();
        if links::put_waiting(&mut ops, &self.name, id, &row).is_err() {
            return self.marked(id, true); // it was never stored
        }
        if self.submit(ops, Step::Marked(id)).is_err() {
            self.marked(id, false);
        }
    }

    /// The mark that the stanza goes back is written (`stored`), or could not be.
    pub(super) fn marked(&mut self, id: ArchiveId, stored: bool) {
        let Some(returning) = self.waiting.returning.get_mut(&id) else { return };
        (returning.marked, returning.again) = (stored, !stored);
        if stored {
            self.send_back(id);
        }
    }

    /// A former process has begun to give a stanza back.
    pub(super) fn go_on_returning(&mut self, item: Item, condition: Condition) {
        let id = item.id;
        self.waiting
            .returning
            .insert(id, Returning { item, condition, marked: true, safe: false, again: false });
        self.send_back(id);
    }

    /// Sends the error; the row goes when the error is safe. After a crash the error comes again, and is known by its origin.
    fn send_back(&mut self, id: ArchiveId) {
        let Some(Returning { item, condition, .. }) = self.waiting.returning.get(&id) else { return };
        let goes = if self.is_at_home() {
            Some(item.stanza.clone())
        } else {
            metrics::counter!("rookery_stanza_errors_total", "condition" => condition.name()).increment(1);
            item.stanza.error_reply(&self.error(*condition)).map(Arc::new)
        };
        let Some(goes) = goes else { return self.remove_returned(id) }; // nobody is told of that
        let Some(me) = self.me.as_ref().map(Handle::downgrade) else { return };
        let receipt = Receipt::owed(
            Reply::heard(move |safe| {
                if let Some(me) = me.upgrade() {
                    let _ = me.cast_always(Msg::Returned(id, safe));
                }
            }),
            false,
        );
        let origin = self.origin_of_return(id);
        self.host.route_from(goes, receipt, origin);
    }

    fn origin_of_return(&self, id: ArchiveId) -> Option<Origin> {
        let hash = sha2::Sha256::new()
            .chain_update("returned")
            .chain_update(self.name.as_str())
            .chain_update([0])
            .chain_update(id.to_bytes())
            .finalize();
        Some(Origin::new(OriginName::from_slice(hash.get(..16)?)?, 1))
    }

    /// An error has come to its sender, or nobody knows whether it has.
    pub(super) fn returned(&mut self, id: ArchiveId, safe: bool) {
        let Some(returning) = self.waiting.returning.get_mut(&id) else { return };
        (returning.safe, returning.again) = (safe, !safe);
        if safe {
            self.remove_returned(id);
        }
    }

    fn remove_returned(&mut self, id: ArchiveId) {
        let mut ops = Ops::new();
        links::remove(&mut ops, &self.name, id);
        if self.submit(ops, Step::Returned(id)).is_err() {
            self.removed(id, false);
        }
    }

    /// A stanza that has gone back is removed, or could not be.
    pub(super) fn removed(&mut self, id: ArchiveId, stored: bool) {
        if !stored {
            if let Some(returning) = self.waiting.returning.get_mut(&id) {
                returning.again = true;
            }
        } else if let Some(Returning { item, .. }) = self.waiting.returning.remove(&id) {
            self.waiting.row_went(&item);
        }
    }

    /// Goes on with those that failed.
    pub(super) fn return_again(&mut self) {
        let again = |(id, returning): (&ArchiveId, &mut Returning)| {
            std::mem::take(&mut returning.again).then_some((*id, returning.marked, returning.safe))
        };
        let all: Vec<_> = self.waiting.returning.iter_mut().filter_map(again).collect();
        for (id, marked, safe) in all {
            match (marked, safe) {
                (_, true) => self.remove_returned(id),
                (true, _) => self.send_back(id),
                (false, _) => self.mark(id),
            }
        }
    }
}
