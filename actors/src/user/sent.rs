//! One verdict per message. Its recipient's home alone says whether it is taken: an error comes from there, once. So the
//! sender's entry is written until it is stored, or until the message was refused: then it is taken back.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store::Options;
use rookery_cluster::tables::archive::{self, ArchiveId, Collection};
use rookery_cluster::tables::seen;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;

use super::deliver::{BUSY, Ops};
use super::incoming::of_room;
use super::share::{self, Owed};
use super::steps::Step;
use super::{Msg, User, UserSession, numbers};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::{Kept, Outgoing};
use crate::features::contract::Direction;
use crate::runtime::commit_queue::{Commit, Outcome};
use crate::runtime::origin::Origin;
use crate::session::Delivery;

/// When an entry that the store did not take is written again.
const AGAIN: Duration = Duration::from_secs(1);

/// The entry of a message that came again: another home of its sender has written it.
pub(super) const SOMEWHERE: ArchiveId = ArchiveId::first_at(0);

/// How many refused messages are remembered: as many as may come again when the store is back.
const REFUSED: usize = 256;

/// Among how many of the newest entries that is looked for: it was sent a moment ago.
const LAST: usize = 200;

pub(super) fn is_answered(stanza: &Stanza, error: &Stanza) -> bool {
    let bare = |jid: &Option<Jid>| jid.as_ref().map(|jid| jid.bare_str().to_owned());
    stanza.id.is_some() && stanza.id == error.id && bare(&stanza.to) == bare(&error.from)
}

impl User {
    /// Whether a step's entry must be stored, however long that takes.
    pub(super) fn is_wanted(&self, step: &Step) -> bool {
        match step {
            Step::Sent { id: Some(id), .. } => !self.was_taken_back(*id),
            _ => false,
        }
    }

    /// The store did not take the entry of the oldest step, a message that a session has sent.
    pub(super) fn write_sent_later(&mut self) {
        let seq = self.pending.commits.hold_front();
        let Some(me) = self.me.as_ref().map(crate::runtime::actor::Handle::downgrade) else { return };
        self.host.wheel().after(AGAIN, move || {
            if let Some(me) = me.upgrade() {
                let again = move |user: &mut User| user.write_sent(seq);
                let _ = me.cast_always(Msg::Then(Box::new(again)));
            }
        });
    }

    fn write_sent(&mut self, seq: u64) {
        let Some(front) = self.pending.commits.get(seq) else { return };
        let Step::Sent { stanza, id: Some(id), copies, sid, receipt } = &front.step else { return };
        let (numbers, prepare) = (numbers::sent(&front.numbers), front.prepare.clone());
        let (stanza, id, copies, sid, n) = (stanza.clone(), *id, *copies, *sid, receipt.number());
        if self.was_taken_back(id) {
            return self.settle_step(seq, Outcome::Never);
        }
        let with = stanza.to.as_ref().map_or_else(|| self.jid.clone(), Jid::to_bare);
        let mut entry = self.entry(Direction::Out, &stanza, &with);
        entry.flags = share::flags(Owed::Nobody, copies);
        entry.sent = numbers;
        let name = self.session(sid).and_then(|session| session.origin_name(&self.host));
        let ops = self.keep(Collection::Archive, id, &entry, name.map(|name| Origin::new(name, n)));
        self.commit_again(seq, Commit { ops, prepare });
    }

    /// A message that one of the sessions has sent was refused with this error: nothing of it stays. `n` is its number in the
    /// session; 0 if that is not known. Should the error not come to its client, the message comes again, and is written again.
    pub(super) fn take_back(&mut self, entry: ArchiveId, error: &Stanza, n: u32) {
        let is_its = |s: &&UserSession| error.to.as_ref().is_some_and(|to| to.as_str() == s.jid.as_str());
        let name = self.sessions.iter().find(is_its).and_then(|s| s.origin_name(&self.host));
        let origin = name.filter(|_| n != 0).map(|name| Origin::new(name, n));
        let entry = Some(entry).filter(|entry| *entry != SOMEWHERE).or_else(|| self.pending_of(error));
        let waits = |step: &Step| matches!(step, Step::Sent { id, .. } if *id == entry);
        match entry {
            Some(entry) if self.pending.steps().any(waits) => {
                self.pending.taken_back.push((entry, origin));
            }
            Some(entry) => self.remove_sent(entry, origin),
            None => self.look_and_remove(error, origin),
        }
    }

    /// The entry of a refused message, if that waits for its commit.
    fn pending_of(&self, error: &Stanza) -> Option<ArchiveId> {
        self.pending.steps().rev().find_map(|step| match step {
            Step::Sent { stanza, id, .. } if is_answered(stanza, error) => *id,
            _ => None,
        })
    }

    /// The same where another home of the user has written the entry, and its place is not known here.
    fn look_and_remove(&mut self, error: &Stanza, origin: Option<Origin>) {
        if error.id.is_none() {
            return; // nothing names the message
        }
        let row = origin.and_then(|origin| Some((origin.name, self.taken_out(origin)?)));
        let (store, user, error) = (self.host.store().clone(), self.entity.clone(), error.clone());
        self.host.spawn(async move {
            let removed = store.write(Options::owner(&user), |tx| {
                let (user, error, row) = (user.clone(), error.clone(), row.clone());
                Box::pin(async move {
                    let query = archive::Query { backwards: true, ..archive::Query::all(LAST) };
                    let page = archive::page(&mut **tx, Collection::Archive, &user, &query).await?;
                    let its = |(_, entry): &&(ArchiveId, archive::Entry)| {
                        let sent = entry.direction() == archive::Direction::Out;
                        let stanza = sent.then(|| crate::routing::stored::stanza(&entry.stanza)).flatten();
                        stanza.is_some_and(|stanza| is_answered(&stanza, &error))
                    };
                    if let Some((id, _)) = page.entries.iter().find(its) {
                        archive::remove(&mut **tx, Collection::Archive, &user, *id);
                    }
                    if let Some((name, row)) = row {
                        seen::put(&mut **tx, &user, &name.0, row);
                    }
                    Ok(())
                })
            });
            if let Err(error) = removed.await {
                tracing::warn!(%user, %error, "a refused message could not be removed from the sender's archive");
            }
        });
    }

    fn remove_sent(&mut self, entry: ArchiveId, origin: Option<Origin>) {
        let mut ops = Ops::new();
        archive::remove(&mut ops, Collection::Archive, &self.entity, entry);
        if let Some((name, row)) = origin.and_then(|origin| Some((origin.name, self.taken_out(origin)?))) {
            seen::put(&mut ops, &self.entity, &name.0, row);
        }
        self.submit(ops);
    }

    /// Whether the entry that has just been stored is of a message that was refused: it goes.
    pub(super) fn is_taken_back(&mut self, id: Option<ArchiveId>) -> bool {
        let at = self.pending.taken_back.iter().position(|(taken, _)| Some(*taken) == id);
        let Some((entry, origin)) = at.map(|at| self.pending.taken_back.swap_remove(at)) else {
            return false;
        };
        self.remove_sent(entry, origin);
        true
    }

    fn was_taken_back(&self, id: ArchiveId) -> bool {
        self.pending.taken_back.iter().any(|(taken, _)| *taken == id)
    }

    /// Refuses a message. Its sender's home, or this one, may die before the sender hears so: then the message comes again. It is
    /// refused again, since what the sender sent later may have been taken meanwhile.
    pub(super) fn refuse_from(
        &mut self,
        origin: Option<Origin>,
        stanza: &Stanza,
        receipt: Receipt,
        error: &StanzaError,
    ) {
        self.refuse(stanza, receipt, error);
        if let Some(origin) = origin {
            self.not_taken(origin);
            self.remember_refused(origin, error.condition);
        }
    }

    /// What was true then may not be true any more when the message comes again, and the sender may have had the error.
    fn remember_refused(&mut self, origin: Origin, condition: Condition) {
        self.refused_for_good(origin);
        if self.pending.refused.len() >= REFUSED {
            self.pending.refused.pop_front();
        }
        self.pending.refused.push_back((origin, condition));
    }

    /// With what a message was refused before.
    pub(super) fn refused_before(&self, origin: Option<Origin>) -> Option<StanzaError> {
        let origin = origin?;
        let refused = self.pending.refused.iter().find(|(refused, _)| *refused == origin);
        let before = || self.was_refused(origin).then_some(Condition::ResourceConstraint);
        let condition = refused.map(|(_, condition)| *condition).or_else(before)?;
        let error = StanzaError::new(condition);
        Some(if condition == Condition::ResourceConstraint { error.text(BUSY) } else { error })
    }

    /// A message has come again, and it is known by now what became of it the first time.
    pub(super) fn answer_again(&self, origin: Option<Origin>, stanza: &Arc<Stanza>, receipt: Receipt) {
        match self.refused_before(origin) {
            Some(error) => self.refuse(stanza, receipt, &error),
            None => match self.session_of_room(stanza, origin) {
                Some((session, kept)) => {
                    // Settled when its client has it, or it is safe for a session that sleeps.
                    session.hand(Delivery { outgoing: Outgoing::new(stanza.clone()), kept, receipt });
                }
                None => receipt.done(), // the first of them is stored
            },
        }
    }

    /// The session that was handed a message of a room, which no archive has.
    fn session_of_room(&self, stanza: &Stanza, origin: Option<Origin>) -> Option<(&UserSession, Kept)> {
        let (to, kept) = (stanza.to.as_ref()?, of_room(stanza, origin, true));
        let session = self.sessions.iter().find(|session| session.jid.as_str() == to.as_str())?;
        kept.again().then_some((session, kept))
    }

    /// The entry will not be stored: its message was refused, or is on its way, and no error may be said of it.
    pub(super) fn sent_is_lost(&mut self, id: Option<ArchiveId>, receipt: Receipt) {
        let before = self.pending.taken_back.len();
        self.pending.taken_back.retain(|(taken, _)| Some(*taken) != id);
        if self.pending.taken_back.len() == before {
            tracing::warn!(user = %self.jid, "a delivered message is missing from the sender's archive: the store rejected the entry");
        }
        receipt.done(); // what is to be said of the message, its recipient's home says
    }
}
