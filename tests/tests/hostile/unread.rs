//! Clients that ask and do not read, and clients that write more than others can take.

use std::time::Duration;

use rookery_tests::client::Client;
use rookery_tests::load::usage;
use rookery_tests::server::rookery::{Config, Rookery};
use rookery_tests::xml;

use crate::{login, notices_nothing, server};

/// The sum of the samples whose lines begin so.
async fn metric(server: &Rookery, name: &str) -> f64 {
    let text = server.metrics().await.unwrap();
    let lines = text.lines().filter(|l| l.starts_with(name));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn until(server: &Rookery, what: &str, reached: impl Fn(f64) -> bool) {
    let wait = async {
        while !reached(metric(server, what).await) {
            tokio::time::sleep(Duration::from_millis(50)).await; // metrics are polled
        }
    };
    tokio::time::timeout(rookery_tests::client::patience(), wait).await.expect(what);
}

/// Six sessions of one account stop reading, and ask for their own vCard of 130 kB a thousand times each.
#[tokio::test]
async fn what_nobody_reads_is_not_kept_in_memory() {
    const SESSIONS: usize = 6;
    const REQUESTS: usize = 1_000;
    let server = server(Config::default(), &["romeo", "tybalt"]).await;
    let options = server.listening.options();
    let mut witness = login(&options, "romeo", "orchard").await;
    witness.available().await.unwrap();
    let mut reader = login(&options, "tybalt", "reader").await;
    let card = format!("<vCard xmlns='vcard-temp'><NOTE>{}</NOTE></vCard>", "v".repeat(130_000));
    reader.iq_ok("set", "", &card).await.unwrap();
    let mut idle = Vec::new();
    for n in 0..SESSIONS {
        idle.push(login(&options, "tybalt", &format!("idle{n}")).await);
    }
    let pid = server.pid().unwrap();
    let (before, handled) =
        (usage::actor(&[pid]), metric(&server, "rookery_stanzas_total{kind=\"iq\",direction=\"out\"}").await);
    let mut sent = 0;
    for n in 0..REQUESTS {
        for client in &mut idle {
            let ask = format!("<iq type='get' id='{n}'><vCard xmlns='vcard-temp'/></iq>");
            client.send(&ask).await.unwrap();
            sent += ask.len();
        }
        if n % 10 == 9 {
            // Each is answered; else the queue of operations would refuse most of them.
            let all = handled + ((n + 1) * SESSIONS) as f64;
            until(&server, "rookery_stanzas_total{kind=\"iq\",direction=\"out\"}", |now| now >= all).await;
        }
    }
    // The account is as good as ever for a client that reads.
    for _ in 0..20 {
        let answer = reader.iq_ok("get", "", "<vCard xmlns='vcard-temp'/>").await.unwrap();
        assert!(answer.child("vCard", "vcard-temp").is_some(), "{answer}");
    }
    let (waiting, after) = (metric(&server, "rookery_waiting_bytes").await, usage::actor(&[pid]));
    println!("{sent} bytes sent; actor memory {before} to {after} bytes; {waiting} bytes wait");
    assert!(waiting < 17_000_000.0, "{waiting} bytes wait");
    assert!(after.saturating_sub(before) < 150_000_000, "actor memory: {before} to {after}");
    assert!(metric(&server, "rookery_limits_hit_total{limit=\"unacked_bytes\"}").await > 0.0);
    notices_nothing(&mut witness).await;
    drop(idle);
    until(&server, "rookery_waiting_bytes", |bytes| bytes == 0.0).await;
}

async fn messages(from: &mut Client, to: &str, count: usize) {
    let body = "m".repeat(250_000);
    for n in 0..count {
        let message = format!("<message type='chat' to='{to}' id='m{n}'><body>{body}</body></message>");
        from.send(&message).await.unwrap();
    }
    from.iq_ok("get", "localhost", "<ping xmlns='urn:xmpp:ping'/>").await.unwrap();
}

async fn all_of_them(client: &mut Client, count: usize) {
    for n in 0..count {
        let message = client.wait("a message", |e| e.is("message", xml::CLIENT)).await.unwrap();
        assert_eq!(message.attr("id"), Some(format!("m{n}").as_str()));
    }
}

/// A stranger's messages end no session: neither that of a client that reads and confirms, nor one that waits.
#[tokio::test]
async fn messages_of_any_size_end_nobodys_session() {
    const MANY: usize = 40;
    let server = server(Config::default(), &["romeo", "juliet", "tybalt"]).await;
    let options = server.listening.options();
    let mut tybalt = login(&options, "tybalt", "street").await;
    let mut romeo = login(&options, "romeo", "orchard").await;
    romeo.enable_sm(true, true).await.unwrap();
    romeo.available().await.unwrap();
    let reading = tokio::spawn(async move {
        all_of_them(&mut romeo, MANY).await;
        romeo
    });
    messages(&mut tybalt, "romeo@localhost", MANY).await;
    let mut romeo = reading.await.unwrap();
    notices_nothing(&mut romeo).await;

    let mut juliet = login(&options, "juliet", "balcony").await;
    juliet.enable_sm(true, true).await.unwrap();
    juliet.available().await.unwrap();
    let lost = juliet.lose();
    messages(&mut tybalt, "juliet@localhost", MANY).await;
    assert!(metric(&server, "rookery_waiting_bytes").await < 3_000_000.0);
    let mut juliet = Client::authenticated(&options, "juliet", "secret").await.unwrap();
    let resumed = juliet.resume_here(lost).await.unwrap();
    assert!(resumed.is("resumed", rookery_tests::client::SM), "{resumed}");
    all_of_them(&mut juliet, MANY).await;
    notices_nothing(&mut juliet).await;
}
