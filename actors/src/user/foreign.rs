//! Foreign contacts: contacts without an account here, on other servers or behind a service. Each side keeps a state of its own
//! (RFC 6121 section 3 and appendix A), and knows of the other's by stanzas alone.
//!
//! - This file: what a contact is told of a subscription, until its link has taken that. `inbound`: what a contact says.
//! - `probes`: probes for a user's presence. `errors`: what becomes of a message that another server refuses.
//!
//! **What holds over the death of a home.** A change to a roster and the duty to tell the contact of it are one transaction
//! ([`Item::untold`](rookery_cluster::tables::roster::Item::untold)). The duty ends when the link has the stanza in its own queue, which is
//! durable. Before that the next home, or the next start, tells the contact again: not the same stanza, but what holds by then, which a
//! server that has heard it before ignores (appendix A.3).
//!
//! **What can still differ.** What the other server has lost; what its link has given up; what was not told when the only process
//! died, until the user is read again. Most differences are put right when either side comes online (section 4.3.2). That side probes
//! the other, and a prober that may not see the other is told `unsubscribed`. A request without an answer is sent again (3.1.2), and is
//! answered at once where the contact had granted it. One difference is not put right that way: a contact that was not told
//! `unsubscribe` goes on sending presence in vain.

use std::collections::VecDeque;
use std::sync::Arc;

use rookery_cluster::mesh::peer::Outcome;
use rookery_cluster::tables::roster::Subscription;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{Stanza, Type};

use super::subscription::Kind;
use super::{Msg, User};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::connection::reply::Reply;
use crate::host::Host;
use crate::routing::stored;
use crate::runtime::actor::Handle;

mod errors;
mod inbound;
mod probes;

pub(super) use errors::is_bounce;

/// What is under way to and from foreign contacts.
#[derive(Default)]
pub(super) struct Foreign {
    /// The contacts whose subscription stanzas wait for the store, one entry for each stanza.
    changing: Vec<BareJid>,
    /// Those that are tried again.
    late: VecDeque<inbound::Late>,
    /// The contacts that could not be told of a change for the time being, with the change's name.
    unheard: Vec<(BareJid, u64)>,
    /// Stanzas about subscriptions of which the links have not said yet what became of them.
    telling: u32,
    /// Probes that wait for the store.
    looking: u8,
    sent: errors::Sent,
}

impl Foreign {
    /// Whether an answer is due: then the user stays, with or without sessions.
    pub(super) fn is_busy(&self) -> bool {
        self.telling > 0 || self.looking > 0 || !self.late.is_empty() || self.sent.is_busy()
    }
}

/// How many contacts that could not be told are remembered. The others are told when the user is read next.
const UNHEARD: usize = 64;

/// Which halves of a subscription a contact is to be told of: the lowest bits of what is untold.
const MINE: u64 = 1;
const THEIRS: u64 = 2;

/// A name for a change that a foreign contact is to hear of.
pub(super) fn name(host: &Host) -> u64 {
    u64::from_le_bytes(host.seams().bytes()) & !(MINE | THEIRS)
}

/// What stands in an item until the contact has heard of a stanza of that kind, and of what it was to hear `before`.
pub(super) fn untold(name: u64, kind: Kind, before: u64) -> u64 {
    let half = match kind {
        Kind::Subscribe | Kind::Unsubscribe => MINE,
        Kind::Subscribed | Kind::Unsubscribed => THEIRS,
    };
    name | half | before & (MINE | THEIRS)
}

/// What became of a stanza about a subscription.
enum Heard {
    /// The link has sent it.
    Taken,
    /// The stanza came back with this error.
    Refused(Box<Stanza>),
    /// Unknown: no answer came.
    Lost,
}

/// The condition of an error stanza.
fn condition(error: &Stanza) -> Condition {
    let error = error.child("error", ns::CLIENT).map(|child| StanzaError::parse(&child.element()));
    error.map_or(Condition::UndefinedCondition, |error| error.condition)
}

impl User {
    /// Whether somebody is no user here.
    pub(super) fn is_foreign(&self, jid: &BareJid) -> bool {
        self.is_elsewhere(jid.domain())
    }

    /// The same of a domain: most often it is this user's own.
    pub(super) fn is_elsewhere(&self, domain: &str) -> bool {
        domain != self.jid.domain() && self.host.is_foreign(domain)
    }

    /// The same of a stanza's sender.
    pub(super) fn is_from_elsewhere(&self, stanza: &Stanza) -> bool {
        stanza.from.as_ref().is_some_and(|from| self.is_elsewhere(from.domain()))
    }

    /// A subscription stanza between bare JIDs (section 3.1.2).
    fn about_subscription(&self, contact: &BareJid, kind: Kind) -> Stanza {
        let stanza = Stanza::new(Type::Presence(kind.presence())).id(self.host.random_id().as_str());
        stanza.from(Jid::from(self.jid.clone())).to(Jid::from(contact.clone()))
    }

    /// Sends a foreign contact a subscription stanza. `name` is what the item remembers until that is done ([`untold`]).
    pub(super) fn tell_foreign(&mut self, contact: &BareJid, stanza: Arc<Stanza>, name: u64) {
        let (me, whom) = (self.me.as_ref().map(Handle::downgrade), contact.clone());
        let told = move |outcome| {
            let Some(me) = me.and_then(|me| me.upgrade()) else { return };
            let heard = match outcome {
                Outcome::Taken(reply) if reply.is_empty() => Heard::Taken,
                Outcome::Taken(error) => match stored::stanza(&error) {
                    Some(error) => Heard::Refused(Box::new(error)),
                    None => Heard::Lost,
                },
                Outcome::NotOwner { .. } | Outcome::Lost => Heard::Lost,
            };
            let then = move |user: &mut User| {
                user.foreign.telling = user.foreign.telling.saturating_sub(1);
                user.foreign_heard(whom, name, heard);
            };
            let _ = me.cast_always(Msg::Then(Box::new(then)));
        };
        self.foreign.telling += 1;
        self.host.route_from(stanza, Receipt::owed(Reply::here(told), true), None);
    }

    fn foreign_heard(&mut self, contact: BareJid, name: u64, heard: Heard) {
        match heard {
            Heard::Taken => {}
            Heard::Refused(error) => {
                let later = condition(&error) != Condition::RemoteServerNotFound;
                self.presence_error(&contact, Arc::from(error));
                // A contact that has left the roster is not remembered: else the rows of removed contacts would stay for ever.
                if later && name != 0 && self.roster.get(&contact).is_some() {
                    return self.remember_unheard(contact, name);
                }
            }
            Heard::Lost => return self.later(move |user| user.tell_foreign_again(&contact, name)),
        }
        if name != 0 {
            self.told(contact, name);
        }
    }

    fn remember_unheard(&mut self, contact: BareJid, name: u64) {
        let (unheard, contact) = (&mut self.foreign.unheard, (contact, name));
        if unheard.len() < UNHEARD && !unheard.contains(&contact) {
            unheard.push(contact);
        }
    }

    /// Tells a foreign contact what holds of the halves of the subscription that it may not have heard of.
    pub(super) fn tell_foreign_again(&mut self, contact: &BareJid, name: u64) {
        let subscription = self.roster.get(contact).map_or(Subscription::None, |known| known.subscription);
        let (to, from) = (
            matches!(subscription, Subscription::To | Subscription::Both),
            matches!(subscription, Subscription::From | Subscription::Both),
        );
        let asks = self.roster.get(contact).is_some_and(|known| known.asks);
        let mine = match (to, asks) {
            (true, _) => None,
            (false, true) => Some(Kind::Subscribe),
            (false, false) => Some(Kind::Unsubscribe),
        };
        let theirs = match (from, self.roster.is_asked_by(contact)) {
            (true, _) => Some(Kind::Subscribed),
            (false, true) => None,
            (false, false) => Some(Kind::Unsubscribed),
        };
        let halves = [(MINE, mine), (THEIRS, theirs)];
        let told = halves.iter().filter(|(half, _)| name & half != 0);
        let due: Vec<Kind> = told.filter_map(|(_, kind)| *kind).collect();
        if due.is_empty() {
            return self.tell_nobody(contact.clone(), name);
        }
        metrics::counter!("rookery_roster_changes_retold_total").increment(1);
        for kind in due {
            let stanza = Arc::new(self.about_subscription(contact, kind));
            self.tell_foreign(contact, stanza, name);
        }
        if name & THEIRS != 0 && from {
            self.show_presence(contact, true);
        }
    }

    /// There is nothing left to tell.
    fn tell_nobody(&self, contact: BareJid, name: u64) {
        if let Some(me) = &self.me {
            let then = move |user: &mut User| user.foreign_heard(contact, name, Heard::Taken);
            let _ = me.cast_always(Msg::Then(Box::new(then)));
        }
    }

    /// The user comes online: requests without an answer are sent again (section 3.1.2), and contacts that could not be told are told.
    pub(super) fn remind_foreign(&mut self) {
        let unheard = std::mem::take(&mut self.foreign.unheard);
        let told =
            |contact: &BareJid| unheard.iter().any(|(known, name)| known == contact && name & MINE != 0);
        let waiting = self.roster.iter().filter(|contact| contact.asks && !contact.to());
        for contact in waiting.filter(|contact| self.is_foreign(&contact.jid)) {
            let request = self.about_subscription(&contact.jid, Kind::Subscribe);
            let reaches = request.to.as_ref().is_some_and(|to| self.host.reaches(to));
            if reaches && !told(&contact.jid) {
                self.host.route(request, Receipt::none(), None);
            }
        }
        for (contact, name) in unheard {
            self.tell_foreign_again(&contact, name);
        }
    }

    /// Takes an error about a presence between bare JIDs, such as a subscription, to the sessions that hear of subscriptions. Only errors
    /// of contacts count, since the user can have asked something of contacts only.
    pub(super) fn presence_error(&mut self, contact: &BareJid, error: Arc<Stanza>) {
        if self.roster.get(contact).is_none() {
            return;
        }
        // The link has given up what it had taken: which half of the subscription that was about, the error does not say.
        if condition(&error) == Condition::RemoteServerTimeout {
            self.remember_unheard(contact.clone(), MINE | THEIRS);
        }
        self.to_interested(Outgoing::new(error));
    }
}
