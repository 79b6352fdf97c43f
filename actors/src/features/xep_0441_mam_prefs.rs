//! XEP-0441 Message Archive Management Preferences, version 0.2.0: with whom a user's messages are kept.

use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::tables::mam_prefs::{self, Policy, Preferences};
use rookery_proto::xml::write;
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;

use super::xep_0313_mam::keep;
use crate::features::contract::{Done, Feature, Iq, Method, Request, Run, Scope, Who, Xep};
use crate::host::Host;
use crate::host::options::Archive;
use crate::user::User;

/// XEP-0441. Its feature is that of XEP-0313.
pub const MAM_PREFS: Feature = Feature {
    xep: Xep { number: 441, version: "0.2.0", name: "Message Archive Management Preferences", note: "" },
    disco: &[(Scope::Account, ns::MAM_PREFS)],
    iq: &[
        iq(Method::Get, Run::Now(get)),
        iq(Method::Set, Run::Change(|host, request| Box::pin(set(host, request)))),
    ],
    ..Feature::NONE
};

const fn iq(method: Method, run: Run) -> Iq {
    Iq { scope: Scope::Account, method, name: "prefs", ns: ns::MAM_PREFS, who: Who::Owner, run }
}

/// JIDs in both lists together; every message is compared with them.
const JIDS: usize = 500;

fn get(user: &mut User, _: &Request) -> Result<Vec<u8>, StanzaError> {
    Ok(prefs(user.prefs.as_ref(), user.host().options().archive))
}

async fn set(host: Host, request: Request) -> Result<Done, StanzaError> {
    let new = parse(&request.element()?)?;
    let user = Entity::new(request.account.as_str());
    let (user, stored) = (&user, &new);
    let written = host.store().write(store::Options::owner(user), |tx| {
        Box::pin(async move { mam_prefs::put(&mut **tx, user, stored) })
    });
    written.await.map_err(|error| super::store_failed(&error))?;
    let reply = prefs(Some(&new), host.options().archive);
    Ok(Done { reply, ..Done::then(move |user: &mut User| user.prefs = Some(new)) })
}

fn parse(prefs: &Element) -> Result<Preferences, StanzaError> {
    let policy = match prefs.attr("default") {
        Some("always") => Policy::Always,
        Some("never") => Policy::Never,
        Some("roster") => Policy::Roster,
        _ => return Err(Condition::BadRequest.into()),
    };
    let mut room = JIDS;
    let mut list = |name| -> Result<Vec<String>, StanzaError> {
        let mut jids = Vec::new();
        for jid in prefs.child(name, ns::MAM_PREFS).into_iter().flat_map(Element::children) {
            if !jid.is("jid", ns::MAM_PREFS) {
                return Err(Condition::BadRequest.into());
            }
            let full = || {
                super::over(
                    "archive_prefs",
                    Condition::ResourceConstraint,
                    "too many jids in the preferences",
                )
            };
            room = room.checked_sub(1).ok_or_else(full)?;
            let jid = Jid::parse(jid.text().trim()).map_err(|_| StanzaError::new(Condition::JidMalformed))?;
            jids.push(jid.as_str().to_owned());
        }
        jids.sort();
        jids.dedup();
        Ok(jids)
    };
    Ok(Preferences { policy: policy.into(), always: list("always")?, never: list("never")? })
}

/// `<prefs/>` with what is in force.
fn prefs(prefs: Option<&Preferences>, operator: Archive) -> Vec<u8> {
    let default = match keep::policy(prefs, operator) {
        Archive::Always => "always",
        Archive::Roster => "roster",
        Archive::Never => "never",
    };
    write::bytes(|w| {
        w.start("prefs", ns::MAM_PREFS).attr("default", default);
        for (name, jids) in
            [("always", prefs.map(|prefs| &prefs.always)), ("never", prefs.map(|prefs| &prefs.never))]
        {
            w.start(name, ns::MAM_PREFS);
            for jid in jids.into_iter().flatten() {
                w.leaf("jid", ns::MAM_PREFS, jid);
            }
            w.end();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::Scene;

    #[tokio::test]
    async fn preferences_are_applied_and_shown() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        let mut juliet = scene.session("juliet/balcony").await;
        let get = "<iq type='get' id='1'><prefs xmlns='urn:xmpp:mam:2'/></iq>";
        assert!(juliet.ask(get).await.contains("default='always'><always/><never/></prefs>"));
        let set = "<iq type='set' id='2'><prefs xmlns='urn:xmpp:mam:2' default='never'><always/>\
                   <never><jid>Romeo@localhost</jid></never></prefs></iq>";
        let shown = "default='never'><always/><never><jid>romeo@localhost</jid></never></prefs>";
        assert!(juliet.ask(set).await.contains(shown));
        assert!(juliet.ask(get).await.contains(shown));
        romeo.send("<message to='juliet@localhost/balcony' type='chat'><body>secret</body></message>");
        let got = juliet.next().await;
        assert!(got.contains("secret") && !got.contains("stanza-id"), "not archived: {got}");
        let query = "<iq type='set' id='3'><query xmlns='urn:xmpp:mam:2'/></iq>";
        assert!(juliet.ask(query).await.contains("complete='true'"));
        assert!(romeo.ask(query).await.contains("secret"), "the sender's archive is the sender's");
    }

    #[test]
    fn nonsense_and_too_much_are_refused() {
        let parse = |attr: &str, inner: &str| {
            let raw = format!("<prefs xmlns='urn:xmpp:mam:2'{attr}>{inner}</prefs>");
            parse(&Element::parse(raw.as_bytes()).unwrap()).map_err(|error| error.condition)
        };
        assert_eq!(parse("", ""), Err(Condition::BadRequest));
        assert_eq!(parse(" default='odd'", ""), Err(Condition::BadRequest));
        assert_eq!(parse(" default='never'", "<always><jid>@</jid></always>"), Err(Condition::JidMalformed));
        assert_eq!(parse(" default='never'", "<always><x/></always>"), Err(Condition::BadRequest));
        let many: String = (0..501).map(|n| format!("<jid>{n}@b</jid>")).collect();
        assert_eq!(
            parse(" default='never'", &format!("<never>{many}</never>")),
            Err(Condition::ResourceConstraint)
        );
        assert!(parse(" default='roster'", "").unwrap().always.is_empty());
    }
}
