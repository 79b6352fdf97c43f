//! Stanzas that are wrong but harmless: each is answered, or passed over, and the stream lives.

use rookery_tests::server::rookery::Config;

use crate::{error, login, notices_nothing, server};

#[tokio::test]
async fn stanzas_that_are_wrong_but_harmless_are_answered() {
    let server = server(Config::default(), &["romeo"]).await;
    let mut romeo = login(&server.listening.options(), "romeo", "orchard").await;
    let long = "x".repeat(1024);
    let malformed: Vec<String> = [
        "@localhost",
        "a@@localhost",
        "a@b@localhost",
        "local host",
        "a b@localhost",
        "a\"@localhost",
        "romeo@",
        "/r",
        "romeo@localhost/",
        "&lt;@localhost",
        "romeo@local_\u{2028}host",
        &format!("{long}@localhost"),
        &format!("a@localhost/{long}"),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    for (at, jid) in malformed.iter().enumerate() {
        romeo
            .send(&format!("<iq type='get' id='j{at}' to='{jid}'><ping xmlns='urn:xmpp:ping'/></iq>"))
            .await
            .unwrap();
        let answer = romeo.answer(&format!("j{at}")).await.unwrap_or_else(|e| panic!("{jid}: {e}"));
        assert_eq!(error(&answer), "jid-malformed", "{jid}: {answer}");
    }
    for (case, xml) in [
        ("no type", "<iq id='x'><ping xmlns='urn:xmpp:ping'/></iq>"),
        ("unknown type", "<iq id='x' type='post'><ping xmlns='urn:xmpp:ping'/></iq>"),
        ("two payloads", "<iq id='x' type='get'><a xmlns='u'/><b xmlns='u'/></iq>"),
        ("no payload", "<iq id='x' type='set'/>"),
    ] {
        romeo.send(xml).await.unwrap();
        let answer = romeo.answer("x").await.unwrap_or_else(|e| panic!("{case}: {e}"));
        assert_eq!(error(&answer), "bad-request", "{case}: {answer}");
    }
    // Without an id it can be answered all the same, only not matched.
    romeo.send("<iq type='get' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>").await.unwrap();
    let answer = romeo.element().await.unwrap();
    assert!(answer.attr("type") == Some("error") && answer.attr("id").is_none(), "{answer}");
    assert_eq!(error(&answer), "bad-request");
    notices_nothing(&mut romeo).await;
}

#[tokio::test]
async fn what_is_too_large_or_another_s_is_refused() {
    let server = server(Config::default(), &["romeo", "juliet"]).await;
    let mut romeo = login(&server.listening.options(), "romeo", "orchard").await;
    // A roster item a thousand groups long.
    let groups: String = (0..1000).map(|n| format!("<group>g{n}</group>")).collect();
    let answer = romeo
        .iq(
            "set",
            "",
            &format!("<query xmlns='jabber:iq:roster'><item jid='a@localhost'>{groups}</item></query>"),
        )
        .await
        .unwrap();
    assert_eq!(error(&answer), "not-acceptable", "{answer}");
    let roster = romeo.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await.unwrap();
    assert!(!roster.to_string().contains("<item"), "{roster}");
    // Somebody else's archive, and pages before what never was.
    for (kind, payload) in [
        ("set", "<query xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<metadata xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<prefs xmlns='urn:xmpp:mam:2'/>"),
        ("get", "<query xmlns='jabber:iq:roster'/>"),
        ("set", "<query xmlns='jabber:iq:register'><remove/></query>"),
        ("set", "<vCard xmlns='vcard-temp'><FN>J</FN></vCard>"),
    ] {
        let answer = romeo.iq(kind, "juliet@localhost", payload).await.unwrap();
        assert_eq!(error(&answer), "service-unavailable", "{payload}: {answer}");
    }
    let page = |set: &str| {
        format!(
            "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'>{set}</set></query>"
        )
    };
    for (set, wanted) in [
        ("<before>never</before>", "item-not-found"),
        ("<after>never</after>", "item-not-found"),
        ("<after>&lt;x/&gt;</after>", "item-not-found"),
        (&format!("<after>{}</after>", "z".repeat(3_000)), "item-not-found"),
        ("<max>-1</max>", "bad-request"),
        ("<max>many</max>", "bad-request"),
        ("<index>-5</index>", "bad-request"),
    ] {
        let answer = romeo.iq("set", "", &page(set)).await.unwrap();
        assert_eq!(error(&answer), wanted, "{set}: {answer}");
    }
    // More than there is, and more than any number: as much as the server gives.
    for max in ["0", "4294967296", "99999999999999999999"] {
        romeo.iq_ok("set", "", &page(&format!("<max>{max}</max>"))).await.unwrap();
    }
    notices_nothing(&mut romeo).await;
}

#[tokio::test]
async fn answers_that_nobody_asked_for_change_nothing() {
    let server = server(Config::default(), &["romeo", "juliet"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    let mut juliet = login(&options, "juliet", "balcony").await;
    let gone = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for to in [
        "",
        " to='localhost'",
        " to='juliet@localhost'",
        " to='juliet@localhost/no'",
        " to='nobody@localhost'",
    ] {
        for id in ["none", "alive", "iq-1"] {
            romeo.send(&format!("<iq type='result' id='{id}'{to}/>")).await.unwrap();
            romeo.send(&format!("<iq type='result' id='{id}'{to}><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>")).await.unwrap();
            romeo.send(&format!("<iq type='error' id='{id}'{to}>{gone}</iq>")).await.unwrap();
        }
    }
    notices_nothing(&mut romeo).await;
    notices_nothing(&mut juliet).await;
    // One that has an addressee reaches it under its sender's name, so that it can't pass for the server's.
    romeo.send(&format!("<iq type='result' id='x' to='{}'/>", juliet.jid)).await.unwrap();
    let got = juliet.element().await.unwrap();
    assert_eq!(got.attr("from"), Some(romeo.jid.as_str()), "{got}");
    let roster = juliet.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await.unwrap();
    assert!(!roster.to_string().contains("<item"), "{roster}");
}
