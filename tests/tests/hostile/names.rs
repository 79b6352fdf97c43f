//! Names that look alike (RFC 7622, RFC 8265): what PRECIS folds is one account, what it does not is another, and what it
//! does not allow is nobody. And names that look like XML.

use rookery_tests::client::Client;
use rookery_tests::server::rookery::Config;
use rookery_tests::xml;

use crate::{error, login, notices_nothing, server};

/// All of them are juliet.
const FOLDED: [&str; 3] = ["JULIET", "\u{ff4a}\u{ff55}\u{ff4c}iet", "\u{ff2a}ULIET"];
/// A letter of another script, which PRECIS lets stand: somebody else.
const LOOKALIKE: &str = "jul\u{456}et";
/// Ligatures, signs with a compatible letter, invisible ones, such as turn the writing round.
const NOBODY: [&str; 6] =
    ["\u{fb01}n", "\u{212a}elvin", "jul\u{200b}iet", "\u{202e}teiluj", "jul\u{ad}iet", "juliet\u{2063}"];

#[tokio::test]
async fn what_precis_folds_is_one_account() {
    let server = server(Config::default(), &["romeo", "juliet"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    let mut juliet = login(&options, FOLDED[1], "balcony").await;
    assert_eq!(juliet.jid, "juliet@localhost/balcony");
    for name in FOLDED {
        romeo
            .send(&format!("<message to='{name}@localhost/balcony'><body>{name}</body></message>"))
            .await
            .unwrap();
        let got = juliet.element().await.unwrap();
        assert_eq!(got.attr("to"), Some("juliet@localhost/balcony"), "{name}: {got}");
        // No second contact, and no way round the block list.
        let item = format!("<query xmlns='jabber:iq:roster'><item jid='{name}@localhost'/></query>");
        romeo.iq_ok("set", "", &item).await.unwrap();
        // Oneself is oneself in every writing.
        juliet.send(&format!("<iq type='get' id='{name}' to='localhost' from='{name}@localhost'><ping xmlns='urn:xmpp:ping'/></iq>")).await.unwrap();
        juliet.answer(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut other = Client::open(&options).await.unwrap();
        let account = format!(
            "<query xmlns='jabber:iq:register'><username>{name}</username><password>x</password></query>"
        );
        assert_eq!(error(&other.iq("set", "", &account).await.unwrap()), "conflict", "{name}");
    }
    let roster = romeo.iq_ok("get", "", "<query xmlns='jabber:iq:roster'/>").await.unwrap();
    assert_eq!(roster.to_string().matches("<item").count(), 1, "{roster}");
    let block = format!("<block xmlns='urn:xmpp:blocking'><item jid='{}@localhost'/></block>", FOLDED[2]);
    romeo.iq_ok("set", "", &block).await.unwrap();
    romeo.available().await.unwrap();
    juliet
        .send(&format!(
            "<message to='{}' id='b' type='chat'><body>Art thou not Romeo?</body></message>",
            romeo.jid
        ))
        .await
        .unwrap();
    let refused = juliet.wait("the refusal", |e| e.attr("type") == Some("error")).await.unwrap();
    assert_eq!(error(&refused), "service-unavailable", "{refused}");
    romeo.kept.retain(|e| !e.is("iq", xml::CLIENT));
    notices_nothing(&mut romeo).await;
}

#[tokio::test]
async fn what_it_does_not_fold_is_somebody_else_or_nobody() {
    let server = server(Config::default(), &["romeo", "juliet"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    let mut juliet = login(&options, "juliet", "balcony").await;
    juliet.available().await.unwrap();
    romeo
        .send(&format!("<message to='{LOOKALIKE}@localhost' id='l'><body>Hist!</body></message>"))
        .await
        .unwrap();
    let answer = romeo.element().await.unwrap();
    assert_eq!(error(&answer), "service-unavailable", "{answer}");
    assert!(Client::login(&options, LOOKALIKE, "secret", "").await.is_err());
    for name in NOBODY {
        romeo
            .send(&format!("<message to='{name}@localhost' id='n'><body>Hist!</body></message>"))
            .await
            .unwrap();
        let answer = romeo.element().await.unwrap();
        assert_eq!(error(&answer), "jid-malformed", "{name:?}: {answer}");
        let mut other = Client::open(&options).await.unwrap();
        let account = format!(
            "<query xmlns='jabber:iq:register'><username>{name}</username><password>x</password></query>"
        );
        let answer = other.iq("set", "", &account).await.unwrap();
        assert_eq!(error(&answer), "not-acceptable", "{name:?}: {answer}");
    }
    notices_nothing(&mut juliet).await;
}

#[tokio::test]
async fn xml_in_a_resource_stays_text() {
    let server = server(Config::default(), &["romeo", "juliet"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    for resource in ["</jid></bind></iq><x/>", "'/><presence from='a", "&amp;&#0;\"'<", "]]>", "<!--"] {
        let mut juliet = login(&options, "juliet", resource).await;
        assert_eq!(juliet.jid, format!("juliet@localhost/{resource}"));
        juliet.available().await.unwrap();
        let line = format!("<message to='{}' type='chat'><body>.</body></message>", xml::escape(&juliet.jid));
        romeo.send(&line).await.unwrap();
        let got = juliet.wait("the message", |e| e.is("message", xml::CLIENT)).await.unwrap();
        assert_eq!(got.attr("to"), Some(juliet.jid.as_str()));
        juliet.send("<message to='romeo@localhost/orchard'><body>.</body></message>").await.unwrap();
        assert_eq!(romeo.element().await.unwrap().attr("from"), Some(juliet.jid.as_str()));
        notices_nothing(&mut juliet).await;
    }
    // What no resource may be; and elements in place of a name are no name.
    for resource in ["a\u{202e}b", "a\tb", &"a".repeat(1_024)] {
        let mut juliet = Client::authenticated(&options, "juliet", "secret").await.unwrap();
        let wish =
            format!("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind>");
        let answer = juliet.iq("set", "", &wish).await.unwrap();
        assert_eq!(error(&answer), "bad-request", "{answer}");
        juliet.bind("").await.unwrap();
    }
    notices_nothing(&mut romeo).await;
}
