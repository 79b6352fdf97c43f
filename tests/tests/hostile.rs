//! Hostile input over real sockets: each case has its specified answer, and other sessions notice nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test code"
)]

use rookery_tests::client::{Client, Event, Options, Security};
use rookery_tests::server::rookery::{Config, Rookery};
use rookery_tests::xml::{self, Element};

const ERRORS: &str = "urn:ietf:params:xml:ns:xmpp-streams";

async fn server(config: Config, users: &[&str]) -> Rookery {
    let server = Rookery::start(&config).await.unwrap_or_else(|e| panic!("{e}"));
    let jids: Vec<String> = users.iter().map(|u| format!("{u}@localhost")).collect();
    server.add_users(jids.iter().map(|j| (j.as_str(), "secret"))).unwrap_or_else(|e| panic!("{e}"));
    server
}

/// Reads up to the stream error and the end of the stream; the condition's name.
async fn condition(client: &mut Client, case: &str) -> String {
    try_condition(client).await.unwrap_or_else(|e| panic!("{case}: {e}"))
}

async fn try_condition(client: &mut Client) -> Result<String, String> {
    let mut found = None;
    loop {
        match client.next().await {
            Ok(Event::Element(e)) if e.is("error", xml::STREAMS) => {
                found = e.children().find(|c| c.ns == ERRORS).map(|c| c.name.clone());
            }
            Ok(Event::Element(e)) if found.is_some() => return Err(format!("after the stream error:\n{e}")),
            Ok(Event::Element(_)) => {}
            Ok(Event::Close | Event::End) => {
                return found.ok_or_else(|| "the stream ended without a reason".to_owned());
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

fn cases() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let body =
        |inside: &str| format!("<message to='romeo@localhost'><body>{inside}</body></message>").into_bytes();
    let laughs = "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;&lol;&lol;&lol;&lol;\">]>\
                  <message><body>&lol2;</body></message>";
    let mut nested = b"<message>".to_vec();
    nested.extend(std::iter::repeat_n(&b"<x>"[..], 10_000).flatten());
    let mut long = b"<message to='romeo@localhost'><body>".to_vec();
    long.resize(300_000, b'a');
    long.extend_from_slice(b"</body></message>");
    let mut invalid = b"<message><body>".to_vec();
    invalid.extend_from_slice(&[0xc3, 0x28, 0xff]);
    invalid.extend_from_slice(b"</body></message>");
    let malformed = &["not-well-formed"][..];
    let restricted = &["restricted-xml"][..];
    let prefix = &["not-well-formed", "bad-namespace-prefix", "invalid-namespace"][..];
    vec![
        ("billion laughs", laughs.into(), restricted),
        ("comment", b"<message><!-- a --></message>".to_vec(), restricted),
        ("comment between stanzas", b"<!-- a -->".to_vec(), restricted),
        ("processing instruction", b"<message><?php a?></message>".to_vec(), restricted),
        ("custom entity", body("&bomb;"), &["restricted-xml", "not-well-formed"]),
        ("reference to nul", body("&#0;"), malformed),
        ("nul", body("\0"), malformed),
        ("control character", body("\u{1}"), malformed),
        ("U+FFFF", body("\u{ffff}"), malformed),
        ("]]> in text", body("]]>"), malformed),
        ("mismatched tags", b"<message><body></message>".to_vec(), malformed),
        ("duplicate attribute", b"<message id='a' id='b'/>".to_vec(), malformed),
        (
            "duplicate by namespace",
            b"<message><x xmlns:a='u' xmlns:b='u' a:k='' b:k=''/></message>".to_vec(),
            malformed,
        ),
        ("unbound element prefix", b"<message><a:x/></message>".to_vec(), prefix),
        ("unbound attribute prefix", b"<message a:x=''/>".to_vec(), prefix),
        ("prefix unbound by ''", b"<message><x xmlns:a=''/></message>".to_vec(), prefix),
        ("xml prefix elsewhere", b"<message xmlns:xml='urn:x'/>".to_vec(), prefix),
        ("xmlns prefix", b"<message xmlns:xmlns='urn:x'/>".to_vec(), prefix),
        ("no space between attributes", b"<message id='a'to='b'/>".to_vec(), malformed),
        ("< in an attribute", b"<message id='<'/>".to_vec(), malformed),
        ("attribute without quotes", b"<message id=a/>".to_vec(), malformed),
        ("invalid UTF-8", invalid, &["not-well-formed", "bad-format", "unsupported-encoding"]),
        ("ten thousand nested elements", nested, &["policy-violation"]),
        ("a stanza too long", long, &["policy-violation"]),
        ("text between stanzas", b"hello".to_vec(), &["not-well-formed", "bad-format", "invalid-xml"]),
        (
            "foreign namespace",
            b"<message xmlns='urn:x'/>".to_vec(),
            &["invalid-namespace", "unsupported-stanza-type"],
        ),
        ("stanza of another kind", b"<letter/>".to_vec(), &["unsupported-stanza-type"]),
        (
            "second header",
            b"<stream:stream to='localhost' version='1.0'></stream:stream>".to_vec(),
            &[
                "not-well-formed",
                "bad-format",
                "invalid-xml",
                "unsupported-stanza-type",
                "invalid-namespace",
                "policy-violation",
            ],
        ),
        (
            "forged sender",
            b"<message from='juliet@localhost' to='romeo@localhost'/>".to_vec(),
            &["invalid-from"],
        ),
    ]
}

async fn login(options: &Options, user: &str, resource: &str) -> Client {
    Client::login(options, user, "secret", resource).await.unwrap_or_else(|e| panic!("{user}: {e}"))
}

#[tokio::test]
async fn each_attack_has_its_answer_and_others_notice_nothing() {
    let server = server(Config::default(), &["romeo", "juliet", "tybalt"]).await;
    let options = server.listening.options();
    let mut witness = login(&options, "romeo", "orchard").await;
    witness.available().await.unwrap();
    let mut wrong = Vec::new();
    for (case, bytes, wanted) in cases() {
        for slowly in [false, true] {
            if slowly && bytes.len() > 500 {
                continue;
            }
            let mut attacker = login(&options, "tybalt", "street").await;
            // The server may close before it has read all: a failing write is not yet a failing test.
            let _ = match slowly {
                false => attacker.send_raw(&bytes).await,
                true => attacker.send_slowly(&bytes).await,
            };
            let got = try_condition(&mut attacker).await.unwrap_or_else(|e| e);
            if !wanted.contains(&got.as_str()) {
                wrong.push(format!("{case} (slowly: {slowly}): expected one of {wanted:?}, got {got}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    witness.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
    assert!(witness.kept.is_empty(), "the witness got {:?}", witness.kept);
}

#[tokio::test]
async fn stanzas_that_are_wrong_but_harmless_are_answered() {
    let server = server(Config::default(), &["romeo"]).await;
    let mut romeo = login(&server.listening.options(), "romeo", "orchard").await;
    let stanza = "urn:ietf:params:xml:ns:xmpp-stanzas";
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
        let error = answer.get("error").unwrap_or_else(|| panic!("{jid}: {answer}"));
        assert!(error.child("jid-malformed", stanza).is_some(), "{jid}: {answer}");
    }
    for (case, xml) in [
        ("no type", "<iq id='x'><ping xmlns='urn:xmpp:ping'/></iq>"),
        ("unknown type", "<iq id='x' type='post'><ping xmlns='urn:xmpp:ping'/></iq>"),
        ("two payloads", "<iq id='x' type='get'><a xmlns='u'/><b xmlns='u'/></iq>"),
        ("no payload", "<iq id='x' type='set'/>"),
    ] {
        romeo.send(xml).await.unwrap();
        let answer = romeo.answer("x").await.unwrap_or_else(|e| panic!("{case}: {e}"));
        let error = answer.get("error").unwrap_or_else(|| panic!("{case}: {answer}"));
        assert!(error.child("bad-request", stanza).is_some(), "{case}: {answer}");
    }
    // Answers that nobody asked for, and errors about nothing, disappear.
    romeo.send("<iq type='result' id='none' to='localhost'/>").await.unwrap();
    romeo.send("<iq type='error' id='none' to='romeo@localhost/no'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>").await.unwrap();
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
    assert_eq!(answer.attr("type"), Some("error"), "{answer}");
    // Somebody else's archive, and pages before what never was.
    let answer = romeo.iq("set", "juliet@localhost", "<query xmlns='urn:xmpp:mam:2'/>").await.unwrap();
    assert_eq!(answer.attr("type"), Some("error"), "{answer}");
    for never in ["before", "after"] {
        let query = format!(
            "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><{never}>never</{never}></set></query>"
        );
        let answer = romeo.iq("set", "", &query).await.unwrap();
        let error = answer.get("error").unwrap_or_else(|| panic!("{answer}"));
        assert!(error.child("item-not-found", stanza).is_some(), "{answer}");
    }
    romeo.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
    let kept: Vec<&Element> = romeo.kept.iter().collect();
    assert!(kept.is_empty(), "{kept:?}");
}

#[tokio::test]
async fn who_never_logs_in_is_sent_away_and_bothers_nobody() {
    let base = Config::default();
    let limits = base
        .limits
        .replace("connections_before_login = 100000", "connections_before_login = 100000\nlogin_seconds = 2");
    let server = server(Config { limits, ..base }, &["romeo"]).await;
    let options = server.listening.options();
    let mut idle = Vec::new();
    for n in 0..300 {
        let security = if n % 2 == 0 { Security::None } else { Security::Direct };
        idle.push(
            Client::open(&options.with(security)).await.unwrap_or_else(|e| panic!("connection {n}: {e}")),
        );
    }
    // A tag that never ends, and one who says nothing at all.
    idle[0].send_raw(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls").await.unwrap();
    let mut romeo = login(&options, "romeo", "orchard").await;
    romeo.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
    for (n, client) in idle.iter_mut().enumerate() {
        let got = condition(client, &format!("connection {n}")).await;
        assert!(["connection-timeout", "policy-violation"].contains(&got.as_str()), "{got}");
    }
    romeo.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
}

#[tokio::test]
async fn before_login_little_is_accepted() {
    let server = server(Config::default(), &["romeo"]).await;
    let options = server.listening.options();
    let mut big = Client::open(&options).await.unwrap();
    let auth = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        "A".repeat(20_000)
    );
    let _ = big.send_raw(auth.as_bytes()).await;
    assert_eq!(condition(&mut big, "a big <auth/>").await, "policy-violation");
    for stanza in ["<message to='romeo@localhost'><body>x</body></message>", "<presence/>"] {
        let mut early = Client::open(&options).await.unwrap();
        early.send(stanza).await.unwrap();
        assert_eq!(condition(&mut early, stanza).await, "not-authorized");
    }
    for (case, header, wanted) in [
        (
            "unknown domain",
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='example.net' version='1.0'>",
            "host-unknown",
        ),
        (
            "unknown version",
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost'>",
            "unsupported-version",
        ),
        (
            "wrong stream namespace",
            "<stream:stream xmlns='jabber:client' xmlns:stream='urn:x' to='localhost' version='1.0'>",
            "invalid-namespace",
        ),
        ("not a stream", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "not-well-formed"),
    ] {
        let mut client = Client::open(&options).await.unwrap();
        // A new connection in the clear, with a header of our own.
        client.wire = rookery_tests::client::Wire::new(rookery_tests::client::Io::Plain(
            tokio::net::TcpStream::connect(server.listening.c2s).await.unwrap(),
        ));
        client.send_raw(header.as_bytes()).await.unwrap();
        let got = condition(&mut client, case).await;
        assert!(got == wanted || (case == "not a stream" && got == "bad-format"), "{case}: {got}");
    }
}
