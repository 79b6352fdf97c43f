//! What a component sends in the name of users (XEP-0356), as its connection sees it: a message in somebody's name goes to that
//! user's home, which sends it on. Requests to users go there by themselves.

use std::sync::Arc;

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;

use super::connection::Conn;
use crate::features::xep_0356_privilege as xml;

/// What is sent on for a stanza of a component.
///
/// # Errors
/// What the component is answered.
pub(super) fn resolve(conn: &Conn, stanza: Stanza) -> Result<Arc<Stanza>, (Arc<Stanza>, StanzaError)> {
    if !xml::is_message_in_name(&stanza) {
        return Ok(Arc::new(stanza));
    }
    let server = |to: &Jid| to.local().is_none() && conn.host.serves(to.domain());
    let Some(domain) = stanza.to.as_ref().filter(|to| server(to)).map(|to| to.domain().to_owned()) else {
        // Allowed to an addressee elsewhere, where the stanza proves nothing. Not allowed to one of our users, who would take it as a
        // message in their name.
        let user = stanza.to.as_ref().is_some_and(|to| conn.host.serves(to.domain()));
        let stanza = Arc::new(stanza);
        return if user { Err((stanza, Condition::Forbidden.into())) } else { Ok(stanza) };
    };
    match in_name(conn, &stanza, &domain) {
        Ok(Some(user)) => Ok(Arc::new(stanza.to(user))),
        Ok(None) => match xml::forwarded_message(&stanza) {
            Ok(message) => Ok(Arc::new(message)),
            Err(error) => Err((Arc::new(stanza), error)),
        },
        Err(error) => Err((Arc::new(stanza), error)),
    }
}

/// In whose name the message is to be sent; `None`: the server's own.
fn in_name(conn: &Conn, stanza: &Stanza, domain: &str) -> Result<Option<Jid>, StanzaError> {
    let forbidden = || StanzaError::new(Condition::Forbidden);
    let options = conn.host.options();
    let component = options.component(conn.component.as_str()).ok_or_else(forbidden)?;
    if !component.privileges.message || !component.covers(domain) {
        return Err(forbidden());
    }
    let message = xml::forwarded_message(stanza)?;
    let from = message.from.filter(|from| from.domain() == domain && from.resource().is_none());
    let from = from.ok_or_else(forbidden)?;
    Ok(from.local().is_some().then_some(from))
}
