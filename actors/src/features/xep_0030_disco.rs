//! XEP-0030 Service Discovery, version 2.5.0: what the server and its accounts are and can. The answers are gathered from
//! [`super::ALL`], so that nothing is advertised that no feature declares.

use std::borrow::Cow;
use std::collections::BTreeSet;

use rookery_proto::xml::write;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::ns;

use super::{xep_0092_version, xep_0115_caps, xep_0355_delegation};
use crate::features::contract::{Done, Feature, Iq, Method, Request, Run, Scope, Who, Work, Xep};
use crate::host::Host;
use crate::user::User;

/// XEP-0030 sections 3 and 4. Accounts answer their owner and contacts that may see their presence; to others they look like
/// accounts that do not exist (section 8).
pub const DISCO: Feature = Feature {
    xep: Xep { number: 30, version: "2.5.0", name: "Service Discovery", note: "" },
    disco: &[
        (Scope::Host, ns::DISCO_INFO),
        (Scope::Host, ns::DISCO_ITEMS),
        (Scope::Account, ns::DISCO_INFO),
        (Scope::Account, ns::DISCO_ITEMS),
    ],
    iq: &[
        iq(Scope::Host, ns::DISCO_INFO, Who::Anyone, Run::Host(host_info)),
        iq(Scope::Host, ns::DISCO_ITEMS, Who::Anyone, Run::Host(host_items)),
        iq(Scope::Account, ns::DISCO_INFO, Who::Subscriber, Run::Now(account_info)),
        iq(Scope::Account, ns::DISCO_ITEMS, Who::Subscriber, Run::Now(account_items)),
    ],
    ..Feature::NONE
};

const fn iq(scope: Scope, ns: &'static str, who: Who, run: Run) -> Iq {
    Iq { scope, method: Method::Get, name: "query", ns, who, run }
}

/// What an entity says of itself.
#[derive(Clone, Debug)]
pub struct Info {
    /// Category, type and name; the name may be empty.
    pub identity: (&'static str, &'static str, &'static str),
    /// The features, each once, in the order that XEP-0115 wants.
    pub features: BTreeSet<Cow<'static, str>>,
    /// Extended information (XEP-0128): complete `<x xmlns='jabber:x:data'/>` elements.
    pub forms: Vec<u8>,
}

impl Info {
    /// What the domain, or the accounts in it, say of themselves.
    pub fn of(host: &Host, domain: &str, scope: Scope) -> Self {
        let declared = super::ALL.iter().flat_map(|feature| feature.disco);
        let declared = declared.filter(|(of, _)| *of == scope).map(|(_, feature)| Cow::Borrowed(*feature));
        let mut features: BTreeSet<_> = declared.collect();
        xep_0355_delegation::nest(host, domain, scope, &mut features);
        let identity = match scope {
            Scope::Host => ("server", "im", xep_0092_version::NAME),
            Scope::Account => ("account", "registered", ""),
        };
        let mut forms = Vec::new();
        for form in super::ALL.iter().filter_map(|feature| feature.form) {
            form(host, domain, scope, &mut forms);
        }
        Self { identity, features, forms }
    }

    /// `<query xmlns='http://jabber.org/protocol/disco#info'/>`
    pub fn query(&self, node: Option<&str>) -> Vec<u8> {
        let (category, kind, name) = self.identity;
        write::bytes(|w| {
            w.start("query", ns::DISCO_INFO).attr_opt("node", node);
            w.start("identity", ns::DISCO_INFO).attr("category", category).attr("type", kind);
            w.attr_opt("name", Some(name).filter(|name| !name.is_empty())).end();
            for feature in &self.features {
                w.start("feature", ns::DISCO_INFO).attr("var", feature).end();
            }
            w.raw(&self.forms);
        })
    }
}

fn unknown_node() -> StanzaError {
    StanzaError::new(Condition::ItemNotFound)
}

fn host_info(host: &Host, request: &Request) -> Result<Vec<u8>, StanzaError> {
    let info = Info::of(host, request.to.domain(), Scope::Host);
    match request.element()?.attr("node") {
        None | Some("") => Ok(info.query(None)),
        // XEP-0115 section 6.2: an entity that got our caps asks for the node that was in them.
        Some(node) if xep_0115_caps::is_node(node, host, request.to.domain()) => Ok(info.query(Some(node))),
        Some(_) => Err(unknown_node()),
    }
}

/// The items of a domain of users are the services beside it, those components that are for it, and what the operator lists.
fn host_items(host: &Host, request: &Request) -> Result<Vec<u8>, StanzaError> {
    no_node(request)?;
    let (options, domain) = (host.options(), request.to.domain());
    let listed = |name: &str| options.component(name).is_none_or(|component| component.covers(domain));
    let services = options.services.iter().filter(|service| host.serves(domain) && listed(&service.name));
    let services = services.map(|service| (service.name.as_str(), ""));
    let more = options.disco_items.iter().filter(|item| item.domain == domain);
    Ok(items(services.chain(more.map(|item| (item.jid.as_str(), item.name.as_str())))))
}

/// The same as [`host_info`] or [`account_info`] of a domain for which components answer: they are asked what they can, first.
pub(crate) fn nested_info(host: &Host, scope: Scope, request: Request) -> Work {
    let host = host.clone();
    Box::pin(async move {
        xep_0355_delegation::refresh(&host, request.to.domain()).await;
        let info = match scope {
            Scope::Host => host_info(&host, &request),
            Scope::Account => {
                no_node(&request)?;
                Ok(Info::of(&host, request.to.domain(), Scope::Account).query(None))
            }
        };
        Ok(Done::reply(info?))
    })
}

fn account_info(user: &mut User, request: &Request) -> Result<Vec<u8>, StanzaError> {
    no_node(request)?;
    Ok(Info::of(user.host(), request.to.domain(), Scope::Account).query(None))
}

/// Section 4.1: the available resources, for contacts that see them anyway.
fn account_items(user: &mut User, request: &Request) -> Result<Vec<u8>, StanzaError> {
    no_node(request)?;
    let available = user.sessions().iter().filter(|s| s.presence.is_some());
    Ok(items(available.map(|session| (session.jid.as_str(), ""))))
}

fn no_node(request: &Request) -> Result<(), StanzaError> {
    match request.element()?.attr("node") {
        None | Some("") => Ok(()),
        Some(_) => Err(unknown_node()),
    }
}

/// No items: what a stranger is told of an account, whether it exists or not.
pub(super) fn no_items(node: Option<&str>) -> Vec<u8> {
    write::bytes(|w| {
        w.start("query", ns::DISCO_ITEMS).attr_opt("node", node);
    })
}

/// JIDs, and their names, which may be empty.
fn items<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    write::bytes(|w| {
        w.start("query", ns::DISCO_ITEMS);
        for (jid, name) in all {
            let name = Some(name).filter(|name| !name.is_empty());
            w.start("item", ns::DISCO_ITEMS).attr("jid", jid).attr_opt("name", name).end();
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::features::testing::Scene;

    #[tokio::test]
    async fn the_host_and_the_own_account_answer_and_unknown_nodes_do_not() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        let ask = |to: &str, ns: &str, node: &str| {
            format!(
                "<iq type='get' id='1' to='{to}'><query xmlns='http://jabber.org/protocol/disco#{ns}'{node}/></iq>"
            )
        };
        let host = romeo.ask(&ask("localhost", "info", "")).await;
        for part in [
            "category='server' type='im'",
            "var='urn:xmpp:ping'",
            "abuse-addresses",
            "var='urn:xmpp:carbons:2'",
        ] {
            assert!(host.contains(part), "{part}: {host}");
        }
        assert!(!host.contains("'urn:xmpp:mam:2'"), "the archive is the account's: {host}");
        assert!(romeo.ask(&ask("localhost", "info", " node='odd'")).await.contains("item-not-found"));
        assert!(romeo.ask(&ask("localhost", "items", "")).await.contains("disco#items'/>"));
        let own = romeo.ask(&ask("romeo@localhost", "info", "")).await;
        assert!(
            own.contains("category='account' type='registered'") && own.contains("'urn:xmpp:mam:2'"),
            "{own}"
        );
        assert!(romeo.ask(&ask("romeo@localhost", "info", " node='x'")).await.contains("item-not-found"));
        // A stranger's account looks like none: section 8.
        for (ns, node, answer) in [
            ("info", "", "service-unavailable"),
            ("info", " node='x'", "service-unavailable"),
            ("items", "", "type='result'"),
            ("items", " node='x'", "disco#items' node='x'/>"),
        ] {
            let (there, nobody) = (ask("juliet@localhost", ns, node), ask("nobody@localhost", ns, node));
            let (there, nobody) = (romeo.ask(&there).await, romeo.ask(&nobody).await);
            assert!(there.contains(answer) && !there.contains("<item"), "{there}");
            assert_eq!(there.replace("juliet", "nobody"), nobody);
        }
    }
}
