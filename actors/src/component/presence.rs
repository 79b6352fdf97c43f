//! A component that hears the presence of users (XEP-0356 section 7) is told what there is when it comes.

use bytes::Bytes;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::Envelope;
use rookery_proto::xmpp::jid::BareJid;

use crate::host::Host;
use crate::host::kind::Actors;
use crate::host::options::PresenceAccess;
use crate::routing::wire::{self, What};
use crate::user::{Msg, User};

/// Users that are asked before others get a turn.
const AT_ONCE: usize = 256;

impl Host {
    /// Has the users of all nodes tell a component their presence, if it hears that.
    pub(super) fn show_presence(&self, component: &BareJid) {
        let options = self.options();
        let hears = options.component(component.as_str()).map(|component| component.privileges.presence);
        if hears.unwrap_or_default() == PresenceAccess::None {
            return;
        }
        self.show_presence_here(component.as_str());
        let Some(placement) = self.placement() else { return };
        let map = placement.cluster.mesh().map();
        for member in map.members().iter().filter(|member| member.node != *map.node()) {
            let show = wire::ShowPresence { component: component.as_str().to_owned() };
            let body = wire::encode(What::ShowPresence(show));
            let envelope = Envelope::new(Shard(0), 0, Bytes::new(), body);
            // A node that cannot be reached now has users who say so when they change.
            let _ = placement.cluster.peers().peer(&member.node).send(envelope, |_| {});
        }
    }

    /// The users of this node tell a component their presence.
    pub(crate) fn show_presence_here(&self, component: &str) {
        let Ok(name) = BareJid::parse(component) else { return };
        let host = self.clone();
        self.spawn(async move {
            for (n, (_, user)) in host.users().map(Actors::all).unwrap_or_default().into_iter().enumerate() {
                let name = name.clone();
                let show = Msg::Then(Box::new(move |user: &mut User| user.show_to_component(&name)));
                let _ = user.cast(show); // too busy: it says so when it changes
                if n % AT_ONCE == AT_ONCE - 1 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
}
