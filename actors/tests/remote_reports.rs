//! What users of other servers have reported, tried here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/far.rs"]
mod far;
mod support;

use far::{Far, put};
use rookery_cluster::tables::roster::{Item, Subscription};
use support::World;

const JULIET: &str = "juliet@far.example";

async fn scene() -> (World, Far) {
    let world = World::with(far::far).await;
    let far = Far::of(&world);
    let both = Subscription::Both.into();
    put(&world, "romeo", &Item { jid: JULIET.into(), subscription: both, ..Item::default() }).await;
    (world, far)
}

/// kontalk/tigase-extension 75: contacts hear that an account is removed, and not only when they ask.
#[tokio::test]
async fn contacts_elsewhere_hear_that_an_account_is_removed() {
    let (world, far) = scene().await;
    let mut phone = world.online("romeo", "phone").await;
    far.until("type='probe'").await;
    phone.send("<iq type='set' id='x'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    let told = [far.until("type='unsubscribe").await, far.until("type='unsubscribe").await].concat();
    assert!(told.contains("'unsubscribe'") && told.contains("'unsubscribed'"), "{told}");
}

/// esl/MongooseIM 923, processone/ejabberd 1086: whoever is blocked does not learn by errors whether the user is there.
#[tokio::test]
async fn whoever_is_blocked_does_not_learn_who_is_there() {
    let (world, far) = scene().await;
    let mut phone = world.online("romeo", "phone").await;
    phone.send(&format!(
        "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{JULIET}'/></block></iq>"
    ));
    phone.until("id='b'").await;
    far.until("type='unavailable'").await;
    let asks = [
        "<message FROM to='romeo@localhost' type='chat' id='q'><body>x</body></message>",
        "<message FROM to='romeo@localhost/phone' type='chat' id='q'><body>x</body></message>",
        "<iq FROM to='romeo@localhost/phone' type='get' id='q'><query xmlns='jabber:iq:version'/></iq>",
        "<iq FROM to='romeo@localhost' type='get' id='q'><query xmlns='jabber:iq:last'/></iq>",
    ];
    let mut answers = Vec::new();
    for _ in 0..2 {
        for ask in asks {
            far.send(&ask.replace("FROM", &format!("from='{JULIET}/b'")));
            answers.push(far.until("id='q'").await);
        }
        if let Some(link) = phone.link.take() {
            link.closed(true);
            // The session is gone when the next one is told so.
            let mut desk = world.online("romeo", "desk").await;
            desk.nothing().await;
            desk.quit();
        }
    }
    let (here, away) = answers.split_at(asks.len());
    assert_eq!(here, away);
}
