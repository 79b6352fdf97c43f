//! Ordinary clients with contacts at a component: subscriptions both ways, presence, errors while the component is away.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/component.rs"]
mod component;
#[path = "support/far.rs"]
mod far;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use component::{Component, configure};
use far::{Far, far};
use rookery_cluster::entity::Entity;
use rookery_cluster::tables::roster::{self, Item as Contact, Subscription};
use support::World;
use tokio::runtime::Handle;

const NAME: &str = "gate.localhost";

/// Romeo and these are subscribed to each other.
async fn subscribed(world: &World, contacts: impl IntoIterator<Item = String>) {
    let user = &Entity::new("romeo@localhost");
    for jid in contacts {
        let item = &Contact { jid, subscription: Subscription::Both.into(), ..Contact::default() };
        let put = world
            .store
            .write(Default::default(), |tx| Box::pin(async move { roster::put(&mut **tx, user, item) }));
        put.await.unwrap();
    }
}

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
    // The clock is paused, and goes on by a second. From then on the component counts as absent.
    tokio::time::sleep(Duration::from_secs(1)).await;
    romeo.send(&say("5"));
    assert!(romeo.until("<error").await.contains("service-unavailable"));
    romeo.send(&format!("<iq to='a@{NAME}' type='get' id='6'><query xmlns='jabber:iq:version'/></iq>"));
    assert!(romeo.until("id='6'").await.contains("service-unavailable"));
}

/// movim 1083: a gateway that is gone leaves no contacts behind that seem to be there.
#[tokio::test(start_paused = true)]
async fn contacts_of_a_component_that_is_gone_are_shown_as_gone() {
    let world = World::with(|options| configure(options, NAME, |_| {})).await;
    let friend = format!("friend@{NAME}");
    subscribed(&world, [NAME.into(), friend.clone()]).await;
    let mut gate = Component::connect(&world.host, NAME, Handle::current(), true);
    let mut romeo = world.online("romeo", "phone").await;
    gate.until("type='probe'").await;
    for contact in [NAME, &friend] {
        gate.send(&format!("<presence from='{contact}/x' to='romeo@localhost'/>"));
        romeo.until(&format!("from='{contact}/x'")).await;
    }
    let room = format!("room@{NAME}/romeo");
    romeo.send(&format!("<presence to='{room}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"));
    gate.until(&room).await;
    // A short break is not noticed.
    gate.cut();
    // The clock is paused: each pause is over as soon as nothing else is to be done.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let gate = Component::connect(&world.host, NAME, Handle::current(), true);
    tokio::time::sleep(Duration::from_secs(20)).await;
    romeo.nothing().await;
    // A long one is, once.
    gate.cut();
    let mut gone = [romeo.recv().await, romeo.recv().await, romeo.recv().await];
    gone.sort();
    for (gone, from) in gone.iter().zip([&friend, NAME, &room]) {
        let wanted = ["type='unavailable'", "to='romeo@localhost/phone'", &format!("from='{from}'")];
        assert!(wanted.iter().all(|part| gone.contains(part)), "{gone}");
    }
    assert!(gone[2].contains("status code='332'"), "{}", gone[2]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    romeo.nothing().await;
    // The gateway is back, and hears that the user is there.
    let mut gate = Component::connect(&world.host, NAME, Handle::current(), true);
    let (shown, asked) = (gate.next().await, gate.next().await);
    assert!(shown.contains(&format!("from='romeo@localhost/phone' to='{NAME}'")), "{shown}");
    assert!(!shown.contains("type=") && asked.contains("type='probe'"), "{shown} {asked}");
    romeo.nothing().await;
}

/// Romeo, whose contact at the component is shown.
async fn with_friend(world: &World) -> (support::Client, Component) {
    subscribed(world, [format!("friend@{NAME}")]).await;
    let mut gate = Component::connect(&world.host, NAME, Handle::current(), true);
    let mut romeo = world.online("romeo", "phone").await;
    gate.until("type='probe'").await;
    gate.send(&format!("<presence from='friend@{NAME}/x' to='romeo@localhost'/>"));
    romeo.until("/x'").await;
    (romeo, gate)
}

/// Nobody would take the contacts away later: the word goes to a user whose queue is full, too.
#[tokio::test(start_paused = true)]
async fn a_user_with_a_full_queue_hears_that_a_component_is_gone() {
    let world = World::with(|options| {
        configure(options, NAME, |_| {});
        options.limits.sessions_per_user = 50;
    })
    .await;
    let (mut romeo, gate) = with_friend(&world).await;
    let mut busy = Vec::new();
    for n in 0..40 {
        busy.push(world.bind("romeo", &format!("busy{n}")).await);
    }
    gate.cut();
    let since = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(9)).await;
    romeo.nothing().await;
    // From here on more comes for the user than it does, until the component has long been gone.
    while since.elapsed() < Duration::from_secs(13) {
        for client in &mut busy {
            (0..10).for_each(|_| client.send("<presence type='probe'/>"));
        }
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    romeo.until(&format!("from='friend@{NAME}'")).await;
}

/// Users of other servers hear it likewise, of whatever the component has shown to them.
#[tokio::test(start_paused = true)]
async fn contacts_at_other_servers_hear_that_a_component_is_gone() {
    let world = World::with(|options| {
        configure(options, NAME, |_| {});
        far(options);
    })
    .await;
    let far = Far::of(&world);
    let gate = Component::connect(&world.host, NAME, Handle::current(), true);
    let show = |from: &str, to: &str, kind: &str| {
        format!("<presence from='{from}@{NAME}/x' to='{to}@far.example'{kind}/>")
    };
    for from in ["friend", "other", "away"] {
        for to in ["juliet", "nurse"] {
            gate.send(&show(from, to, ""));
            far.until(&format!("from='{from}@{NAME}/x' to='{to}@far.example'")).await;
        }
    }
    for to in ["juliet", "nurse"] {
        gate.send(&show("away", to, " type='unavailable'"));
        far.until("type='unavailable'").await;
    }
    // A short break is not noticed.
    gate.cut();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let gate = Component::connect(&world.host, NAME, Handle::current(), true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    far.nothing().await;
    // A long one is, once.
    gate.cut();
    let mut gone = BTreeSet::new();
    for _ in 0..4 {
        gone.insert(far.expect("type='unavailable'").await);
    }
    for from in ["friend", "other"] {
        for to in ["juliet", "nurse"] {
            let pair = format!("from='{from}@{NAME}/x' to='{to}@far.example'");
            assert!(gone.iter().any(|gone| gone.contains(&pair)), "{pair}: {gone:#?}");
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    far.nothing().await;
    // What the component shows when it is back holds.
    let gate = Component::connect(&world.host, NAME, Handle::current(), true);
    gate.send(&show("friend", "juliet", ""));
    far.expect(&format!("from='friend@{NAME}/x' to='juliet@far.example'")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    far.nothing().await;
}

/// Presence that a component has no room for is told when there is.
#[tokio::test(start_paused = true)]
async fn a_component_that_was_full_hears_the_presence_that_holds() {
    let world = World::with(|options| {
        configure(options, NAME, |_| {});
        options.limits.component_stanzas = 20;
    })
    .await;
    subscribed(&world, (0..40).map(|n| format!("c{n}@{NAME}"))).await;
    let mut romeo = world.bind("romeo", "phone").await;
    romeo.send("<presence/>");
    romeo.send("<presence><show>away</show></presence>");
    romeo.until("<show>away").await;
    let mut gate = Component::connect(&world.host, NAME, Handle::current(), true);
    let (mut last, mut asked) = (BTreeMap::new(), BTreeSet::new());
    while asked.len() < 40
        || last.len() < 40
        || !last.values().all(|last: &String| last.contains("<show>away"))
    {
        let got = gate.next().await;
        let to = got.split(" to='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        if got.contains("type='probe'") {
            asked.insert(to);
        } else {
            last.insert(to, got);
        }
    }
    let came = romeo.comes().await;
    assert!(!came.iter().any(|came| came.contains("type='error'")), "{came:#?}");
}
