//! Clients whose user lives on another node, and clients that are sent away.

use std::time::Duration;

use rookery_cluster::entity::{Entity, SHARDS, Shard};
use rookery_cluster::mesh::peer::net::{Connecting, Network};
use rookery_cluster::mesh::peer::{NodeId, Options, Security};
use rookery_cluster::mesh::{self, Cluster, Home, Setup, Timing};
use rookery_cluster::store::Database;
use rookery_cluster::store::memory::Memory;

use super::*;

/// Nobody is reached.
struct Nowhere;

impl Network for Nowhere {
    fn connect<'a>(&'a self, _: &'a str) -> Connecting<'a> {
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    }
}

async fn join(db: &Arc<dyn Database>, name: &str, public: &str) -> Cluster {
    let config = mesh::Config {
        node: NodeId::new(name).unwrap(),
        address: String::new(),
        public: public.to_owned(),
        zone: String::new(),
        weight: 100,
        version: String::new(),
        knows: rookery_actors::knows(),
        timing: Timing::default(),
    };
    let (name, security) = ("test".to_owned(), Security::PlainText);
    let setup = Setup { name, config, security, options: Options::default(), network: Arc::new(Nowhere) };
    Cluster::join(db.clone(), Seams::system(), setup).await.unwrap()
}

/// Two nodes: the first one is new, the second has all users. Waits until the first knows.
async fn two(public: &str) -> (Cluster, Cluster) {
    let db: Arc<dyn Database> = Arc::new(Memory::new());
    let (here, there) = (join(&db, "here", "").await, join(&db, "there", public).await);
    there.mesh().activate().await.unwrap();
    let mut changes = here.mesh().watch_map();
    while (0..SHARDS).any(|shard| here.mesh().map().home(Shard(shard)) == Home::Nobody) {
        changes.changed().await.unwrap();
        changes.mark_unchanged();
    }
    (here, there)
}

fn redirecting(config: &mut Config, redirect: bool) {
    let text = format!(
        "[store]\nurl='dev://127.0.0.1:1'\n[cluster]\nnode='here'\nplain_text=true\nredirect={redirect}\n\
         [[domain]]\nname='localhost'\nself_signed=true"
    );
    config.cluster = crate::config::parse(&text, Path::new("/")).unwrap().cluster;
}

#[tokio::test]
async fn a_client_is_sent_to_the_node_where_its_user_lives() {
    let (here, there) = two("there.example:5222").await;
    let romeo = Entity::new("romeo@localhost").shard();
    assert!(matches!(here.mesh().map().home(romeo), Home::There { .. }));
    let fixture = fixture_in(Some(here.mesh().clone()), |config| redirecting(config, true)).await;
    let mut client = fixture.tls().await;
    client.send(&plain("romeo", "wrong")).await;
    client.until("</failure>").await; // a client that has not logged in is told nothing
    client.send(&plain("romeo", "secret")).await;
    client.until("<success").await;
    client.send(HEADER).await;
    let end = client.until("</stream:stream>").await;
    let told =
        "<see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>there.example:5222</see-other-host>";
    assert!(end.contains("<stream:stream") && end.contains(told), "{end}");
    // A node that gives its users away keeps nobody.
    there.mesh().drain(there.mesh().node()).await.unwrap();
    here.mesh().refresh_now().await;
    fixture.session("romeo", "orchard").await;
}

#[tokio::test]
async fn nobody_is_sent_where_there_is_no_way_or_no_wish() {
    for (public, redirect) in [("", true), ("there.example:5222", false)] {
        let (here, _there) = two(public).await;
        let fixture = fixture_in(Some(here.mesh().clone()), |config| redirecting(config, redirect)).await;
        fixture.session("romeo", "orchard").await;
    }
}

#[tokio::test]
async fn clients_are_sent_away_and_their_sessions_stay() {
    let fixture = fixture(|_| {}).await;
    let mut romeo = fixture.session("romeo", "orchard").await;
    romeo.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>").await;
    romeo.until("<enabled").await;
    let before_login = fixture.tls().await;
    let clients = fixture.shared.clients.clone();
    assert_eq!(clients.close(Duration::ZERO, "go on elsewhere").await, 1);
    let end = romeo.until("</stream:stream>").await;
    assert!(end.contains("<system-shutdown") && end.contains(">go on elsewhere</text>"), "{end}");
    drop(romeo);
    // The one that has not logged in is the gate's.
    fixture.shared.gate.shut();
    let mut before_login = before_login;
    assert!(before_login.until("</stream:stream>").await.contains("<system-shutdown"));
    drop(before_login);
    fixture.shared.gate.emptied().await;
    assert_eq!(clients.close(Duration::ZERO, "nobody").await, 0);
    let sessions = fixture.shared.host.session_list("").await;
    assert_eq!((sessions.len(), sessions[0].connected), (1, false));
}
