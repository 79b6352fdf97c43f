//! What comes to a link, and what the store says of what is written.

use rookery_cluster::store::Ops;
use rookery_cluster::tables::archive::{ArchiveId, Sent};
use rookery_cluster::tables::{links, seen};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::{Stanza, Type};

use super::Link;
use super::dialing::{Opening, Stream};
use super::item::{self, Item, Kept};
use crate::host::kind::Inbound;
use crate::runtime::commit_queue::{Committed, Outcome, Settled};
use crate::runtime::origin::Origin;
use crate::runtime::shares::Full;

/// What is done when a commit is there, and everything before it.
pub(super) enum Step {
    /// A stanza may be sent.
    Stanza(Box<Item>),
    /// One that came before is settled, if that one was taken.
    Again(Box<Inbound>),
    /// A stanza that was not to be stored is stored all the same, since it waits.
    Kept(ArchiveId),
    /// A stanza goes back to its sender.
    Marked(ArchiveId),
    /// The stanza has gone back, and is removed.
    Returned(ArchiveId),
    /// Stanzas have these numbers.
    Numbered { attempt: u64, rows: Vec<(ArchiveId, Sent)> },
    /// The record says how the stream is resumed.
    Opened { attempt: u64, opening: Box<Opening> },
    /// What the other server has is removed.
    Removed(Vec<ArchiveId>),
    /// Senders are forgotten.
    Pruned,
}

impl Link {
    /// Takes a stanza.
    pub(super) fn take(&mut self, inbound: Inbound) {
        let Some(pair) = &self.pair else {
            return self.host.bounce(&inbound.stanza, inbound.receipt, Condition::RemoteServerNotFound);
        };
        if inbound.change.is_some() {
            return inbound.receipt.leave(); // nothing that a link has is changed so
        }
        if inbound.stanza.from.as_ref().is_some_and(|from| from.domain() == pair.remote().domain()) {
            self.answered(&inbound.stanza);
            return inbound.receipt.done(); // an answer to this link
        }
        if self.was_refused(&inbound) {
            return self.host.bounce(&inbound.stanza, inbound.receipt, Condition::ResourceConstraint);
        }
        if inbound.origin.is_some_and(|origin| self.seen.has(origin)) {
            return self.follow(Step::Again(Box::new(inbound)));
        }
        let sender = item::sender(&self.host, &self.jid, &inbound.stanza);
        if let Some(condition) = self.refuses(&inbound.stanza, &sender) {
            let full = condition == Condition::ResourceConstraint && !self.is_at_rest();
            if full && self.untold.remember(&self.host, &inbound.stanza) {
                return inbound.receipt.done(); // its sender is asked for what holds when there is room
            }
            if self.is_at_home() {
                return self.host.route_from(inbound.stanza, inbound.receipt, inbound.origin);
            }
            self.refused_for_good(&inbound.stanza, inbound.origin);
            return self.host.bounce(&inbound.stanza, inbound.receipt, condition);
        }
        let Inbound { stanza, receipt, origin, .. } = inbound;
        let (now, epoch) = (self.now_micros(), self.host.epoch(&self.name));
        let idle = !self.waiting.has_some() && self.settling == 0;
        let mut item = Item::new(self.clock.next(now, epoch), (stanza, sender), receipt, origin, now);
        if !item.passing {
            item.kept = Kept::Writing;
            item.row = self.predicted();
            let mut ops = Ops::new();
            if links::put_waiting(&mut ops, &self.name, item.id, &item.row(item.row)).is_err() {
                return self.host.bounce(&item.stanza, item.receipt, Condition::NotAcceptable); // larger than any stanza may be
            }
            if let Some(origin) = item.origin {
                seen::put(&mut ops, &self.name, &origin.name.0, self.seen.take_kept(origin, now));
            }
            self.put_record(&mut ops);
            self.waiting.row_came(&item);
            self.settling += 1;
            if let Err(step) = self.submit(ops, Step::Stanza(Box::new(item))) {
                self.step(step, Outcome::Later);
            }
        } else {
            if let Some(origin) = item.origin {
                self.seen.take(origin);
            }
            self.waiting.passing_came(&item);
            self.settling += 1;
            self.follow(Step::Stanza(Box::new(item)));
        }
        if idle {
            self.retry.hurry();
        }
    }

    /// A stanza is refused. Its sender's home may die before the sender hears so: then the stanza comes again. A message is refused again, since what
    /// the sender sent later may have been taken meanwhile. A request is looked at anew: an answer that comes again is known.
    pub(super) fn refused_for_good(&mut self, stanza: &Stanza, origin: Option<Origin>) {
        let Some(origin) = origin else { return };
        if matches!(stanza.type_, Type::Message(_)) {
            self.seen.take(origin); // so that the sender is known
            self.seen.refuse(origin);
        }
        self.seen.not_taken(origin);
    }

    /// Whether a message was refused before.
    fn was_refused(&self, inbound: &Inbound) -> bool {
        inbound.origin.is_some_and(|origin| self.seen.was_refused(origin))
    }

    /// Why a stanza is not taken, if it is not.
    fn refuses(&self, stanza: &Stanza, sender: &BareJid) -> Option<Condition> {
        if let Some(condition) = self.retry.refuses() {
            return Some(condition);
        }
        let (options, size) = (self.options(), stanza.size());
        let limit = if self.count.all() > options.links && self.is_at_rest() {
            "links"
        } else if self.max_bytes().is_some_and(|max| size > max) {
            return Some(Condition::PolicyViolation);
        } else {
            let (limit, room) = match item::is_durable(stanza) {
                true => ("link_queue", self.waiting.has_room_for_row(&options, sender, size)),
                false => ("link_memory", self.waiting.has_room_for_passing(self.memory(), sender, size)),
            };
            match room {
                Ok(()) => return None,
                Err(Full::All) => limit,
                Err(Full::Sender) => "link_sender",
            }
        };
        metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
        Some(Condition::ResourceConstraint)
    }

    /// Commits, and then takes the step in its order.
    pub(super) fn submit(&mut self, ops: Ops, step: Step) -> Result<(), Step> {
        let Some(me) = self.me.clone() else { return Err(step) };
        self.commits.commit(&me, ops, step)
    }

    /// Takes a step behind those that wait for their commit.
    fn follow(&mut self, step: Step) {
        if self.commits.is_empty() {
            return self.step(step, Outcome::Stored);
        }
        if let Err(step) = self.commits.follow(step) {
            self.step(step, Outcome::Later);
        }
    }

    /// The store has answered.
    pub(super) fn committed(&mut self, committed: Committed) {
        if let Some((Step::Stanza(item), outcome)) = self.commits.answered(committed)
            && outcome != Outcome::Stored
            && let Some(origin) = item.origin
        {
            // The turn of the step comes when those before are through. What the same sender sends until then may be stored, and its row must not
            // say that this one is there.
            let stanza = item.stanza.clone();
            self.seen.not_kept(origin);
            self.refused_for_good(&stanza, Some(origin));
        }
        while let Some(Settled { step, outcome, .. }) = self.commits.next() {
            self.step(step, outcome);
        }
    }

    pub(super) fn step(&mut self, step: Step, outcome: Outcome) {
        let stored = outcome == Outcome::Stored;
        match step {
            Step::Stanza(item) => {
                self.settling = self.settling.saturating_sub(1);
                self.settled(*item, outcome);
            }
            Step::Again(inbound) => {
                let origin = inbound.origin.filter(|origin| self.seen.has(*origin) && stored);
                match (origin, origin.and_then(|origin| self.unsafe_one(origin))) {
                    (Some(_), Some(item)) => item.again.push(inbound.receipt),
                    (Some(_), None) => inbound.receipt.done(), // the first one is in a row, or the other server has it
                    _ => self.host.bounce(&inbound.stanza, inbound.receipt, Condition::ResourceConstraint),
                }
            }
            Step::Kept(id) => self.kept(id, stored),
            Step::Marked(id) => self.marked(id, stored),
            Step::Returned(id) => self.removed(id, stored),
            Step::Numbered { attempt, rows } => self.numbered(attempt, &rows, stored),
            Step::Opened { attempt, opening } => self.opened(attempt, *opening, stored),
            Step::Removed(ids) if !stored => self.waiting.confirmed.extend(ids),
            Step::Removed(_) | Step::Pruned => {}
        }
    }

    /// A stanza has come to its place, and is stored if it was to be.
    fn settled(&mut self, mut item: Item, outcome: Outcome) {
        if outcome != Outcome::Stored {
            self.waiting.gave_up(&item);
            self.recorded = false; // the record may have gone with it
            if let Some(origin) = item.origin {
                self.seen.not_kept(origin);
            }
            self.refused_for_good(&item.stanza, item.origin);
            let condition = match outcome {
                Outcome::Never => Condition::InternalServerError,
                _ => Condition::ResourceConstraint,
            };
            return self.host.bounce(&item.stanza, item.receipt, condition);
        }
        if item.kept == Kept::Writing {
            item.kept = Kept::Yes;
            item.settle();
        }
        let memory = self.memory();
        self.waiting.enter(item, memory);
    }

    /// The number that a stanza will have on the stream which comes now, if it can be said: everything before it will be sent, in order.
    fn predicted(&self) -> Option<Sent> {
        let Stream::Up(up) = &self.stream else { return None };
        let before = self.waiting.in_line()?;
        let n = up.sent.wrapping_add(before).wrapping_add(self.settling).wrapping_add(1);
        Some(Sent { numbering: up.numbering?, n })
    }

    /// Writes the record if there is none.
    pub(super) fn put_record(&mut self, ops: &mut Ops) {
        if !self.recorded {
            let record = self.lost.as_ref().map(super::dialing::Lost::record).unwrap_or_default();
            self.recorded = links::put(ops, &self.name, &record).is_ok();
        }
    }

    /// Nothing is left of the link that must be found again. Nor are its senders, if the other server was not reached: else each name that somebody
    /// tries leaves a row behind. What a server may have got must be known when it comes again, since the sender's home has died: those rows
    /// stay.
    pub(super) fn forget_record(&mut self) {
        if !self.recorded || !self.is_at_rest() {
            return;
        }
        let mut ops = Ops::new();
        links::clear(&mut ops, &self.name);
        if !self.was_up {
            seen::clear_all(&mut ops, &self.name);
        }
        (self.recorded, self.lost) = (false, None);
        let _ = self.submit(ops, Step::Pruned);
    }

    /// Removes what the other server has, or what has gone back: many at once, or all that there is.
    pub(super) fn remove_confirmed(&mut self, all: bool) {
        if self.waiting.confirmed.is_empty() || !all && self.waiting.confirmed.len() < super::waiting::REMOVE
        {
            return;
        }
        let ids = std::mem::take(&mut self.waiting.confirmed);
        let mut ops = Ops::new();
        ids.iter().for_each(|id| links::remove(&mut ops, &self.name, *id));
        if let Err(step) = self.submit(ops, Step::Removed(ids)) {
            self.step(step, Outcome::Later);
        }
    }
}
