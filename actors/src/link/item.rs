//! A stanza on its way to another server.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::tables::archive::{ArchiveId, Sent};
use rookery_cluster::tables::links;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, MessageType, PresenceType, Stanza, Type};
use tokio::time::Instant;

use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::routing::stored;
use crate::runtime::origin::Origin;
use crate::session::worth::worth_keeping;

/// Whether the store has a stanza.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kept {
    /// No, nor is it to.
    No,
    /// The stanza is being written.
    Writing,
    /// Yes.
    Yes,
}

/// A stanza on its way.
pub(super) struct Item {
    /// Its place among all of the link, whether or not the store has it.
    pub(super) id: ArchiveId,
    pub(super) stanza: Arc<Stanza>,
    /// About how many bytes it takes.
    pub(super) size: usize,
    /// The sender in whose share of the queue it is.
    pub(super) sender: BareJid,
    /// The stanza was not to be stored when it came.
    pub(super) passing: bool,
    /// The receipt to settle as soon as the stanza is safe.
    pub(super) receipt: Receipt,
    /// The same stanza came again by another way, whose sender waits too.
    pub(super) again: Vec<Receipt>,
    pub(super) origin: Option<Origin>,
    /// Since when it waits, and the same for the store: microseconds since 1970.
    pub(super) since: Instant,
    pub(super) stored_at: u64,
    pub(super) kept: Kept,
    /// The number that the store has for it.
    pub(super) row: Option<Sent>,
    /// The number under which this process has sent it last.
    pub(super) sent: Option<Sent>,
    _counted: Counted,
}

/// Counts what links hold in memory.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("rookery_link_stanzas").increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("rookery_link_stanzas").decrement(1.0);
    }
}

impl Item {
    /// One that has just come.
    pub(super) fn new(
        id: ArchiveId,
        (stanza, sender): (Arc<Stanza>, BareJid),
        receipt: Receipt,
        origin: Option<Origin>,
        now: u64,
    ) -> Self {
        let (size, since, passing) = (stanza.size(), Instant::now(), !is_durable(&stanza));
        let (kept, row, sent) = (Kept::No, None, None);
        Self {
            id,
            stanza,
            size,
            sender,
            passing,
            receipt,
            again: Vec::new(),
            origin,
            since,
            stored_at: now,
            kept,
            row,
            sent,
            _counted: Counted::new(),
        }
    }

    /// One that the store has kept; `None` if its bytes are no stanza. `now`: microseconds since 1970.
    pub(super) fn stored(
        id: ArchiveId,
        row: &links::Waiting,
        now: u64,
        sender: impl FnOnce(&Stanza) -> BareJid,
    ) -> Option<Self> {
        let stanza = Arc::new(stored::stanza(&row.stanza)?);
        let age = Duration::from_micros(now.saturating_sub(row.since));
        let sender = sender(&stanza);
        let mut item = Self::new(id, (stanza, sender), Receipt::none(), None, row.since);
        item.passing = false;
        item.since = item.since.checked_sub(age).unwrap_or(item.since);
        item.kept = Kept::Yes;
        item.row = (row.numbering != 0).then_some(Sent { numbering: row.numbering, n: row.n });
        Some(item)
    }

    /// Whether somebody waits to hear that the stanza is safe.
    pub(super) fn is_owed(&self) -> bool {
        self.receipt.is_open() || !self.again.is_empty()
    }

    /// The stanza is safe, or nobody is to wait any longer.
    pub(super) fn settle(&mut self) {
        std::mem::replace(&mut self.receipt, Receipt::none()).done();
        self.again.drain(..).for_each(Receipt::done);
    }

    /// The row that keeps it, with this number.
    pub(super) fn row(&self, number: Option<Sent>) -> links::Waiting {
        links::Waiting {
            stanza: self.stanza.to_bytes().into(),
            since: self.stored_at,
            numbering: number.map_or(0, |sent| sent.numbering),
            n: number.map_or(0, |sent| sent.n),
            returned: String::new(),
        }
    }

    /// Whether the other server has it which counts `h` stanzas in that numbering.
    pub(super) fn is_covered(&self, (numbering, h): (u64, u32)) -> bool {
        let in_it = |sent: &Sent| sent.numbering == numbering;
        self.sent.filter(in_it).or(self.row.filter(in_it)).is_some_and(|sent| sent.covered_by(h))
    }
}

/// In whose share of a link's queue a stanza is: an account's, a room's; a component's for all addresses that it speaks for.
pub(super) fn sender(host: &Host, link: &BareJid, stanza: &Stanza) -> BareJid {
    let Some(from) = &stanza.from else { return link.clone() }; // nothing comes to a link without
    let whole = host.options().service(from.domain()).is_some_and(|service| service.whole);
    if whole { from.to_bare().to_domain() } else { from.to_bare() }
}

/// Whether a stanza is kept in the store until the other server has it: messages that are worth it, and what changes a subscription.
pub(super) fn is_durable(stanza: &Stanza) -> bool {
    match stanza.type_ {
        Type::Message(MessageType::Groupchat) => {
            !stanza.has("no-store", ns::HINTS) && !stanza.children().all(|child| child.is_in(ns::CHATSTATES))
        }
        Type::Message(_) => worth_keeping(stanza),
        Type::Presence(type_) => matches!(
            type_,
            PresenceType::Subscribe
                | PresenceType::Subscribed
                | PresenceType::Unsubscribe
                | PresenceType::Unsubscribed
        ),
        Type::Iq(_) => false,
    }
}

/// Whether a stanza that is not [`is_durable`] is kept all the same when it has waited, so that its sender need not. Of presence only the
/// last word.
pub(super) fn is_kept_late(stanza: &Stanza) -> bool {
    matches!(stanza.type_, Type::Iq(_) | Type::Message(_)) || is_last_word(stanza)
}

/// Whether a stanza says that somebody is gone: without it that somebody would seem to be there for ever.
pub(super) fn is_last_word(stanza: &Stanza) -> bool {
    stanza.type_ == Type::Presence(PresenceType::Unavailable)
}

/// Whether a stanza is given up without an error to its sender: an answer, or something that its sender will say again.
pub(super) fn is_dropped(stanza: &Stanza) -> bool {
    !stanza.type_.is_answerable()
        || matches!(stanza.type_, Type::Presence(PresenceType::Probe | PresenceType::Unavailable))
}

/// Whether a stanza answers a request of this server.
pub(super) fn is_answer(stanza: &Stanza) -> bool {
    matches!(stanza.type_, Type::Iq(IqType::Result | IqType::Error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_lost_is_kept() {
        let body = "<body>hi</body>";
        for (stanza, durable) in [
            (Stanza::new(MessageType::Chat).payload(body), true),
            (Stanza::new(MessageType::Normal).payload(body), true),
            (Stanza::new(MessageType::Groupchat).payload(body), true),
            (Stanza::new(MessageType::Headline).payload(body), false),
            (Stanza::new(MessageType::Error).payload(body), false),
            (
                Stanza::new(MessageType::Groupchat)
                    .payload("<x xmlns='http://jabber.org/protocol/chatstates'/>"),
                false,
            ),
            (
                Stanza::new(MessageType::Chat).payload("<body>hi</body><no-store xmlns='urn:xmpp:hints'/>"),
                false,
            ),
            (Stanza::new(PresenceType::Subscribe), true),
            (Stanza::new(PresenceType::Unsubscribed), true),
            (Stanza::new(PresenceType::Available), false),
            (Stanza::new(IqType::Set), false),
        ] {
            assert_eq!(is_durable(&stanza), durable, "{stanza:?}");
        }
    }
}
