//! What ends its sender's stream.

use rookery_tests::server::rookery::Config;

use crate::{login, notices_nothing, server, try_condition};

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
    let declarations: String = (0..5_000).map(|n| format!(" xmlns:a{n}='u{n}'")).collect();
    let declarations = format!("<message><x{declarations}/></message>");
    let forged =
        |kind, from| format!("<{kind} type='error' id='f' from='{from}' to='romeo@localhost'/>").into_bytes();
    let forger = &["invalid-from"][..];
    let nonza = &["unsupported-stanza-type"][..];
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
            "XML declaration in the stream",
            b"<?xml version='1.0'?>".to_vec(),
            &["restricted-xml", "not-well-formed"],
        ),
        ("byte order mark", "\u{feff}".into(), &["not-well-formed", "bad-format"]),
        ("other stream's end", b"</x:stream>".to_vec(), malformed),
        ("surrogate", body("&#xD800;"), malformed),
        ("beyond Unicode", body("&#x110000;"), malformed),
        ("a number that overflows", body("&#99999999999999999999;"), malformed),
        ("five thousand declarations", declarations.into_bytes(), &["policy-violation"]),
        (
            "fifty thousand children",
            format!("<message>{}</message>", "<a/>".repeat(50_000)).into(),
            &["policy-violation"],
        ),
        ("STARTTLS again", b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".to_vec(), nonza),
        ("SASL again", b"<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".to_vec(), nonza),
        ("another version's nonza", b"<enable xmlns='urn:xmpp:sm:2'/>".to_vec(), nonza),
        ("what only servers say", b"<resumed xmlns='urn:xmpp:sm:3' h='1' previd='x'/>".to_vec(), nonza),
        ("forged sender", forged("message", "juliet@localhost"), forger),
        ("forged sender of presence", forged("presence", "juliet@localhost/balcony"), forger),
        ("forged sender of an IQ", forged("iq", "localhost"), forger),
        ("forged resource", forged("message", "tybalt@localhost/other"), forger),
        ("a sender that looks like oneself", forged("message", "tyb\u{430}lt@localhost"), forger),
        ("an empty sender", forged("message", ""), forger),
    ]
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
    notices_nothing(&mut witness).await;
}
