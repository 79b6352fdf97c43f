//! A far server: a stanza that is sent to its name is handed to a test, which answers in the name of any user there.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use rookery_proto::xmpp::error::Condition;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::sync::Notify;

use super::stateless::Take;
use crate::connection::ledger::Receipt;
use crate::host::Host;
use crate::host::kind::Inbound;

/// What becomes of what is sent to a far server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The stanza arrives.
    #[default]
    Takes,
    /// The link refuses the stanza at once.
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
    /// The far servers of a node.
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

    /// A user or a server there sends a stanza.
    pub fn say(&self, stanza: Stanza) {
        self.0.route(stanza, Receipt::none(), None);
    }

    /// Sets what becomes of stanzas from now on.
    pub fn set(&self, mode: Mode) {
        *self.0.state::<State>().mode.lock() = mode;
    }
}

/// See the module.
pub(crate) enum HandOver {}

impl Take for HandOver {
    const KIND: &'static str = "far-server";
    const QUEUE: u32 = 10_000;

    fn take(host: &Host, inbound: Inbound) {
        let Inbound { stanza, receipt, .. } = inbound;
        let state = host.state::<State>();
        let mode = *state.mode.lock();
        match mode {
            Mode::Refuses(condition) => host.bounce(&stanza, receipt, condition),
            Mode::Takes => {
                state.came.lock().push_back(stanza);
                receipt.done();
                state.some.notify_one();
            }
        }
    }
}
