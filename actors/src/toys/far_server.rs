//! A far server: whatever is sent to its name is handed to a test, which answers in the name of anybody there.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rookery_cluster::entity::Shard;
use rookery_cluster::store::{self, Fut};
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::{Notify, oneshot};

use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::host::kind::{Inbound, PlacedActor};
use crate::placement::LostShards;
use crate::runtime::actor::{Actor, Handle, Idle};

/// What becomes of what is sent to a far server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// It arrives.
    #[default]
    Takes,
    /// The link refuses it at once.
    Refuses(Condition),
}

#[derive(Default)]
struct State {
    mode: Mutex<Mode>,
    came: Mutex<VecDeque<Arc<Stanza>>>,
    some: Notify,
}

/// All far servers of a node, as a test sees them.
pub struct Far(Host);

impl Far {
    /// Those of a node.
    pub fn of(host: &Host) -> Self {
        Self(host.clone())
    }

    /// The next stanza that has come to a far server.
    pub async fn next(&self) -> Arc<Stanza> {
        let state = self.0.state::<State>();
        loop {
            let some = state.some.notified();
            if let Some(stanza) = state.came.lock().pop_front() {
                return stanza;
            }
            some.await;
        }
    }

    /// Somebody there says something.
    pub fn say(&self, stanza: Stanza) {
        self.0.route(stanza, Receipt::none(), None);
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        *self.0.state::<State>().mode.lock() = mode;
    }
}

pub(crate) enum Msg {
    In(Box<Inbound>),
    Leave(oneshot::Sender<()>),
    Nothing,
}

/// See the module.
pub(crate) struct FarServer(Host);

impl Actor for FarServer {
    type Msg = Msg;
    const QUEUE: u32 = 10_000;

    fn handle(&mut self, msg: Msg, _: &Handle<Self>) {
        let Inbound { stanza, receipt, .. } = match msg {
            Msg::In(inbound) => *inbound,
            Msg::Leave(left) => {
                let _ = left.send(());
                return;
            }
            Msg::Nothing => return,
        };
        let state = self.0.state::<State>();
        let mode = *state.mode.lock();
        match mode {
            Mode::Refuses(condition) => self.0.bounce(&stanza, receipt, condition),
            Mode::Takes => {
                state.came.lock().push_back(stanza);
                receipt.done();
                state.some.notify_one();
            }
        }
    }

    fn idle(&self) -> Idle {
        Idle::Leave
    }
}

impl PlacedActor for FarServer {
    const KIND: &'static str = "far-server";

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
