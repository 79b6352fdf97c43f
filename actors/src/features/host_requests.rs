//! Requests to the server itself by anybody but its own users: rooms, components, other servers. What a user's session asks
//! goes through its user, which keeps its order.

use std::sync::Arc;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use crate::connection::ledger::Receipt;
use crate::features::contract::{Method, Request, Run, Scope, Who};
use crate::features::{self, xep_0030_disco, xep_0355_delegation};
use crate::host::Host;

/// Answers a request; everything else is refused. Only what anyone may ask, and what changes nothing, is answered.
pub(crate) fn answer(host: &Host, stanza: &Arc<Stanza>, receipt: Receipt) {
    let result = dispatch(host, stanza);
    match result {
        Ok(Answer::Now(reply)) => host.route(stanza.result(reply), receipt, None),
        Ok(Answer::Later(work)) => {
            let (host, stanza) = (host.clone(), stanza.clone());
            host.clone().spawn(async move {
                // On a task of its own: a panic is an error of this request alone.
                let failed = |_| Err(StanzaError::new(Condition::InternalServerError));
                match tokio::spawn(work).await.unwrap_or_else(failed) {
                    Ok(done) => host.route(stanza.result(done.reply), receipt, None),
                    Err(error) => refuse(&host, &stanza, receipt, &error),
                }
            });
        }
        Err(error) => refuse(host, stanza, receipt, &error),
    }
}

enum Answer {
    Now(Vec<u8>),
    Later(features::contract::Work),
}

fn refuse(host: &Host, stanza: &Stanza, receipt: Receipt, error: &StanzaError) {
    match stanza.error_reply(error) {
        Some(reply) => {
            metrics::counter!("rookery_stanza_errors_total", "condition" => error.condition.name())
                .increment(1);
            host.refuse(reply, receipt);
        }
        None => receipt.done(), // errors and results have no answer (RFC 6120 section 8.3.1)
    }
}

fn dispatch(host: &Host, stanza: &Stanza) -> Result<Answer, StanzaError> {
    let method = match stanza.type_ {
        Type::Iq(IqType::Get) => Method::Get,
        Type::Iq(IqType::Set) => Method::Set,
        _ => return Err(StanzaError::new(Condition::ServiceUnavailable)),
    };
    let (Some(from), Some(to), Some(id)) = (&stanza.from, &stanza.to, &stanza.id) else {
        return Err(StanzaError::new(Condition::BadRequest));
    };
    // RFC 6120 section 8.2.3: exactly one child.
    let mut children = stanza.children();
    let (Some(child), None) = (children.next(), children.next()) else {
        return Err(StanzaError::new(Condition::BadRequest));
    };
    if let Some(work) = xep_0355_delegation::delegated(host, stanza, &child, None) {
        return Ok(Answer::Later(work));
    }
    let handler = features::iq_handler(Scope::Host, method, child.name(), child.ns());
    let handler = handler.filter(|handler| handler.who == Who::Anyone);
    let handler = handler.ok_or(StanzaError::new(Condition::ServiceUnavailable))?;
    let request = Request {
        from: from.clone(),
        sid: None,
        account: from.to_bare(),
        to: to.clone(),
        id: id.clone(),
        method,
        lang: stanza.lang.clone(),
        child: child.bytes(),
    };
    if child.is("query", ns::DISCO_INFO) && xep_0355_delegation::is_nested(host, to.domain()) {
        return Ok(Answer::Later(xep_0030_disco::nested_info(host, Scope::Host, request)));
    }
    match handler.run {
        Run::Host(run) => run(host, &request).map(Answer::Now),
        Run::Read(run) => Ok(Answer::Later(run(host.clone(), request))),
        Run::Now(_) | Run::Change(_) => Err(StanzaError::new(Condition::ServiceUnavailable)),
    }
}
