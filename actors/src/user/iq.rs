//! Requests: who may ask what, and how those that need the store run ([`crate::runtime::operations`]).

use std::pin::Pin;
use std::sync::Arc;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::User;
use super::session_queue::Item;
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::features::contract::{Done, Method, Request, Run, Scope, Then, Who};
use crate::features::{self, xep_0030_disco, xep_0355_delegation};
use crate::runtime::operations::{self, Lane, Limits, Most, Queued};
use crate::session::SessionId;

pub(super) type Started = Pin<Box<dyn Future<Output = Result<Done, StanzaError>> + Send>>;

/// A change, or something else that must run in order with changes.
pub(super) struct Operation {
    start: Box<dyn FnOnce(&User) -> Started + Send>,
    of: Of,
    /// It reads what clients have not been told of the roster.
    catches_up: bool,
}

/// Whose operation it is.
pub(super) struct Of {
    /// The session whose later stanzas wait for it.
    sid: Option<SessionId>,
    /// The IQ that it answers.
    request: Option<Box<Stanza>>,
    receipt: Receipt,
}

impl Queued for Operation {
    fn size(&self) -> usize {
        self.of.request.as_ref().map_or(0, |stanza| stanza.size())
    }

    fn leave(self) {
        self.of.receipt.leave();
    }
}

/// A request that is answered from the store and changes nothing there.
pub(super) struct Read {
    start: Box<dyn FnOnce() -> Started + Send>,
    pub(super) stanza: Box<Stanza>,
    pub(super) receipt: Receipt,
}

impl Queued for Read {
    fn size(&self) -> usize {
        self.stanza.size()
    }

    fn leave(self) {
        self.receipt.leave();
    }
}

/// The operations of one account. Its sources are the user's sessions.
pub(super) type Operations = operations::Operations<SessionId, Operation, Of, Item, Read>;

/// How much may wait for one user. A connection is not read on while 256 of its stanzas are not settled.
pub(super) static LIMITS: Limits = Limits {
    changes: Most { items: 256, bytes: 4 << 20 },
    source: Most { items: 256, bytes: 1 << 20 },
    all_sources_bytes: 4 << 20,
    reads: 8,
    strangers: Most { items: 256, bytes: 256 << 10 },
    strangers_at_once: 4,
    strangers_of_domain: 64,
    strangers_of_account: 8,
};

impl User {
    /// Whether one of the user's sessions may change anything: sessions that have ended have not left too much behind.
    pub(super) fn may_change(&self) -> bool {
        self.ops.changes.have_room(Lane::Own)
    }

    /// Whether one more of what others have changed may wait.
    pub(super) fn others_may_change(&self) -> bool {
        self.ops.changes.have_room(Lane::Others)
    }

    /// Whether one of the operations that have not begun will read what clients have not been told of the roster.
    pub(super) fn will_catch_up(&self) -> bool {
        self.ops.changes.waiting(Lane::Own).any(|operation| operation.catches_up)
    }

    /// Runs a change of the session `sid`, in order; what the session sends behind it waits. What it returns is applied to this
    /// actor; then `receipt` is done. The caller looks whether there is room ([`User::may_change`]).
    pub(super) fn change_by<F>(
        &mut self,
        sid: SessionId,
        receipt: Receipt,
        start: impl FnOnce() -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Done, StanzaError>> + Send + 'static,
    {
        self.begin(sid, None, receipt, move || Box::pin(start()));
    }

    /// Runs something that none of the user's sessions waits for, in order, with a look at the user when its turn comes. The
    /// caller looks whether there is room ([`User::others_may_change`]).
    pub(super) fn operation<F>(&mut self, receipt: Receipt, start: impl FnOnce(&User) -> F + Send + 'static)
    where
        F: Future<Output = Result<Done, StanzaError>> + Send + 'static,
    {
        let start = Box::new(move |user: &User| -> Started { Box::pin(start(user)) });
        let of = Of { sid: None, request: None, receipt };
        // If there is no room, the receipt is dropped: what it stands for counts as lost, and is sent again.
        let _ = self.ops.changes.push(Lane::Others, Operation { start, of, catches_up: false });
        self.next_operation();
    }

    /// Runs what reads the news of the roster: there is one at most that has not begun ([`User::will_catch_up`]).
    pub(super) fn catching_up<F>(&mut self, start: impl FnOnce(&User) -> F + Send + 'static)
    where
        F: Future<Output = Result<Done, StanzaError>> + Send + 'static,
    {
        let start = Box::new(move |user: &User| -> Started { Box::pin(start(user)) });
        let of = Of { sid: None, request: None, receipt: Receipt::none() };
        self.ops.changes.push_always(Lane::Own, Operation { start, of, catches_up: true });
        self.next_operation();
    }

    fn begin(
        &mut self,
        sid: SessionId,
        request: Option<Box<Stanza>>,
        receipt: Receipt,
        start: impl FnOnce() -> Started + Send + 'static,
    ) {
        let of = Of { sid: Some(sid), request, receipt };
        self.ops.sources.hold(sid);
        let operation = Operation { start: Box::new(|_| start()), of, catches_up: false };
        if self.ops.changes.push(Lane::Own, operation).is_err() {
            return self.change_done(sid); // the same as for others
        }
        self.next_operation();
    }

    /// Answers an IQ request to this account or, from one of its sessions, to the host. What others have asked is settled when
    /// the answer has come there.
    pub(super) fn answer(&mut self, sid: Option<SessionId>, stanza: &Stanza, receipt: Receipt) {
        let result = self.dispatch(sid, stanza, None);
        let read = |start, receipt| Read { start, stanza: Box::new(stanza.clone()), receipt };
        match (result, sid) {
            (Ok(Dispatch::Now(reply)), Some(sid)) => {
                self.reply(sid, stanza.result(reply));
                receipt.done();
            }
            (Ok(Dispatch::Now(reply)), None) => self.host.route(stanza.result(reply), receipt, None),
            (Ok(Dispatch::Change(_)), Some(sid)) if !self.may_change() => {
                self.queue_is_full(sid, stanza, receipt)
            }
            (Ok(Dispatch::Change(start)), Some(sid)) => {
                self.begin(sid, Some(Box::new(stanza.clone())), receipt, start);
            }
            (Ok(Dispatch::Read(start)), Some(sid)) => self.read_for(sid, read(start, receipt)),
            // No feature lets others change anything; if one did, it would still not be in the way of the user's own.
            (Ok(Dispatch::Change(start) | Dispatch::Read(start)), None) => {
                self.read_for_stranger(read(start, receipt));
            }
            // To strangers a mistake is answered as by an account that does not exist.
            (Err(_), None) if self.is_strange(stanza) => {
                self.refuse(stanza, receipt, &Condition::ServiceUnavailable.into());
            }
            (Err(error), Some(sid)) => {
                self.answer_own(sid, stanza, &error);
                receipt.done();
            }
            (Err(error), None) => self.refuse(stanza, receipt, &error),
        }
    }

    /// Whether an account is asked by somebody who may not know that there is one.
    fn is_strange(&self, stanza: &Stanza) -> bool {
        let account = stanza.to.as_ref().is_some_and(|to| to.local().is_some());
        let known = |from: &Jid| from.bare_str() == self.jid.as_str() || self.roster.sees_me(from);
        account && !stanza.from.as_ref().is_some_and(known)
    }

    pub(super) fn dispatch(
        &mut self,
        sid: Option<SessionId>,
        stanza: &Stanza,
        component: Option<&str>,
    ) -> Result<Dispatch, StanzaError> {
        let method = match stanza.type_ {
            Type::Iq(IqType::Get) => Method::Get,
            Type::Iq(IqType::Set) => Method::Set,
            _ => return Err(StanzaError::new(Condition::BadRequest)),
        };
        let (Some(from), Some(to), Some(id)) = (&stanza.from, &stanza.to, &stanza.id) else {
            return Err(StanzaError::new(Condition::BadRequest));
        };
        // RFC 6120 section 8.2.3: exactly one child.
        let mut children = stanza.children();
        let (Some(child), None) = (children.next(), children.next()) else {
            return Err(StanzaError::new(Condition::BadRequest));
        };
        let scope = if to.local().is_some() { Scope::Account } else { Scope::Host };
        if let Some(work) = xep_0355_delegation::delegated(&self.host, stanza, &child, component) {
            return Ok(Dispatch::Read(Box::new(move || work)));
        }
        let handler = features::iq_handler(scope, method, child.name(), child.ns());
        let owner = from.bare_str() == self.jid.as_str();
        let handler = match handler {
            Some(handler) if scope == Scope::Host || owner => handler,
            Some(handler) => match handler.who {
                Who::Anyone => handler,
                Who::Subscriber if self.roster.sees_me(from) => handler,
                Who::Subscriber | Who::Owner => return features::not_there(stanza).map(Dispatch::Now),
            },
            None => return Err(Condition::ServiceUnavailable.into()),
        };
        let request = Request {
            from: from.clone(),
            sid,
            account: self.jid.clone(),
            to: to.clone(),
            id: id.clone(),
            method,
            lang: stanza.lang.clone(),
            child: child.bytes(),
        };
        if child.is("query", ns::DISCO_INFO) && xep_0355_delegation::is_nested(&self.host, to.domain()) {
            let host = self.host.clone();
            return Ok(Dispatch::Read(Box::new(move || xep_0030_disco::nested_info(&host, scope, request))));
        }
        let changes = matches!(handler.run, Run::Change(_));
        match handler.run {
            Run::Host(run) => run(&self.host, &request).map(Dispatch::Now),
            Run::Now(run) => run(self, &request).map(Dispatch::Now),
            Run::Change(run) | Run::Read(run) => {
                let host = self.host.clone();
                let start = Box::new(move || run(host, request));
                Ok(if changes { Dispatch::Change(start) } else { Dispatch::Read(start) })
            }
        }
    }

    fn next_operation(&mut self) {
        while let Some(operation) = self.ops.changes.next() {
            if self.leaving.is_some()
                && let Some(sid) = operation.of.sid
            {
                operation.leave(); // whoever asks does so again, of the next home, which need not wait for all of these
                self.leave_queue(sid);
                continue;
            }
            let Operation { start, of, .. } = operation;
            if self.is_nobody() {
                self.gone_meanwhile(of);
                continue;
            }
            if let (Some(sid), Some(stanza)) = (of.sid, &of.request)
                && self.no_room(sid)
            {
                // Room for its answer has gone while this waited.
                self.answer_own(sid, stanza, &StanzaError::new(Condition::ResourceConstraint));
                self.settle_behind(Some(sid), of.receipt);
                self.change_done(sid);
                continue;
            }
            self.ops.changes.run(of);
            let work = start(self);
            self.spawn(async move {
                let result = apart(work).await;
                let then: Then = Box::new(move |user: &mut User| user.operation_done(result));
                then
            });
        }
    }

    /// The account was removed meanwhile: nothing is written for it any more.
    fn gone_meanwhile(&mut self, Of { sid, request, receipt }: Of) {
        let error = StanzaError::new(Condition::ServiceUnavailable);
        match (sid, request) {
            (_, Some(stanza)) => self.refuse(&stanza, receipt, &error),
            (Some(_), None) => receipt.leave(), // its stream has ended
            (None, None) => receipt.done(),     // there is nobody to hear of the change
        }
    }

    fn operation_done(&mut self, result: Result<Done, StanzaError>) {
        let Some(Of { sid, request, receipt }) = self.ops.changes.done() else { return };
        self.finish(sid.zip(request.as_deref()), result);
        self.settle_behind(sid, receipt);
        self.next_operation();
        if let Some(sid) = sid {
            self.change_done(sid);
        }
    }

    /// Begins a read: of a session, or of a stranger.
    pub(super) fn start_read(&mut self, sid: Option<SessionId>, read: Read) {
        let Read { start, stanza, receipt } = read;
        if let Some(sid) = sid.filter(|sid| self.no_room(*sid)) {
            self.answer_own(sid, &stanza, &StanzaError::new(Condition::ResourceConstraint));
            self.settle_behind(Some(sid), receipt);
            return self.next_read(sid);
        }
        let work = start();
        let submitted = self.pending.commits.all_submitted();
        self.spawn(async move {
            if let Some(submitted) = submitted {
                submitted.await.ok(); // if the user moves, nobody waits for the answer
            }
            let result = apart(work).await;
            let then: Then = Box::new(move |user: &mut User| {
                if let Some(sid) = sid {
                    user.finish(Some((sid, &stanza)), result);
                    user.settle_behind(Some(sid), receipt);
                    user.next_read(sid);
                } else {
                    user.tell_stranger(&stanza, result, receipt);
                    user.stranger_answered(&stanza);
                }
            });
            then
        });
    }

    /// What was asked by somebody else is settled when the answer has come there.
    fn tell_stranger(&self, stanza: &Stanza, result: Result<Done, StanzaError>, receipt: Receipt) {
        match result {
            Ok(done) => self.host.route(stanza.result(done.reply), receipt, None),
            Err(error) => self.refuse(stanza, receipt, &error),
        }
    }

    /// Applies what was done, and tells the session that has asked.
    fn finish(&mut self, asked: Option<(SessionId, &Stanza)>, result: Result<Done, StanzaError>) {
        match result {
            Ok(done) => {
                if let Some(then) = done.then {
                    then(self);
                }
                if let Some((sid, stanza)) = asked {
                    for outgoing in done.before {
                        self.send(sid, outgoing);
                    }
                    self.reply(sid, stanza.result(done.reply));
                }
                if let Some(after) = done.after {
                    after(self);
                }
            }
            Err(error) => {
                if let Some((sid, stanza)) = asked {
                    self.answer_own(sid, stanza, &error);
                }
            }
        }
    }

    fn reply(&self, sid: SessionId, stanza: Stanza) {
        self.send(sid, Outgoing::new(stanza));
    }

    /// An IQ set with this payload to each session that `wants` it (roster and block list pushes).
    pub fn push_to(&self, payload: &[u8], wants: impl Fn(&super::UserSession) -> bool) {
        let mut wants = self.sessions.iter().filter(|session| wants(session)).peekable();
        if wants.peek().is_none() {
            return;
        }
        let id = self.host.random_id();
        let push = Stanza::new(Type::Iq(IqType::Set)).id(id.as_str()).payload(payload.to_vec());
        let push = Arc::new(push.from(Jid::from(self.jid.clone())));
        for session in wants {
            let to = Some(Jid::from(session.jid.clone()));
            session.deliver(Outgoing::with(push.clone(), to, None), None, Receipt::none());
        }
    }
}

pub(super) enum Dispatch {
    Now(Vec<u8>),
    Change(Box<dyn FnOnce() -> Started + Send>),
    Read(Box<dyn FnOnce() -> Started + Send>),
}

/// Does the work on a task of its own, so that a panic in it is an error of this request and not the end of the queue.
async fn apart(work: Started) -> Result<Done, StanzaError> {
    let failed = |_| Err(StanzaError::new(Condition::InternalServerError));
    tokio::spawn(work).await.unwrap_or_else(failed)
}
