//! XEP-0049 Private XML Storage, version 1.2: elements that a client keeps on the server for itself.

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Class};
use rookery_cluster::tables::private;
use rookery_proto::xml::write;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::ns;

use crate::features::contract::{Done, Feature, Iq, Method, Request, Run, Scope, Who, Xep};
use crate::host::Host;

/// XEP-0049 section 2.
pub const PRIVATE_XML: Feature = Feature {
    xep: Xep { number: 49, version: "1.2", name: "Private XML Storage", note: "" },
    disco: &[(Scope::Host, ns::PRIVATE), (Scope::Account, ns::PRIVATE)],
    iq: &[
        iq(Method::Get, Run::Read(|host, request| Box::pin(get(host, request)))),
        iq(Method::Set, Run::Change(|host, request| Box::pin(set(host, request)))),
    ],
    ..Feature::NONE
};

const fn iq(method: Method, run: Run) -> Iq {
    Iq { scope: Scope::Account, method, name: "query", ns: ns::PRIVATE, who: Who::Owner, run }
}

/// The elements of a request: at least one, each with a namespace of its own that is not reserved (section 2.3).
fn elements(query: &Element) -> Result<Vec<&Element>, StanzaError> {
    let elements: Vec<&Element> = query.children().collect();
    let reserved = |ns: &str| {
        ns.is_empty() || ns.starts_with("jabber:") || ns.starts_with("http://jabber.org/") || ns == ns::VCARD
    };
    if elements.is_empty() || elements.iter().any(|element| reserved(element.ns())) {
        return Err(StanzaError::new(Condition::NotAcceptable));
    }
    Ok(elements)
}

async fn get(host: Host, request: Request) -> Result<Done, StanzaError> {
    let query = request.element()?;
    let wanted = elements(&query)?;
    let [wanted] = wanted.as_slice() else { return Err(StanzaError::new(Condition::BadRequest)) };
    let user = Entity::new(request.account.as_str());
    let (user, name, space) = (&user, wanted.name(), wanted.ns());
    let stored = host
        .store()
        .read(|tx| Box::pin(async move { private::get(&mut **tx, user, space, name).await }))
        .await
        .map_err(|error| super::store_failed(&error))?;
    Ok(Done::reply(write::bytes(|w| {
        w.start("query", ns::PRIVATE);
        match &stored {
            Some(xml) => w.raw(xml),
            // What was never stored comes back as it was asked for.
            None => w.empty(name, space),
        };
    })))
}

async fn set(host: Host, request: Request) -> Result<Done, StanzaError> {
    let limits = host.options().limits.clone();
    let query = request.element()?;
    let mut rows = Vec::new();
    for element in elements(&query)? {
        let mut xml = Vec::new();
        element.write(&mut xml);
        let names = element.name().len() + element.ns().len();
        if xml.len() > limits.private_bytes || names > private::NAME {
            return Err(super::over(
                "private_bytes",
                Condition::PolicyViolation,
                "an element of private XML is too large",
            ));
        }
        let empty = element.nodes().is_empty() && element.attrs().next().is_none();
        let (namespace, name) = (element.ns().to_owned(), element.name().to_owned());
        rows.push((empty, private::Element { namespace, name, xml: xml.into() }));
    }
    let user = Entity::new(request.account.as_str());
    let (user, rows) = (&user, &rows);
    let table = private::Limits {
        elements: limits.private_items,
        bytes: limits.private_bytes.saturating_mul(limits.private_items),
    };
    let kept = host.store().write(store::Options::owner(user), |tx| {
        Box::pin(async move {
            for (empty, row) in rows {
                if *empty {
                    private::remove(&mut **tx, user, &row.namespace, &row.name);
                } else if !private::put(&mut **tx, user, row, table).await? {
                    // An error, so that nothing of the request is committed.
                    return Err(store::Error::new(Class::TooLarge, "too much private XML"));
                }
            }
            Ok(())
        })
    });
    match kept.await {
        Ok(()) => Ok(Done::default()),
        Err(error) if error.class == Class::TooLarge => {
            Err(super::over("private_items", Condition::ResourceConstraint, "too much private XML"))
        }
        Err(error) => Err(super::store_failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use crate::features::testing::Scene;

    fn iq(type_: &str, inner: &str) -> String {
        format!("<iq type='{type_}' id='1'><query xmlns='jabber:iq:private'>{inner}</query></iq>")
    }

    #[tokio::test]
    async fn what_was_stored_comes_back_and_only_that() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        let stored = "<exodus xmlns='exodus:prefs'><defaultnick>Hamlet &amp; Co</defaultnick></exodus>";
        assert!(
            romeo
                .ask(&iq("get", "<exodus xmlns='exodus:prefs'/>"))
                .await
                .contains("<exodus xmlns='exodus:prefs'/>")
        );
        assert!(romeo.ask(&iq("set", stored)).await.contains("type='result'"));
        assert!(romeo.ask(&iq("get", "<exodus xmlns='exodus:prefs'/>")).await.contains(stored));
        assert!(
            romeo
                .ask(&iq("get", "<other xmlns='exodus:prefs'/>"))
                .await
                .contains("<other xmlns='exodus:prefs'/>")
        );
        assert!(romeo.ask(&iq("set", "<exodus xmlns='exodus:prefs'/>")).await.contains("type='result'"));
        assert!(!romeo.ask(&iq("get", "<exodus xmlns='exodus:prefs'/>")).await.contains("Hamlet"));
    }

    #[tokio::test]
    async fn nonsense_and_too_much_are_refused() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        for inner in [
            "",
            "<x xmlns='jabber:iq:x'/>",
            "<x xmlns='http://jabber.org/x'/>",
            "<vCard xmlns='vcard-temp'/>",
        ] {
            assert!(romeo.ask(&iq("set", inner)).await.contains("not-acceptable"), "{inner}");
            assert!(romeo.ask(&iq("get", inner)).await.contains("not-acceptable"), "{inner}");
        }
        let large = format!("<x xmlns='urn:x'>{}</x>", "y".repeat(64 << 10));
        assert!(romeo.ask(&iq("set", &large)).await.contains("policy-violation"));
        let many: String = (0..101).map(|n| format!("<x{n} xmlns='urn:x'>1</x{n}>")).collect();
        assert!(romeo.ask(&iq("set", &many)).await.contains("resource-constraint"));
        let other = iq("get", "<x xmlns='urn:x'/>").replace("id='1'", "id='1' to='juliet@localhost'");
        assert!(romeo.ask(&other).await.contains("service-unavailable"));
    }
}
