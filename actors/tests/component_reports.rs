//! What users of other servers have reported about external components, tried here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/component.rs"]
mod component;
mod support;

use component::{Component, configure};
use rookery_actors::Receipt;
use rookery_actors::options::Federation;
use rookery_proto::xml::{Limits, Scope};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use support::World;
use tokio::runtime::Handle;

const ONE: &str = "one.localhost";
const TWO: &str = "irc.example.net";

async fn world() -> World {
    World::with(|options| {
        options.federation = Some(Federation::default());
        configure(options, ONE, |_| {});
        configure(options, TWO, |_| {});
    })
    .await
}

fn connect(world: &World, name: &str) -> Component {
    Component::connect(&world.host, name, Handle::current(), true)
}

fn say(from: &str, to: &str, id: &str) -> String {
    format!("<message {from} to='{to}' type='chat' id='{id}'><body>{id}</body></message>")
}

/// esl/MongooseIM 1104: a component that was lost connects again, as often as it likes, and hears what came meanwhile.
#[tokio::test]
async fn a_component_connects_again_and_again() {
    let world = world().await;
    let mut romeo = world.online("romeo", "phone").await;
    for n in 0..5 {
        romeo.send(&say("", &format!("x@{ONE}"), &format!("m{n}")));
        let mut gate = connect(&world, ONE);
        assert!(gate.until("<body>").await.contains(&format!("<body>m{n}<")));
        romeo.settled().await; // the gateway has it: nothing comes again
        gate.cut();
    }
    romeo.nothing().await;
}

/// processone/ejabberd 2278: what is for one component never comes to another.
#[tokio::test]
async fn components_get_what_is_their_own() {
    let world = world().await;
    let (mut one, mut two) = (connect(&world, ONE), connect(&world, TWO));
    let mut romeo = world.online("romeo", "phone").await;
    for n in 0..50 {
        romeo.send(&say("", &format!("x@{}", if n % 3 == 0 { ONE } else { TWO }), &format!("m{n}")));
    }
    for n in 0..50 {
        let gate = if n % 3 == 0 { &mut one } else { &mut two };
        assert!(gate.until("<body>").await.contains(&format!("<body>m{n}<")));
    }
    romeo.settled().await;
    assert_eq!((one.rest(), two.rest()), (vec![], vec![]));
}

/// processone/ejabberd 3148: what a component sends to itself comes once, and what it sends to another goes there.
#[tokio::test]
async fn components_talk_to_themselves_and_to_each_other() {
    let world = world().await;
    let (mut one, mut two) = (connect(&world, ONE), connect(&world, TWO));
    one.send(&say(&format!("from='{ONE}'"), ONE, "self"));
    one.send(&say(&format!("from='a@{ONE}'"), &format!("b@{TWO}"), "other"));
    assert!(two.until("<body>").await.contains("<body>other<"));
    two.send(&say(&format!("from='b@{TWO}'"), &format!("a@{ONE}"), "back"));
    assert!(one.until("<body>").await.contains("<body>self<"));
    assert!(one.until("<body>").await.contains("<body>back<"));
    assert_eq!((one.rest(), two.rest()), (vec![], vec![]));
}

/// tigase/tigase-server 160: a component need not be below the server's own domain, and other servers reach it.
#[tokio::test]
async fn a_component_with_a_domain_of_its_own_hears_other_servers() {
    let world = world().await;
    let mut gate = connect(&world, TWO);
    let far = BareJid::parse("far.example").unwrap();
    let message = say("from='juliet@far.example/x'", &format!("nick%channel@{TWO}"), "far");
    let message = Stanza::parse(message.as_bytes(), &Scope::CLIENT, &Limits::CLIENT).unwrap();
    world.host.from_remote(&far, message, Receipt::none(), None).unwrap();
    let got = gate.until("<body>").await;
    assert!(got.contains("from='juliet@far.example/x'") && got.contains("<body>far<"), "{got}");
}

/// igniterealtime/Openfire 205: an error that cannot be delivered is not answered by an error.
#[tokio::test(start_paused = true)]
async fn errors_are_not_answered_by_errors() {
    let world = world().await;
    let mut romeo = world.online("romeo", "phone").await;
    let error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    for to in [format!("x@{ONE}"), "juliet@far.example".into()] {
        romeo.send(&format!("<message to='{to}' type='error' id='e'>{error}</message>"));
        romeo.send(&format!("<iq to='{to}' type='error' id='e'>{error}</iq>"));
        romeo.send(&format!("<presence to='{to}' type='error' id='e'>{error}</presence>"));
    }
    romeo.settled().await;
    // The clock is paused, and goes on: longer than anything waits.
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    romeo.nothing().await;
}
