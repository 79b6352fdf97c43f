//! What all ways to and from other nodes have in common.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::Addresses;
use super::denied::Denied;
use super::hello::Me;
use super::inbox::Inbox;
use super::link::Link;
use super::net::Network;
use super::node::NodeId;
use super::options::Options;
use super::tls::Security;
use crate::seams::Seams;

/// HTTP/2 windows: more than a round trip takes at 10 Gbit/s; credits bound what waits above.
pub(super) const WINDOW_STREAM: u32 = 4 * 1024 * 1024;
pub(super) const WINDOW_CONNECTION: u32 = 6 * 1024 * 1024;

/// See the module. Maps are in order, so that a simulation runs the same way each time.
pub(super) struct Shared {
    pub(super) me: Me,
    pub(super) options: Options,
    pub(super) network: Arc<dyn Network>,
    pub(super) addresses: Arc<dyn Addresses>,
    pub(super) seams: Seams,
    security: RwLock<Security>,
    pub(super) denied: watch::Sender<Denied>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    pub(super) inboxes: Mutex<BTreeMap<NodeId, Arc<Inbox>>>,
    dead: Mutex<BTreeMap<NodeId, u64>>,
    numberings: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        me: Me,
        options: Options,
        security: Security,
        network: Arc<dyn Network>,
        addresses: Arc<dyn Addresses>,
        seams: Seams,
    ) -> Self {
        Self {
            me,
            options,
            network,
            addresses,
            seams,
            security: RwLock::new(security),
            denied: watch::Sender::new(Denied::nobody()),
            links: Mutex::default(),
            inboxes: Mutex::default(),
            dead: Mutex::default(),
            numberings: AtomicU64::new(1),
        }
    }

    pub(super) fn security(&self) -> Security {
        self.security.read().clone()
    }

    pub(super) fn renew(&self, security: Security) {
        *self.security.write() = security;
    }

    /// The way to `node`, made if there is none.
    pub(super) fn link_or_start(self: &Arc<Self>, node: &NodeId) -> Arc<Link> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(node) {
            return Arc::clone(link);
        }
        let numbering = self.numberings.fetch_add(1, Ordering::Relaxed);
        let link = Link::start(node.clone(), numbering, Arc::clone(self));
        links.insert(node.clone(), Arc::clone(&link));
        link
    }

    pub(super) fn link(&self, node: &NodeId) -> Option<Arc<Link>> {
        self.links.lock().get(node).cloned()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().values().cloned().collect()
    }

    pub(super) fn is_dead(&self, node: &NodeId, generation: u64) -> bool {
        self.dead.lock().get(node).is_some_and(|dead| generation <= *dead)
    }

    pub(super) fn bury(&self, node: &NodeId, generation: u64) {
        {
            let mut dead = self.dead.lock();
            let entry = dead.entry(node.clone()).or_default();
            *entry = generation.max(*entry);
        }
        if let Some(link) = self.link(node) {
            link.bury(generation);
        }
        let gone = {
            let mut inboxes = self.inboxes.lock();
            let dead = inboxes.get(node).is_some_and(|inbox| inbox.generation <= generation);
            if dead { inboxes.remove(node) } else { None }
        };
        if let Some(inbox) = gone {
            inbox.close();
        }
    }

    /// Forgets nodes that are not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&NodeId) -> bool) {
        let mut closed = Vec::new();
        self.links.lock().retain(|node, link| {
            let keep = keep(node);
            if !keep {
                closed.push(Arc::clone(link));
            }
            keep
        });
        for link in closed {
            link.close();
        }
        let mut closed = Vec::new();
        self.inboxes.lock().retain(|node, inbox| {
            let keep = keep(node);
            if !keep {
                closed.push(Arc::clone(inbox));
            }
            keep
        });
        for inbox in closed {
            inbox.close();
        }
        self.dead.lock().retain(|node, _| keep(node));
    }
}
