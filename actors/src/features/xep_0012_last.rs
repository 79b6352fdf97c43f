//! XEP-0012 Last Activity, version 2.0: since when a user is gone, and for how long the server has run.

use rookery_cluster::entity::Entity;
use rookery_cluster::tables::last::{self, Last};
use rookery_proto::xml::write;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};
use tokio::sync::oneshot;

use crate::features::contract::{
    Direction, Done, Feature, Iq, Method, Request, Run, Scope, Verdict, Who, Work, Xep,
};
use crate::host::Host;
use crate::user::User;

/// XEP-0012 sections 3 to 5.
pub const LAST: Feature = Feature {
    xep: Xep {
        number: 12,
        version: "2.0",
        name: "Last Activity",
        note: "an entity that may not see a user's presence gets <service-unavailable/>, as if there were no such user",
    },
    disco: &[(Scope::Host, ns::LAST), (Scope::Account, ns::LAST)],
    iq: &[
        Iq {
            scope: Scope::Host,
            method: Method::Get,
            name: "query",
            ns: ns::LAST,
            who: Who::Anyone,
            run: Run::Host(uptime),
        },
        Iq {
            scope: Scope::Account,
            method: Method::Get,
            name: "query",
            ns: ns::LAST,
            who: Who::Subscriber,
            run: Run::Read(|host, request| Box::pin(account(host, request)) as Work),
        },
    ],
    filters: &[guard],
    ..Feature::NONE
};

/// Section 5.
fn uptime(host: &Host, _: &Request) -> Result<Vec<u8>, StanzaError> {
    Ok(query(host.uptime().as_secs(), ""))
}

/// Section 3: 0 while the user is there, else the time since the log-out and its words.
async fn account(host: Host, request: Request) -> Result<Done, StanzaError> {
    let (tell, there) = oneshot::channel();
    let owner = request.by_owner();
    // To others a user is there if the user shows it; a connected but invisible user stays invisible.
    let look = move |user: &mut User| {
        let _ = tell.send(owner || user.sessions().iter().any(|session| session.presence.is_some()));
    };
    host.with_user(&request.account, look).await;
    if there.await.unwrap_or(false) {
        return Ok(Done::reply(query(0, "")));
    }
    let user = Entity::new(request.account.as_str());
    let user = &user;
    // The moment is written in the background; a request right after must find it. If that fails, so does the read.
    host.batcher().flush().await.ok();
    let last = host.store().read(|tx| Box::pin(async move { last::get(&mut **tx, user).await })).await;
    match last.map_err(|error| super::store_failed(&error))? {
        Some(Last { at, status }) => {
            let seconds = host.seams().clock.now_micros().saturating_sub(at) / 1_000_000;
            Ok(Done::reply(query(seconds, &status)))
        }
        // Never seen: there is no such time.
        None => Err(StanzaError::new(Condition::ItemNotFound)),
    }
}

/// Section 4: a request to a full JID reaches the client only if its sender may see the user's presence. The section's
/// `<forbidden/>` would tell others that there is somebody: they get the answer of an account that does not exist.
fn guard(user: &User, direction: Direction, stanza: &Stanza, with: &Jid) -> Verdict {
    let asks =
        direction == Direction::In && stanza.type_ == Type::Iq(IqType::Get) && stanza.has("query", ns::LAST);
    if !asks || with.bare_str() == user.jid().as_str() || user.roster().sees_me(with) {
        return Verdict::Pass;
    }
    Verdict::Refuse(StanzaError::new(Condition::ServiceUnavailable))
}

fn query(seconds: u64, status: &str) -> Vec<u8> {
    write::bytes(|w| {
        w.start("query", ns::LAST).attr_display("seconds", seconds).text(status);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::Scene;

    const ASK: &str = "<query xmlns='jabber:iq:last'/>";

    #[test]
    fn is_written_as_section_3_shows() {
        assert_eq!(
            String::from_utf8(query(903, "Heading <Home>")).unwrap(),
            "<query xmlns='jabber:iq:last' seconds='903'>Heading &lt;Home&gt;</query>"
        );
    }

    #[tokio::test]
    async fn the_host_tells_its_uptime_and_users_themselves_only_to_those_who_see_them() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        let mut romeo = scene.session("romeo/orchard").await;
        let _juliet = scene.session("juliet/balcony").await;
        assert!(
            romeo
                .ask(&format!("<iq type='get' id='1' to='localhost'>{ASK}</iq>"))
                .await
                .contains("seconds='0'")
        );
        assert!(romeo.ask(&format!("<iq type='get' id='2'>{ASK}</iq>")).await.contains("seconds='0'/>"));
        for (to, error) in [
            ("juliet@localhost", "service-unavailable"),
            ("nobody@localhost", "service-unavailable"),
            ("juliet@localhost/balcony", "service-unavailable"),
        ] {
            let answer = romeo.ask(&format!("<iq type='get' id='3' to='{to}'>{ASK}</iq>")).await;
            assert!(answer.contains(error), "{to}: {answer}");
        }
    }

    #[tokio::test]
    async fn friends_learn_since_when_and_with_which_words_a_user_is_gone() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        scene.friends("romeo", "juliet").await;
        let mut romeo = scene.session("romeo/orchard").await;
        let mut juliet = scene.session("juliet/balcony").await;
        let ask = format!("<iq type='get' id='1' to='juliet@localhost'>{ASK}</iq>");
        assert!(
            romeo.ask(&ask).await.contains("item-not-found"),
            "she was never there, and is invisible now"
        );
        romeo.available("").await;
        juliet.available("").await;
        assert!(romeo.next().await.contains("from='juliet@localhost/balcony'"));
        assert!(romeo.ask(&ask).await.contains("seconds='0'/>"));
        juliet.send("<presence type='unavailable'><status>to the church</status></presence>");
        assert!(romeo.next().await.contains("type='unavailable'"));
        // The log-out is written behind the presence; until then the last one would be told.
        let told = loop {
            let told = romeo.ask(&ask).await;
            if !told.contains("item-not-found") {
                break told;
            }
        };
        assert!(told.contains("seconds='0'>to the church</query>"), "{told}");
    }
}
