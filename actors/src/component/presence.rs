//! What users hear of a component: the component that hears their presence (XEP-0356 section 7) is told what there is when it comes, and
//! they are told that it is away, or back (`absence`).

use std::time::Duration;

use bytes::Bytes;
use rookery_cluster::entity::Shard;
use rookery_cluster::mesh::peer::Envelope;
use rookery_proto::xmpp::jid::BareJid;

use crate::host::Host;
use crate::host::components::Said;
use crate::host::kind::Actors;
use crate::host::options::PresenceAccess;
use crate::routing::wire::{self, What};
use crate::user::{Msg, User};

/// Users that are told before others get a turn, and how long that is: each wakes an actor, and may have something to say to the component.
const AT_ONCE: usize = 256;
const TURN: Duration = Duration::from_millis(20);

impl Host {
    /// Has the users of all nodes hear of a component.
    pub(super) fn tell_users_of(&self, component: &BareJid, said: Said) {
        let options = self.options();
        let hears = options.component(component.as_str()).map(|component| component.privileges.presence);
        if said == Said::Here && hears.unwrap_or_default() == PresenceAccess::None {
            return;
        }
        self.tell_users_here_of(component.as_str(), said);
        let Some(placement) = self.placement() else { return };
        let map = placement.cluster.mesh().map();
        for member in map.members().iter().filter(|member| member.node != *map.node()) {
            // To an older node each of these would be the first.
            if said != Said::Here && !self.node_knows(&member.node, |knows| knows.payload(wire::ABSENCE)) {
                continue;
            }
            let show = wire::ShowPresence {
                component: component.as_str().to_owned(),
                gone: said == Said::Gone,
                back: said == Said::Back,
            };
            let body = wire::encode(What::ShowPresence(show));
            let envelope = Envelope::new(Shard(0), 0, Bytes::new(), body);
            // A node that cannot be reached now has users who say so when they change.
            let _ = placement.cluster.peers().peer(&member.node).send(envelope, |_| {});
        }
    }

    /// Another node says so.
    pub(crate) fn take_show_presence(&self, show: &wire::ShowPresence) {
        let said = match (show.gone, show.back) {
            (true, _) => Said::Gone,
            (_, true) => Said::Back,
            _ => Said::Here,
        };
        self.tell_users_here_of(&show.component, said);
    }

    /// The users of this node hear of it.
    fn tell_users_here_of(&self, component: &str, said: Said) {
        let Ok(name) = BareJid::parse(component) else { return };
        self.tell_abroad_of(&name, said);
        let host = self.clone();
        self.spawn(async move {
            for (n, (_, user)) in host.users().map(Actors::all).unwrap_or_default().into_iter().enumerate() {
                let name = name.clone();
                let hear = Msg::Then(Box::new(move |user: &mut User| user.hear_of_component(&name, said)));
                let _ = match said {
                    // A user that is too busy says so at the next change of its presence.
                    Said::Here => user.cast(hear).is_ok(),
                    // Nothing else would take the component's contacts away, or bring them back.
                    Said::Gone | Said::Back => user.cast_always(hear).is_ok(),
                };
                if n % AT_ONCE == AT_ONCE - 1 {
                    tokio::time::sleep(TURN).await;
                }
            }
        });
    }
}
