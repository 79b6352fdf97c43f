//! XEP-0054 vcard-temp, version 1.3.0: a card about each user, for everybody. With it works XEP-0153: the avatar lies in
//! the card, and its hash in presence is the client's to put there.

use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::tables::vcard;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::ns;

use crate::features::contract::{Done, Feature, Iq, Method, Request, Run, Scope, Who, Xep};
use crate::host::Host;

/// XEP-0054 section 3.
pub const VCARD: Feature = Feature {
    xep: Xep { number: 54, version: "1.3.0", name: "vcard-temp", note: "" },
    disco: &[(Scope::Host, ns::VCARD), (Scope::Account, ns::VCARD)],
    iq: &[
        iq(Method::Get, Who::Anyone, Run::Read(|host, request| Box::pin(get(host, request)))),
        iq(Method::Set, Who::Owner, Run::Change(|host, request| Box::pin(set(host, request)))),
    ],
    ..Feature::NONE
};

/// XEP-0153: needs no more of a server than vCards and presence that is passed on as it is.
pub const AVATARS: Feature = Feature {
    xep: Xep {
        number: 153,
        version: "1.1.1",
        name: "vCard-Based Avatars",
        note: "clients put the avatar's hash in their presence; the server keeps the card and passes both on",
    },
    ..Feature::NONE
};

const fn iq(method: Method, who: Who, run: Run) -> Iq {
    Iq { scope: Scope::Account, method, name: "vCard", ns: ns::VCARD, who, run }
}

async fn get(host: Host, request: Request) -> Result<Done, StanzaError> {
    let user = Entity::new(request.account.as_str());
    let user = &user;
    let card = host.store().read(|tx| Box::pin(async move { vcard::get(&mut **tx, user).await })).await;
    match card.map_err(|error| super::store_failed(&error))? {
        Some(card) => Ok(Done::reply(card.to_vec())),
        None if request.by_owner() => Err(StanzaError::new(Condition::ItemNotFound)),
        // Section 3.3: as if there were no such user.
        None => Err(StanzaError::new(Condition::ServiceUnavailable)),
    }
}

async fn set(host: Host, request: Request) -> Result<Done, StanzaError> {
    if request.child.len() > host.options().limits.vcard_bytes {
        return Err(super::over("vcard_bytes", Condition::PolicyViolation, "the vCard is too large"));
    }
    let user = Entity::new(request.account.as_str());
    let (user, card) = (&user, &request.child);
    let empty = request.element()?.children().next().is_none();
    let written = host.store().write(store::Options::owner(user), |tx| {
        Box::pin(async move {
            if empty {
                vcard::clear(&mut **tx, user);
                Ok(())
            } else {
                vcard::put(&mut **tx, user, card)
            }
        })
    });
    written.await.map_err(|error| super::store_failed(&error))?;
    Ok(Done::default())
}

#[cfg(test)]
mod tests {
    use crate::features::testing::Scene;

    #[tokio::test]
    async fn cards_are_read_by_all_and_written_by_their_owner() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        let mut juliet = scene.session("juliet/balcony").await;
        let get =
            |to: &str| format!("<iq type='get' id='1' to='{to}@localhost'><vCard xmlns='vcard-temp'/></iq>");
        let set =
            |inner: &str| format!("<iq type='set' id='2'><vCard xmlns='vcard-temp'>{inner}</vCard></iq>");
        assert!(juliet.ask(&get("juliet")).await.contains("item-not-found"));
        let (none, nobody) = (romeo.ask(&get("juliet")).await, romeo.ask(&get("nobody")).await);
        assert!(none.contains("service-unavailable"), "{none}");
        assert_eq!(none.replace("juliet", "nobody"), nobody);
        assert!(juliet.ask(&set("<FN>Juliet &lt;3</FN>")).await.contains("type='result'"));
        for session in [&mut romeo, &mut juliet] {
            assert!(session.ask(&get("juliet")).await.contains("<FN>Juliet &lt;3</FN>"));
        }
        let forged = set("<FN>x</FN>").replace("id='2'", "id='2' to='juliet@localhost'");
        assert!(romeo.ask(&forged).await.contains("service-unavailable"));
        let large = format!("<DESC>{}</DESC>", "x".repeat(128 << 10));
        assert!(juliet.ask(&set(&large)).await.contains("policy-violation"));
        assert!(juliet.ask(&set("")).await.contains("type='result'"));
        assert!(juliet.ask(&get("juliet")).await.contains("item-not-found"));
    }
}
