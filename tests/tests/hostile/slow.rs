//! Clients that take their time.

use std::time::{Duration, Instant};

use rookery_tests::client::{Client, Security};
use rookery_tests::server::rookery::Config;

use crate::{condition, login, notices_nothing, server};

/// Begins a tag and goes on with it a byte at a time, as an attack does; that pace is all that the clock is for.
async fn drip(client: &mut Client, begin: &str) {
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    let _ = client.send_raw(begin.as_bytes()).await;
    loop {
        tokio::select! {
            _ = pace.tick() => {
                if client.send_raw(b"x").await.is_err() {
                    return;
                }
            }
            event = client.fresh() => {
                if let Ok(rookery_tests::client::Event::Element(e)) = event {
                    client.kept.push_back(e);
                }
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_tag_that_never_ends_does_not_outlive_the_time_for_login() {
    let base = Config::default();
    // Enough for the logins and handshakes of a busy machine: they have no more time than the tags.
    let config = Config { limits: format!("{}\nlogin_seconds = 15", base.limits), ..base };
    let server = server(config, &["romeo"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    let case = async |security, begin| {
        let begun = Instant::now();
        let mut slow = Client::open(&options.with(security)).await.unwrap();
        drip(&mut slow, begin).await;
        assert_eq!(condition(&mut slow, begin).await, "connection-timeout");
        assert!(begun.elapsed() >= Duration::from_millis(14_900), "{:?}", begun.elapsed());
    };
    let all = async |security| {
        tokio::join!(
            case(security, "<starttls xmlns='"),
            case(security, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='"),
            case(security, "<iq id='"),
        )
    };
    tokio::join!(all(Security::None), all(Security::Direct), all(Security::StartTls));
    notices_nothing(&mut romeo).await;
}

/// After login every byte is a sign of life, and the size of a stanza is the end of one that never ends.
#[tokio::test]
async fn after_login_it_ends_at_the_size_of_a_stanza() {
    let base = Config::default();
    let config = Config { limits: format!("{}\nstanza_bytes = 10000", base.limits), ..base };
    let server = server(config, &["romeo", "tybalt"]).await;
    let options = server.listening.options();
    let mut romeo = login(&options, "romeo", "orchard").await;
    let mut slow = login(&options, "tybalt", "street").await;
    let mut bytes = b"<message id='".to_vec();
    bytes.resize(10_000, b'x');
    slow.send_slowly(&bytes).await.unwrap();
    notices_nothing(&mut romeo).await;
    let _ = slow.send_slowly(b"xx").await;
    assert_eq!(condition(&mut slow, "one byte too many").await, "policy-violation");
    notices_nothing(&mut romeo).await;
}
