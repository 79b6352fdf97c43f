//! What components may do in the name of users (XEP-0356), and answer for the server (XEP-0355).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/component.rs"]
mod component;
mod support;

use component::{Component, configure};
use rookery_actors::component::End;
use rookery_actors::options::{Access, Delegation, DiscoItem, PresenceAccess, Privileges, Secret};
use rookery_proto::xmpp::jid::Jid;
use support::World;
use tokio::runtime::Handle;

const NAME: &str = "gate.localhost";
const BOTH: Access = Access { get: true, set: true };

fn all() -> Privileges {
    Privileges {
        roster: BOTH,
        roster_push: true,
        message: true,
        presence: PresenceAccess::ManagedEntity,
        iq: vec![("urn:xmpp:mam:2".into(), BOTH), ("jabber:iq:version".into(), BOTH), ("urn:x".into(), BOTH)],
    }
}

async fn world(privileges: Privileges) -> World {
    World::with(|options| {
        configure(options, NAME, |component| component.privileges = privileges);
        configure(options, "other.localhost", |_| {});
    })
    .await
}

fn connect(world: &World, name: &str) -> Component {
    Component::connect(&world.host, name, Handle::current(), true)
}

fn in_name(from: &str, to: &str, body: &str) -> String {
    format!(
        "<message from='{NAME}' to='localhost' id='p{body}'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='{from}' to='{to}' type='chat' id='{body}'><body>{body}</body></message></forwarded></privilege></message>"
    )
}

#[tokio::test]
async fn a_component_is_told_what_it_may() {
    let mut world = world(all()).await;
    let mut gate = connect(&world, NAME);
    let told = gate.until("privilege").await;
    assert!(
        told.contains("from='localhost'") && told.contains("access='roster' type='both' push='true'"),
        "{told}"
    );
    let before = world.host.options();
    let mut after = world.options.clone();
    after.components[0].privileges = Privileges { message: true, ..Privileges::default() };
    world.host.reload(after.clone());
    world.host.components_changed(&before);
    let told = gate.until("privilege").await;
    assert!(told.contains("access='roster' type='none'") && told.contains("type='outgoing'"), "{told}");
    // Another secret, and it must show it.
    world.options = after.clone();
    after.components[0].secret = Secret::new("another one");
    let before = world.host.options();
    world.host.reload(after);
    world.host.components_changed(&before);
    assert_eq!(gate.end().await, End::NotAuthorized);
}

#[tokio::test]
async fn messages_in_the_name_of_users_are_archived_and_copied() {
    let world = world(all()).await;
    let mut gate = connect(&world, NAME);
    let mut phone = world.online("romeo", "phone").await;
    phone.send("<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    phone.until("id='c'").await;
    let mut juliet = world.online("juliet", "balcony").await;
    gate.send(&in_name("romeo@localhost", "juliet@localhost", "hark"));
    let got = juliet.until("hark").await;
    assert!(got.starts_with("<message from='romeo@localhost' to='juliet@localhost"), "{got}");
    let copy = phone.until("hark").await;
    assert!(copy.contains("<sent xmlns='urn:xmpp:carbons:2'"), "{copy}");
    // To a contact at the gateway itself: slidge's carbons.
    gate.send(&in_name("romeo@localhost", "friend@gate.localhost", "soft"));
    assert!(phone.until("soft").await.contains("<sent "));
    assert!(gate.until("<body>soft").await.contains("from='romeo@localhost' to='friend@gate.localhost'"));
    phone.send("<iq type='set' id='m'><query xmlns='urn:xmpp:mam:2'/></iq>");
    let archive = [phone.until("<body>").await, phone.until("<body>").await].concat();
    assert!(archive.contains("hark") && archive.contains("soft"), "{archive}");
    // From the server itself.
    gate.send(&in_name("localhost", "juliet@localhost", "note"));
    assert!(juliet.until("note").await.starts_with("<message from='localhost'"));
    // In nobody else's name.
    for from in ["romeo@localhost/phone", "romeo@elsewhere.example", "x@gate.localhost", "gate.localhost"] {
        gate.send(&in_name(from, "juliet@localhost", "lie"));
        let refused = gate.until("plie").await;
        assert!(refused.contains("type='error'") && refused.contains("<forbidden"), "{from}: {refused}");
    }
    // Not by a component without the privilege, whichever way the message goes; nor by a user.
    let mut other = connect(&world, "other.localhost");
    for to in ["localhost", "romeo@localhost"] {
        let lie = in_name("romeo@localhost", "juliet@localhost", "lie");
        other.send(
            &lie.replace(
                &format!("from='{NAME}' to='localhost'"),
                &format!("from='other.localhost' to='{to}'"),
            ),
        );
        assert!(other.until("plie").await.contains("<forbidden"));
    }
    let mut nurse = world.online("nurse", "hall").await;
    nurse
        .send(&in_name("romeo@localhost", "juliet@localhost", "lie").replace(&format!("from='{NAME}' "), ""));
    nurse.until("plie").await;
    nurse.send("<message to='juliet@localhost' type='chat'><body>end</body></message>");
    assert!(!juliet.until("<body>").await.contains("<body>lie"));
}

#[tokio::test]
async fn rosters_are_read_written_and_pushed() {
    let world = world(all()).await;
    let mut gate = connect(&world, NAME);
    let mut romeo = world.online("romeo", "phone").await;
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    romeo.until("id='r'").await;
    let ask = |kind: &str, id: &str, item: &str| {
        format!(
            "<iq type='{kind}' id='{id}' from='{NAME}' to='romeo@localhost'><query xmlns='jabber:iq:roster'>{item}</query></iq>"
        )
    };
    // A contact at the gateway: both sides are the gateway's to say, and presence goes there at once.
    gate.send(&ask(
        "set",
        "s1",
        "<item jid='friend@gate.localhost' name='Friend' subscription='both'><group>IRC</group></item>",
    ));
    let pushed = romeo.until("friend@gate.localhost").await;
    assert!(pushed.contains("subscription='both'") && pushed.contains("<group>IRC"), "{pushed}");
    let mut came = String::new();
    for _ in 0..5 {
        came.push_str(&gate.until("romeo@localhost").await);
    }
    for part in [
        "id='s1' type='result'",
        "type='probe'",
        "<presence from='romeo@localhost/phone' to='friend@gate.localhost'",
    ] {
        assert!(came.contains(part), "{part}: {came}");
    }
    assert!(came.contains("type='set'") && came.contains("jid='friend@gate.localhost'"), "{came}");
    // One elsewhere: as if the user had added it, without a subscription.
    gate.send(&ask("set", "s2", "<item jid='juliet@localhost' subscription='both'/>"));
    assert!(romeo.until("juliet@localhost").await.contains("subscription='none'"));
    gate.until("id='s2'").await;
    gate.send(&ask("get", "g", ""));
    let roster = gate.until("id='g'").await;
    assert!(
        roster.contains("friend@gate.localhost") && roster.contains("jid='juliet@localhost'"),
        "{roster}"
    );
    gate.send(&ask("set", "s3", "<item jid='friend@gate.localhost' subscription='remove'/>"));
    assert!(romeo.until("friend@gate.localhost").await.contains("subscription='remove'"));
    // What the user changes is pushed to the component.
    romeo.send("<iq type='set' id='own'><query xmlns='jabber:iq:roster'><item jid='nurse@localhost' name='Nurse'/></query></iq>");
    assert!(gate.until("nurse@localhost").await.contains("<iq from='romeo@localhost' to='gate.localhost'"));
    let mut other = connect(&world, "other.localhost");
    other.send(&ask("get", "g", "").replace(NAME, "other.localhost"));
    assert!(other.until("id='g'").await.contains("<forbidden"));
}

#[tokio::test]
async fn presence_is_told_as_it_changes_and_as_it_is() {
    let world = world(all()).await;
    let mut romeo = world.online("romeo", "phone").await;
    let mut gate = connect(&world, NAME);
    assert!(
        gate.until("<presence")
            .await
            .starts_with("<presence from='romeo@localhost/phone' to='gate.localhost'")
    );
    romeo.send("<presence><show>away</show></presence>");
    gate.until("<show>away").await;
    let _juliet = world.online("juliet", "balcony").await;
    gate.until("<presence from='juliet@localhost/balcony'").await;
    romeo.lose();
    assert!(gate.until("romeo@localhost/phone").await.contains("type='unavailable'"));
}

#[tokio::test]
async fn requests_in_the_name_of_users() {
    let world = world(all()).await;
    let mut gate = connect(&world, NAME);
    let mut juliet = world.online("juliet", "balcony").await;
    let ask = |id: &str, kind: &str, inner: &str| {
        format!(
            "<iq type='{kind}' id='{id}' from='{NAME}' to='romeo@localhost'><privileged_iq xmlns='urn:xmpp:privilege:2'>{inner}</privileged_iq></iq>"
        )
    };
    // To the server, to somebody else, to nobody who answers.
    gate.send(&ask(
        "1",
        "get",
        "<iq xmlns='jabber:client' type='get' id='v' to='localhost'><query xmlns='jabber:iq:version'/></iq>",
    ));
    let answer = gate.until("id='1'").await;
    assert!(
        answer.contains("type='result'") && answer.contains("<forwarded ") && answer.contains("<name>"),
        "{answer}"
    );
    gate.send(&ask(
        "2",
        "set",
        "<iq xmlns='jabber:client' type='set' id='own' to='juliet@localhost/balcony'><x xmlns='urn:x'/></iq>",
    ));
    let asked = juliet.until("urn:x").await;
    assert!(asked.contains("from='romeo@localhost' to='juliet@localhost/balcony'"), "{asked}");
    let id = asked.split("id='").nth(1).unwrap().split('\'').next().unwrap();
    juliet.send(&format!("<iq type='result' id='{id}' to='romeo@localhost'><y xmlns='urn:x'/></iq>"));
    let answer = gate.until("id='2'").await;
    assert!(answer.contains("<y xmlns='urn:x'/>") && answer.contains("id='own'"), "{answer}");
    gate.send(&ask("3", "get", "<iq xmlns='jabber:client' type='get' id='own'><x xmlns='urn:x'/></iq>"));
    let answer = gate.until("id='3'").await;
    assert!(
        answer.contains("id='3' type='error'")
            && answer.contains("<forwarded ")
            && answer.contains("service-unavailable"),
        "{answer}"
    );
    // What is forbidden (section 6.3).
    for (kind, inner) in [
        ("get", "<iq xmlns='jabber:client' type='get' id='v'><query xmlns='vcard-temp'/></iq>"),
        ("get", "<iq xmlns='jabber:client' type='set' id='v'><x xmlns='urn:x'/></iq>"),
        ("get", "<iq xmlns='jabber:server' type='get' id='v'><x xmlns='urn:x'/></iq>"),
        (
            "get",
            "<iq xmlns='jabber:client' type='get' id='v' from='juliet@localhost'><x xmlns='urn:x'/></iq>",
        ),
        (
            "get",
            "<iq xmlns='jabber:client' type='get' id='v' from='romeo@localhost/x'><x xmlns='urn:x'/></iq>",
        ),
    ] {
        gate.send(&ask("no", kind, inner));
        let refused = gate.until("id='no'").await;
        assert!(refused.contains("<forbidden"), "{inner}: {refused}");
    }
}

/// processone/ejabberd 4336: privileges do not keep a component from asking in its own name.
#[tokio::test]
async fn a_privileged_component_asks_in_its_own_name_too() {
    let world = world(all()).await;
    let mut gate = connect(&world, NAME);
    let mut phone = world.online("romeo", "phone").await;
    gate.send(&format!(
        "<iq type='get' id='v' from='{NAME}' to='romeo@localhost/phone'><query xmlns='jabber:iq:version'/></iq>"
    ));
    assert!(phone.until("id='v'").await.contains(&format!("from='{NAME}'")));
    phone.send(&format!("<iq type='result' id='v' to='{NAME}'/>"));
    gate.until("id='v'").await;
}

fn delegating(options: &mut rookery_actors::Options) {
    configure(options, "pep.localhost", |component| {
        component.privileges.iq = vec![("urn:pep".into(), BOTH)];
        component.delegations = vec![
            Delegation { ns: "urn:pep".into(), attributes: Vec::new() },
            Delegation { ns: "jabber:iq:version".into(), attributes: vec!["node".into()] },
        ];
    });
    let jid = Jid::parse("rooms.example.net").unwrap();
    options.disco_items.push(DiscoItem { domain: "localhost".into(), jid, name: "Rooms".into() });
}

/// Answers a delegated request with this, in place of `OWN` the request's own addresses.
fn answer(pep: &Component, asked: &str, inner: &str) {
    let part = |text: &str, name: &str| {
        text.split(&format!(" {name}='")).nth(1).unwrap().split('\'').next().unwrap().to_owned()
    };
    let forwarded = asked.split("<forwarded").nth(1).unwrap();
    let (to, from, id) = (part(forwarded, "from"), part(forwarded, "to"), part(forwarded, "id"));
    let own = format!("to='{to}' from='{from}' id='{id}'");
    pep.send(&format!(
        "<iq type='result' id='{}' from='pep.localhost' to='localhost'><delegation xmlns='urn:xmpp:delegation:2'><forwarded xmlns='urn:xmpp:forward:0'>{}</forwarded></delegation></iq>",
        part(asked, "id"),
        inner.replace("OWN", &own)
    ));
}

#[tokio::test]
async fn delegated_requests_are_answered_by_the_component() {
    let world = World::with(delegating).await;
    let mut pep = Component::connect(&world.host, "pep.localhost", Handle::current(), true);
    let told = pep.until("<delegation ").await;
    assert!(told.contains("namespace='urn:pep'") && told.contains("<attribute name='node'/>"), "{told}");
    let mut romeo = world.online("romeo", "phone").await;
    for to in ["", " to='romeo@localhost'", " to='juliet@localhost'", " to='localhost'"] {
        romeo.send(&format!("<iq type='set' id='a'{to}><pub xmlns='urn:pep'/></iq>"));
        let asked = pep.until("<forwarded").await;
        assert!(
            asked.starts_with("<iq from='localhost' to='pep.localhost'")
                && asked.contains("from='romeo@localhost/phone'"),
            "{asked}"
        );
        answer(&pep, &asked, "<iq xmlns='jabber:client' type='result' OWN><done xmlns='urn:pep'/></iq>");
        assert!(romeo.until("id='a'").await.contains("<done xmlns='urn:pep'/>"));
    }
    // An answer for another request is none; an error is one.
    for (inner, error) in [
        ("<iq xmlns='jabber:client' type='result' to='juliet@localhost/x' id='a'/>", "service-unavailable"),
        (
            "<iq xmlns='jabber:client' type='error' OWN><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
            "item-not-found",
        ),
    ] {
        romeo.send("<iq type='get' id='a'><items xmlns='urn:pep'/></iq>");
        let asked = pep.until("<forwarded").await;
        answer(&pep, &asked, inner);
        assert!(romeo.until("id='a'").await.contains(error));
    }
    // Without the attribute the server answers; and what the component itself asks is not sent back to it.
    romeo.send("<iq type='get' id='v' to='localhost'><query xmlns='jabber:iq:version'/></iq>");
    assert!(romeo.until("id='v'").await.contains("<name>"));
    pep.send("<iq type='get' id='self' from='pep.localhost' to='localhost'><items xmlns='urn:pep'/></iq>");
    assert!(pep.until("id='self'").await.contains("service-unavailable"));
    // Nor what it asks in the name of a user: the two would ask each other for ever.
    for to in ["", " to='localhost'"] {
        pep.send(&format!(
            "<iq type='get' id='named' from='pep.localhost' to='romeo@localhost'><privileged_iq xmlns='urn:xmpp:privilege:2'><iq xmlns='jabber:client' type='get' id='inner' from='romeo@localhost'{to}><items xmlns='urn:pep'/></iq></privileged_iq></iq>"
        ));
        let answer = pep.next().await;
        assert!(answer.contains("id='named'") && answer.contains("service-unavailable"), "{answer}");
    }
}

#[tokio::test]
async fn what_a_component_can_is_nested_into_disco() {
    let world = World::with(delegating).await;
    let mut pep = Component::connect(&world.host, "pep.localhost", Handle::current(), true);
    let mut romeo = world.online("romeo", "phone").await;
    let info = |to: &str| {
        format!("<iq type='get' id='d' to='{to}'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>")
    };
    romeo.send(&info("localhost"));
    for _ in 0..4 {
        let asked = pep.until("disco#info").await;
        let id = asked.split(" id='").nth(1).unwrap().split('\'').next().unwrap();
        let node = asked.split("node='").nth(1).unwrap().split('\'').next().unwrap();
        let var = if node.contains(":bare:") { "urn:pep#bare" } else { "urn:pep#host" };
        pep.send(&format!("<iq type='result' id='{id}' from='pep.localhost' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info' node='{node}'><feature var='{var}'/></query></iq>"));
    }
    let host = romeo.until("id='d'").await;
    assert!(
        host.contains("urn:pep#host") && host.contains("'urn:xmpp:delegation:2'") && !host.contains("#bare"),
        "{host}"
    );
    romeo.send(&info("romeo@localhost"));
    assert!(romeo.until("id='d'").await.contains("urn:pep#bare"));
    romeo.send(
        "<iq type='get' id='i' to='localhost'><query xmlns='http://jabber.org/protocol/disco#items'/></iq>",
    );
    let items = romeo.until("id='i'").await;
    assert!(
        items.contains("jid='pep.localhost'") && items.contains("jid='rooms.example.net' name='Rooms'"),
        "{items}"
    );
}
