//! XEP-0198 and XEP-0352 on the wire.

use super::*;

const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";
const PING: &str = "<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>";

async fn enabled(node: &Fixture, user: &str, resource: &str) -> (Client, String) {
    let mut client = node.session(user, resource).await;
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    let got = client.until("/>").await;
    let id = got.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    (client, id)
}

/// The client has so many stanzas. A request counts as handled when its answer has come.
async fn has(client: &mut Client, h: u32) {
    client.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")).await;
}

/// Reads up to the next `<a/>` and returns its `h`.
async fn h(client: &mut Client) -> u32 {
    client.until("<a xmlns='urn:xmpp:sm:3' h='").await;
    client.until("'/>").await.trim_end_matches("'/>").parse().unwrap()
}

#[tokio::test]
async fn counts_every_stanza_also_malformed_ones() {
    let node = fixture(|_| ()).await;
    let (mut romeo, _) = enabled(&node, "romeo", "orchard").await;
    romeo.send(R).await;
    assert_eq!(h(&mut romeo).await, 0);
    romeo.send(&format!("{PING} <presence/><message to='@'/>{R}")).await;
    romeo.until("jid-malformed").await;
    has(&mut romeo, 3).await;
    assert_eq!(h(&mut romeo).await, 3);
    romeo.send(&format!("{PING}{R}{R}")).await;
    romeo.until("id='p'").await;
    has(&mut romeo, 4).await;
    assert_eq!(h(&mut romeo).await, 4);
}

#[tokio::test]
async fn asked_before_it_is_enabled_answered_behind_it() {
    let node = fixture(|_| ()).await;
    let mut romeo = node.session("romeo", "orchard").await;
    romeo.send(&format!("<enable xmlns='urn:xmpp:sm:3'/>{PING}{R}")).await;
    romeo.until("<enabled ").await;
    assert_eq!(h(&mut romeo).await, 1);
    // Section 3: a second attempt ends the stream.
    romeo.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    assert!(romeo.until("</stream:error>").await.contains("<policy-violation "));
}

#[tokio::test]
async fn resumes_without_loss_and_without_doubles() {
    let node = fixture(|_| ()).await;
    let (mut romeo, id) = enabled(&node, "romeo", "orchard").await;
    romeo.send(PING).await;
    romeo.until("/>").await;
    let mut juliet = node.session("juliet", "balcony").await;
    let message =
        |n| format!("<message to='romeo@localhost/orchard' type='chat'><body>n{n}.</body></message>");
    juliet.send(&message(1)).await;
    romeo.until("n1.").await;
    romeo.cut();
    juliet.send(&message(2)).await;
    let mut again = node.authenticated("romeo").await;
    // The pong and the first message arrived.
    again.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='2' previd='{id}'/>")).await;
    let resumed = again.until("/>").await;
    assert!(resumed.contains("<resumed ") && resumed.contains("h='1'"), "{resumed}");
    let got = again.until("</message>").await;
    assert!(got.contains("n2.") && !got.contains("n1."), "{got}");
    again.send(&format!("<a xmlns='urn:xmpp:sm:3' h='3'/>{PING}{R}")).await;
    again.until("id='p'").await;
    has(&mut again, 4).await;
    assert_eq!(h(&mut again).await, 2);
    // Nobody else's, and not twice at the same time: the older connection is told (section 5).
    let mut thief = node.authenticated("juliet").await;
    thief.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='3' previd='{id}'/>")).await;
    assert!(thief.until("</failed>").await.contains("<item-not-found "));
    let mut third = node.authenticated("romeo").await;
    third.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='4' previd='{id}'/>")).await;
    third.until("<resumed ").await;
    let last = again.end().await;
    assert!(last.contains("<stream:error><conflict ") && last.ends_with("</stream:stream>"), "{last}");
    third.send(PING).await;
    third.until("id='p'").await;
}

/// Its own buffers are full: neither what it was sent nor the error goes out.
#[tokio::test]
async fn a_stale_connection_that_takes_nothing_goes_all_the_same() {
    let node = fixture(|_| ()).await;
    let (mut romeo, id) = enabled(&node, "romeo", "orchard").await;
    let mut juliet = node.session("juliet", "balcony").await;
    let body = "x".repeat(50_000);
    for n in 0..8 {
        juliet
            .send(&format!(
                "<message to='romeo@localhost/orchard' type='chat' id='{n}'><body>{body}</body></message>"
            ))
            .await;
    }
    juliet.nothing_but_pong().await;
    let before = node.shared.gate.counts().0;
    let mut again = node.authenticated("romeo").await;
    again.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{id}'/>")).await;
    again.until("<resumed ").await;
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    while node.shared.gate.counts().0 > before {
        tokio::time::sleep(Duration::from_millis(100)).await; // the clock is paused: only this moves it
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    romeo.end().await;
}

/// XEP-0198 section 3: out of order is answered, whatever it is, at every stage.
#[tokio::test]
async fn before_its_time_it_is_refused_and_the_stream_goes_on() {
    let node = fixture(|_| ()).await;
    let all = ["<enable xmlns='urn:xmpp:sm:3'/>", "<resume xmlns='urn:xmpp:sm:3' h='0' previd='x'/>", R];
    let all = all.into_iter().chain(["<a xmlns='urn:xmpp:sm:3' h='0'/>"]);
    let refuse = async |client: &mut Client, sent: &str| {
        client.send(sent).await;
        let got = client.until("</failed>").await;
        let wanted = "<failed xmlns='urn:xmpp:sm:3'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";
        assert_eq!(got, wanted, "{sent}");
    };
    let mut clear = node.opened().await;
    for sent in all.clone() {
        refuse(&mut clear, sent).await;
    }
    let mut client = node.tls().await;
    for sent in all.clone() {
        refuse(&mut client, sent).await;
    }
    // In the middle of an exchange, too.
    client.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>").await;
    client.until("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>").await;
    refuse(&mut client, R).await;
    let data = rookery_proto::sasl::encoding::encode(b"\0romeo\0secret");
    client.send(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{data}</response>")).await;
    client.until("<success").await;
    client.open().await;
    for sent in all.clone().filter(|sent| !sent.starts_with("<resume")) {
        refuse(&mut client, sent).await;
    }
    client.send(&bind("orchard")).await;
    client.until("</iq>").await;
    for sent in all.filter(|sent| !sent.starts_with("<enable")) {
        refuse(&mut client, sent).await;
    }
    client.nothing_but_pong().await;
}

/// RFC 6120 section 4.4: what was sent before the close is handled, so it is answered as well.
#[tokio::test]
async fn what_was_asked_before_the_close_is_answered_before_it() {
    let node = fixture(|_| ()).await;
    let mut juliet = node.session("juliet", "balcony").await;
    juliet.send("<presence/>").await;
    juliet.until("/>").await;
    for resume in ["", " resume='true'"] {
        for _ in 0..10 {
            let mut romeo = node.session("romeo", "orchard").await;
            romeo.send(&format!("<enable xmlns='urn:xmpp:sm:3'{resume}/>")).await;
            romeo.until("/>").await;
            let vcard = "<iq type='set' id='v'><vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard></iq>";
            let message = "<message to='juliet@localhost' type='chat'><body>bye</body></message>";
            romeo.send(&format!("{vcard}{PING}{message}{R}</stream:stream>")).await;
            let got = romeo.end().await;
            for part in ["<iq", "id='v'", "id='p'", "<a xmlns='urn:xmpp:sm:3' h='3'/>"] {
                assert!(got.contains(part), "{part}{resume}: {got}");
            }
            assert!(got.ends_with("</stream:stream>"), "{got}");
            juliet.until("bye").await;
            // The session was closed: nobody can resume it, and its resource is free.
            let sessions = node.shared.host.session_list("romeo").await;
            assert!(sessions.is_empty(), "{sessions:?}");
        }
    }
}

#[tokio::test]
async fn numbers_and_ids_that_were_never_given_resume_nothing() {
    let node = fixture(|_| ()).await;
    let (mut romeo, id) = enabled(&node, "romeo", "orchard").await;
    let mut other = node.authenticated("romeo").await;
    let longer = format!("{id}A");
    for (h, previd, condition) in [
        ("-1", id.as_str(), "bad-request"),
        ("+1", &id, "bad-request"),
        ("4294967296", &id, "bad-request"),
        ("99999999999999999999", &id, "bad-request"),
        ("", &id, "bad-request"),
        (" 1", &id, "bad-request"),
        ("4294967295", &id, "item-not-found"),
        ("0", "", "item-not-found"),
        ("0", &id[1..], "item-not-found"),
        ("0", &longer, "item-not-found"),
        ("0", "&apos;&lt;x/&gt;", "item-not-found"),
    ] {
        other.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='{h}' previd='{previd}'/>")).await;
        let got = other.until("</failed>").await;
        assert!(got.contains(&format!("<{condition} ")), "h='{h}' previd='{previd}': {got}");
    }
    romeo.nothing_but_pong().await;
    // What can't be a time is none; what is too long a time is cut.
    for max in ["-1", "1e3", "", "99999999999999999999", "4294967295"] {
        let mut client = node.session("juliet", "balcony").await;
        client.send(&format!("<enable xmlns='urn:xmpp:sm:3' resume='true' max='{max}'/>")).await;
        let got = client.until("/>").await;
        assert!(got.starts_with("<enabled ") && got.contains(" max='600'"), "{max}: {got}");
    }
    for ack in ["h='-1'", "h='4294967296'", ""] {
        let (mut client, _) = enabled(&node, "juliet", "balcony").await;
        client.send(&format!("<a xmlns='urn:xmpp:sm:3' {ack}/>")).await;
        assert!(client.end().await.contains("<stream:error><invalid-xml "), "{ack}");
    }
}

#[tokio::test]
async fn a_closed_stream_is_not_resumed() {
    let node = fixture(|_| ()).await;
    let (mut romeo, id) = enabled(&node, "romeo", "orchard").await;
    romeo.send("</stream:stream>").await;
    romeo.end().await;
    let mut again = node.authenticated("romeo").await;
    again.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{id}'/>")).await;
    assert!(again.until("</failed>").await.contains("<item-not-found "));
    again.send(&bind("orchard")).await;
    again.until("</iq>").await;
}

#[tokio::test]
async fn who_confirms_what_was_not_sent_is_told() {
    let node = fixture(|_| ()).await;
    let (mut romeo, _) = enabled(&node, "romeo", "orchard").await;
    romeo.send("<a xmlns='urn:xmpp:sm:3' h='7'/>").await;
    let got = romeo.end().await;
    assert!(got.contains("<undefined-condition ") && got.contains("<handled-count-too-high "), "{got}");
    assert!(got.contains("h='7'") && got.contains("send-count='0'"), "{got}");
}

#[tokio::test]
async fn a_silent_client_is_asked_by_r() {
    let node = fixture(|_| ()).await;
    let (mut romeo, id) = enabled(&node, "romeo", "orchard").await;
    tokio::time::pause();
    romeo.until(R).await;
    assert!(romeo.end().await.contains("<connection-timeout "));
    tokio::time::resume();
    // The client is not to blame, and may come back.
    let mut again = node.authenticated("romeo").await;
    again.send(&format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{id}'/>")).await;
    again.until("<resumed ").await;
}

#[tokio::test]
async fn chat_states_wait_while_nobody_looks() {
    let node = fixture(|_| ()).await;
    let (mut romeo, mut juliet) = node.pair().await;
    romeo.send("<inactive xmlns='urn:xmpp:csi:0'/>").await;
    romeo.nothing_but_pong().await;
    let state = "<message to='romeo@localhost/orchard' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>";
    juliet.send(state).await;
    juliet.nothing_but_pong().await;
    romeo.send("<active xmlns='urn:xmpp:csi:0'/>").await;
    assert!(romeo.until("</message>").await.contains("<composing "));
}
