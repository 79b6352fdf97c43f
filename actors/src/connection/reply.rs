//! The duty to answer what another node, or this one, has sent.

use bytes::Bytes;
use rookery_cluster::mesh::peer::{Done, NodeId, Outcome};

type Told = Box<dyn FnOnce(Outcome) + Send>;

enum To {
    Peer(Done),
    Here(Told),
}

/// The duty to answer a payload. Dropped, it says that the payload is lost.
pub(crate) struct Reply(Option<To>);

impl Reply {
    /// To another node.
    pub(crate) fn peer(done: Done) -> Self {
        Self(Some(To::Peer(done)))
    }

    /// To this very node.
    pub(crate) fn here(told: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self(Some(To::Here(Box::new(told))))
    }

    /// To a waiter that wants to know only whether the payload was taken.
    pub(crate) fn heard(then: impl FnOnce(bool) + Send + 'static) -> Self {
        Self::here(move |outcome| then(matches!(outcome, Outcome::Taken(_))))
    }

    /// The payload is taken.
    pub(crate) fn taken(self) {
        self.answer(Bytes::new());
    }

    /// The payload is taken, and here is the answer.
    pub(crate) fn answer(mut self, bytes: Bytes) {
        match self.0.take() {
            Some(To::Peer(done)) => {
                if let Err(reply) = done.reply(bytes) {
                    tracing::error!(bytes = reply.len(), "a reply to another node is too large");
                }
            }
            Some(To::Here(told)) => told(Outcome::Taken(bytes)),
            None => {}
        }
    }

    /// The user does not live here.
    pub(crate) fn not_here(mut self, epoch: u64, hint: Option<&NodeId>) {
        match self.0.take() {
            Some(To::Peer(done)) => done.not_owner(epoch, hint),
            Some(To::Here(told)) => told(Outcome::NotOwner { epoch, hint: hint.cloned() }),
            None => {}
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(To::Here(told)) = self.0.take() {
            told(Outcome::Lost);
        }
    }
}
