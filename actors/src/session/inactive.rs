//! A client that says that nobody looks at it (XEP-0352): what it is spared.

use std::sync::atomic::Ordering;

use rookery_proto::xmpp::jid::Jid;

use super::Session;
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

    /// Whom the user has blocked now: what is held back of theirs is dropped, and counted as never sent.
    pub(super) fn blocked(&mut self, blocked: &Blocks) {
        let own = self.jid.bare_str();
        let theirs = |from: &Jid| from.bare_str() != own && blocked.matches(from);
        let gone = self.csi.as_mut().map_or(0, |held| held.forget(theirs));
        self.shared.dropped.fetch_add(gone, Ordering::Relaxed);
    }
}
