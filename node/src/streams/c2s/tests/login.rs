//! RFC 6120 sections 6 and 7: SASL, binding, and what is refused on the way.

use rookery_proto::sasl::client::Client as Scram;
use rookery_proto::sasl::{ChannelBindings, Hash, Mechanism, Nonce, encoding};

use super::*;

const SASL: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";

fn inner(element: &str) -> &str {
    let from = element.rfind("'>").unwrap() + 2;
    &element[from..element.rfind("</").unwrap()]
}

async fn scram(client: &mut Client, mechanism: Mechanism, user: &str, password: &str) -> String {
    let mut scram = Scram::new(mechanism, user, password, Nonce::from_random([7; 18]));
    if mechanism.is_plus() {
        let bindings = ChannelBindings { exporter: Some(client.exporter()), server_end_point: None };
        scram = scram.bind(&bindings, None).unwrap();
    }
    let initial = encoding::encode_initial(&scram.initial());
    client.send(&format!("<auth {SASL} mechanism='{mechanism}'>{initial}</auth>")).await;
    let challenge = client.until("</challenge>").await;
    let response = scram.challenge(&encoding::decode(inner(&challenge)).unwrap()).unwrap();
    client.send(&format!("<response {SASL}>{}</response>", encoding::encode(&response))).await;
    let last = client.until(">").await;
    if last.starts_with("<success") {
        let data = client.until("</success>").await;
        scram.success(Some(&encoding::decode(data.trim_end_matches("</success>")).unwrap())).unwrap();
        return "success".to_owned();
    }
    client.until("</failure>").await
}

#[tokio::test]
async fn every_mechanism_with_and_without_binding() {
    let node = fixture(|_| ()).await;
    for hash in Hash::ALL {
        for plus in [false, true] {
            let mut client = node.tls().await;
            let got = scram(&mut client, Mechanism::Scram { hash, plus }, "romeo", "secret").await;
            assert_eq!(got, "success", "{hash:?} {plus}");
        }
    }
    node.authenticated("romeo").await;
}

#[tokio::test]
async fn who_does_not_exist_looks_like_a_wrong_password() {
    let node = fixture(|_| ()).await;
    let mut answers = Vec::new();
    for user in ["romeo", "nobody"] {
        let mut client = node.tls().await;
        let mechanism = Mechanism::Scram { hash: Hash::Sha256, plus: true };
        answers.push(scram(&mut client, mechanism, user, "wrong").await);
        client.send(&plain(user, "wrong")).await;
        answers.push(client.until("</failure>").await);
    }
    assert!(answers[0].contains("<not-authorized "), "{answers:?}");
    assert_eq!((&answers[0], &answers[1]), (&answers[2], &answers[3]));
    assert_eq!(node.shared.guesses.count(std::net::IpAddr::from(PEER.0).into()), 4);
}

#[tokio::test]
async fn each_failure_has_its_condition_and_three_are_enough() {
    let node = fixture(|_| ()).await;
    for (sent, condition) in [
        (format!("<auth {SASL} mechanism='DIGEST-MD5'/>"), "invalid-mechanism"),
        (format!("<auth {SASL}>AA==</auth>"), "invalid-mechanism"),
        (format!("<auth {SASL} mechanism='PLAIN'>*</auth>"), "incorrect-encoding"),
        (format!("<auth {SASL} mechanism='PLAIN'>AAAA</auth>"), "malformed-request"),
        (format!("<auth {SASL} mechanism='PLAIN'/><abort {SASL}/>"), "aborted"),
        (format!("<response {SASL}>AA==</response>"), "malformed-request"),
        (format!("<abort {SASL}/>"), "malformed-request"),
    ] {
        let mut client = node.tls().await;
        client.send(&sent).await;
        let got = client.until("</failure>").await;
        assert!(got.contains(&format!("<{condition} ")), "{sent}: {got}");
        // The stream lives: a client may try again (section 6.4.5).
        client.send(&plain("romeo", "secret")).await;
        client.until("<success").await;
    }
    let mut client = node.tls().await;
    for _ in 0..3 {
        client.send(&format!("<auth {SASL} mechanism='NONE'/>")).await;
    }
    let got = client.end().await;
    assert_eq!(got.matches("<invalid-mechanism ").count(), 3);
    assert!(got.contains("<policy-violation "), "{got}");
}

#[tokio::test]
async fn nobody_logs_in_as_another_or_in_the_middle_of_an_exchange() {
    let node = fixture(|_| ()).await;
    let sasl = |mechanism: &str, data: &str| {
        let data = encoding::encode(data.as_bytes());
        format!("<auth {SASL} mechanism='{mechanism}'>{data}</auth>")
    };
    let first = sasl("SCRAM-SHA-1", "n,,n=romeo,r=abc");
    for (sent, condition) in [
        (sasl("PLAIN", "juliet@localhost\0romeo\0secret"), "invalid-authzid"),
        (sasl("PLAIN", "romeo@localhost/x\0romeo\0secret"), "invalid-authzid"),
        (sasl("PLAIN", "\0romeo\0secret\0more"), "malformed-request"),
        (sasl("PLAIN", "\0romeo@localhost\0secret"), "not-authorized"),
        (sasl("SCRAM-SHA-1", "n,a=juliet,n=romeo,r=abc"), "invalid-authzid"),
        (sasl("SCRAM-SHA-1", "y,,n=romeo,r=abc"), "not-authorized"),
        (sasl("SCRAM-SHA-1", "n,,m=x,n=romeo,r=abc"), "malformed-request"),
        (format!("{first}<abort {SASL}/>"), "aborted"),
        (format!("{first}{}", plain("romeo", "secret")), "malformed-request"),
        (format!("{first}<response {SASL}>AAAA</response>"), "malformed-request"),
    ] {
        let mut client = node.tls().await;
        client.send(&sent).await;
        let got = client.until("</failure>").await;
        assert!(got.contains(&format!("<{condition} ")) && !got.contains("<success"), "{sent}: {got}");
        client.send(&plain("romeo", "secret")).await;
        client.until("<success").await;
    }
}

/// A user with a password from before `sasl.iterations` was raised is not the only one with the old count.
#[tokio::test]
async fn the_count_of_iterations_does_not_tell_who_exists() {
    let node = fixture(|config| config.sasl.iterations = 8_192).await;
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for n in 0..30 {
        let mut client = node.tls().await;
        let user = if n == 0 { "romeo".to_owned() } else { format!("nobody{n}") };
        let initial = rookery_proto::sasl::encoding::encode(format!("n,,n={user},r=abcdefgh").as_bytes());
        client.send(&format!("<auth {SASL} mechanism='SCRAM-SHA-256'>{initial}</auth>")).await;
        let challenge = client.until("</challenge>").await;
        let data = challenge.rsplit_once("</").and_then(|(text, _)| text.rsplit_once('>')).unwrap().1;
        let text = String::from_utf8(rookery_proto::sasl::encoding::decode(data).unwrap()).unwrap();
        let count = text.split(',').find_map(|part| part.strip_prefix("i=")).unwrap();
        *counts.entry(count.to_owned()).or_default() += 1;
    }
    // Two real accounts have the old one, and one part in three is for the next account.
    assert!(counts["4096"] > 10 && counts["8192"] > 2, "{counts:?}");
}

#[tokio::test]
async fn a_guesser_waits_longer_and_longer() {
    let node = fixture(|config| {
        config.limits.login_failures_per_account = 1;
        config.limits.login_attempts = 100;
    })
    .await;
    let mut client = node.tls().await;
    let mut waited = Vec::new();
    for _ in 0..4 {
        tokio::time::pause();
        let before = tokio::time::Instant::now();
        client.send(&plain("romeo", "wrong")).await;
        client.until("</failure>").await;
        waited.push(before.elapsed().as_secs());
        tokio::time::resume();
    }
    assert_eq!(waited, [0, 1, 2, 3]);
    // Nobody else waits, wherever he is; nor does romeo elsewhere.
    tokio::time::pause();
    let before = tokio::time::Instant::now();
    client.send(&plain("juliet", "secret")).await;
    client.until("<success").await;
    let mut elsewhere = node.connect_from(Start::Direct, "198.51.100.1:1".parse().unwrap()).encrypt().await;
    elsewhere.open().await;
    elsewhere.send(&plain("romeo", "secret")).await;
    elsewhere.until("<success").await;
    assert_eq!(before.elapsed().as_secs(), 0);
}

#[tokio::test]
async fn guesses_at_the_same_time_are_no_faster() {
    let node = fixture(|_| ()).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(node.tls().await);
    }
    tokio::time::pause();
    for client in &mut clients {
        client.send(&plain("romeo", "wrong")).await;
    }
    let mut failures = Vec::new();
    for client in &mut clients {
        failures.push(client.until("</failure>").await);
    }
    let looked_at = failures.iter().filter(|f| f.contains("<not-authorized ")).count();
    // Five at once, and then 1, 2, 3, 4 and 5 seconds later; a sixth would be 21 seconds later.
    assert_eq!(looked_at, 10, "{failures:?}");
    assert!(
        failures.iter().all(|f| f.contains("<not-authorized ") || f.contains("<temporary-auth-failure "))
    );
}

#[tokio::test]
async fn nothing_else_before_login() {
    let node = fixture(|_| ()).await;
    for (sent, condition) in [
        ("<message to='juliet@localhost'><body>hi</body></message>", "not-authorized"),
        ("<presence/>", "not-authorized"),
        ("<iq type='get' id='x' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>", "not-authorized"),
    ] {
        let mut client = node.tls().await;
        client.send(sent).await;
        let got = client.end().await;
        assert!(got.contains(&format!("<stream:error><{condition} ")), "{sent}: {got}");
    }
}

#[tokio::test]
async fn a_stream_header_after_login_may_not_lie() {
    let node = fixture(|_| ()).await;
    for (header, condition) in [
        (HEADER.replace("to=", "from='juliet@localhost' to="), "invalid-from"),
        (HEADER.replace("to='localhost'", "to='elsewhere.example'"), "host-unknown"),
    ] {
        let mut client = node.tls().await;
        client.send(&plain("romeo", "secret")).await;
        client.until("<success").await;
        client.send(&header).await;
        let got = client.end().await;
        assert!(got.contains(&format!("<stream:error><{condition} ")), "{got}");
    }
}

#[tokio::test]
async fn binding() {
    let node = fixture(|_| ()).await;
    let mut client = node.authenticated("romeo").await;
    client.send(&bind("orchard").replace("orchard", "\u{fffd}\u{200e}".repeat(600).as_str())).await;
    assert!(client.until("</iq>").await.contains("type='error'"));
    client.send(&bind("")).await;
    let got = client.until("</iq>").await;
    let resource = got.split("<jid>romeo@localhost/").nth(1).unwrap().split('<').next().unwrap();
    assert!(resource.len() >= 16, "{got}");
    // Section 7.7.2.2: the newer session with the same resource wins.
    let mut first = node.session("romeo", "orchard").await;
    let _second = node.session("romeo", "orchard").await;
    assert!(first.end().await.contains("<stream:error><conflict "));
}

#[tokio::test]
async fn nothing_else_before_binding() {
    let node = fixture(|_| ()).await;
    let mut client = node.authenticated("romeo").await;
    // XEP-0198: too early, but no reason to end the stream.
    client.send("<enable xmlns='urn:xmpp:sm:3'/>").await;
    assert!(client.until("</failed>").await.contains("<unexpected-request "));
    client.send("<resume xmlns='urn:xmpp:sm:3' h='0' previd='never-was'/>").await;
    assert!(client.until("</failed>").await.contains("<item-not-found "));
    client.send("<resume xmlns='urn:xmpp:sm:3' h='-1' previd='x'/>").await;
    assert!(client.until("</failed>").await.contains("<bad-request "));
    client.send("<message to='juliet@localhost'/>").await;
    assert!(client.end().await.contains("<stream:error><not-authorized "));
}

#[tokio::test]
async fn registration_where_it_is_open() {
    let query = "<query xmlns='jabber:iq:register'>";
    let node = fixture(|_| ()).await;
    let mut client = node.tls().await;
    client.send(&format!("<iq type='get' id='1'>{query}</query></iq>")).await;
    let form = client.until("</iq>").await;
    assert!(form.contains("<username/>") && form.contains("<password/>"), "{form}");
    let fill = format!(
        "<iq type='set' id='2'>{query}<username>Mercutio</username><password>queen mab</password></query></iq>"
    );
    client.send(&fill).await;
    let made = client.until(">").await;
    assert!(made.contains("type='result'"), "{made}");
    client.send(&fill).await;
    assert!(client.until("</iq>").await.contains("<conflict "));
    client.send(&plain("mercutio", "queen mab")).await;
    client.until("<success").await;

    let node = fixture(|config| config.domains[0].registration = false).await;
    let mut client = node.connect(Start::Direct).encrypt().await;
    assert!(!client.open().await.contains("iq-register"));
    client.send(&fill).await;
    assert!(client.end().await.contains("<not-authorized "));
}
