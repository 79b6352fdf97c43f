//! What waits in the queues of shards.

use std::sync::Arc;

use bytes::Bytes;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;

use crate::routing::wire::{self, What};
use crate::runtime::origin::Origin;

/// What a payload is.
pub(in crate::routing) enum Body {
    /// As it goes between nodes.
    Bytes(Bytes),
    /// A stanza that goes to many users, for this one of them: written when it goes by itself.
    One { stanza: Arc<Stanza>, to: Jid, origin: Option<Origin> },
}

impl Body {
    /// As it goes between nodes.
    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::One { stanza, to, origin } => {
                let stanza = Stanza::clone(stanza).to(to.clone());
                wire::encode(What::In(wire::to_one(
                    &to.to_bare(),
                    &stanza,
                    origin.map(|origin| origin.for_one(to)),
                )))
            }
        }
    }
}
