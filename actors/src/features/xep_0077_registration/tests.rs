use std::net::IpAddr;

use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::stanza::Stanza;

use super::*;
use crate::features::testing::{PASSWORD, Scene};

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

async fn before(scene: &Scene, xml: &str) -> String {
    let stanza = Stanza::parse(xml.as_bytes(), &Scope::CLIENT, &Limits::TRUSTED).unwrap();
    match before_login(&scene.host, "localhost", ADDRESS, &stanza).await {
        Some(answer) => String::from_utf8(answer.to_bytes()).unwrap(),
        None => String::new(),
    }
}

fn register_iq(username: &str, password: &str) -> String {
    format!(
        "<iq type='set' id='1'><query xmlns='jabber:iq:register'><username>{username}</username>\
         <password>{password}</password></query></iq>"
    )
}

async fn verifies(scene: &Scene, user: &str, password: &str) -> bool {
    let jid = BareJid::parse(user).unwrap();
    let keys = scene.host.authenticator(jid.domain()).keys(&jid).await.unwrap();
    keys.is_some_and(|keys| keys.verify_password(password))
}

#[tokio::test]
async fn strangers_register_where_it_is_open() {
    let scene = Scene::new(&["romeo"]).await;
    assert!(stream_feature(&scene.host, "localhost").is_some());
    let info = before(&scene, "<iq type='get' id='0'><query xmlns='jabber:iq:register'/></iq>").await;
    assert!(info.contains("<username/><password/>"), "{info}");
    // Somebody wrote to the address before it was there.
    let mut romeo = scene.session("romeo/orchard").await;
    let early = "<message to='juliet@localhost' type='chat' id='m'><body>hi</body></message>";
    assert!(romeo.ask(early).await.contains("service-unavailable"));
    assert!(before(&scene, &register_iq("Juliet", "pencil")).await.contains("type='result'"));
    assert!(
        verifies(&scene, "juliet@localhost", "pencil").await
            && !verifies(&scene, "juliet@localhost", "x").await
    );
    let mut juliet = scene.session("juliet/balcony").await;
    romeo.send("<message to='juliet@localhost/balcony' type='chat'><body>there</body></message>");
    assert!(juliet.next().await.contains("there"));
}

#[tokio::test]
async fn bad_registrations_get_the_specified_errors() {
    let scene = Scene::with(&["romeo"], |options| options.limits.registrations_per_hour = 2).await;
    for (xml, condition) in [
        (register_iq("romeo", "pencil"), "conflict"),
        (register_iq("ROMEO", "pencil"), "conflict"),
        (register_iq("a@b", "pencil"), "not-acceptable"),
        (register_iq("", "pencil"), "not-acceptable"),
        (register_iq("new", ""), "not-acceptable"),
        (register_iq(&"x".repeat(257), "pencil"), "not-acceptable"),
        (
            "<iq type='set' id='1'><query xmlns='jabber:iq:register'><remove/></query></iq>".into(),
            "unexpected-request",
        ),
        ("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>".into(), "not-authorized"),
        (register_iq("new", "bell&#x9f;"), "not-acceptable"),
        (register_iq("new", "pencil"), "type='result'"),
        (register_iq("newer", "pencil"), "resource-constraint"),
    ] {
        let answer = before(&scene, &xml).await;
        assert!(answer.contains(condition), "{xml}: {answer}");
    }
    assert_eq!(before(&scene, "<iq type='result' id='1'><query xmlns='jabber:iq:register'/></iq>").await, "");
    let closed = Scene::with(&[], |options| options.domains[0].open_registration = false).await;
    assert!(stream_feature(&closed.host, "localhost").is_none());
    assert!(before(&closed, &register_iq("new", "pencil")).await.contains("not-allowed"));
    assert!(
        before(&closed, "<iq type='get' id='1'><query xmlns='jabber:iq:register'/></iq>")
            .await
            .contains("not-allowed")
    );
}

#[tokio::test]
async fn users_change_their_password_and_no_other() {
    let scene = Scene::new(&["romeo", "juliet"]).await;
    let mut romeo = scene.session("romeo/orchard").await;
    let info =
        romeo.ask("<iq type='get' id='0' to='localhost'><query xmlns='jabber:iq:register'/></iq>").await;
    assert!(info.contains("<registered/><username>romeo</username><password/>"), "{info}");
    let to_host = |xml: String| xml.replace("id='1'", "id='1' to='localhost'");
    for (xml, answer) in [
        (register_iq("juliet", "pencil"), "not-allowed"),
        (to_host(register_iq("juliet", "pencil")), "not-allowed"),
        (to_host(register_iq("romeo", "")), "bad-request"),
        (register_iq("romeo", "a&#x9f;"), "not-acceptable"),
        (
            register_iq("romeo", "pencil").replace("id='1'", "id='1' to='juliet@localhost'"),
            "service-unavailable",
        ),
    ] {
        assert!(romeo.ask(&xml).await.contains(answer), "{xml}");
    }
    assert!(verifies(&scene, "romeo@localhost", PASSWORD).await);
    assert!(romeo.ask(&to_host(register_iq("romeo", "pencil"))).await.contains("type='result'"));
    assert!(
        verifies(&scene, "romeo@localhost", "pencil").await
            && verifies(&scene, "juliet@localhost", PASSWORD).await
    );
}

#[tokio::test]
async fn a_removed_account_leaves_nothing_behind() {
    let scene = Scene::new(&["romeo", "juliet"]).await;
    let mut romeo = scene.session("romeo/orchard").await;
    let mut other = scene.session("romeo/home").await;
    let mut juliet = scene.session("juliet/balcony").await;
    romeo.send("<message to='juliet@localhost/balcony' type='chat'><body>hi</body></message>");
    assert!(juliet.next().await.contains("hi"));
    let card = "<iq type='set' id='v'><vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard></iq>";
    assert!(romeo.ask(card).await.contains("type='result'"));
    let remove = |inner: &str| {
        format!("<iq type='set' id='r'><query xmlns='jabber:iq:register'><remove/>{inner}</query></iq>")
    };
    assert!(romeo.ask(&remove("<username>romeo</username>")).await.contains("bad-request"));
    romeo.send(&remove(""));
    romeo.send(&card.replace("<FN>Romeo", "<FN>Too late"));
    assert!(romeo.next().await.contains("id='r' type='result'"));
    for session in [&mut romeo, &mut other] {
        assert!(session.end().await.contains("NotAuthorized"));
    }
    assert!(!verifies(&scene, "romeo@localhost", PASSWORD).await);
    let ask = "<message to='romeo@localhost' type='chat' id='m'><body>hi</body></message>";
    assert!(juliet.ask(ask).await.contains("service-unavailable"));
    // The next user of that name finds nothing of the last.
    assert!(before(&scene, &register_iq("romeo", "pencil")).await.contains("type='result'"));
    let mut romeo = scene.session("romeo/street").await;
    let card = "<iq type='get' id='v'><vCard xmlns='vcard-temp'/></iq>";
    assert!(romeo.ask(card).await.contains("item-not-found"));
    let archive = "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>";
    assert!(romeo.ask(archive).await.contains("complete='true'"));
}

#[tokio::test]
async fn the_contacts_of_a_removed_account_lose_it() {
    let scene = Scene::new(&["romeo", "juliet"]).await;
    scene.friends("romeo", "juliet").await;
    let mut juliet = scene.session("juliet/balcony").await;
    juliet.available("").await;
    let mut romeo = scene.session("romeo/orchard").await;
    romeo.available("").await;
    assert!(juliet.next().await.contains("from='romeo@localhost/orchard'"));
    romeo.send("<iq type='set' id='r'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    assert!(romeo.end().await.contains("NotAuthorized"));
    let mut seen = String::new();
    while !(seen.contains("type='unavailable'") && seen.contains("type='unsubscribed'")) {
        seen.push_str(&juliet.next().await);
    }
    let roster = loop {
        let answer = juliet.ask("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>").await;
        if answer.contains("id='r'") {
            break answer;
        }
    };
    assert!(roster.contains("subscription='none'"), "{roster}");
    assert!(remove_account(&scene.host, &BareJid::parse("romeo@localhost").unwrap()).await.is_err());
    remove_account(&scene.host, &BareJid::parse("juliet@localhost").unwrap()).await.unwrap();
    assert!(juliet.end().await.contains("NotAuthorized"));
}
