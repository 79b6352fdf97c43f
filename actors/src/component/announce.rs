//! What a component is told of what it may: when it connects, and when the configuration changes.

use std::sync::Arc;

use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use super::connection::{Conn, End};
use crate::connection::reply::Reply;
use crate::features::{xep_0355_delegation as delegation, xep_0356_privilege as privilege};
use crate::host::Host;
use crate::host::options::{Component, Options};

/// Tells the component what it may for each of our domains, after it could do what was `before`.
pub(super) fn announce(conn: &Conn, options: &Options, before: Option<&Component>) {
    let Some(component) = options.component(conn.component.as_str()) else { return };
    for domain in &options.domains {
        let now = component.covers(&domain.name);
        let then = before.filter(|before| before.covers(&domain.name));
        let (nothing, none) = (Default::default(), Vec::new());
        let payloads = [
            privilege::announcement(
                if now { &component.privileges } else { &nothing },
                then.map_or(&nothing, |before| &before.privileges),
            ),
            delegation::announcement(
                if now { &component.delegations } else { &none },
                then.map_or(&none, |before| &before.delegations),
            ),
        ];
        let Ok(server) = BareJid::parse(&domain.name) else { continue };
        for payload in payloads.into_iter().flatten() {
            let message = Stanza::new(Type::Message(MessageType::Normal)).id(conn.host.random_id().as_str());
            let message = message.from(&server).to(&conn.component).payload(payload);
            conn.take(Arc::new(message), None, Reply::here(drop));
        }
    }
}

impl Host {
    /// The configuration has changed: components that are not configured any more, or whose secret is another, are sent away, and the
    /// others are told what they may now.
    pub fn components_changed(&self, before: &Options) {
        let options = self.options();
        let conns: Vec<Arc<Conn>> = self.component_conns().0.lock().values().cloned().collect();
        for conn in conns {
            let name = conn.component.as_str();
            let (then, now) = (before.component(name), options.component(name));
            match (then, now) {
                (Some(then), Some(now)) if then == now => {}
                (Some(then), Some(now)) if then.secret == now.secret => {
                    delegation::forget(self, name);
                    announce(&conn, &options, Some(then));
                }
                _ => conn.end(End::NotAuthorized),
            }
        }
    }
}
