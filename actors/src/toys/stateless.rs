//! A placed actor without state: it only looks at the stanzas that come, and leaves when it is asked to.

use std::sync::Arc;

use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::oneshot;

use crate::host::Host;
use crate::host::kind::{Inbound, PlacedActor};
use crate::placement::LostShards;
use crate::runtime::actor::{Actor, Handle, Idle};

/// A kind of stateless actors.
pub(crate) trait Take: Send + 'static {
    /// See [`PlacedActor::KIND`].
    const KIND: &'static str;
    /// See [`Actor::QUEUE`].
    const QUEUE: u32;

    /// Takes a stanza.
    fn take(host: &Host, inbound: Inbound);
}

/// The actor of a kind. See the module.
pub(crate) struct Stateless<T> {
    host: Host,
    kind: std::marker::PhantomData<fn() -> T>,
}

/// What a stateless actor is sent.
pub(crate) enum Msg {
    In(Box<Inbound>),
    Leave(oneshot::Sender<()>),
    Nothing,
}

impl<T: Take> Actor for Stateless<T> {
    type Msg = Msg;
    const QUEUE: u32 = T::QUEUE;

    fn handle(&mut self, msg: Msg, _: &Handle<Self>) {
        match msg {
            Msg::In(inbound) => T::take(&self.host, *inbound),
            Msg::Leave(left) => drop(left.send(())),
            Msg::Nothing => {}
        }
    }

    fn idle(&self) -> Idle {
        Idle::Leave
    }
}

impl<T: Take> PlacedActor for Stateless<T> {
    const KIND: &'static str = T::KIND;

    fn new(host: &Host, _: &BareJid) -> Self {
        Self { host: host.clone(), kind: std::marker::PhantomData }
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
}
