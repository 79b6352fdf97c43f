//! A domain that was another server's becomes this deployment's own: what waits for it is delivered here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/foreign.rs"]
mod foreign;
mod support;

use foreign::{Foreign, Ways, unreachable};
use rookery_actors::options::{Domain, Federation};
use rookery_actors::{Authenticated, Pipe};
use rookery_cluster::entity::Entity;
use rookery_cluster::store;
use rookery_cluster::tables::accounts;
use rookery_proto::xmpp::jid::BareJid;
use support::{Client, World, conn};
use tokio::runtime::Handle;

const JULIET: &str = "juliet@foreign.example";

async fn juliet(world: &World) -> Client {
    let entity = &Entity::new(JULIET);
    let created = world.store.write(store::Options::default(), |tx| {
        Box::pin(async move { accounts::create(&mut **tx, entity, &accounts::Account::default(), 0).await })
    });
    created.await.unwrap();
    let (user, pipe) = (BareJid::parse(JULIET).unwrap(), Pipe::new());
    let who = Authenticated::by_sasl(user.clone());
    let link = world.host.bind(who, Some("phone"), conn(), pipe.clone()).await.unwrap();
    let mut juliet = Client::on(user, link, pipe, Handle::current());
    juliet.send("<presence/>");
    juliet.expect("<presence").await;
    juliet
}

#[tokio::test]
async fn what_waits_for_a_domain_that_becomes_ours_is_delivered() {
    // The other server cannot be reached, or is slow to take what it is sent.
    for away in [Some(unreachable()), None] {
        let foreign = Foreign::new(Ways { away, reads: false, ..Ways::default() });
        let federation = Some(Federation::default());
        let mut world = World::with(|options| options.federation = federation).await;
        foreign.serves(&world.host);
        let mut romeo = world.online("romeo", "phone").await;
        for n in 0..40 {
            romeo.send(&format!("<message to='{JULIET}' type='chat' id='{n}'><body>m{n}.</body></message>"));
        }
        romeo.settled().await;
        foreign.dialed(1).await;
        let domain = Domain { name: "foreign.example".into(), open_registration: true, contact: vec![] };
        world.options.domains.push(domain);
        world.host.reload(world.options.clone());
        let mut juliet = juliet(&world).await;
        for n in 0..40 {
            juliet.expect(&format!("<body>m{n}.")).await;
        }
        romeo.nothing().await;
        juliet.nothing().await;
    }
}
