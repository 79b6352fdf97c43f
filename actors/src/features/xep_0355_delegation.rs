//! XEP-0355 Namespace Delegation, version 0.5, in admin mode: requests of some namespaces are answered by a component. What the
//! component can is nested into the disco#info of the server and of accounts (section 7.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rookery_cluster::mesh::peer::Outcome;
use rookery_proto::xml::write;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{ChildRef, IqType, Stanza, Type};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::xep_0356_privilege::inner_stanza;
use crate::connection::ledger::Receipt;
use crate::connection::reply::Reply;
use crate::features::contract::{Done, Feature, Scope, Work, Xep};
use crate::host::Host;
use crate::host::options::{Component, Delegation};
use crate::routing::stored;

/// `urn:xmpp:delegation:2` is advertised where something is delegated.
pub const DELEGATION: Feature = Feature {
    xep: Xep { number: 355, version: "0.5", name: "Namespace Delegation", note: "admin mode" },
    ..Feature::NONE
};

/// How long a component may take to answer for the server.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long disco#info waits for what a component can.
const NESTING: Duration = Duration::from_secs(3);
/// What a component can is asked again after this.
const FRESH: Duration = Duration::from_secs(30);
/// Features of one component and namespace, and the length of one, bytes.
const MOST: (usize, usize) = (256, 512);

/// The work of a component's answer to a request, if the request is one that a component answers. `asker`: the component that asks in
/// somebody's name.
pub(crate) fn delegated(
    host: &Host,
    stanza: &Stanza,
    child: &ChildRef<'_>,
    asker: Option<&str>,
) -> Option<Work> {
    let options = host.options();
    if options.components.is_empty() {
        return None;
    }
    let (from, to) = (stanza.from.as_ref()?, stanza.to.as_ref()?);
    if to.resource().is_some() {
        return None;
    }
    let (component, delegation) = options.delegated(to.domain(), child.ns())?;
    // Section 4.3.1: what the component asks itself is the server's to answer, also in the name of a user: else the two would ask each
    // other for ever.
    let fits = delegation.attributes.iter().all(|name| child.attr(name).is_some());
    if !fits || from.domain() == component.name || asker == Some(&component.name) {
        return None;
    }
    let (host, component, stanza) = (host.clone(), component.clone(), stanza.clone());
    Some(Box::pin(async move { forward(&host, &component, &stanza).await }))
}

/// Section 4.3.
async fn forward(host: &Host, component: &Component, stanza: &Stanza) -> Result<Done, StanzaError> {
    let failed = || StanzaError::new(Condition::ServiceUnavailable);
    let server = stanza.to.as_ref().map(|to| to.domain().to_owned()).ok_or_else(failed)?;
    let payload = write::bytes(|w| {
        w.start("delegation", ns::DELEGATION).start("forwarded", ns::FORWARD);
        w.with(|out| stanza.write_in(out, ns::CLIENT));
    });
    let answer = ask(host, component, &server, IqType::Set, payload, PATIENCE).await.ok_or_else(failed)?;
    let delegation = answer.child("delegation", ns::DELEGATION).ok_or_else(failed)?.element();
    let forwarded = delegation.child("forwarded", ns::FORWARD).ok_or_else(failed)?;
    let inner = forwarded.children().find(|child| child.name() == "iq").and_then(inner_stanza);
    let inner = inner.ok_or_else(failed)?;
    let from_fits = inner.from.is_none() || inner.from == stanza.to;
    if inner.id != stanza.id || inner.to != stanza.from || !from_fits {
        tracing::warn!(component = %component.name, "a component answered a delegated request for another one (XEP-0355 section 4.3); the sender gets service-unavailable. Look at the component");
        return Err(failed());
    }
    match (inner.type_, inner.error()) {
        (Type::Iq(IqType::Result), _) => Ok(Done::reply(inner.shared_payload().as_bytes().to_vec())),
        (_, Some(error)) => Err(error),
        _ => Err(failed()),
    }
}

/// A request of the server to a component; its answer, or `None`.
async fn ask(
    host: &Host,
    component: &Component,
    server: &str,
    kind: IqType,
    payload: Vec<u8>,
    patience: Duration,
) -> Option<Stanza> {
    let (server, name) = (BareJid::parse(server).ok()?, BareJid::parse(&component.name).ok()?);
    let id = host.random_id();
    let request = Stanza::new(Type::Iq(kind)).id(id.as_str()).from(server).to(name).payload(payload);
    let (tell, answer) = oneshot::channel();
    let told = move |outcome| {
        if let Outcome::Taken(bytes) = outcome {
            let _ = tell.send(bytes); // nobody waits any more
        }
    };
    // The answer comes back as a refusal does: with the receipt.
    host.route(request, Receipt::owed(Reply::here(told), true), None);
    let answer = stored::stanza(&timeout(patience, answer).await.ok()?.ok()?)?;
    (answer.type_ == Type::Iq(IqType::Result)).then_some(answer)
}

/// What a component is told of its namespaces (section 4.2); nothing if it has none and had none `before`.
pub(crate) fn announcement(delegations: &[Delegation], before: &[Delegation]) -> Option<Vec<u8>> {
    if delegations.is_empty() && before.is_empty() {
        return None;
    }
    Some(write::bytes(|w| {
        w.start("delegation", ns::DELEGATION);
        for delegation in delegations {
            w.start("delegated", ns::DELEGATION).attr("namespace", &delegation.ns);
            for name in &delegation.attributes {
                w.start("attribute", ns::DELEGATION).attr("name", name).end();
            }
            w.end();
        }
    }))
}

/// What components have said that they can, by component, namespace and place.
#[derive(Default)]
pub(crate) struct Nested(Mutex<Kept>);

/// The features of a component's answer, and when they came.
type Known = (Instant, Arc<BTreeSet<String>>);

#[derive(Default)]
struct Kept {
    known: BTreeMap<(String, String, bool), Known>,
    /// How often any of it has changed.
    changes: u64,
}

/// How often what components can has changed: whoever keeps a disco#info looks at this.
pub(crate) fn changes(host: &Host) -> u64 {
    host.state::<Nested>().0.lock().changes
}

/// Changes the features of a domain, or of its accounts, into what they are with the components' own.
pub(crate) fn nest(
    host: &Host,
    domain: &str,
    scope: Scope,
    features: &mut BTreeSet<std::borrow::Cow<'static, str>>,
) {
    let options = host.options();
    let mut any = false;
    let nested = host.state::<Nested>();
    for component in options.components.iter().filter(|component| component.covers(domain)) {
        for delegation in &component.delegations {
            any = true;
            // The server's own of that namespace are not those that answer.
            let own = |feature: &str| {
                feature == delegation.ns
                    || feature.strip_prefix(&*delegation.ns).is_some_and(|rest| rest.starts_with('#'))
            };
            if delegation.attributes.is_empty() {
                features.retain(|feature| !own(feature));
            }
            let key = (component.name.clone(), delegation.ns.clone(), scope == Scope::Account);
            if let Some((_, more)) = nested.0.lock().known.get(&key) {
                features.extend(more.iter().map(|feature| std::borrow::Cow::Owned(feature.clone())));
            }
        }
    }
    if any && scope == Scope::Host {
        features.insert(ns::DELEGATION.into());
    }
}

/// Whether the disco#info of a domain has to ask components first.
pub(crate) fn is_nested(host: &Host, domain: &str) -> bool {
    let options = host.options();
    options.components.iter().any(|component| !component.delegations.is_empty() && component.covers(domain))
}

/// Asks the components of a domain what they can, unless that is known well enough. Waits a moment for what is not known at all.
pub(crate) async fn refresh(host: &Host, domain: &str) {
    let options = host.options();
    for component in options.components.iter().filter(|component| component.covers(domain)) {
        for delegation in &component.delegations {
            for bare in [false, true] {
                let key = (component.name.clone(), delegation.ns.clone(), bare);
                let nested = host.state::<Nested>();
                let age = nested.0.lock().known.get(&key).map(|(at, _)| at.elapsed());
                if age.is_some_and(|age| age < FRESH) {
                    continue;
                }
                let (host, component, domain) = (host.clone(), component.clone(), domain.to_owned());
                let work = async move { learn(&host, &component, &domain, key).await };
                match age {
                    None => work.await,
                    Some(_) => drop(tokio::spawn(work)),
                }
            }
        }
    }
}

/// A component has come: what it can is asked anew.
pub(crate) fn forget(host: &Host, component: &str) {
    host.state::<Nested>().0.lock().known.retain(|(name, ..), _| name != component);
}

async fn learn(host: &Host, component: &Component, domain: &str, key: (String, String, bool)) {
    let node = format!("{}{}{}", ns::DELEGATION, if key.2 { ":bare:" } else { "::" }, key.1);
    let payload = write::bytes(|w| {
        w.start("query", ns::DISCO_INFO).attr("node", &node);
    });
    let answer = ask(host, component, domain, IqType::Get, payload, NESTING).await;
    let mut features = BTreeSet::new();
    if let Some(query) = answer.as_ref().and_then(|answer| answer.child("query", ns::DISCO_INFO)) {
        let query = query.element();
        let vars =
            query.children().filter(|child| child.name() == "feature").filter_map(|child| child.attr("var"));
        features.extend(vars.filter(|var| var.len() <= MOST.1).take(MOST.0).map(str::to_owned));
    }
    let nested = host.state::<Nested>();
    let mut kept = nested.0.lock();
    let before = kept.known.insert(key, (Instant::now(), Arc::new(features.clone())));
    if before.is_none_or(|(_, before)| *before != features) {
        kept.changes += 1;
    }
}

/// Whether a stanza is a request of the server itself to a component, whose answer the server waits for.
pub(crate) fn is_servers_own(host: &Host, stanza: &Stanza) -> bool {
    let server =
        |from: &Jid| from.local().is_none() && from.resource().is_none() && host.serves(from.domain());
    matches!(stanza.type_, Type::Iq(IqType::Get | IqType::Set)) && stanza.from.as_ref().is_some_and(server)
}
