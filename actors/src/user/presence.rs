//! Presence (RFC 6121 section 4): broadcast, probes, directed presence and its clean-up.

use std::sync::Arc;

use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::subscribe::Change;
use super::subscription::Kind;
use super::{Available, Inbound, User, UserSession};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::features::contract::{Direction, Verdict};
use crate::features::xep_0203_delay as delay;
use crate::host::options::PresenceAccess;
use crate::routing::fan_out::FanOut;
use crate::session::SessionId;

impl User {
    /// A session's presence without `to`. Settled when the session's record says so: then the next home knows of the session.
    pub(super) fn broadcast(&mut self, sid: SessionId, stanza: Stanza, receipt: Receipt) {
        let available = stanza.type_ == Type::Presence(PresenceType::Available);
        let stanza = Arc::new(delay::without_forged(&self.host, &stanza).unwrap_or(stanza));
        let Some(session) = self.session_mut(sid) else { return receipt.done() };
        let first = session.presence.is_none();
        if !available && first {
            // The session was not available: only the contacts that it had told must be told.
            let directed = std::mem::take(&mut session.directed);
            if !directed.is_empty() {
                self.changed(sid);
            }
            receipt.done();
            return directed.into_iter().for_each(|whom| self.send_on(stanza_to(&stanza, whom)));
        }
        let takes_messages_before = session.takes_messages();
        session.presence = available.then(|| Available::new(stanza.clone()));
        let takes_messages = session.takes_messages();
        let directed = if available { Vec::new() } else { std::mem::take(&mut session.directed) };
        self.changed_then(sid, receipt);
        self.tell_subscribers(&stanza);
        self.tell_components(&stanza, PresenceAccess::ManagedEntity);
        // 4.4.2 and 4.5.2: the user's other available resources, and for unavailable also the one that sent it.
        for other in self.sessions.iter().filter(|s| s.presence.is_some() && (s.sid != sid || available)) {
            other.deliver(self.to_session(&stanza, &other.jid), None, Receipt::none());
        }
        for whom in directed {
            if !self.roster.sees_me(&whom) {
                self.send_on(stanza_to(&stanza, whom));
            }
        }
        if available && first {
            self.came_online(sid);
            if !self.sessions.iter().any(|other| other.sid != sid && other.presence.is_some()) {
                self.remind_foreign();
            }
        }
        if takes_messages && !takes_messages_before {
            self.start_drain(sid);
        }
        if !available && !self.sessions.iter().any(|s| s.presence.is_some()) {
            self.remember_last(&stanza);
        }
    }

    /// To all contacts that see this user (4.2.2). One shared stanza; a contact without sessions costs a look-up.
    fn tell_subscribers(&self, stanza: &Arc<Stanza>) {
        let subscribers = self.roster.iter().filter(|contact| contact.from());
        self.tell_all(stanza, subscribers.map(|contact| &contact.jid), false);
    }

    /// To each node once.
    fn tell_all<'a>(&self, stanza: &Arc<Stanza>, contacts: impl Iterator<Item = &'a BareJid>, strict: bool) {
        let mut crowd = FanOut::new(&self.host, stanza, strict);
        for contact in contacts {
            let to = Jid::from(contact.clone());
            if matches!(self.filter(Direction::Out, stanza, &to), Verdict::Pass) {
                crowd.add(contact);
            }
        }
        crowd.send();
    }

    pub(super) fn tell(&self, stanza: &Arc<Stanza>, contact: &BareJid) {
        self.tell_all(stanza, std::iter::once(contact), false);
    }

    /// 4.3: asks for the presence of all contacts, and shows what has waited.
    fn came_online(&mut self, sid: SessionId) {
        let Some(session) = self.session(sid) else { return };
        let own = Jid::from(session.jid.clone());
        let probe = Arc::new(Stanza::new(Type::Presence(PresenceType::Probe)).from(own));
        let seen = self.roster.iter().filter(|contact| contact.to());
        self.tell_all(&probe, seen.map(|contact| &contact.jid), false);
        for other in self.sessions.iter().filter(|s| s.sid != sid) {
            if let Some(presence) = &other.presence {
                session.deliver(self.to_session(&presence.stanza, &session.jid), None, Receipt::none());
            }
        }
        self.show_requests(sid, None);
    }

    /// A session has outlived its home: its client may still see contacts who have not. Those who are here say so
    /// themselves; of the others it learns that they are gone.
    pub(super) fn refresh_presence(&self, sid: SessionId) {
        let Some(session) = self.session(sid) else { return };
        let own = Jid::from(session.jid.clone());
        let probe = Arc::new(Stanza::new(Type::Presence(PresenceType::Probe)).from(own.clone()));
        let (away, here): (Vec<_>, Vec<_>) =
            self.roster.iter().partition(|contact| self.is_foreign(&contact.jid));
        // Also of contacts that it does not hear any more: that it was told so may have been lost with its home.
        self.tell_all(&probe, here.into_iter().map(|contact| &contact.jid), true);
        // The same of contacts elsewhere: their servers are not asked to say first that all are gone.
        for contact in &away {
            let gone =
                Stanza::new(Type::Presence(PresenceType::Unavailable)).from(Jid::from(contact.jid.clone()));
            session.deliver(Outgoing::new(gone.to(own.clone())), None, Receipt::none());
        }
        let seen = away.iter().filter(|contact| contact.to());
        self.tell_all(&probe, seen.map(|contact| &contact.jid), false);
    }

    /// Asks for the presence of one contact that has just begun to show it.
    pub(super) fn probe(&self, contact: &BareJid) {
        for session in self.sessions.iter().filter(|session| session.presence.is_some()) {
            self.probe_for(session, contact);
        }
    }

    /// The same for one session.
    pub(super) fn probe_for(&self, session: &UserSession, contact: &BareJid) {
        let own = Jid::from(session.jid.clone());
        self.tell(&Arc::new(Stanza::new(Type::Presence(PresenceType::Probe)).from(own)), contact);
    }

    /// Shows a session's presence to one contact, which may see it.
    pub(super) fn announce_to(&self, session: &UserSession, contact: &BareJid) {
        if let Some(presence) = &session.presence {
            self.tell(&presence.stanza, contact);
        }
    }

    /// Shows a session's presence to all contacts that see it: its last home may have died before they heard.
    pub(super) fn announce(&self, sid: SessionId) {
        if let Some(presence) = self.session(sid).and_then(|session| session.presence.as_ref()) {
            self.tell_subscribers(&presence.stanza);
        }
    }

    fn to_session(&self, stanza: &Arc<Stanza>, jid: &rookery_proto::xmpp::jid::FullJid) -> Outgoing {
        Outgoing::with(stanza.clone(), Some(Jid::from(jid.clone())), None)
    }

    /// Routes a presence, if the filters let it.
    fn send_on(&self, stanza: Stanza) {
        let Some(to) = stanza.to.clone() else { return };
        if matches!(self.filter(Direction::Out, &stanza, &to), Verdict::Pass) {
            self.host.route(stanza, Receipt::none(), None);
        }
    }

    /// A session's presence with `to`, or about a subscription.
    pub(super) fn send_presence(
        &mut self,
        sid: SessionId,
        kind: PresenceType,
        stanza: Stanza,
        receipt: Receipt,
    ) {
        if let Some(kind) = Kind::of(kind) {
            return self.subscribe(sid, kind, stanza, receipt);
        }
        let Some(to) = stanza.to.clone() else { return receipt.done() };
        let stanza = delay::without_forged(&self.host, &stanza).unwrap_or(stanza);
        match self.filter(Direction::Out, &stanza, &to) {
            Verdict::Pass => {}
            Verdict::Refuse(error) => {
                self.answer_own(sid, &stanza, &error);
                return receipt.done();
            }
            Verdict::Drop => return receipt.done(),
        }
        let limit = self.host.options().limits.directed_presences;
        match kind {
            PresenceType::Available => {
                let Some(session) = self.session_mut(sid) else { return receipt.done() };
                if !session.directed.contains(&to) {
                    if session.directed.len() >= limit {
                        metrics::counter!("rookery_limits_hit_total", "limit" => "directed_presences")
                            .increment(1);
                        let error = rookery_proto::xmpp::error::StanzaError::new(
                            rookery_proto::xmpp::error::Condition::ResourceConstraint,
                        );
                        self.answer_own(sid, &stanza, &error);
                        return receipt.done();
                    }
                    session.directed.push(to);
                    self.changed(sid);
                }
                self.send_to(Arc::new(stanza), receipt, None);
            }
            PresenceType::Unavailable => {
                if let Some(session) = self.session_mut(sid) {
                    session.directed.retain(|whom| *whom != to);
                    self.changed(sid);
                }
                self.send_to(Arc::new(stanza), receipt, None);
            }
            PresenceType::Error => self.send_to(Arc::new(stanza), receipt, None),
            // Probes are the server's business (section 4.3).
            _ => receipt.done(),
        }
    }

    pub(super) fn incoming_presence(&mut self, kind: PresenceType, inbound: Inbound) {
        let Some(from) = &inbound.stanza.from else { return inbound.receipt.done() };
        if inbound.change.is_none() && self.is_elsewhere(from.domain()) {
            let from = from.to_bare();
            return match Kind::of(kind) {
                Some(kind) => self.hear_foreign(kind, inbound.stanza, from, inbound.receipt),
                None if self.waits_for_foreign(&from) => self.presence_in_turn(inbound),
                None => self.take_presence(inbound),
            };
        }
        match inbound.change {
            Some(change) => match Change::of_wire(*change) {
                Some(change) => {
                    let from = from.to_bare();
                    self.change(inbound.stanza, from, change, inbound.receipt);
                }
                None => inbound.receipt.done(), // of a later version: the store says what holds
            },
            None => self.take_presence(inbound),
        }
    }

    /// A presence that changes no roster, in its turn.
    pub(super) fn take_presence(&mut self, inbound: Inbound) {
        let Inbound { stanza, receipt, .. } = inbound;
        let (Some(from), Type::Presence(kind)) = (stanza.from.clone(), stanza.type_) else {
            return receipt.done();
        };
        let elsewhere = self.is_elsewhere(from.domain());
        if elsewhere && kind == PresenceType::Probe {
            return self.probed_from_elsewhere(&stanza, &from, receipt);
        }
        if !matches!(self.filter(Direction::In, &stanza, &from), Verdict::Pass) {
            return receipt.done();
        }
        match kind {
            PresenceType::Probe => drop(self.probed(&from, None)),
            PresenceType::Error
                if elsewhere && stanza.to.as_ref().is_some_and(|to| to.resource().is_none()) =>
            {
                self.presence_error(&from.to_bare(), stanza);
            }
            PresenceType::Available | PresenceType::Unavailable | PresenceType::Error => {
                if elsewhere {
                    self.contact_shown(&stanza);
                }
                let full = stanza.to.as_ref().filter(|to| to.resource().is_some());
                for session in &self.sessions {
                    let meant = match full {
                        Some(to) => session.jid.as_str() == to.as_str(),
                        None => session.presence.is_some() && kind != PresenceType::Error,
                    };
                    if meant && !self.crowds(session, &stanza) {
                        let to = stanza.to.is_none().then(|| Jid::from(session.jid.clone()));
                        let outgoing = Outgoing::with(stanza.clone(), to, None);
                        session.deliver(outgoing, None, Receipt::none());
                    }
                }
            }
            // Subscription stanzas of users here come with their change.
            _ => {}
        }
        receipt.done();
    }

    /// 4.3.2: answers a probe of a contact that sees this user: for all sessions, or the one of that full JID. Whether any has answered.
    pub(super) fn probed(&self, from: &Jid, full: Option<&Jid>) -> bool {
        let sees = self.roster.sees_me(from) || from.bare_str() == self.jid.as_str();
        let told = |whom: &Jid| whom == from || whom.as_str() == from.bare_str();
        let mut answered = false;
        let meant = |session: &&UserSession| full.is_none_or(|full| full.as_str() == session.jid.as_str());
        for session in self.sessions.iter().filter(meant) {
            let stanza = match &session.presence {
                Some(presence) if sees => Stanza::clone(&presence.stanza),
                // The session has shown itself to the prober alone (4.6), and that may have been lost.
                presence if session.directed.iter().any(told) => {
                    let bare = || Stanza::new(Type::Presence(PresenceType::Available));
                    let stanza = presence.as_ref().map_or_else(bare, |presence| (*presence.stanza).clone());
                    stanza.from(Jid::from(session.jid.clone()))
                }
                _ => continue,
            };
            answered = true;
            self.send_on(stanza.to(from.clone()));
        }
        answered
    }

    /// A session ended without saying so: as if it had sent unavailable.
    pub(super) fn gone_unavailable(&mut self, session: &super::UserSession) {
        // Another may have its resource: then that one's presence holds.
        let same = self.sessions.iter().filter(|other| other.sid != session.sid && other.jid == session.jid);
        let holds = same
            .clone()
            .filter_map(|other| other.presence.as_ref())
            .map(|presence| presence.stanza.clone())
            .next();
        let stanza = holds.unwrap_or_else(|| Arc::new(unavailable(&session.jid)));
        if session.presence.is_some() {
            self.tell_subscribers(&stanza);
            self.tell_components(&stanza, PresenceAccess::ManagedEntity);
            for other in self.sessions.iter().filter(|s| s.presence.is_some() && s.sid != session.sid) {
                other.deliver(self.to_session(&stanza, &other.jid), None, Receipt::none());
            }
        }
        let gone = Arc::new(unavailable(&session.jid));
        for whom in &session.directed {
            if same.clone().any(|other| other.directed.contains(whom)) {
                continue; // it has shown itself to them, too
            }
            if !self.roster.sees_me(whom) || session.presence.is_none() {
                self.send_on(stanza_to(&gone, whom.clone()));
            }
        }
        if session.presence.is_some() && !self.sessions.iter().any(|s| s.presence.is_some()) {
            self.remember_last(&stanza);
        }
    }

    /// XEP-0012: when, and with which words, the last resource went offline.
    fn remember_last(&self, stanza: &Stanza) {
        let status = stanza.child("status", ns::CLIENT).map(|c| c.text().into_owned()).unwrap_or_default();
        let record = rookery_cluster::tables::last::Last { at: self.host.seams().clock.now_micros(), status };
        let mut ops = super::deliver::Ops::new();
        rookery_cluster::tables::last::put(&mut ops, self.entity(), &record).ok();
        self.submit(ops);
    }
}

/// `<presence type='unavailable' from='…'/>`
pub(super) fn unavailable(from: &rookery_proto::xmpp::jid::FullJid) -> Stanza {
    Stanza::new(Type::Presence(PresenceType::Unavailable)).from(Jid::from(from.clone()))
}

/// The same stanza, its payload shared, for somebody else.
fn stanza_to(stanza: &Arc<Stanza>, to: Jid) -> Stanza {
    Stanza::clone(stanza).to(to)
}
