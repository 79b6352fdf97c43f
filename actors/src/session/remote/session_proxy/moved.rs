//! A connection whose session was on the same node and moves to another.

use std::sync::Arc;

use super::{Carried, SessionProxy};
use crate::connection::ledger::Ledger;
use crate::session::handle::LeftBehind;

impl SessionProxy {
    /// The session was on this node, and moves to another. This stands for it from now on, and looks for it.
    pub(crate) fn moved(self: &Arc<Self>, mut carried: Carried, left: LeftBehind) {
        let LeftBehind { settled, recorded, items: waiting, rest } = left;
        let enable = waiting.iter().position(|item| !item.is_counted());
        let mut state = self.state.lock();
        let counted = waiting.len() - enable.map_or(0, |at| at + 1);
        let (base, told) = if enable.is_some() { (0, 0) } else { (settled, recorded) };
        state.ledger = Ledger::remote(base, told, Arc::downgrade(self));
        for _ in 0..counted {
            state.ledger.enter_only();
        }
        (state.counted, state.before) = (carried.managed || enable.is_some(), settled);
        carried.inactive = rest.active.map_or(carried.inactive, |active| !active);
        for (sent, charged) in &mut carried.tail {
            *charged = self.waits.bytes(sent.stanza.len());
        }
        (state.carried, state.ups) = (carried, waiting);
        let answers: Vec<_> = state.carried.tail.iter().map(|(sent, _)| sent.stanza.clone()).collect();
        answers.iter().for_each(|stanza| state.note_answer(stanza));
        if enable.is_some() {
            state.carried.recent.count_anew();
        }
        // What has waited: no home has seen that.
        let ups = std::mem::take(&mut state.ups);
        for (n, item) in (1u32..).zip(ups.iter().filter(|item| item.is_counted())) {
            state.note_request(item, base.wrapping_add(n));
        }
        state.ups = ups;
        state.closed = rest.closed;
        if let Some(h) =
            rest.confirmed.filter(|h| h.wrapping_sub(state.carried.h) as usize <= state.carried.tail.len())
        {
            state.confirm(h);
        }
        state.look(true);
        drop(state);
        self.pipe.nudge(); // a reader that waits for the old ledger looks at the new one
        self.host.look_soon();
    }
}
