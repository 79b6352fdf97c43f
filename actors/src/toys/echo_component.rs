//! An echo component: every address of its name leads to one actor, which sends each message back, and answers each request.

use std::sync::Arc;

use rookery_cluster::entity::Shard;
use rookery_cluster::store::{self, Fut};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::{IqType, MessageType, PresenceType, Stanza, Type};
use sha2::Digest as _;
use tokio::sync::oneshot;

use crate::host::Host;
use crate::host::kind::{Inbound, PlacedActor};
use crate::placement::LostShards;
use crate::runtime::actor::{Actor, Handle, Idle};
use crate::runtime::origin::{Origin, OriginName};

pub(crate) enum Msg {
    In(Box<Inbound>),
    Leave(oneshot::Sender<()>),
    Nothing,
}

/// See the module.
pub(crate) struct EchoComponent(Host);

impl Actor for EchoComponent {
    type Msg = Msg;
    const QUEUE: u32 = 1_024;

    fn handle(&mut self, msg: Msg, _: &Handle<Self>) {
        let Inbound { stanza, receipt, origin, .. } = match msg {
            Msg::In(inbound) => *inbound,
            Msg::Leave(left) => {
                let _ = left.send(());
                return;
            }
            Msg::Nothing => return,
        };
        let (Some(from), Some(to)) = (stanza.from.clone(), stanza.to.clone()) else {
            return receipt.done(); // nobody to answer
        };
        let reply = match stanza.type_ {
            // Where an echo is refused, whoever was to have it is told so: it has sent what was echoed.
            Type::Message(MessageType::Error) => Stanza::clone(&stanza).from(to).to(from),
            Type::Iq(IqType::Result | IqType::Error)
            | Type::Presence(PresenceType::Error | PresenceType::Unavailable) => return receipt.done(),
            Type::Iq(_) => stanza.result(Vec::new()),
            _ => Stanza::clone(&stanza).from(to).to(from),
        };
        // The receipt goes along: the sender is told that its stanza is handled when the echo is kept. An echo of a stanza that
        // came twice is known as that of the first, by a name of the component's own.
        let name = |origin: Origin| {
            let name = sha2::Sha256::new().chain_update(Self::KIND).chain_update(origin.name.0).finalize();
            Some(Origin::new(OriginName::from_slice(name.get(..16)?)?, origin.number))
        };
        self.0.route(reply, receipt, origin.and_then(name));
    }

    fn idle(&self) -> Idle {
        Idle::Leave
    }
}

impl PlacedActor for EchoComponent {
    const KIND: &'static str = "echo-component";

    fn new(host: &Host, _: &BareJid) -> Self {
        Self(host.clone())
    }

    fn inbound(inbound: Box<Inbound>) -> Msg {
        Msg::In(inbound)
    }

    fn outbound(msg: Msg) -> Option<Box<Inbound>> {
        if let Msg::In(inbound) = msg { Some(inbound) } else { None }
    }

    fn leave(left: oneshot::Sender<()>) -> Msg {
        Msg::Leave(left)
    }

    fn lose(_: Arc<LostShards>) -> Msg {
        Msg::Nothing
    }

    fn wake() -> Msg {
        Msg::Nothing
    }

    fn wakes_for_presence(_: &Host, _: &BareJid) -> bool {
        true
    }

    fn restore<'a>(_: &'a Host, _: Shard, _: &'a (dyn Fn() -> bool + Sync)) -> Fut<'a, store::Result<u64>> {
        Box::pin(async { Ok(0) })
    }
}
