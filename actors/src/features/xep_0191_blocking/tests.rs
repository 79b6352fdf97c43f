use super::*;
use crate::features::testing::Scene;

fn jid(text: &str) -> Jid {
    Jid::parse(text).unwrap()
}

#[test]
fn matching_follows_section_5() {
    let blocks = Blocks::load(["full@a/x", "bare@a", "b", "c/res"]);
    for matching in ["full@a/x", "bare@a", "bare@a/y", "b", "b/r", "any@b", "any@b/r", "c/res"] {
        assert!(blocks.matches(&jid(matching)), "{matching}");
    }
    for other in ["full@a", "full@a/y", "a", "any@a", "c", "c/other", "any@c/res", "sub.b", "bare@aa"] {
        assert!(!blocks.matches(&jid(other)), "{other}");
    }
    assert!(!Blocks::default().matches(&jid("a")));
    assert_eq!(Blocks::load(["b@a", "a@a", "b@a", "@@"]).len(), 2);
}

#[test]
fn only_those_are_told_for_whom_something_changes() {
    let contacts = [jid("a@x"), jid("b@x"), jid("c@y")];
    let told = |from: &[&str], to: &[&str]| -> Vec<String> {
        let told = differing(&contacts, &Blocks::load(from), &Blocks::load(to));
        told.iter().map(ToString::to_string).collect()
    };
    assert_eq!(told(&[], &["a@x"]), ["a@x"]);
    assert_eq!(told(&["a@x"], &["a@x", "x"]), ["b@x"]);
    assert_eq!(told(&[], &["a@x/1", "stranger@z/1", "y/1"]), ["a@x/1"]);
    assert_eq!(told(&[], &["a@x/1", "a@x"]), ["a@x"]);
    assert_eq!(told(&["a@x"], &["a@x/1", "a@x"]), [""; 0]);
}

fn set(name: &str, jids: &[&str]) -> String {
    let items: String = jids.iter().map(|jid| format!("<item jid='{jid}'/>")).collect();
    format!("<iq type='set' id='1'><{name} xmlns='urn:xmpp:blocking'>{items}</{name}></iq>")
}

const LIST: &str = "<iq type='get' id='2'><blocklist xmlns='urn:xmpp:blocking'/></iq>";

#[tokio::test]
async fn blocked_senders_get_errors_and_the_list_is_pushed() {
    let scene = Scene::new(&["romeo", "juliet"]).await;
    let mut romeo = scene.session("romeo/orchard").await;
    let mut juliet = scene.session("juliet/balcony").await;
    assert!(juliet.ask(LIST).await.contains("<blocklist xmlns='urn:xmpp:blocking'/>"));
    juliet.send(&set("block", &["romeo@localhost", "B.example"]));
    let push = juliet.next().await;
    assert!(
        push.contains("type='set'") && push.contains("<item jid='romeo@localhost'/><item jid='b.example'/>"),
        "{push}"
    );
    assert!(juliet.next().await.contains("type='result'"));
    assert!(juliet.ask(LIST).await.contains("<item jid='b.example'/><item jid='romeo@localhost'/>"));

    let refused =
        romeo.ask("<message to='juliet@localhost' type='chat' id='m'><body>hi</body></message>").await;
    assert!(refused.contains("service-unavailable"), "{refused}");
    let iq = "<iq to='juliet@localhost/balcony' type='get' id='q'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert!(romeo.ask(iq).await.contains("service-unavailable"));
    romeo.send("<message to='juliet@localhost' type='headline'><body>news</body></message>");
    for stanza in [
        "<message to='romeo@localhost' id='o'><body>x</body></message>",
        "<presence to='romeo@localhost/orchard'/>",
    ] {
        let refused = juliet.ask(stanza).await;
        assert!(refused.contains("<error type='cancel'><not-acceptable"), "{refused}");
        assert!(refused.contains("<blocked xmlns='urn:xmpp:blocking:errors'/>"), "{refused}");
    }
    juliet.send(&set("unblock", &[]));
    assert!(juliet.next().await.contains("<unblock xmlns='urn:xmpp:blocking'/>"));
    assert!(juliet.next().await.contains("type='result'"));
    romeo.send("<message to='juliet@localhost/balcony' type='chat' id='m'><body>again</body></message>");
    assert!(juliet.next().await.contains("again"), "and nothing of what was sent meanwhile");
}

#[tokio::test]
async fn bad_requests_change_nothing() {
    let scene = Scene::with(&["romeo"], |options| options.limits.blocked = 2).await;
    let mut romeo = scene.session("romeo/orchard").await;
    assert!(romeo.ask(&set("block", &[])).await.contains("bad-request"));
    assert!(romeo.ask(&set("block", &["a@b", "@"])).await.contains("jid-malformed"));
    assert!(romeo.ask(&set("block", &["romeo@localhost/orchard"])).await.contains("not-allowed"));
    assert!(romeo.ask(&set("block", &["a@b", "c@d", "e@f"])).await.contains("resource-constraint"));
    assert!(romeo.ask(&set("block", &["a@b", "c@d"])).await.contains("type='result'"));
    assert!(romeo.ask(&set("block", &["a@b"])).await.contains("type='result'"));
    assert!(romeo.ask(&set("block", &["e@f"])).await.contains("resource-constraint"));
    let nonsense = "<iq type='set' id='1'><unblock xmlns='urn:xmpp:blocking'><item/></unblock></iq>";
    assert!(romeo.ask(nonsense).await.contains("bad-request"));
    assert!(romeo.ask(LIST).await.contains("<item jid='a@b'/><item jid='c@d'/>"));
}

#[tokio::test]
async fn who_is_blocked_sees_the_user_go_and_come_back() {
    let scene = Scene::new(&["romeo", "juliet"]).await;
    scene.friends("romeo", "juliet").await;
    let mut romeo = scene.session("romeo/orchard").await;
    let mut juliet = scene.session("juliet/balcony").await;
    romeo.available("").await;
    juliet.available("<status>here</status>").await;
    assert!(romeo.next().await.contains("here"));
    for (name, seen) in [("block", "type='unavailable'"), ("unblock", "here")] {
        juliet.send(&set(name, &["romeo@localhost"]));
        let presence = romeo.next().await;
        assert!(
            presence.contains("from='juliet@localhost/balcony'") && presence.contains(seen),
            "{presence}"
        );
        while !juliet.next().await.contains("type='result'") {}
        if name == "block" {
            // What changes meanwhile goes neither way.
            juliet.send("<presence><status>secret</status></presence>");
            romeo.send("<presence><status>unseen</status></presence>");
            assert!(romeo.next().await.contains("unseen"), "his own");
            assert!(juliet.next().await.contains("secret"), "her own");
            juliet.send("<presence><status>here</status></presence>");
            assert!(juliet.next().await.contains("here"), "her own again");
        }
    }
}
