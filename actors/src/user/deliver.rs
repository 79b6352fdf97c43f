//! What is kept of a message, and which of the user's sessions get it. [`super::steps`] says when.

use std::sync::Arc;

use bytes::Bytes;
use rookery_cluster::invariant;
use rookery_cluster::store::Writes;
use rookery_cluster::tables::archive::{ArchiveId, Collection};
use rookery_cluster::tables::{archive, seen};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;

use super::numbers;
use super::share::{About, Owed, Share};
use super::steps::Step;
use super::{User, UserSession};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::{Kept, Outgoing};
use crate::features::contract::{Direction, Place, Prepare};
use crate::features::{xep_0280_carbons as carbons, xep_0359_stanza_ids as stanza_ids};
use crate::runtime::commit_queue::{Commit, Preparation};
use crate::runtime::origin::Origin;
use crate::session::{Delivery, SessionId};

/// What a sender is told whose message the store did not take.
pub(super) const BUSY: &str = "the store is busy, try again";

/// The writes of one message.
pub(super) use rookery_cluster::store::Ops;

impl User {
    /// Writes in the background what may as well be lost in a crash.
    pub(super) fn submit(&self, ops: Ops) {
        if ops.is_empty() {
            return;
        }
        let _ = self.host.batcher().submit(Writes::new(&self.entity, ops), |_| {});
    }

    /// The next archive id.
    pub(super) fn next_id(&mut self) -> ArchiveId {
        // A shard that was lost and has come back has a later epoch, and this actor is about to hear of that: the fence refuses the
        // write. Looked at in tests only, for each message.
        let now = || self.host.store().epoch(self.entity.shard());
        let holds = !cfg!(debug_assertions) || now().is_none_or(|now| now == 0 || now >= self.epoch);
        invariant!("writer_holds_its_epoch", holds, "{} of {} in {:?}", self.epoch, self.entity, now());
        self.ids.next(self.host.seams().clock.now_micros(), self.epoch)
    }

    /// What is kept of a message.
    pub(super) fn entry(&self, direction: Direction, stanza: &Stanza, with: &BareJid) -> archive::Entry {
        let mut bytes = Vec::with_capacity(256);
        stanza.write(&mut bytes);
        let other = match direction {
            Direction::In => stanza.from.as_ref(),
            Direction::Out => stanza.to.as_ref(),
        };
        archive::Entry {
            with: with.as_str().to_owned(),
            with_full: other
                .filter(|jid| jid.resource().is_some())
                .map(|jid| jid.as_str().to_owned())
                .unwrap_or_default(),
            direction: match direction {
                Direction::In => archive::Direction::In.into(),
                Direction::Out => archive::Direction::Out.into(),
            },
            stanza: bytes.into(),
            stored_at: self.host.seams().clock.now_micros(),
            flags: 0,
            sent: Vec::new(),
            origin: Bytes::new(),
        }
    }

    /// The writes that keep a message, at `place`, under a new id.
    pub(super) fn keep(
        &mut self,
        place: Collection,
        id: ArchiveId,
        entry: &archive::Entry,
        origin: Option<Origin>,
    ) -> Ops {
        let mut ops = Ops::new();
        let last_day = if place == Collection::Archive { self.day } else { self.queue_day };
        // Only a stanza over every limit of a stream could be too large.
        let day = archive::append(&mut ops, place, &self.entity, id, entry, last_day).ok();
        match place {
            Collection::Archive => self.day = day,
            Collection::Queue => self.queue_day = day,
        }
        if let Some(origin) = origin {
            // In the same transaction: when the stanza comes again, it is known to be here.
            let row = self.remember_kept(origin, entry.stored_at);
            seen::put(&mut ops, &self.entity, &origin.name.0, row);
        }
        ops
    }

    /// Writes at `place`, and what hooks add to them.
    pub(super) fn with_hooks(&self, ops: Ops, hooks: Vec<Prepare>, place: Collection) -> Commit {
        let prepare = hooks.into_iter().map(|hook| -> Preparation {
            let (store, place) =
                (self.host.store().clone(), Place { owner: self.entity.clone(), collection: place });
            Arc::new(move || hook.run(store.clone(), place.clone()))
        });
        Commit { ops, prepare: prepare.collect() }
    }

    /// Archives a message of `entry` and then takes its step, after everything that came before it.
    pub(super) fn archive(
        &mut self,
        id: ArchiveId,
        mut entry: archive::Entry,
        origin: Option<Origin>,
        more: Commit,
        step: Step,
    ) {
        let numbers = self.reserve(&step);
        entry.sent = numbers::sent(&numbers);
        let mut ops = self.keep(Collection::Archive, id, &entry, origin);
        ops.extend(more.ops);
        metrics::counter!("rookery_archive_appends_total").increment(1);
        self.after_commit(Commit { ops, ..more }, step, numbers, origin);
    }

    /// The element that names a message's place in this user's archive (XEP-0359).
    pub(super) fn stanza_id(&self, id: ArchiveId) -> Vec<u8> {
        stanza_ids::stanza_id(&self.jid, &self.host.ids().seal(id))
    }

    /// RFC 6121 section 8.5: an archived message to the sessions that it is for, copies to the others.
    pub(super) fn deliver(
        &mut self,
        stanza: &Arc<Stanza>,
        id: ArchiveId,
        (owed, copies): (Owed, bool),
        receipt: Receipt,
    ) {
        let message = About { id, owed, to: stanza.to.as_ref(), copies };
        let shares = |session: &UserSession| session.share(message);
        if !self.sessions.iter().any(|session| shares(session).is_some()) {
            // The sessions that it was for have ended since. A copy for another device is as good as when they end later.
            return self.leave_behind_one(id, receipt);
        }
        let extra: Arc<[u8]> = self.stanza_id(id).into();
        for session in &self.sessions {
            let Some(share) = shares(session) else { continue };
            if session.draining {
                self.drains.skip(session.sid, id); // it reads the archive, and will come to this one
                continue;
            }
            let outgoing = match share {
                Share::Message => Outgoing::with(stanza.clone(), None, Some(extra.clone())),
                Share::Copy => self.received(stanza, &extra, session),
            };
            session.hand_now(Delivery { outgoing, kept: Kept::archived(Some(id)), receipt: Receipt::none() });
        }
        receipt.done(); // it is in the archive
    }

    /// XEP-0280: the copy of what another of the user's sessions has got.
    pub(super) fn received(&self, stanza: &Stanza, extra: &[u8], session: &UserSession) -> Outgoing {
        let kind = carbons::Kind::Received;
        Outgoing::new(carbons::carbon(kind, &self.jid, stanza, extra, &session.jid))
    }

    /// XEP-0280: the copy of what another of the user's sessions has sent.
    pub(super) fn sent(&self, stanza: &Stanza, extra: &[u8], session: &UserSession) -> Outgoing {
        let kind = carbons::Kind::Sent;
        Outgoing::new(carbons::carbon(kind, &self.jid, stanza, extra, &session.jid))
    }

    /// XEP-0280: copies of what one of the user's sessions has sent.
    pub(super) fn copy_sent(&mut self, stanza: &Arc<Stanza>, id: Option<ArchiveId>, sender: SessionId) {
        let extra = id.map(|id| self.stanza_id(id)).unwrap_or_default();
        for session in self.sessions.iter().filter(|session| session.sid != sender) {
            match id {
                Some(id) if !session.reader.copy_sent(id) => continue,
                Some(id) if session.draining => {
                    self.drains.skip(session.sid, id);
                    continue;
                }
                None if !session.carbons => continue,
                _ => {}
            }
            session.hand_now(Delivery {
                outgoing: self.sent(stanza, &extra, session),
                kept: Kept::archived(id),
                receipt: Receipt::none(),
            });
        }
    }
}
