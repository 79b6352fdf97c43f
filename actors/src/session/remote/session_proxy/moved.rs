//! A connection whose session was on the same node and moves to another.

use std::collections::VecDeque;
use std::sync::Arc;

use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::jid::BareJid;

use super::{Item, SessionProxy};
use crate::connection::ledger::Ledger;
use crate::connection::pipe::Pipe;
use crate::connection::recent::Recent;
use crate::host::Host;
use crate::routing::wire;
use crate::session::handle::Rest;

/// What the session's node knows of a connection that is on the same node, when the session leaves.
pub(crate) struct Tail {
    pub(crate) capsule: wire::Capsule,
    pub(crate) managed: bool,
    pub(crate) inactive: bool,
    pub(crate) h: u32,
    pub(crate) sent: VecDeque<wire::Stanza>,
    pub(crate) acked: Option<ArchiveId>,
    pub(crate) last: Option<ArchiveId>,
    pub(crate) drained: Option<ArchiveId>,
    pub(crate) recent: Recent,
}

impl SessionProxy {
    /// A connection whose session moves to another node. Of what its client sent so many stanzas are settled, and these are
    /// not, or have waited.
    #[allow(clippy::too_many_arguments)] // a constructor with one caller
    pub(crate) fn moved(
        host: &Host,
        user: &BareJid,
        address: &Arc<str>,
        pipe: Arc<Pipe>,
        tail: Tail,
        (settled, recorded): (u32, u32),
        waiting: VecDeque<Item>,
        rest: Rest,
    ) -> Option<Arc<Self>> {
        let enable = waiting.iter().position(|item| !item.is_counted());
        let proxy = Self::new(host, user, address, pipe)?;
        let mut state = proxy.state.lock();
        let counted = waiting.len() - enable.map_or(0, |at| at + 1);
        let (base, told) = if enable.is_some() { (0, 0) } else { (settled, recorded) };
        state.ledger = Ledger::of_proxy(base, told, Arc::downgrade(&proxy));
        for _ in 0..counted {
            state.ledger.enter_only();
        }
        (state.counted, state.before) = (tail.managed || enable.is_some(), settled);
        (state.managed, state.h, state.acked, state.last) = (tail.managed, tail.h, tail.acked, tail.last);
        (state.drained, state.recent) = (tail.drained, tail.recent);
        state.inactive = rest.active.map_or(tail.inactive, |active| !active);
        let sent = tail.sent.into_iter().map(|sent| (proxy.waits.bytes(sent.stanza.len()), sent));
        state.tail = sent.map(|(charged, sent)| (sent, charged)).collect();
        (state.capsule, state.ups) = (Some(tail.capsule), waiting);
        let answers: Vec<_> = state.tail.iter().map(|(sent, _)| sent.stanza.clone()).collect();
        answers.iter().for_each(|stanza| state.note_answer(stanza));
        if enable.is_some() {
            state.recent = Recent::default(); // numbers begin anew
        }
        // What has waited: no home has seen that.
        let ups = std::mem::take(&mut state.ups);
        for (n, item) in (1u32..).zip(ups.iter().filter(|item| item.is_counted())) {
            state.note_request(item, base.wrapping_add(n));
        }
        state.ups = ups;
        state.closed = rest.closed;
        if let Some(h) = rest.confirmed.filter(|h| h.wrapping_sub(state.h) as usize <= state.tail.len()) {
            state.confirm(h);
        }
        state.look(true);
        drop(state);
        proxy.pipe.nudge(); // who waits for the old ledger looks at the new one
        host.look_soon();
        Some(proxy)
    }
}
