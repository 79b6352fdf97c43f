//! Clients that connect often, guess, idle, or make much of little: they get no further, and slow no other client.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as B64;
use rookery_tests::client::{Client, Security};
use rookery_tests::server::rookery::{Config, Rookery};
use rookery_tests::xml;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{login, notices_nothing, server, try_condition};

const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

fn limits(lines: &str) -> Config {
    Config { limits: lines.into(), ..Config::default() }
}

fn plain(user: &str, password: &str) -> String {
    let data = B64.encode(format!("\0{user}\0{password}"));
    format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{data}</auth>")
}

/// The sum of the samples whose lines begin so.
async fn metric(server: &Rookery, name: &str) -> f64 {
    let text = server.metrics().await.unwrap();
    let lines = text.lines().filter(|l| l.starts_with(name));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_in_parallel_get_nowhere_and_neighbours_do_not_wait() {
    let server = server(limits("login_delay_seconds = 3"), &["romeo", "juliet"]).await;
    let options = server.listening.options();
    let mut guessing = JoinSet::new();
    for n in 0..95 {
        let options = options.clone();
        guessing.spawn(async move {
            let mut client = Client::open(&options).await.unwrap();
            client.send(&plain("romeo", &format!("guess{n}"))).await.unwrap();
            let failure = client.wait("a failure", |e| e.is("failure", SASL)).await.unwrap();
            failure.children().next().unwrap().name.clone()
        });
    }
    // From the same address, with the right password, while they guess: another account's owner.
    login(&options, "juliet", "balcony").await;
    let answers = guessing.join_all().await;
    let looked_at = answers.iter().filter(|a| *a == "not-authorized").count();
    // Five at once, then one after a second, and one each three seconds: as long as they take to connect.
    assert!((5..=20).contains(&looked_at), "{looked_at}");
    assert!(answers.iter().all(|a| a == "not-authorized" || a == "temporary-auth-failure"), "{answers:?}");
    let slowed = metric(&server, "rookery_limits_hit_total{limit=\"login_failures_per_address\"}").await;
    assert_eq!(slowed, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn coming_back_gives_no_new_rate() {
    let config = limits("bytes_per_second = 100000\nbytes_burst = 100000");
    let server = server(config, &["romeo", "tybalt"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    romeo.available().await.unwrap();
    let body = "x".repeat(90_000);
    let begun = Instant::now();
    for n in 0..5 {
        let mut tybalt = login(&options, "tybalt", "street").await;
        let message =
            format!("<message to='{}' type='chat' id='n{n}'><body>{body}</body></message>", romeo.jid);
        tybalt.send(&message).await.unwrap();
        romeo.wait("the message", |e| e.attr("id") == Some(&format!("n{n}"))).await.unwrap();
    }
    // 450 kB, of which 100 were free.
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_idles_before_login_keeps_nobody_out() {
    let config = limits("connections_before_login = 20\nconnections_before_login_per_address = 10");
    let server = server(config, &["romeo"]).await;
    let options = server.listening.options();
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(TcpStream::connect(server.listening.c2s).await.unwrap());
    }
    // The oldest is sent away, without a word. All have come before Romeo does: else he would be older than some.
    assert_eq!(idle.first_mut().unwrap().read(&mut [0]).await.unwrap_or(0), 0);
    let limits = "rookery_limits_hit_total{limit=\"connections_before_login";
    let all_came = async {
        while metric(&server, limits).await < 30.0 {
            tokio::time::sleep(Duration::from_millis(50)).await; // metrics are polled
        }
    };
    tokio::time::timeout(rookery_tests::client::patience(), all_came).await.expect("thirty go");
    let mut romeo = login(&options, "romeo", "orchard").await;
    notices_nothing(&mut romeo).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_block_health() {
    let server = server(limits(""), &[]).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(server.listening.http.unwrap()).await.unwrap());
    }
    for _ in 0..3 {
        assert!(server.metrics().await.unwrap().contains("rookery_build_info"));
    }
}

/// A stream whose header says `attributes` as well.
async fn with_header(server: &Rookery, user: &str, attributes: &str) -> Client {
    let options = server.listening.options().with(Security::Direct);
    let mut client = Client::open(&options).await.unwrap();
    client.send(&plain(user, "secret")).await.unwrap();
    client.wait("success", |e| e.is("success", SASL)).await.unwrap();
    let header = format!(
        "<stream:stream {attributes} to='localhost' version='1.0' xmlns='{}' xmlns:stream='{}'>",
        xml::CLIENT,
        xml::STREAMS
    );
    client.send_raw(header.as_bytes()).await.unwrap();
    client.wait("features", |e| e.is("features", xml::STREAMS)).await.unwrap();
    client.bind("street").await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_header_says_once_does_not_grow_what_follows() {
    let server = server(limits("stanza_bytes = 20000"), &["romeo", "tybalt"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    romeo.available().await.unwrap();
    let mut tybalt = with_header(&server, "tybalt", &format!("xml:lang='{}'", "x".repeat(9_000))).await;
    tybalt
        .send(&format!("<message to='{}' id='l' type='chat'><body>.</body></message>", romeo.jid))
        .await
        .unwrap();
    let got = romeo.wait("the message", |e| e.attr("id") == Some("l")).await.unwrap().to_string();
    assert!(got.len() < 1_000, "{} bytes", got.len());
    let mut tybalt = with_header(&server, "tybalt", &format!("xmlns:p='urn:{}'", "x".repeat(500))).await;
    let children = "<p:a/>".repeat(60);
    tybalt.send(&format!("<message to='{}'>{children}</message>", romeo.jid)).await.unwrap();
    assert_eq!(try_condition(&mut tybalt).await.unwrap(), "policy-violation");
    notices_nothing(&mut romeo).await;
}
