//! The program as an operator sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use rookery_tests::client::{Client, Event, SM, Security, tls};
use rookery_tests::server::rookery::{Config, Rookery, get};
use rookery_tests::xml;

async fn with_romeo() -> Rookery {
    let server = Rookery::start(&Config::default()).await.unwrap_or_else(|e| panic!("{e}"));
    server.add_users([("romeo@localhost", "secret")]).unwrap_or_else(|e| panic!("{e}"));
    server
}

#[tokio::test]
async fn sigterm_closes_streams_and_exits_with_zero() {
    let mut server = with_romeo().await;
    let mut romeo = Client::login(&server.listening.options(), "romeo", "secret", "orchard").await.unwrap();
    let waits = tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            match romeo.next().await.unwrap() {
                Event::Element(e) => seen.push(e),
                Event::Close => {
                    let _ = romeo.send_raw(b"</stream:stream>").await;
                    return (seen, true);
                }
                Event::End => return (seen, false),
            }
        }
    });
    let status = server.stop().await.unwrap_or_else(|e| panic!("{e}"));
    let (seen, closed) = waits.await.unwrap();
    assert!(closed, "no </stream:stream>: {seen:?}");
    assert!(
        seen.iter().any(|e| e.is("error", xml::STREAMS) && e.children().any(|c| c.name == "system-shutdown"))
    );
    assert_eq!(status.code(), Some(0), "{}", server.whole_log());
}

#[tokio::test]
async fn a_session_is_resumed_after_an_orderly_restart() {
    let mut server = with_romeo().await;
    let mut romeo = Client::login(&server.listening.options(), "romeo", "secret", "orchard").await.unwrap();
    romeo.enable_sm(true, true).await.unwrap();
    romeo.available().await.unwrap();
    let lost = romeo.lose();
    server.stop().await.unwrap_or_else(|e| panic!("{e}"));
    server.restart().await.unwrap_or_else(|e| panic!("{e}"));
    let options = server.listening.options();
    let (mut romeo, answer) = Client::resume(&options, "romeo", "secret", lost).await.unwrap();
    assert!(answer.is("resumed", SM), "{answer}");
    romeo.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
}

#[tokio::test]
async fn every_way_in_and_every_mechanism() {
    let server = with_romeo().await;
    let options = server.listening.options();
    let mechanisms = [
        "PLAIN",
        "SCRAM-SHA-1",
        "SCRAM-SHA-256",
        "SCRAM-SHA-512",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-512-PLUS",
    ];
    for security in [Security::Direct, Security::StartTls] {
        for mechanism in mechanisms {
            let mut options = options.with(security);
            options.mechanism = Some(mechanism.to_owned());
            let client = Client::login(&options, "romeo", "secret", "").await;
            client.unwrap_or_else(|e| panic!("{security:?} {mechanism}: {e}")).close().await.unwrap();
            let wrong = Client::login(&options, "romeo", "wrong", "").await;
            assert!(wrong.is_err(), "{mechanism} with a wrong password");
            let nobody = Client::login(&options, "nobody", "secret", "").await.err().map(|e| e.to_string());
            assert_eq!(
                nobody,
                wrong.err().map(|e| e.to_string()),
                "{mechanism}: no such user looks the same"
            );
        }
        let mut old = options.with(security);
        old.tls = tls::tls12();
        old.mechanism = Some("SCRAM-SHA-256".into());
        Client::login(&old, "romeo", "secret", "").await.unwrap_or_else(|e| panic!("TLS 1.2: {e}"));
    }
}

#[tokio::test]
async fn health_and_metrics_are_told() {
    let server = with_romeo().await;
    let http = server.listening.http.unwrap();
    for path in ["/healthz", "/readyz"] {
        let answer = get(http, path).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let _romeo = Client::login(&server.listening.options(), "romeo", "secret", "orchard").await.unwrap();
    let metrics = server.metrics().await.unwrap();
    assert!(metrics.lines().any(|l| l.starts_with("rookery_") && !l.starts_with('#')), "{metrics}");
    assert!(!server.whole_log().contains("secret"), "a password in the log");
}
