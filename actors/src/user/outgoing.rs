//! What a user's own sessions send.

use std::sync::Arc;

use rookery_cluster::tables::archive::Collection;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{IqType, PresenceType, Stanza, Type};

use super::deliver::Ops;
use super::sent;
use super::share::{self, Owed};
use super::steps::Step;
use super::{Inbound, User};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::features;
use crate::features::contract::{Direction, Passing, Verdict};
use crate::runtime::origin::Origin;
use crate::session::SessionId;

impl User {
    /// Takes a stanza of one of the user's sessions, in its turn. What the session is told because of it comes before it is
    /// settled: else a home could die with an answer that its connection does not wait for any more.
    pub(super) fn send_now(
        &mut self,
        sid: SessionId,
        stanza: Arc<Stanza>,
        origin: Option<Origin>,
        receipt: Receipt,
    ) {
        let told = self.settles_behind(sid) && !matches!(stanza.type_, Type::Message(_));
        let behind = told.then(|| receipt.split());
        self.outgoing(sid, stanza, origin, receipt);
        if let Some(receipt) = behind {
            self.settle_behind(Some(sid), receipt);
        }
    }

    /// Settles a stanza once the session has handled what it was told before.
    pub(super) fn settle_behind(&self, sid: Option<SessionId>, receipt: Receipt) {
        match sid.filter(|sid| self.settles_behind(*sid)).and_then(|sid| self.session(sid)) {
            Some(session) => session.settle(receipt),
            None => receipt.done(),
        }
    }

    /// Whether what a session is told matters to what it has sent: where its home may die and it may not, or come back.
    fn settles_behind(&self, sid: SessionId) -> bool {
        self.host.homes_change() || self.session(sid).is_some_and(|session| session.resumable)
    }

    fn outgoing(&mut self, sid: SessionId, stanza: Arc<Stanza>, origin: Option<Origin>, receipt: Receipt) {
        match stanza.type_ {
            Type::Message(_) => self.send_message(sid, stanza, origin, receipt),
            Type::Presence(PresenceType::Available | PresenceType::Unavailable) if stanza.to.is_none() => {
                self.broadcast(sid, Arc::unwrap_or_clone(stanza), receipt);
            }
            Type::Presence(kind) => self.send_presence(sid, kind, Arc::unwrap_or_clone(stanza), receipt),
            Type::Iq(kind) => self.send_iq(sid, kind, Arc::unwrap_or_clone(stanza), origin, receipt),
        }
    }

    /// An IQ or a presence, to its addressee. What a user sends to itself is here already: it is taken before what the
    /// session sends next.
    pub(super) fn send_to(&mut self, stanza: Arc<Stanza>, receipt: Receipt, origin: Option<Origin>) {
        if stanza.to.as_ref().is_some_and(|to| to.bare_str() == self.jid.as_str()) {
            return self.incoming(Inbound { stanza, receipt, origin, change: None });
        }
        self.host.route_from(stanza, receipt, origin);
    }

    pub(super) fn send_message(
        &mut self,
        sid: SessionId,
        mut stanza: Arc<Stanza>,
        origin: Option<Origin>,
        receipt: Receipt,
    ) {
        let with = match &stanza.to {
            Some(to) => to.to_bare(),
            None => {
                // RFC 6121 section 8.1: without `to` it is for the sender's own bare JID.
                Arc::make_mut(&mut stanza).to = Some(Jid::from(self.jid.clone()));
                self.jid.clone()
            }
        };
        let mut passing = Passing::new(stanza, Direction::Out, with);
        match self.pass(&mut passing) {
            Verdict::Pass => {}
            Verdict::Refuse(error) => {
                self.answer_own(sid, &passing.stanza, &error);
                return self.settle_behind(Some(sid), receipt);
            }
            Verdict::Drop => return receipt.done(),
        }
        let stanza = passing.stanza;
        // A message to oneself is archived once, when it comes in.
        let own = passing.with == self.jid;
        let copies = passing.copies && self.sessions.iter().any(|s| s.carbons && s.sid != sid);
        let mut archived = None;
        if passing.archive && !own {
            if self.taken_before(origin) {
                archived = Some(sent::SOMEWHERE);
                self.in_order(Step::Kept { stanza: stanza.clone(), receipt: receipt.split() });
            } else if self.pending.commits.is_full() {
                // Refused means delivered nowhere: so nothing is sent on.
                let error = features::over(
                    "user_pending",
                    Condition::ResourceConstraint,
                    "too much waits for the store",
                );
                self.answer_own(sid, &stanza, &error);
                return self.settle_behind(Some(sid), receipt);
            } else {
                let mut entry = self.entry(Direction::Out, &stanza, &passing.with);
                entry.flags = share::flags(Owed::Nobody, passing.copies);
                let id = self.next_id();
                archived = Some(id);
                if self.is_foreign(&passing.with) {
                    self.remember_sent(id, &stanza);
                }
                let (stanza, receipt) = (stanza.clone(), receipt.split());
                let step = Step::Sent { stanza, id: Some(id), copies, sid, receipt };
                let more = self.with_hooks(Ops::new(), passing.prepare, Collection::Archive);
                self.archive(id, entry, origin, more, step);
            }
        } else if copies && !own {
            self.in_order(Step::Sent {
                stanza: stanza.clone(),
                id: None,
                copies,
                sid,
                receipt: Receipt::none(),
            });
        }
        if own {
            return self.incoming(Inbound { stanza, receipt, origin, change: None });
        }
        self.host.route_from(stanza, receipt.archived(archived), origin);
    }

    fn send_iq(
        &mut self,
        sid: SessionId,
        kind: IqType,
        mut stanza: Stanza,
        origin: Option<Origin>,
        receipt: Receipt,
    ) {
        // RFC 6120 section 10.3.3: without `to` it is for the sender's own account.
        let to = stanza.to.get_or_insert_with(|| Jid::from(self.jid.clone())).clone();
        let request = matches!(kind, IqType::Get | IqType::Set);
        let own_bare = to.as_str() == self.jid.as_str();
        if request && self.no_room(sid) {
            // An answer could not be kept for a client that does not read.
            self.answer_own(sid, &stanza, &StanzaError::new(Condition::ResourceConstraint));
            return receipt.done();
        }
        let to_host = to.local().is_none() && to.resource().is_none() && self.host.serves(to.domain());
        if own_bare || to_host {
            return if request { self.answer(Some(sid), &stanza, receipt) } else { receipt.done() };
        }
        match self.filter(Direction::Out, &stanza, &to) {
            Verdict::Pass => self.send_to(Arc::new(stanza), receipt, origin),
            Verdict::Refuse(error) => {
                self.answer_own(sid, &stanza, &error);
                receipt.done();
            }
            Verdict::Drop => receipt.done(),
        }
    }

    /// Answers one of the user's own sessions with an error.
    pub(super) fn answer_own(
        &self,
        sid: SessionId,
        stanza: &Stanza,
        error: &rookery_proto::xmpp::error::StanzaError,
    ) {
        if let Some(reply) = stanza.error_reply(error) {
            metrics::counter!("rookery_stanza_errors_total", "condition" => error.condition.name())
                .increment(1);
            self.send(sid, Outgoing::new(reply));
        }
    }
}
