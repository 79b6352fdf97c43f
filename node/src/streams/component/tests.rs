//! Components over in-memory pipes, with a real host.

use std::time::Duration;

use rookery_actors::options::{Component, Privileges, Secret};
use sha1::Digest as _;

use crate::config::Config;
use crate::streams::c2s::tests::{Client, Fixture, fixture};
use crate::transport::tcp::Start;

pub(super) const SECRET: &str = "correct horse";

pub(super) fn configured(config: &mut Config) {
    let component = |name: &str| Component {
        name: name.into(),
        secret: Secret::new(SECRET),
        domains: Vec::new(),
        privileges: Privileges::default(),
        delegations: Vec::new(),
    };
    config.components = vec![component("irc.localhost"), component("other.localhost")];
}

pub(super) fn header(to: &str) -> String {
    format!(
        "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='{to}'>"
    )
}

fn connect(fixture: &Fixture, start: Start) -> Client {
    fixture.wire(start, |shared, socket, pass| super::serve(shared, socket, "component", pass))
}

async fn shake(component: &mut Client, name: &str, secret: &str) {
    component.send(&header(name)).await;
    let opened = component.until("'>").await;
    assert!(!opened.contains("version='1.0'><"), "{opened}");
    let opened = if opened.contains("id='") { opened } else { component.until("'>").await };
    let id = opened.split("id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    let digest = sha1::Sha1::digest(format!("{id}{secret}").as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    component.send(&format!("<handshake>{hex}</handshake>")).await;
}

async fn component(fixture: &Fixture, name: &str) -> Client {
    let mut component = connect(fixture, Start::InTheStream);
    shake(&mut component, name, SECRET).await;
    component.until("<handshake/>").await;
    component
}

/// Answers the ping that confirms what came, and returns what came.
async fn confirm(component: &mut Client) -> String {
    let got = component.until("</iq>").await;
    let id = got.rsplit("id='confirm-").next().unwrap().split('\'').next().unwrap().to_owned();
    component
        .send(&format!("<iq type='result' id='confirm-{id}' from='irc.localhost' to='localhost'/>"))
        .await;
    got
}

#[tokio::test]
async fn stanzas_go_both_ways() {
    let fixture = fixture(configured).await;
    let mut romeo = fixture.session("romeo", "orchard").await;
    let mut irc = component(&fixture, "irc.localhost").await;
    romeo.send("<message to='#room@irc.localhost/x' type='chat' id='1'><body>hello</body></message>").await;
    let got = confirm(&mut irc).await;
    assert!(got.contains("from='romeo@localhost/orchard' to='#room@irc.localhost/x'"), "{got}");
    assert!(got.contains("<body>hello</body>") && !got.contains("jabber:client"), "{got}");
    irc.send("<message from='#room@irc.localhost/y' to='romeo@localhost/orchard' type='chat'><body>back</body></message>").await;
    let got = romeo.until("</message>").await;
    assert!(got.contains("<body>back</body>") && !got.contains("jabber:component"), "{got}");
    // Presence and requests, to us and to another component.
    romeo.send("<presence to='#room@irc.localhost/nick'/>").await;
    assert!(irc.until("/nick'/>").await.contains("<presence"));
    let ask = |id: &str, to: &str, ns: &str| {
        format!("<iq type='get' id='{id}' from='a@irc.localhost/b' to='{to}'><query xmlns='{ns}'/></iq>")
    };
    irc.send(&ask("v", "localhost", "jabber:iq:version")).await;
    assert!(irc.until("</query></iq>").await.contains("<name>"));
    irc.send(&ask("d", "localhost", "http://jabber.org/protocol/disco#items")).await;
    let items = irc.until("</query></iq>").await;
    assert!(items.contains("jid='irc.localhost'") && items.contains("jid='other.localhost'"), "{items}");
    let mut other = component(&fixture, "other.localhost").await;
    irc.send(&ask("o", "other.localhost", "urn:x")).await;
    assert!(other.until("</iq>").await.contains("from='a@irc.localhost/b'"));
}

#[tokio::test(start_paused = true)]
async fn who_proves_nothing_is_refused() {
    let fixture = fixture(configured).await;
    for (name, secret, error) in [
        ("irc.localhost", "wrong horse", "not-authorized"),
        ("nobody.localhost", SECRET, "host-unknown"),
        ("localhost", SECRET, "host-unknown"),
        ("x@irc.localhost", SECRET, "improper-addressing"),
    ] {
        let mut stranger = connect(&fixture, Start::InTheStream);
        if name == "irc.localhost" {
            shake(&mut stranger, name, secret).await;
        } else {
            stranger.send(&header(name)).await;
        }
        let end = stranger.end().await;
        assert!(end.contains(error) && end.ends_with("</stream:stream>"), "{end}");
    }
    let mut client = connect(&fixture, Start::InTheStream);
    client.send(crate::streams::c2s::tests::HEADER).await;
    assert!(client.end().await.contains("invalid-namespace"));
    let mut silent = connect(&fixture, Start::InTheStream);
    assert!(silent.end().await.contains("connection-timeout"));
    // Stanzas before the handshake are none.
    let mut early = connect(&fixture, Start::InTheStream);
    early.send(&header("irc.localhost")).await;
    early.send("<message from='irc.localhost' to='romeo@localhost'><body>x</body></message>").await;
    assert!(early.end().await.contains("not-authorized"));
}

#[tokio::test]
async fn a_component_speaks_for_its_own_name_alone() {
    let fixture = fixture(configured).await;
    for (stanza, error) in [
        ("<message from='romeo@localhost' to='juliet@localhost'><body>x</body></message>", "invalid-from"),
        ("<message from='x.irc.localhost' to='juliet@localhost'><body>x</body></message>", "invalid-from"),
        ("<message from='other.localhost' to='juliet@localhost'><body>x</body></message>", "invalid-from"),
        ("<message to='juliet@localhost'><body>x</body></message>", "invalid-from"),
        ("<message from='irc.localhost'><body>x</body></message>", "improper-addressing"),
        ("<x/>", "unsupported-stanza-type"),
        ("<message", ""),
    ] {
        let mut irc = component(&fixture, "irc.localhost").await;
        irc.send(stanza).await;
        if error.is_empty() {
            irc.cut();
            continue;
        }
        let end = irc.end().await;
        assert!(end.contains(error), "{stanza}: {end}");
    }
    // What only breaks a stanza's rules is answered.
    let mut irc = component(&fixture, "irc.localhost").await;
    irc.send("<iq type='get' id='1' from='a@irc.localhost' to='localhost'/>").await;
    assert!(irc.until("</iq>").await.contains("bad-request"));
}

#[tokio::test]
async fn direct_tls() {
    let fixture = fixture(configured).await;
    let mut irc = connect(&fixture, Start::Direct).encrypt().await;
    shake(&mut irc, "irc.localhost", SECRET).await;
    irc.until("<handshake/>").await;
    let all = fixture.shared.host.connected_components();
    assert!(all.len() == 1 && all[0].tls && all[0].name == "irc.localhost", "{all:?}");
    fixture.stop.send(true).unwrap();
    assert!(irc.end().await.contains("system-shutdown"));
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_stanzas_wait_a_moment() {
    let fixture = fixture(configured).await;
    let mut romeo = fixture.session("romeo", "orchard").await;
    let say =
        |id: u32| format!("<message to='a@irc.localhost' type='chat' id='{id}'><body>n{id}</body></message>");
    // The node has just started: the component may come at any moment.
    romeo.send(&say(1)).await;
    tokio::time::sleep(Duration::from_secs(5)).await; // the clock is paused
    let mut irc = component(&fixture, "irc.localhost").await;
    assert!(confirm(&mut irc).await.contains("n1"));
    // What a connection has not confirmed goes to the next one, in order.
    for id in 2..5 {
        romeo.send(&say(id)).await;
        irc.until(&format!("n{id}<")).await;
    }
    irc.cut();
    let mut irc = component(&fixture, "irc.localhost").await;
    let got = confirm(&mut irc).await;
    assert!(got.find("n2").unwrap() < got.find("n3").unwrap() && got.contains("n4"), "{got}");
    irc.cut();
    romeo.send(&say(5)).await;
    assert!(romeo.until("</message>").await.contains("remote-server-timeout"));
    romeo.send(&say(6)).await;
    let refused = romeo.until("</message>").await;
    assert!(refused.contains("service-unavailable") && refused.contains("id='6'"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_component_that_says_nothing_is_asked_and_ended() {
    let fixture = fixture(configured).await;
    let mut irc = component(&fixture, "irc.localhost").await;
    let begun = tokio::time::Instant::now();
    let end = irc.end().await;
    assert!(end.contains("urn:xmpp:ping") && end.contains("connection-timeout"), "{end}");
    assert!(begun.elapsed() >= Duration::from_secs(360), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_read_more_slowly() {
    let fixture = fixture(|config| {
        configured(config);
        config.limits.component_stanzas_per_second = 10;
    })
    .await;
    let mut romeo = fixture.session("romeo", "orchard").await;
    let mut irc = component(&fixture, "irc.localhost").await;
    let begun = tokio::time::Instant::now();
    for n in 0..100 {
        let flood = format!(
            "<message from='a@irc.localhost' to='romeo@localhost/orchard' type='chat'><body>n{n}</body></message>"
        );
        irc.send(&flood).await;
    }
    for n in 0..100 {
        romeo.until(&format!("n{n}<")).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn two_connections_share_users() {
    let fixture = fixture(configured).await;
    let (mut romeo, mut juliet) = fixture.pair().await;
    let mut first = component(&fixture, "irc.localhost").await;
    let mut second = component(&fixture, "irc.localhost").await;
    // Both are known before anything is sent.
    for conn in [&mut first, &mut second] {
        conn.send(
            "<iq type='get' id='p' from='irc.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>",
        )
        .await;
    }
    let (mut a, mut b) = (String::new(), String::new());
    for n in 0..20 {
        for client in [&mut romeo, &mut juliet] {
            client
                .send(&format!(
                    "<message to='a@irc.localhost' type='chat' id='{n}'><body>n{n}</body></message>"
                ))
                .await;
        }
    }
    romeo.send("<message to='a@irc.localhost' type='chat' id='last'><body>last</body></message>").await;
    juliet.send("<message to='a@irc.localhost' type='chat' id='last'><body>last</body></message>").await;
    let mut ends = 0;
    while ends < 2 {
        let got = tokio::select! {
            got = confirm(&mut first) => { a.push_str(&got); got }
            got = confirm(&mut second) => { b.push_str(&got); got }
        };
        ends += got.matches("<body>last").count();
    }
    for user in ["romeo", "juliet"] {
        let from = format!("<message from='{user}@");
        let (in_a, in_b) = (a.matches(&from).count(), b.matches(&from).count());
        assert_eq!((in_a.max(in_b), in_a.min(in_b)), (21, 0), "{user}: {in_a} {in_b}");
    }
}
