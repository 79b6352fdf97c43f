//! Ordinary clients with contacts at a component: subscriptions both ways, presence, errors while the component is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/component.rs"]
mod component;
mod support;

use std::time::Duration;

use component::{Component, configure};
use support::World;
use tokio::runtime::Handle;

const NAME: &str = "gate.localhost";

#[tokio::test]
async fn subscriptions_go_both_ways() {
    let world = World::with(|options| configure(options, NAME, |_| {})).await;
    let mut gate = Component::connect(&world.host, NAME, Handle::current(), true);
    let mut romeo = world.online("romeo", "phone").await;
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    romeo.until("id='r'").await;
    for contact in [NAME, "friend@gate.localhost"] {
        romeo.send(&format!("<presence to='{contact}' type='subscribe'/>"));
        let asked = gate.until("type='subscribe'").await;
        assert!(asked.contains(&format!("from='romeo@localhost' to='{contact}'")), "{asked}");
        gate.send(&format!("<presence from='{contact}' to='romeo@localhost' type='subscribed'/>"));
        romeo.until("type='subscribed'").await;
        assert!(romeo.until("type='set'").await.contains("subscription='to'"));
        gate.send(&format!("<presence from='{contact}/x' to='romeo@localhost'><show>chat</show></presence>"));
        assert!(romeo.until("<show>chat").await.contains(&format!("from='{contact}/x'")));
        // The other way; and once agreed the gateway hears every presence.
        gate.send(&format!("<presence from='{contact}' to='romeo@localhost' type='subscribe'/>"));
        romeo.until("type='subscribe'").await;
        romeo.send(&format!("<presence to='{contact}' type='subscribed'/>"));
        gate.until("type='subscribed'").await;
        let shown = gate.until(&format!("to='{contact}'")).await;
        assert!(
            shown.starts_with("<presence from='romeo@localhost/phone'") && !shown.contains("type="),
            "{shown}"
        );
    }
    romeo.send("<presence><show>xa</show></presence>");
    let both = [gate.until("<show>xa").await, gate.until("<show>xa").await].concat();
    assert!(both.contains("to='gate.localhost'") && both.contains("to='friend@gate.localhost'"), "{both}");
    // A new login asks the gateway for the presence of its contacts.
    romeo.quit();
    gate.until("type='unavailable'").await;
    let _romeo = world.online("romeo", "desk").await;
    gate.until("type='probe'").await;
}

#[tokio::test(start_paused = true)]
async fn while_the_component_is_away_senders_are_told() {
    let world = World::with(|options| {
        configure(options, NAME, |_| {});
        options.limits.component_stanzas = 6;
    })
    .await;
    let mut romeo = world.online("romeo", "phone").await;
    let say = |id: &str| format!("<message to='a@{NAME}' type='chat' id='{id}'><body>x</body></message>");
    // More than may wait of one sender.
    for id in ["1", "2", "3", "4"] {
        romeo.send(&say(id));
    }
    let refused = romeo.until("<error").await;
    assert!(refused.contains("id='4'") && refused.contains("resource-constraint"), "{refused}");
    // That was its share: others may wait as well.
    let mut nurse = world.online("nurse", "phone").await;
    nurse.send(&say("n"));
    assert!(nurse.until("<error").await.contains("remote-server-timeout"));
    for id in ["1", "2", "3"] {
        let refused = romeo.until("<error").await;
        assert!(
            refused.contains(&format!("id='{id}'")) && refused.contains("remote-server-timeout"),
            "{refused}"
        );
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    romeo.send(&say("5"));
    assert!(romeo.until("<error").await.contains("service-unavailable"));
    romeo.send(&format!("<iq to='a@{NAME}' type='get' id='6'><query xmlns='jabber:iq:version'/></iq>"));
    assert!(romeo.until("id='6'").await.contains("service-unavailable"));
}
