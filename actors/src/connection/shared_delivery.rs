//! A message that no archive keeps, and that several sessions are sent: it goes to another device only if no client has it.

use std::sync::Arc;

use parking_lot::Mutex;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::stanza::Stanza;

use crate::connection::ledger::Receipt;

/// What the sessions know together. Nothing where there is one.
#[derive(Clone, Default)]
pub struct SharedDelivery(Option<Arc<Mutex<Shared>>>);

struct Shared {
    /// The message. Some of the sessions are sent a copy of it (XEP-0280), which nobody else may have.
    message: Arc<Stanza>,
    /// How many still have it to deliver.
    sessions: usize,
    /// A client has confirmed it.
    came: bool,
    /// The obligation of one that has ended without.
    receipt: Option<Receipt>,
    /// Where that one had put it into the offline queue.
    queued: Option<ArchiveId>,
}

/// A session ends that was to deliver it.
pub(crate) enum Gone {
    /// Nobody else will: with the obligation, and where it lies in the offline queue.
    Last(Receipt, Option<ArchiveId>),
    /// A client has it.
    Recent(Receipt, Option<ArchiveId>),
    /// Another session has it to deliver.
    Elsewhere,
}

impl std::fmt::Debug for SharedDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedDelivery({})", self.0.as_ref().map_or(1, |shared| shared.lock().sessions))
    }
}

impl SharedDelivery {
    /// For so many sessions.
    pub(crate) fn of(sessions: usize, message: &Arc<Stanza>) -> Self {
        let shared =
            || Shared { message: message.clone(), sessions, came: false, receipt: None, queued: None };
        Self((sessions > 1).then(|| Arc::new(Mutex::new(shared()))))
    }

    /// The message of which `sent` is a copy, if it is one.
    pub(crate) fn copied(&self, sent: &Arc<Stanza>) -> Option<Arc<Stanza>> {
        let message = self.0.as_ref()?.lock().message.clone();
        (!Arc::ptr_eq(&message, sent)).then_some(message)
    }

    /// A client has it. Returns where another session had put it into the offline queue.
    pub(crate) fn came(&self) -> Option<ArchiveId> {
        let mut shared = self.0.as_ref()?.lock();
        shared.came = true;
        let (receipt, queued) = (shared.receipt.take(), shared.queued.take());
        drop(shared);
        if let Some(receipt) = receipt {
            receipt.done(); // a client has it
        }
        queued
    }

    /// A session ends whose client has not confirmed it.
    pub(crate) fn left(&self, receipt: Receipt, queued: Option<ArchiveId>) -> Gone {
        let Some(mut shared) = self.0.as_ref().map(|shared| shared.lock()) else {
            return Gone::Last(receipt, queued);
        };
        shared.sessions = shared.sessions.saturating_sub(1);
        if shared.came {
            return Gone::Recent(receipt, queued);
        }
        let receipt = if receipt.is_open() { receipt } else { shared.receipt.take().unwrap_or(receipt) };
        let queued = queued.or(shared.queued.take());
        if shared.sessions == 0 {
            return Gone::Last(receipt, queued);
        }
        (shared.receipt, shared.queued) = (Some(receipt), queued);
        Gone::Elsewhere
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_proto::xmpp::stanza::MessageType;

    #[test]
    fn the_last_session_sees_to_it_unless_a_client_has_it() {
        let id = ArchiveId::first_at(1);
        let of = |sessions| SharedDelivery::of(sessions, &Arc::new(Stanza::new(MessageType::Chat)));
        assert!(matches!(of(1).left(Receipt::none(), Some(id)), Gone::Last(_, Some(_))));
        let among = of(2);
        assert!(matches!(among.left(Receipt::none(), Some(id)), Gone::Elsewhere));
        assert!(matches!(among.left(Receipt::none(), None), Gone::Last(_, Some(_))));
        let among = of(3);
        assert!(matches!(among.left(Receipt::none(), Some(id)), Gone::Elsewhere));
        assert_eq!((among.came(), among.came()), (Some(id), None));
        assert!(matches!(among.left(Receipt::none(), None), Gone::Recent(_, None)));
    }
}
