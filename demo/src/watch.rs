//! Asking the nodes how they are, through their admin sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rookery_ops::admin::{Address, Admin as _, Remote, connect};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::door::Behind;

/// From one look to the next.
const EVERY: Duration = Duration::from_millis(250);
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// A member of the cluster, as another one sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it is in its life, as in `active`.
    pub state: String,
    /// Shards that it holds.
    pub held: u64,
}

/// The cluster, as one node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Picture {
    /// Everybody.
    pub members: Vec<Member>,
    /// Shards without a living owner.
    pub free: u64,
    /// Shards on their way to another node.
    pub moving: u64,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Own {
    /// Clients may come.
    pub ready: bool,
    /// Their connections.
    pub connections: u64,
    /// Sessions at home there.
    pub sessions: u64,
}

/// All of it, at one time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// The cluster, if a node answered.
    pub picture: Option<Picture>,
    /// Each node by its number (from 0), if it answered.
    pub nodes: Vec<Option<Own>>,
}

/// Looks again and again, and tells the door which nodes are ready. Ends when nobody listens.
pub fn watch(sockets: Vec<PathBuf>, door: Arc<[Behind]>) -> watch::Receiver<Look> {
    let (sender, receiver) = watch::channel(Look::default());
    tokio::spawn(async move {
        let mut remotes: Vec<Option<Remote>> = sockets.iter().map(|_| None).collect();
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !sender.is_closed() {
            ticks.tick().await;
            let mut look = Look::default();
            for ((socket, remote), behind) in sockets.iter().zip(&mut remotes).zip(door.iter()) {
                let own = ask(socket, remote, &mut look.picture).await;
                behind.set_ready(own.as_ref().is_some_and(|own| own.ready));
                look.nodes.push(own);
            }
            let _ = sender.send(look);
        }
    });
    receiver
}

/// One node; `picture` is filled by the first that is a member.
async fn ask(socket: &Path, remote: &mut Option<Remote>, picture: &mut Option<Picture>) -> Option<Own> {
    let asked = async {
        if remote.is_none() {
            *remote = connect(&Address::new(socket).ok()?).await.ok()?;
        }
        let node = remote.as_ref()?;
        let status = node.status().await.ok()?;
        if picture.is_none() && status.not_ready.is_empty() {
            *picture = cluster(node).await;
        }
        let ready = status.not_ready.is_empty();
        Some(Own { ready, connections: status.connections, sessions: status.sessions })
    };
    let own = timeout(PATIENCE, asked).await.ok().flatten();
    if own.is_none() {
        *remote = None;
    }
    own
}

async fn cluster(node: &Remote) -> Option<Picture> {
    let status = node.cluster_status().await.ok()?;
    let member = |node: rookery_ops::admin::ClusterNode| Member {
        name: node.node,
        state: node.state,
        held: u64::from(node.shards),
    };
    let members = status.nodes.into_iter().map(member).collect();
    Some(Picture { members, free: u64::from(status.free), moving: u64::from(status.moving) })
}
