//! Before login little is accepted, and nothing is kept waiting.

use rookery_tests::client::{Client, Io, Security, Wire};
use rookery_tests::server::rookery::Config;

use crate::{condition, server};

/// RFC 6120 section 5.4.3.3: what comes in the clear behind `<starttls/>` is not taken for something encrypted. White space is
/// nothing: some clients send a line end.
#[tokio::test]
async fn nothing_hides_behind_starttls() {
    let server = server(Config::default(), &["romeo"]).await;
    let options = server.listening.options().with(Security::None);
    const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>";
    for hidden in [auth.to_owned(), format!("\n{auth}"), "\n<".to_owned()] {
        let mut client = Client::open(&options).await.unwrap();
        client.send_raw(format!("{STARTTLS}{hidden}").as_bytes()).await.unwrap();
        assert_eq!(client.element().await.unwrap().name, "failure", "{hidden}");
    }
    for (with, later) in [("\n", ""), ("", "\r\n"), ("\n", " \n")] {
        let mut client = Client::open(&options).await.unwrap();
        client.send_raw(format!("{STARTTLS}{with}").as_bytes()).await.unwrap();
        assert_eq!(client.element().await.unwrap().name, "proceed");
        client.send_slowly(later.as_bytes()).await.unwrap();
        client.wire.secure(&options.tls, &options.domain).await.unwrap();
        client.open_stream(&options.domain).await.unwrap();
        client.authenticate(&options, "romeo", "secret").await.unwrap();
    }
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
        client.wire =
            Wire::new(Io::Plain(tokio::net::TcpStream::connect(server.listening.c2s).await.unwrap()));
        client.send_raw(header.as_bytes()).await.unwrap();
        let got = condition(&mut client, case).await;
        assert!(got == wanted || (case == "not a stream" && got == "bad-format"), "{case}: {got}");
    }
}
