//! Attempts to speak for somebody else, and to hear what is for somebody else.

use super::peer::{Peer, header, id};
use super::*;
use crate::streams::s2s::tests::hostile::refused;

/// Three nodes with certificates, and romeo of the first online.
async fn three() -> (Node, Node, Node, Session) {
    let authority = Authority::new();
    let (a, b) = two(Some(&authority), Policy::Certificate, Begin::Starttls, |_| {}).await;
    let c = Node::start(Plan::certified("c.example", &authority), (Port::new(), Port::new()), |_| {}).await;
    let romeo = a.session("romeo").await;
    (a, b, c, romeo)
}

fn message(from: &str, body: &str) -> String {
    format!("<message from='x@{from}' to='romeo@a.example'><body>{body}</body></message>")
}

#[tokio::test]
async fn nothing_is_injected_before_tls() {
    let (a, b, _c, _romeo) = three().await;
    let starttls = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    for injected in [message("b.example", "injected"), header("b.example", "a.example"), "x".into()] {
        let mut peer = Peer::plain(a.at).await;
        peer.send(&header("b.example", "a.example")).await;
        peer.until("</stream:features>").await;
        peer.send(&format!("{starttls}{injected}")).await;
        let end = peer.end().await;
        assert!(end.contains("<failure ") && !end.contains("<proceed"), "{end}");
    }
    // Neither dialback nor a login works in the clear.
    let key = b.host.dialback_key("a.example", "b.example", "id");
    for early in [
        format!("<db:result from='b.example' to='a.example'>{key}</db:result>"),
        format!("<db:verify from='b.example' to='a.example' id='id'>{key}</db:verify>"),
    ] {
        let mut peer = Peer::plain(a.at).await;
        peer.send(&header("b.example", "a.example")).await;
        peer.until("</stream:features>").await;
        peer.send(&early).await;
        assert!(peer.until("</error>").await.contains("<policy-violation"));
        peer.send(&message("b.example", "early")).await;
        refused(&mut peer, "not-authorized").await;
    }
    let mut peer = Peer::plain(a.at).await;
    peer.send(&header("b.example", "a.example")).await;
    peer.until("</stream:features>").await;
    peer.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
    refused(&mut peer, "unsupported-stanza-type").await;
}

#[tokio::test]
async fn a_login_is_for_one_domain() {
    let (a, b, _c, mut romeo) = three().await;
    // Another domain by dialback, where a certificate is wanted.
    let mut peer = Peer::authenticated(&a, &b, "b.example").await;
    peer.send("<db:result from='c.example' to='a.example'>key</db:result>").await;
    assert!(peer.until("</db:result>").await.contains("<not-authorized"));
    peer.send(&message("b.example", "mine")).await;
    romeo.until("<body>mine</body>").await;
    peer.send(&message("c.example", "not mine")).await;
    refused(&mut peer, "invalid-from").await;
    // Another domain as the identity that it asks for, and in the header after the login.
    let (mut peer, _) = Peer::opened(&a, &b, "b.example").await;
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>";
    peer.send(&format!("{auth}Yy5leGFtcGxl</auth>")).await;
    peer.until("<invalid-authzid").await;
    peer.send(&format!("{auth}=</auth>")).await;
    peer.until("<success").await;
    peer.send(&header("c.example", "a.example")).await;
    refused(&mut peer, "not-authorized").await;
    // Stanzas before the header of the new stream are none.
    let (mut peer, _) = Peer::opened(&a, &b, "b.example").await;
    peer.send(&format!("{auth}=</auth>{}", message("b.example", "too soon"))).await;
    let end = peer.end().await;
    assert!(end.contains("</stream:stream>") && end.contains("<stream:error>"), "{end}");
    // Bytes without end instead of a login.
    let (mut peer, _) = Peer::opened(&a, &b, "b.example").await;
    for _ in 0..80 {
        peer.send("<db:verify from='x.example' to='a.example' id='1'>k</db:verify>").await;
    }
    refused(&mut peer, "policy-violation").await;
}

#[tokio::test]
async fn what_another_domain_may_resume_is_its_own() {
    let (a, b, c, mut romeo) = three().await;
    let mut victim = Peer::authenticated(&a, &b, "b.example").await;
    victim.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    let enabled = victim.until(" max='").await;
    let previd = enabled.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let mut thief = Peer::authenticated(&a, &c, "c.example").await;
    thief.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{previd}' h='0'/>")).await;
    thief.until("<item-not-found").await;
    // The stream goes on.
    victim.send(&message("b.example", "still here")).await;
    romeo.until("<body>still here</body>").await;
    // Nor when it is lost.
    drop(victim);
    thief.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{previd}' h='0'/>")).await;
    thief.until("<item-not-found").await;
    thief.send(&message("b.example", "stolen")).await;
    refused(&mut thief, "invalid-from").await;
    let mut again = Peer::authenticated(&a, &b, "b.example").await;
    again.send(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{previd}' h='0'/>")).await;
    again.until("h='1'/>").await;
}

#[tokio::test]
async fn a_stream_both_ways_is_for_what_was_proved_on_it() {
    let (a, b, c, _romeo) = three().await;
    let nowhere = Port::new().at;
    let mut settings = (**a.federation.settings.load()).clone();
    for domain in ["b.example", "c.example"] {
        let domain = rookery_actors::options::DomainPattern::parse(domain);
        let (host, port) = (nowhere.ip().to_string(), nowhere.port());
        settings.federation.routes.insert(0, Route { domain, host, port, direct: false });
    }
    settings.federation.routes.truncate(2);
    a.federation.reload(settings);
    let juliet = a.session("juliet").await;
    let mut both = Vec::new();
    for (node, domain) in [(&b, "b.example"), (&c, "c.example")] {
        let (mut peer, _) = Peer::opened(&a, node, domain).await;
        peer.send("<bidi xmlns='urn:xmpp:bidi'/>").await;
        peer.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>").await;
        peer.until("<success").await;
        peer.send(&header(domain, "a.example")).await;
        peer.until("</stream:features>").await;
        both.push(peer);
    }
    for (to, n) in [("c.example", 1), ("b.example", 2)] {
        juliet.send(&format!("<message to='x@{to}' type='chat' id='{n}'><body>for {to}</body></message>"));
    }
    for (peer, domain) in both.iter_mut().zip(["b.example", "c.example"]) {
        let got = peer.until("</message>").await;
        assert!(got.contains(&format!("for {domain}")) && got.matches("<message").count() == 1, "{got}");
    }
}

#[tokio::test]
async fn a_reload_ends_what_it_does_not_allow() {
    let (a, b, c, mut romeo) = three().await;
    let mut refused_now = Peer::authenticated(&a, &b, "b.example").await;
    let mut stays = Peer::authenticated(&a, &c, "c.example").await;
    for (peer, domain) in [(&mut refused_now, "b.example"), (&mut stays, "c.example")] {
        peer.send(&message(domain, domain)).await;
        romeo.until(&format!("<body>{domain}</body>")).await;
    }
    let mut settings = (**a.federation.settings.load()).clone();
    settings.federation.refuse = vec![rookery_actors::options::DomainPattern::parse("b.example").unwrap()];
    a.federation.reload(settings);
    refused_now.until("</stream:stream>").await;
    stays.send(&message("c.example", "goes on")).await;
    romeo.until("<body>goes on</body>").await;
    // A stream that goes on proves no domain that is refused now.
    stays.send("<db:result from='b.example' to='a.example'>key</db:result>").await;
    assert!(stays.until("</db:result>").await.contains("<policy-violation"));
}

/// The server that is authoritative for `c.example`, as far as `a` knows, is the test; `b` is a real one.
#[tokio::test]
async fn only_the_right_answer_of_the_right_server_verifies_a_key() {
    let authoritative = Port::new();
    let b = (Port::new(), Port::new());
    let plan = |domain, routes| Plan { domain, authority: None, routes, policy: Policy::Dialback };
    let routes = vec![("c.example", authoritative.at, Begin::Direct), ("b.example", b.0.at, Begin::Starttls)];
    let extra = |config: &mut Config| {
        let other = config::Domain { name: "a2.example".into(), ..config.domains[0].clone() };
        config.domains.push(other);
    };
    let a = Node::start(plan("a.example", routes), (Port::new(), Port::new()), extra).await;
    let b = Node::start(plan("b.example", Vec::new()), b, |_| {}).await;
    let (mut peer, opened) = Peer::opened(&a, &b, "c.example").await;
    let stream = id(&opened);
    peer.send("<db:result from='c.example' to='a.example'>key</db:result>").await;
    let mut asked = Peer::called(&authoritative.listener, &b).await;
    asked.greet("c.example", "").await;
    let question = asked.until("</db:verify>").await;
    assert!(question.contains(&format!("id='{stream}'")) && question.contains(">key<"), "{question}");
    // Answers to other questions, of other kinds, and by the wrong stream.
    for wrong in [
        "<db:verify from='c.example' to='a.example' id='other' type='valid'/>".to_owned(),
        format!("<db:verify from='d.example' to='a.example' id='{stream}' type='valid'/>"),
        format!("<db:verify from='c.example' to='a2.example' id='{stream}' type='valid'/>"),
        "<db:result from='c.example' to='a.example' type='valid'/>".to_owned(),
    ] {
        asked.send(&wrong).await;
    }
    peer.send(&format!("<db:verify from='c.example' to='a.example' id='{stream}' type='valid'/>")).await;
    peer.send("<db:result from='c.example' to='a.example' type='valid'/>").await;
    // A second key while the first is verified changes nothing.
    peer.send("<db:result from='c.example' to='a.example'>another</db:result>").await;
    asked.send(&format!("<db:verify from='c.example' to='a.example' id='{stream}' type='invalid'/>")).await;
    let end = peer.end().await;
    assert!(end.contains("type='invalid'") && !end.contains("type='valid'"), "{end}");
    // A key of b's, made for another domain of this server: b itself says no.
    let (mut peer, opened) = Peer::opened(&a, &b, "b.example").await;
    let key = b.host.dialback_key("a.example", "b.example", &id(&opened));
    peer.send(&format!("<db:result from='b.example' to='a2.example'>{key}</db:result>")).await;
    assert!(peer.end().await.contains("type='invalid'"));
    // And the same key is no proof of another domain of theirs.
    let (mut peer, opened) = Peer::opened(&a, &b, "b.example").await;
    let key = b.host.dialback_key("a.example", "b.example", &id(&opened));
    peer.send(&format!("<db:result from='b.example' to='a.example'>{key}</db:result>")).await;
    peer.until("type='valid'").await;
    peer.send("<message from='x@b.example' to='romeo@a2.example'><body>x</body></message>").await;
    refused(&mut peer, "invalid-from").await;
}
