//! RFC 6120 sections 4 and 5: headers, STARTTLS, stream errors before login.

use super::*;

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

/// What a fresh STARTTLS connection answers to `text`, to the end of the stream.
async fn refused(text: &[u8]) -> String {
    let node = fixture(|_| ()).await;
    let mut client = node.connect(Start::InTheStream);
    client.bytes(text).await;
    client.end().await
}

fn header(attributes: &str) -> String {
    format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' {attributes}>"
    )
}

#[tokio::test]
async fn each_bad_header_gets_our_header_its_error_and_the_end() {
    for (sent, condition) in [
        (header("to='elsewhere.example' version='1.0'"), "host-unknown"),
        (header("version='1.0'"), "improper-addressing"),
        (header("to='@' version='1.0'"), "improper-addressing"),
        (header("to='localhost'"), "unsupported-version"),
        (header("to='localhost' version='0.9'"), "unsupported-version"),
        (HEADER.replace("jabber:client", "jabber:server"), "invalid-namespace"),
        (HEADER.replace("http://etherx.jabber.org/streams", "urn:other"), "invalid-namespace"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>".to_owned(), "unsupported-encoding"),
        ("<!DOCTYPE lolz []>".to_owned(), "restricted-xml"),
        ("<!-- hello -->".to_owned(), "restricted-xml"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "not-well-formed"),
        (format!("{HEADER}<message><body>hi</body></message>"), "not-authorized"),
        (format!("{HEADER}<foo xmlns='urn:foo'/>"), "unsupported-stanza-type"),
        (format!("{HEADER}<a xmlns='urn:foo'></b>"), "not-well-formed"),
        (format!("{HEADER}<x:a/>"), "bad-namespace-prefix"),
        (format!("{HEADER}text"), "bad-format"),
        (format!("{HEADER}<a xmlns='urn:foo'>{}", "x".repeat(10_001)), "policy-violation"),
        (format!("{HEADER}{}", "<a xmlns='urn:foo'>".repeat(100)), "policy-violation"),
    ] {
        let got = refused(sent.as_bytes()).await;
        let at = got.find("<stream:stream ").unwrap_or_else(|| panic!("no header for {sent:?}: {got}"));
        let error =
            got.find(&format!("<stream:error><{condition} ")).unwrap_or_else(|| panic!("{sent:?}: {got}"));
        assert!(at < error && got.ends_with("</stream:error></stream:stream>"), "{sent:?}: {got}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text() {
    for bytes in [&b"\xff\xfe"[..], b"<\0", b"\xc3"] {
        let mut text = HEADER.as_bytes().to_vec();
        text.extend_from_slice(b"<a xmlns='urn:x'>");
        text.extend_from_slice(bytes);
        text.extend_from_slice(b"</a>");
        let got = refused(&text).await;
        assert!(got.contains("<stream:error>"), "{got}");
    }
}

#[tokio::test]
async fn the_answer_header_says_who_we_are() {
    let node = fixture(|_| ()).await;
    let mut client = node.connect(Start::InTheStream);
    client.send(&header("to='LocalHost' from='romeo@localhost' version='1.0' xml:lang='de'")).await;
    let got = client.until("</stream:features>").await;
    for part in
        ["from='localhost'", "to='romeo@localhost'", " id='", "version='1.0'", "xml:lang='en'", "<required/>"]
    {
        assert!(got.contains(part), "{part} in {got}");
    }
    assert!(!got.contains("mechanism"), "{got}");
    client.send("</stream:stream>").await;
    assert_eq!(client.end().await, "</stream:stream>");
}

#[tokio::test]
async fn one_byte_at_a_time() {
    let node = fixture(|_| ()).await;
    let mut client = node.connect(Start::InTheStream);
    for byte in HEADER.bytes() {
        client.bytes(&[byte]).await;
    }
    client.until("</stream:features>").await;
}

#[tokio::test]
async fn starttls_then_the_certificate_of_the_domain() {
    let node = fixture(|_| ()).await;
    let mut client = node.opened().await;
    // A password in the clear is refused before anybody looks at it (section 6.5.4).
    client.send(&plain("romeo", "secret")).await;
    assert!(client.until("</failure>").await.contains("<encryption-required "));
    client.send(STARTTLS).await;
    client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
    let mut client = client.encrypt().await;
    let features = client.open().await;
    assert!(features.contains("SCRAM-SHA-256-PLUS") && features.contains("tls-exporter"), "{features}");
    assert!(!features.contains("starttls"), "{features}");
}

#[tokio::test]
async fn nothing_may_hide_behind_starttls() {
    for hidden in ["<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>", "\n<", " x", "\u{16}\u{3}\u{1}"] {
        let got = refused(format!("{HEADER}{STARTTLS}{hidden}").as_bytes()).await;
        assert!(got.contains("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>"), "{got}");
        assert!(!got.contains("<proceed"), "{got}");
    }
}

#[tokio::test]
async fn white_space_behind_starttls_hides_nothing() {
    let node = fixture(|_| ()).await;
    // With the element, and in a segment of its own before the client's hello.
    for (with, later) in [("\n", ""), ("", "\r\n"), (" \t", "\n \n")] {
        let mut client = node.opened().await;
        client.send(&format!("{STARTTLS}{with}")).await;
        client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
        for byte in later.bytes() {
            client.bytes(&[byte]).await;
        }
        let mut client = client.encrypt().await;
        client.open().await;
        client.send(&plain("romeo", "secret")).await;
        client.until("<success").await;
    }
}

#[tokio::test]
async fn nonsense_in_place_of_tls_ends_silently() {
    let node = fixture(|_| ()).await;
    let mut client = node.connect(Start::Direct);
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    let mut raw = Vec::new();
    let _ = client.io().read_to_end(&mut raw).await;
    assert!(!String::from_utf8_lossy(&raw).contains("stream"));
    node.shared.gate.emptied().await;
}

#[tokio::test]
async fn what_is_no_tls_after_proceed_ends_silently() {
    let node = fixture(|_| ()).await;
    let empty = [0x16, 3, 1, 0, 0].repeat(1_000);
    let large = [&[0x17, 3, 3, 0xff, 0xff][..], &[b'a'; 4_096]].concat();
    for garbage in [HEADER.as_bytes(), &empty, &large, STARTTLS.as_bytes()] {
        let mut client = node.opened().await;
        client.send(STARTTLS).await;
        client.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await;
        let _ = client.io().write_all(garbage).await;
        let mut rest = Vec::new();
        let _ = client.io().read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("stream"), "{rest:?}");
        drop(client);
        node.shared.gate.emptied().await;
    }
}

#[tokio::test]
async fn a_proxy_header_only_from_those_we_trust() {
    let trusted = vec![crate::config::Network::parse("192.0.2.0/24").unwrap()];
    let node = fixture(|config| config.listen.proxy = Some(trusted)).await;
    let mut client = node.connect(Start::InTheStream);
    client.send(&format!("PROXY TCP4 203.0.113.9 192.0.2.1 4711 5222\r\n{HEADER}")).await;
    client.until("</stream:features>").await;
    let mut without = node.connect(Start::InTheStream);
    without.send(HEADER).await;
    assert_eq!(without.end().await, "");
    let mut stranger = node.connect_from(Start::InTheStream, "198.51.100.1:1".parse().unwrap());
    let _ = stranger.io().write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 5222\r\n").await;
    assert_eq!(stranger.end().await, "");
}

#[tokio::test]
async fn the_node_stops() {
    let node = fixture(|_| ()).await;
    let mut client = node.opened().await;
    node.stop.send(true).unwrap();
    assert!(client.end().await.contains("<system-shutdown "));
    drop(client);
    node.shared.gate.emptied().await;
}

/// To the byte: some clients look for text.
#[tokio::test]
async fn each_stage_has_its_features() {
    let node = fixture(|config| config.domains[0].registration = true).await;
    let features = |answer: String| answer[answer.find("<stream:features>").unwrap()..].to_owned();
    let mut client = node.connect(Start::InTheStream);
    assert_eq!(
        features(client.open().await),
        "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
    );
    let mut client = node.connect(Start::Direct).encrypt().await;
    let login = features(client.open().await);
    let end = "</sasl-channel-binding><register xmlns='http://jabber.org/features/iq-register'/>\
               <limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes></limits></stream:features>";
    let begin = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-512-PLUS<";
    assert!(
        login.starts_with(begin) && login.contains("<mechanism>PLAIN<") && login.ends_with(end),
        "{login}"
    );
    client.send(&plain("romeo", "secret")).await;
    client.until("<success").await;
    let session = features(client.open().await);
    let begin = "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
                 <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
                 <sm xmlns='urn:xmpp:sm:3'/><csi xmlns='urn:xmpp:csi:0'/>\
                 <ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/>\
                 <limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>262144</max-bytes>\
                 <idle-seconds>300</idle-seconds></limits><c xmlns='http://jabber.org/protocol/caps'";
    assert!(session.starts_with(begin), "{session}");
    // What is not offered is not taken: the same request where registration is closed ends the stream.
    let closed = fixture(|config| config.domains[0].registration = false).await;
    let mut client = closed.tls().await;
    client.send("<iq type='get' id='r'><query xmlns='jabber:iq:register'/></iq>").await;
    assert!(client.end().await.contains("<not-authorized "));
}
