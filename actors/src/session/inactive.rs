//! A client that says that nobody looks at it (XEP-0352): what it is spared.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use super::{Session, Unacked};
use crate::connection::ledger::Receipt;
use crate::features::xep_0191_blocking::Blocks;

impl Session {
    pub(super) fn csi(&mut self, active: bool) {
        if active {
            self.flush_held();
            self.csi = None;
        } else if self.csi.is_none() {
            self.csi = Some(Box::default());
        }
        self.write_record();
    }

    pub(super) fn flush_held(&mut self) {
        let Some(held) = &mut self.csi else { return };
        for delivery in held.take() {
            self.send(delivery);
        }
    }

    /// Whom the user has blocked now: what is held back of theirs is dropped, and counted as never sent. What has a number
    /// already, and would be sent again to a client that comes back, is emptied.
    pub(super) fn blocked(&mut self, blocked: &Blocks) {
        let own = self.jid.bare_str();
        let theirs = |from: &Jid| from.bare_str() != own && blocked.matches(from);
        let gone = self.csi.as_mut().map_or(0, |held| held.forget(theirs));
        self.shared.dropped.fetch_add(gone, Ordering::Relaxed);
        if let Some(sm) = &mut self.sm {
            sm.unacked
                .iter_mut()
                .filter(|item| item.stanza().from.as_ref().is_some_and(theirs))
                .for_each(empty);
        }
    }
}

/// Nothing to see takes the stanza's place and number. Requests stay: they are answered by the client.
fn empty(item: &mut Unacked) {
    if matches!(item.stanza().type_, Type::Iq(_)) {
        return;
    }
    let mut nothing = Stanza::new(MessageType::Headline);
    nothing.to.clone_from(&item.stanza().to);
    item.outgoing.extra = None;
    item.outgoing.stanza = Arc::new(nothing);
    std::mem::replace(&mut item.receipt, Receipt::none()).done();
}
