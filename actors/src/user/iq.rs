//! Requests: who may ask what, and the queue in which those that need the store run one after the other.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::User;
use crate::feature::{Done, Method, Request, Run, Scope, Who};
use crate::features;
use crate::ledger::Receipt;
use crate::pipe::Outgoing;
use crate::session::SessionId;

type Started = Pin<Box<dyn Future<Output = Result<Done, StanzaError>> + Send>>;

/// An IQ to answer, and the session that asked if it is one of ours.
type Asked = (Option<SessionId>, Box<Stanza>);

/// Something that needs the store and must run in order.
struct Operation {
    start: Box<dyn FnOnce(&User) -> Started + Send>,
    /// The IQ to answer, and the session that asked if it is one of ours.
    request: Option<Asked>,
    receipt: Receipt,
    /// It reads what clients have not been told of the roster.
    catches_up: bool,
}

/// The operations of one account. One runs at a time, so that each sees what the one before has done.
#[derive(Default)]
pub(super) struct Ops {
    running: Option<(Option<Asked>, Receipt)>,
    waiting: VecDeque<Operation>,
}

impl Ops {
    /// Keeps no more room than is needed.
    pub(super) fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
    }

    pub(super) fn busy(&self) -> bool {
        self.running.is_some()
    }

    /// Whether nothing more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= OPERATIONS
    }

    /// Whether one of those that have not begun will read what clients have not been told of the roster.
    pub(super) fn will_catch_up(&self) -> bool {
        self.waiting.iter().any(|operation| operation.catches_up)
    }
}

/// How many operations of one account may wait.
const OPERATIONS: usize = 256;

impl User {
    /// Runs something that needs the store, in order. What it returns is applied to this actor; then `receipt` is done.
    pub(super) fn operation<F>(&mut self, receipt: Receipt, start: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<Done, StanzaError>> + Send + 'static,
    {
        self.operation_of(receipt, false, move |_| start());
    }

    /// The same with a look at the user when its turn comes. `catches_up`: see [`Ops::will_catch_up`].
    pub(super) fn operation_of<F>(
        &mut self,
        receipt: Receipt,
        catches_up: bool,
        start: impl FnOnce(&User) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Done, StanzaError>> + Send + 'static,
    {
        let start: Box<dyn FnOnce(&User) -> Started + Send> = Box::new(move |user| Box::pin(start(user)));
        self.enqueue(Operation { start, request: None, receipt, catches_up });
    }

    /// Answers an IQ request to this account or, from one of its sessions, to the host.
    pub(super) fn answer(&mut self, sid: Option<SessionId>, stanza: &Stanza, receipt: Receipt) {
        let result = self.dispatch(sid, stanza);
        match result {
            Ok(Dispatch::Now(reply)) => {
                self.reply(sid, stanza.result(reply));
                receipt.done();
            }
            Ok(Dispatch::Later(start)) => {
                let request = Some((sid, Box::new(stanza.clone())));
                let start = Box::new(move |_: &User| start());
                self.enqueue(Operation { start, request, receipt, catches_up: false });
            }
            // To strangers a mistake is answered as by an account that does not exist.
            Err(_) if self.is_strange(stanza) => {
                self.answer_error(sid, stanza, &Condition::ServiceUnavailable.into());
                receipt.done();
            }
            Err(error) => {
                self.answer_error(sid, stanza, &error);
                receipt.done();
            }
        }
    }

    /// Whether an account is asked by somebody who may not know that there is one.
    fn is_strange(&self, stanza: &Stanza) -> bool {
        let account = stanza.to.as_ref().is_some_and(|to| to.local().is_some());
        let known = |from: &Jid| from.bare_str() == self.jid.as_str() || self.roster.sees_me(from);
        account && !stanza.from.as_ref().is_some_and(known)
    }

    fn dispatch(&mut self, sid: Option<SessionId>, stanza: &Stanza) -> Result<Dispatch, StanzaError> {
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
        match handler.run {
            Run::Now(run) => run(self, &request).map(Dispatch::Now),
            Run::Store(run) => {
                let host = self.host.clone();
                Ok(Dispatch::Later(Box::new(move || run(host, request))))
            }
        }
    }

    fn enqueue(&mut self, operation: Operation) {
        if self.ops.is_full() {
            metrics::counter!("rookery_limits_hit_total", "limit" => "user_operations").increment(1);
            if let Some((sid, stanza)) = &operation.request
                && let Some(reply) = stanza.error_reply(&StanzaError::new(Condition::ResourceConstraint))
            {
                self.reply(*sid, reply);
            }
            return operation.receipt.done();
        }
        self.ops.waiting.push_back(operation);
        self.next_operation();
    }

    fn next_operation(&mut self) {
        if self.ops.busy() {
            return;
        }
        let Some(Operation { start, request, receipt, .. }) = self.ops.waiting.pop_front() else { return };
        if self.leaving.is_some() && request.is_some() && receipt.is_open() {
            receipt.leave(); // whoever asks does so again, of the next home, which need not wait for all of these
            return self.next_operation();
        }
        if self.is_nobody() {
            // The account was removed meanwhile: nothing is written for it any more.
            if let Some(reply) =
                request.and_then(|(_, stanza)| stanza.error_reply(&Condition::ServiceUnavailable.into()))
            {
                self.host.route(reply, Receipt::none(), None);
            }
            receipt.done();
            return self.next_operation();
        }
        if let Some((Some(sid), stanza)) = &request
            && self.no_room(*sid)
        {
            // Room has gone while this waited.
            self.answer_error(Some(*sid), stanza, &StanzaError::new(Condition::ResourceConstraint));
            self.settle_behind(Some(*sid), receipt);
            return self.next_operation();
        }
        self.ops.running = Some((request, receipt));
        let work = start(self);
        self.spawn(async move {
            // On a task of its own, so that a panic in it is an error of this request and not the end of the queue.
            let result = tokio::spawn(work)
                .await
                .unwrap_or_else(|_| Err(StanzaError::new(Condition::InternalServerError)));
            let then: crate::feature::Then = Box::new(move |user: &mut User| user.operation_done(result));
            then
        });
    }

    fn operation_done(&mut self, result: Result<Done, StanzaError>) {
        let Some((request, receipt)) = self.ops.running.take() else { return };
        let sid = request.as_ref().and_then(|(sid, _)| *sid);
        match result {
            Ok(done) => {
                if let Some(then) = done.then {
                    then(self);
                }
                if let Some((sid, stanza)) = request {
                    for outgoing in done.before {
                        self.reply_outgoing(sid, outgoing);
                    }
                    self.reply(sid, stanza.result(done.reply));
                }
                if let Some(after) = done.after {
                    after(self);
                }
            }
            Err(error) => {
                if let Some((sid, stanza)) = request {
                    self.answer_error(sid, &stanza, &error);
                }
            }
        }
        self.settle_behind(sid, receipt);
        self.next_operation();
    }

    fn answer_error(&self, sid: Option<SessionId>, stanza: &Stanza, error: &StanzaError) {
        if let Some(reply) = stanza.error_reply(error) {
            metrics::counter!("rookery_stanza_errors_total", "condition" => error.condition.name())
                .increment(1);
            self.reply(sid, reply);
        }
    }

    fn reply(&self, sid: Option<SessionId>, stanza: Stanza) {
        self.reply_outgoing(sid, Outgoing::new(stanza));
    }

    fn reply_outgoing(&self, sid: Option<SessionId>, outgoing: Outgoing) {
        match sid {
            Some(sid) => self.send(sid, outgoing),
            None => self.host.route_from(outgoing.stanza, Receipt::none(), None),
        }
    }

    /// An IQ set with this payload to each session that `wants` it (roster and block list pushes).
    pub fn push_to(&self, payload: &[u8], wants: impl Fn(&super::Attached) -> bool) {
        let mut wants = self.sessions.iter().filter(|session| wants(session)).peekable();
        if wants.peek().is_none() {
            return;
        }
        let id = self.host.random_id();
        let push = Stanza::new(Type::Iq(IqType::Set)).id(id.as_str()).payload(payload.to_vec());
        let push = Arc::new(push.from(Jid::from(self.jid.clone())));
        for session in wants {
            let to = Some(Jid::from(session.jid.clone()));
            session.deliver(Outgoing::with(push.clone(), to, bytes::Bytes::new()), None, Receipt::none());
        }
    }
}

enum Dispatch {
    Now(Vec<u8>),
    Later(Box<dyn FnOnce() -> Started + Send>),
}
