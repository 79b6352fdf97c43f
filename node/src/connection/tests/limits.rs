//! Every limit of a connection, at its edge.

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn login_takes_too_long() {
    let node = fixture(|_| ()).await;
    for sent in ["", HEADER, "<stream:stream x='"] {
        let mut client = node.connect(Kind::C2s);
        client.send(sent).await;
        tokio::time::pause();
        let before = Instant::now();
        let got = client.end().await;
        assert_eq!(before.elapsed().as_secs(), 30, "{sent}");
        assert!(got.contains("<stream:error><connection-timeout "), "{got}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_byte_a_second_does_not_help() {
    let node = fixture(|_| ()).await;
    let mut client = node.connect(Kind::C2s);
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
        config.limits.stanzas_per_second = 10;
        config.limits.stanzas_burst = 5;
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
        config.limits.bytes_per_second = 10_000;
        config.limits.bytes_burst = 10_000;
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
    let _held = [node.connect(Kind::C2s), node.connect(Kind::C2s)];
    // Each is counted in its own task, in order.
    let mut third = node.connect(Kind::C2s);
    assert_eq!(third.end().await, "");
    let mut other = node.connect_from(Kind::C2s, "198.51.100.1:1".parse().unwrap());
    other.open().await;
}

#[tokio::test]
async fn logged_in_connections_no_longer_count_as_waiting() {
    let node = fixture(|config| config.limits.connections_before_login_per_address = 1).await;
    let _romeo = node.session("romeo", "orchard").await;
    let _juliet = node.session("juliet", "balcony").await;
    assert_eq!(node.shared.gate.counts(), (2, 0));
}
