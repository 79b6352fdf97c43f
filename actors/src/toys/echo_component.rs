//! An echo component: every address of its name leads to one actor, which sends each message back, and answers each request.

use rookery_proto::xmpp::stanza::{IqType, MessageType, PresenceType, Stanza, Type};
use sha2::Digest as _;

use super::stateless::Take;
use crate::host::Host;
use crate::host::kind::Inbound;
use crate::runtime::origin::{Origin, OriginName};

/// See the module.
pub(crate) enum Echo {}

impl Take for Echo {
    const KIND: &'static str = "echo-component";
    const QUEUE: u32 = 1_024;

    fn take(host: &Host, inbound: Inbound) {
        let Inbound { stanza, receipt, origin, .. } = inbound;
        let (Some(from), Some(to)) = (stanza.from.clone(), stanza.to.clone()) else {
            return receipt.done(); // nobody to answer
        };
        let reply = match stanza.type_ {
            // An echo was refused. Its recipient is the sender of what was echoed, and is told so.
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
        host.route(reply, receipt, origin.and_then(name));
    }
}
