//! One verdict per message. Its recipient's home alone says whether it is taken: an error comes from there, once. So the
//! sender's entry is written until it is stored, or until the message was refused: then it is taken back.

use std::time::Duration;

use rookery_cluster::store::Options;
use rookery_cluster::tables::archive::{self, ArchiveId, Shelf};
use rookery_proto::xmpp::error::StanzaError;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;

use super::deliver::{Ops, Step};
use super::order::Origin;
use super::share::{self, Owed};
use super::{Msg, User, numbers};
use crate::feature::Direction;
use crate::ledger::Receipt;
use crate::session::SessionId;

/// When an entry that the store did not take is written again.
const AGAIN: Duration = Duration::from_secs(1);

/// The entry of a message that came again: another home of its sender has written it.
pub(super) const SOMEWHERE: ArchiveId = ArchiveId::first_at(0);

/// Among how many of the newest entries that is looked for: it was sent a moment ago.
const LAST: usize = 200;

/// How many refused messages are remembered: those that may come again were refused a moment ago.
const REFUSED: usize = 64;

fn is_answered(stanza: &Stanza, error: &Stanza) -> bool {
    let bare = |jid: &Option<Jid>| jid.as_ref().map(|jid| jid.bare_str().to_owned());
    stanza.id.is_some() && stanza.id == error.id && bare(&stanza.to) == bare(&error.from)
}

impl User {
    /// Whether a step's entry must be stored, however long that takes.
    pub(super) fn is_wanted(&self, step: &Step) -> bool {
        match step {
            Step::Sent { id: Some(id), .. } => !self.pending.taken_back.contains(id),
            _ => false,
        }
    }

    /// The store did not take the entry of the oldest step, a message that a session has sent.
    pub(super) fn write_sent_later(&mut self) {
        let seq = self.pending.first;
        if let Some(front) = self.pending.waiting.front_mut() {
            front.outcome = None;
        }
        let Some(me) = self.me.as_ref().map(crate::resident::Handle::downgrade) else { return };
        self.host.wheel().after(AGAIN, move || {
            if let Some(me) = me.upgrade() {
                let again = move |user: &mut User| user.write_sent(seq);
                let _ = me.cast_always(Msg::Then(Box::new(again)));
            }
        });
    }

    fn write_sent(&mut self, seq: u64) {
        let front = self.pending.waiting.front().filter(|_| self.pending.first == seq);
        let Some(Step::Sent { stanza, id: Some(id), copies, sid, receipt }) = front.map(|front| &front.step)
        else {
            return;
        };
        let (stanza, id, copies, sid, n) = (stanza.clone(), *id, *copies, *sid, receipt.number());
        if self.pending.taken_back.contains(&id) {
            return self.committed(seq, super::deliver::Outcome::Never);
        }
        let with = stanza.to.as_ref().map_or_else(|| self.jid.clone(), Jid::to_bare);
        let mut entry = self.entry(Direction::Out, &stanza, &with);
        entry.flags = share::flags(Owed::Nobody, copies);
        entry.sent =
            self.pending.waiting.front().map(|front| numbers::sent(&front.numbers)).unwrap_or_default();
        let name = self.session(sid).and_then(|session| session.origin_name(self.host.far().is_some()));
        let ops = self.keep(Shelf::Archive, id, &entry, name.map(|name| (name, n)));
        self.commit_step(seq, ops);
    }

    /// A message that one of the sessions has sent was refused with this error: nothing of it stays.
    /// `n` is the message's number in its session. Should the error not come to its client, the message comes again, and is
    /// written again.
    pub(super) fn take_back(&mut self, entry: ArchiveId, error: &Stanza, n: u32) {
        let sender =
            self.sessions.iter().find(|s| error.to.as_ref().is_some_and(|to| to.as_str() == s.jid.as_str()));
        let origin = sender.and_then(|session| session.origin_name(self.host.far().is_some()));
        let mut ops = Ops::new();
        if let Some(sid) = origin {
            self.forget_taken((sid, n), &mut ops);
        }
        let Some(entry) = Some(entry).filter(|entry| *entry != SOMEWHERE).or_else(|| self.pending_of(error))
        else {
            if !ops.is_empty() {
                self.submit(ops);
            }
            return self.look_and_remove(error);
        };
        let waits = |step: &Step| matches!(step, Step::Sent { id, .. } if *id == Some(entry));
        if self.pending.waiting.iter().any(|waiting| waits(&waiting.step)) {
            // The row of a later message says that it is there.
            if !ops.is_empty() {
                self.submit(ops);
            }
            return self.pending.taken_back.push(entry);
        }
        archive::remove(&mut ops, Shelf::Archive, &self.entity, entry);
        self.submit(ops);
    }

    /// The entry of a refused message, if that waits for its commit.
    fn pending_of(&self, error: &Stanza) -> Option<ArchiveId> {
        self.pending.waiting.iter().rev().find_map(|waiting| match &waiting.step {
            Step::Sent { stanza, id, .. } if is_answered(stanza, error) => *id,
            _ => None,
        })
    }

    /// The same where another home of the user has written the entry, and its place is not known here.
    fn look_and_remove(&self, error: &Stanza) {
        if error.id.is_none() {
            return; // nothing names the message
        }
        let (store, user, error) = (self.host.store().clone(), self.entity.clone(), error.clone());
        self.host.spawn(async move {
            let removed = store.write(Options::owner(&user), |tx| {
                let (user, error) = (user.clone(), error.clone());
                Box::pin(async move {
                    let query = archive::Query { backwards: true, ..archive::Query::all(LAST) };
                    let page = archive::page(&mut **tx, Shelf::Archive, &user, &query).await?;
                    let its = |(_, entry): &&(ArchiveId, archive::Entry)| {
                        let sent = entry.direction() == archive::Direction::Out;
                        let stanza = sent.then(|| crate::stored::stanza(&entry.stanza)).flatten();
                        stanza.is_some_and(|stanza| is_answered(&stanza, &error))
                    };
                    if let Some((id, _)) = page.entries.iter().find(its) {
                        archive::remove(&mut **tx, Shelf::Archive, &user, *id);
                    }
                    Ok(())
                })
            });
            if let Err(error) = removed.await {
                tracing::warn!(%user, %error, "a message that was refused stays in its sender's archive");
            }
        });
    }

    fn remove_sent(&self, entry: ArchiveId) {
        let mut ops = Ops::new();
        archive::remove(&mut ops, Shelf::Archive, &self.entity, entry);
        self.submit(ops);
    }

    /// Whether the entry that has just been stored is of a message that was refused: it goes.
    pub(super) fn is_taken_back(&mut self, id: Option<ArchiveId>) -> bool {
        let at = self.pending.taken_back.iter().position(|taken| Some(*taken) == id);
        let Some(entry) = at.map(|at| self.pending.taken_back.swap_remove(at)) else { return false };
        self.remove_sent(entry);
        true
    }

    /// Refuses a message, for good: its sender's home may die before the sender hears so, and the message comes again.
    pub(super) fn refuse_from(
        &mut self,
        origin: Origin,
        stanza: &Stanza,
        receipt: Receipt,
        error: StanzaError,
    ) {
        self.refuse(stanza, receipt, &error);
        if let Some((sid, n)) = origin {
            let mut ops = Ops::new();
            self.forget_taken((sid, n), &mut ops);
            if !ops.is_empty() {
                self.submit(ops);
            }
            if self.pending.refused.len() >= REFUSED {
                self.pending.refused.pop_front();
            }
            self.pending.refused.push_back((sid, n, error));
        }
    }

    /// With what a message was refused before.
    pub(super) fn refused_before(&self, origin: Origin) -> Option<&StanzaError> {
        let same = |refused: &&(SessionId, u32, StanzaError)| origin == Some((refused.0, refused.1));
        self.pending.refused.iter().find(same).map(|(.., error)| error)
    }

    /// A message has come again, and it is known by now what became of it the first time.
    pub(super) fn answer_again(&self, origin: Origin, stanza: &Stanza, receipt: Receipt) {
        match self.refused_before(origin) {
            Some(error) => self.refuse(stanza, receipt, error),
            None => receipt.done(),
        }
    }

    /// The entry will not be stored: its message was refused, or is on its way, and no error may be said of it.
    pub(super) fn sent_is_lost(&mut self, id: Option<ArchiveId>, receipt: Receipt) {
        let before = self.pending.taken_back.len();
        self.pending.taken_back.retain(|taken| Some(*taken) != id);
        if self.pending.taken_back.len() == before {
            tracing::warn!(user = %self.jid, "a message that was sent is missing in its sender's archive: the store refuses it");
        }
        receipt.done(); // what is to be said of the message, its recipient's home says
    }
}
