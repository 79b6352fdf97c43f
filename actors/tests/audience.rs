//! A contact that sees a user no more hears that all of the user's resources are gone, whatever the user does before it has heard of
//! the contact's change.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/gate.rs"]
mod gate;
mod support;

use gate::{Shut, gated};
use rookery_actors::options::Archive;
use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::store::keys::Kind;
use rookery_cluster::tables::roster::{self, Subscription};
use support::{Client, World};

/// The contact sees the user. Before their first session.
async fn sees(world: &World, user: &str, contact: &str) {
    let rows = [(user, contact, Subscription::From), (contact, user, Subscription::To)];
    for (user, contact, subscription) in rows {
        let user = &Entity::new(format!("{user}@localhost"));
        let (jid, subscription) = (format!("{contact}@localhost"), subscription.into());
        let item = &roster::Item { jid, subscription, ..Default::default() };
        let made = world.store.write(store::Options::default(), |tx| {
            Box::pin(async move { roster::put(&mut **tx, user, item) })
        });
        made.await.unwrap();
    }
}

/// The contact ends its subscription to Romeo, which is stored and on its way to him.
async fn unsubscribes(client: &mut Client) {
    client.send("<presence to='romeo@localhost' type='unsubscribe'/>");
    client.until("<item jid='romeo@localhost' subscription='none'").await;
}

const ROSTER: &str = "<iq type='get' id='get'><query xmlns='jabber:iq:roster'/></iq>";

/// Romeo's phone does this before he has heard that Juliet has ended her subscription, and is unavailable then.
async fn is_gone_for_her(act: &str) {
    let (world, gate) = gated(Archive::Never).await;
    sees(&world, "romeo", "juliet").await;
    sees(&world, "romeo", "nurse").await;
    let mut juliet = world.online("juliet", "balcony").await;
    let mut nurse = world.online("nurse", "house").await;
    for contact in [&mut juliet, &mut nurse] {
        contact.send(ROSTER);
        contact.until("id='get'").await;
    }
    let mut romeo = world.online("romeo", "orchard").await;
    let mut phone = world.online("romeo", "phone").await;
    juliet.until("from='romeo@localhost/phone'").await;
    // What the store holds up comes first, then in turns what others have changed and what he changes.
    gate.shut(Shut::Commits(Kind::Block));
    romeo.send(
        "<iq type='set' id='block'><block xmlns='urn:xmpp:blocking'><item jid='tybalt@localhost'/></block></iq>",
    );
    gate.holds(1).await;
    unsubscribes(&mut nurse).await;
    unsubscribes(&mut juliet).await;
    phone.send(act);
    phone.send("<presence type='unavailable'/>");
    phone.send("<iq type='get' id='taken' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    phone.until("id='taken'").await;
    gate.open();
    romeo.until("<presence from='juliet@localhost' to='romeo@localhost' type='unsubscribe'").await;
    phone.settled().await;
    romeo.send("<message to='juliet@localhost/balcony' type='chat'><body>end</body></message>");
    let mut gone = Vec::new();
    loop {
        let got = juliet.recv().await;
        if got.contains("<body>end</body>") {
            break;
        }
        assert!(!got.contains("type='unavailable'") || got.contains("from='romeo@localhost/"), "{got}");
        gone.extend(got.split("from='romeo@localhost/").nth(1).map(str::to_owned));
    }
    for resource in ["orchard", "phone"] {
        let is_it = |got: &&String| got.starts_with(resource) && got.contains("type='unavailable'");
        assert!(gone.iter().any(|got| is_it(&got)), "{resource} stays after {act}: {gone:?}");
    }
}

#[tokio::test]
async fn a_resource_goes_behind_a_request_to_the_contact() {
    is_gone_for_her("<presence to='juliet@localhost' type='subscribe'/>").await;
}

#[tokio::test]
async fn a_resource_goes_behind_a_new_name_of_the_contact() {
    let item = "<query xmlns='jabber:iq:roster'><item jid='juliet@localhost' name='J'/></query>";
    is_gone_for_her(&format!("<iq type='set' id='name'>{item}</iq>")).await;
}

#[tokio::test]
async fn a_resource_goes_behind_the_removal_of_the_contact() {
    let item = "<query xmlns='jabber:iq:roster'><item jid='juliet@localhost' subscription='remove'/></query>";
    is_gone_for_her(&format!("<iq type='set' id='remove'>{item}</iq>")).await;
}
