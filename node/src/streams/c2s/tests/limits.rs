//! Every limit of a connection, at its edge.

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn login_takes_too_long() {
    let node = fixture(|config| config.limits.login = Duration::from_secs(30)).await;
    for sent in ["", HEADER, "<stream:stream x='"] {
        let mut client = node.connect(Start::InTheStream);
        client.send(sent).await;
        tokio::time::pause();
        let before = Instant::now();
        let got = client.end().await;
        assert_eq!(before.elapsed().as_secs(), 30, "{sent}");
        assert!(got.contains("<stream:error><connection-timeout "), "{got}");
        tokio::time::resume();
    }
}

/// A stream whose header says `attributes` as well, after login.
async fn with_header(node: &Fixture, user: &str, attributes: &str) -> Client {
    let mut client = node.tls().await;
    client.send(&plain(user, "secret")).await;
    client.until("<success").await;
    client.send(&HEADER.replace("<stream:stream ", &format!("<stream:stream {attributes} "))).await;
    client.until("</stream:features>").await;
    client.send(&bind("orchard")).await;
    client.until("</iq>").await;
    client
}

#[tokio::test]
async fn a_language_is_no_longer_than_one() {
    let node = fixture(|_| ()).await;
    let mut juliet = node.session("juliet", "balcony").await;
    for (lang, inherited) in [("de-CH", true), (&*"x".repeat(5_000), false)] {
        let mut romeo = with_header(&node, "romeo", &format!("xml:lang='{lang}'")).await;
        romeo.send("<message to='juliet@localhost/balcony' type='chat'><body>hi</body></message>").await;
        let got = juliet.until("</message>").await;
        assert_eq!(got.contains("xml:lang="), inherited, "{got}");
    }
}

#[tokio::test]
async fn a_stanza_may_not_grow_beyond_its_limit() {
    let node = fixture(|config| config.limits.stanza_bytes = 20_000).await;
    let attributes = format!("xmlns:p='urn:{}'", "x".repeat(500));
    for (count, fits) in [(30, true), (40, false)] {
        let mut romeo = with_header(&node, "romeo", &attributes).await;
        let children = "<p:a/>".repeat(count);
        romeo.send(&format!("<message to='romeo@localhost/orchard'>{children}</message>")).await;
        let got = romeo.until(if fits { "</message>" } else { "</stream:error>" }).await;
        assert_eq!(got.contains("<policy-violation "), !fits, "{got}");
    }
}

/// What a stanza grows to is paid for, by the account: neither short stanzas nor another connection go round the rate.
#[tokio::test]
async fn the_rate_is_the_account_s_and_counts_what_becomes_of_a_stanza() {
    let node = fixture(|config| {
        config.limits.traffic.bytes_burst = 20_000;
        config.limits.traffic.bytes_per_second = 10_000;
    })
    .await;
    let attributes = format!("xmlns:p='urn:{}'", "x".repeat(500));
    let mut romeo = with_header(&node, "romeo", &attributes).await;
    let message = format!("<message to='romeo@localhost/orchard'>{}</message>", "<p:a/>".repeat(10));
    tokio::time::pause();
    let before = Instant::now();
    // 5 kB each, though 100 bytes are sent; 20 kB are free.
    for _ in 0..10 {
        romeo.send(&message).await;
    }
    for _ in 0..10 {
        romeo.until("</message>").await;
    }
    let waited = before.elapsed().as_secs_f32();
    assert!((2.5..4.5).contains(&waited), "{waited}");
    // A new connection begins where this one stands; another account does not.
    let mut again = node.session("romeo", "other").await;
    again.nothing_but_pong().await;
    let more = before.elapsed().as_secs_f32() - waited;
    for _ in 0..4 {
        romeo.send(&message).await;
    }
    drop(romeo);
    let mut again = node.session("romeo", "third").await;
    let begun = Instant::now();
    again.send(&format!("<message to='juliet@localhost'><body>{}</body></message>", "x".repeat(9_000))).await;
    again.nothing_but_pong().await;
    let slow = begun.elapsed().as_secs_f32();
    assert!(more < 4.0 && slow > 0.5, "{more} {slow}");
    let begun = Instant::now();
    node.session("juliet", "balcony").await.nothing_but_pong().await;
    assert!(begun.elapsed().as_secs_f32() < 0.1, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_byte_a_second_does_not_help() {
    let node = fixture(|config| config.limits.login = Duration::from_secs(30)).await;
    let mut client = node.connect(Start::InTheStream);
    tokio::time::pause();
    let before = Instant::now();
    let drip = async {
        for byte in HEADER.bytes() {
            if client.io().write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        client.end().await
    };
    assert!(drip.await.contains("<connection-timeout "));
    assert!(before.elapsed() < Duration::from_secs(200));
}

/// After login a byte is a sign of life, as white space is: only the size of the stanza ends a tag that never ends.
#[tokio::test]
async fn a_byte_a_second_after_login_ends_at_the_size_of_a_stanza() {
    let node = fixture(|config| config.limits.stanza_bytes = 10_000).await;
    let (mut romeo, mut juliet) = node.pair().await;
    tokio::time::pause();
    let before = Instant::now();
    romeo.send(&format!("<message id='{}", "x".repeat(9_000))).await;
    while romeo.io().write_all(b"x").await.is_ok() {
        let _ = romeo.io().flush().await;
        juliet.io().write_all(b" ").await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let lived = before.elapsed().as_secs();
    assert!((980..1_040).contains(&lived), "{lived}");
    assert!(romeo.end().await.contains("<stream:error><policy-violation "));
    tokio::time::resume();
    juliet.nothing_but_pong().await;
}

#[tokio::test]
async fn a_tag_that_never_ends_and_then_silence() {
    let node = fixture(|_| ()).await;
    let mut romeo = node.session("romeo", "orchard").await;
    tokio::time::pause();
    romeo.send("<message id='").await;
    let before = Instant::now();
    let got = romeo.end().await;
    assert!(got.contains("<ping ") && got.contains("<stream:error><connection-timeout "), "{got}");
    assert_eq!(before.elapsed().as_secs(), 360);
}

#[tokio::test]
async fn a_stanza_one_byte_too_long() {
    let node = fixture(|config| config.limits.stanza_bytes = 10_000).await;
    let frame = "<message to='localhost'><body></body></message>";
    let sized = |size: usize| frame.replace("<body>", &format!("<body>{}", "x".repeat(size - frame.len())));
    let mut client = node.session("romeo", "orchard").await;
    client.send(&sized(10_000)).await;
    client.until("</message>").await;
    client.send(&sized(10_001)).await;
    assert!(client.end().await.contains("<stream:error><policy-violation "));
    // Before its end is seen, too: nothing larger is ever kept.
    let mut client = node.session("romeo", "orchard").await;
    client.send(&format!("<message><body>{}", "x".repeat(10_000))).await;
    assert!(client.end().await.contains("<stream:error><policy-violation "));
}

#[tokio::test]
async fn too_deep() {
    let node = fixture(|_| ()).await;
    let mut client = node.session("romeo", "orchard").await;
    client.send("<message>").await;
    client.send(&"<a>".repeat(10_000)).await;
    assert!(client.end().await.contains("<stream:error><policy-violation "));
}

#[tokio::test]
async fn too_fast_is_read_more_slowly() {
    let node = fixture(|config| {
        config.limits.traffic.stanzas_per_second = 10;
        config.limits.traffic.stanzas_burst = 5;
    })
    .await;
    let mut client = node.session("romeo", "orchard").await;
    tokio::time::pause();
    let before = Instant::now();
    let ping = "<iq type='get' id='p' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>";
    client.send(&ping.repeat(25)).await;
    for _ in 0..25 {
        client.until("/>").await;
    }
    // 5 at once and 20 at ten a second.
    let took = before.elapsed();
    assert!(took >= Duration::from_millis(1_900) && took <= Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn too_many_bytes_are_read_more_slowly() {
    let node = fixture(|config| {
        config.limits.traffic.bytes_per_second = 10_000;
        config.limits.traffic.bytes_burst = 10_000;
    })
    .await;
    let mut client = node.session("romeo", "orchard").await;
    tokio::time::pause();
    let before = Instant::now();
    for _ in 0..4 {
        client.send(&" ".repeat(10_000)).await;
    }
    client.nothing_but_pong().await;
    let took = before.elapsed();
    // 10,000 at once; the last read (16 kB at most) is taken before it is waited for.
    assert!(took >= Duration::from_millis(1_300) && took <= Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn silence_is_asked_about_and_then_ended() {
    let node = fixture(|_| ()).await;
    let mut client = node.session("romeo", "orchard").await;
    tokio::time::pause();
    client.send(" ").await; // heard on the clock that stands still
    let before = Instant::now();
    assert!(client.until("</iq>").await.contains("<ping xmlns='urn:xmpp:ping'/>"));
    assert_eq!(before.elapsed().as_secs(), 300);
    // Any byte will do.
    client.send(" ").await;
    client.until("</iq>").await;
    let again = before.elapsed().as_secs();
    assert!((600..=661).contains(&again), "{again}");
    let got = client.end().await;
    assert!(got.contains("<stream:error><connection-timeout "), "{got}");
    assert_eq!(before.elapsed().as_secs(), again + 60);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let node = fixture(|_| ()).await;
    let mut deaf = node.session("juliet", "balcony").await;
    let mut romeo = node.session("romeo", "orchard").await;
    let body = "x".repeat(8_000);
    for _ in 0..40 {
        romeo
            .send(&format!(
                "<message to='juliet@localhost/balcony' type='headline'><body>{body}</body></message>"
            ))
            .await;
    }
    romeo.nothing_but_pong().await;
    tokio::time::pause();
    while node.shared.gate.counts().0 > 1 {
        romeo.send(" ").await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
    deaf.end().await;
    romeo.nothing_but_pong().await;
}

#[tokio::test]
async fn so_many_from_one_address() {
    let node = fixture(|config| config.limits.connections_before_login_per_address = 2).await;
    let [mut first, mut second] = [node.connect(Start::InTheStream), node.connect(Start::InTheStream)];
    // Each is counted in its own task, in order. The oldest makes room, without a word.
    let mut third = node.connect(Start::InTheStream);
    assert_eq!(first.end().await, "");
    second.open().await;
    third.open().await;
    let mut other = node.connect_from(Start::InTheStream, "198.51.100.1:1".parse().unwrap());
    other.open().await;
}

#[tokio::test]
async fn logged_in_connections_no_longer_count_as_waiting() {
    let node = fixture(|config| config.limits.connections_before_login_per_address = 1).await;
    let _romeo = node.session("romeo", "orchard").await;
    let _juliet = node.session("juliet", "balcony").await;
    assert_eq!(node.shared.gate.counts(), (2, 0));
}
