//! A bound session: stanzas in and out, and the end of the stream.

use super::*;

#[tokio::test]
async fn a_message_crosses_and_answers_come_back() {
    let node = fixture(|_| ()).await;
    let (mut romeo, mut juliet) = node.pair().await;
    romeo.send("<message to='juliet@localhost/balcony' id='m1' type='chat'><body>Call me but love</body></message>").await;
    let got = juliet.until("</message>").await;
    assert!(got.contains("from='romeo@localhost/orchard'") && got.contains("Call me but love"), "{got}");
    romeo.nothing_but_pong().await;
}

#[tokio::test]
async fn many_at_once_and_split_anywhere_stay_in_order() {
    let node = fixture(|_| ()).await;
    let (mut romeo, mut juliet) = node.pair().await;
    let count = 300;
    let stanza =
        |n| format!("<message to='juliet@localhost/balcony' type='chat'><body>n{n}.</body></message> ");
    let text: String = (0..count).map(stanza).collect();
    let (head, tail) = text.split_at(7_777);
    let sender = async {
        romeo.send(head).await;
        romeo.send(tail).await;
    };
    let receiver = async {
        for n in 0..count {
            let got = juliet.until("</message>").await;
            assert!(got.contains(&format!("n{n}.")), "{n}: {got}");
        }
    };
    tokio::join!(sender, receiver);
}

#[tokio::test]
async fn from_may_name_oneself_and_nobody_else() {
    let node = fixture(|_| ()).await;
    for (from, fine) in [
        ("romeo@localhost", true),
        ("romeo@localhost/orchard", true),
        ("juliet@localhost", false),
        ("romeo@localhost/other", false),
        ("localhost", false),
    ] {
        let mut romeo = node.session("romeo", "orchard").await;
        romeo
            .send(&format!(
                "<iq type='get' id='p' to='localhost' from='{from}'><ping xmlns='urn:xmpp:ping'/></iq>"
            ))
            .await;
        if fine {
            assert!(romeo.until("/>").await.contains("id='p'"), "{from}");
        } else {
            assert!(romeo.end().await.contains("<stream:error><invalid-from "), "{from}");
        }
    }
}

#[tokio::test]
async fn a_stanza_that_breaks_a_rule_is_answered_and_the_stream_lives() {
    let node = fixture(|_| ()).await;
    let mut romeo = node.session("romeo", "orchard").await;
    for (sent, condition) in [
        ("<message to='@' id='1'/>", "jid-malformed"),
        ("<iq type='get' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
        ("<iq type='odd' id='3'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request"),
    ] {
        romeo.send(sent).await;
        let got = romeo.until("</error>").await;
        assert!(got.contains("type='error'") && got.contains(condition), "{sent}: {got}");
        romeo.until(">").await;
    }
    romeo.nothing_but_pong().await;
}

#[tokio::test]
async fn what_breaks_the_stream_ends_this_one_only() {
    let node = fixture(|_| ()).await;
    let mut juliet = node.session("juliet", "balcony").await;
    for (sent, condition) in [
        ("<message><body>&lol;</body></message>", "restricted-xml"),
        ("<message><!-- x --></message>", "restricted-xml"),
        ("<message>\u{1}</message>", "not-well-formed"),
        ("<message><x:y/></message>", "bad-namespace-prefix"),
        ("<foo/>", "unsupported-stanza-type"),
        ("<stream:stream>", "bad-format"),
    ] {
        let mut romeo = node.session("romeo", "orchard").await;
        romeo.send(sent).await;
        let got = if condition == "bad-format" {
            romeo.send("</stream:stream>").await;
            romeo.end().await
        } else {
            romeo.end().await
        };
        assert!(got.contains("<stream:error><"), "{sent}: {got}");
        assert!(got.contains(condition) || condition == "bad-format", "{sent}: {got}");
        assert!(got.ends_with("</stream:stream>"), "{got}");
    }
    juliet.nothing_but_pong().await;
}

#[tokio::test]
async fn old_clients_get_the_session_they_ask_for() {
    let node = fixture(|_| ()).await;
    let mut romeo = node.session("romeo", "orchard").await;
    for to in ["", " to='localhost'"] {
        let session = "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>";
        romeo.send(&format!("<iq type='set' id='s'{to}>{session}</iq>")).await;
        let got = romeo.until(">").await;
        assert!(got.starts_with("<iq ") && got.contains("id='s'") && got.contains("type='result'"), "{got}");
    }
    romeo.nothing_but_pong().await;
}

#[tokio::test]
async fn white_space_is_a_sign_of_life_and_the_end_is_answered() {
    let node = fixture(|_| ()).await;
    let mut romeo = node.session("romeo", "orchard").await;
    romeo.send(" \n\t ").await;
    romeo.nothing_but_pong().await;
    romeo.send("</stream:stream>").await;
    assert_eq!(romeo.end().await, "</stream:stream>");
    drop(romeo);
    node.shared.gate.emptied().await;
}

#[tokio::test]
async fn the_language_of_the_stream_is_that_of_its_messages() {
    let node = fixture(|_| ()).await;
    let mut juliet = node.session("juliet", "balcony").await;
    let mut romeo = node.tls().await;
    romeo.send(&plain("romeo", "secret")).await;
    romeo.until("<success").await;
    romeo.send(&HEADER.replace("version='1.0'>", "version='1.0' xml:lang='it'>")).await;
    romeo.until("</stream:features>").await;
    romeo.send(&bind("orchard")).await;
    romeo.until("</iq>").await;
    romeo.send("<message to='juliet@localhost/balcony' type='chat'><body>Ciao</body></message>").await;
    assert!(juliet.until("</message>").await.contains("xml:lang='it'"));
    romeo
        .send("<message to='juliet@localhost/balcony' type='chat' xml:lang='en'><body>Hi</body></message>")
        .await;
    assert!(juliet.until("</message>").await.contains("xml:lang='en'"));
}

#[tokio::test]
async fn the_node_stops_and_says_so() {
    let node = fixture(|_| ()).await;
    let mut romeo = node.session("romeo", "orchard").await;
    node.shared.host.shutdown().await;
    let got = romeo.end().await;
    assert!(got.contains("<stream:error><system-shutdown ") && got.ends_with("</stream:stream>"), "{got}");
    drop(romeo);
    node.shared.gate.emptied().await;
}
