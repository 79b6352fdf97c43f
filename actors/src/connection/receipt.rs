//! Receipts: the obligation to settle a stanza, to a session of this node or to another node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use rookery_cluster::invariant;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::stanza::Stanza;

use super::ledger::Ledger;
use super::reply::Reply;
/// The side that a receipt is owed to.
enum Duty {
    /// A session of this node.
    Ledger(Arc<Ledger>),
    /// A node that has sent the stanza.
    Remote(Arc<Owed>),
}

/// What is owed to a node that has sent a stanza: one answer, when all obligations are met.
struct Owed {
    reply: Mutex<Option<(Reply, bytes::Bytes)>>,
    open: AtomicU32,
    /// The answer may be an error.
    verdicts: bool,
}

impl Duty {
    fn change(&self, n: u32, by: i32, broken: bool) {
        match self {
            Self::Ledger(ledger) => ledger.change(n, by, broken),
            Self::Remote(owed) if broken => drop(owed.reply.lock().take()), // unsaid, it is taken for lost
            Self::Remote(owed) if by > 0 => drop(owed.open.fetch_add(1, Ordering::Relaxed)),
            Self::Remote(owed) => {
                let open = owed.open.fetch_sub(1, Ordering::AcqRel);
                invariant!("receipt_of_node_settled_once", open > 0);
                if open == 1
                    && let Some((reply, error)) = owed.reply.lock().take()
                {
                    reply.answer(error);
                }
            }
        }
    }

    fn same(&self) -> Self {
        match self {
            Self::Ledger(ledger) => Self::Ledger(ledger.clone()),
            Self::Remote(owed) => Self::Remote(owed.clone()),
        }
    }
}

/// The obligation to settle one Up stanza. [`Receipt::done`] says it is met; dropping it without says that the stanza
/// was lost inside the server, and the stream will be ended so that the client sends it again.
pub struct Receipt {
    duty: Option<Duty>,
    n: u32,
    /// See [`Receipt::is_pressing`].
    pressing: bool,
    /// The stanza's entry in its sender's archive, or [`NOWHERE`]: it goes along with each message, and a word counts.
    entry: ArchiveId,
}

/// The place of no entry: in the year 586,524.
const NOWHERE: ArchiveId = ArchiveId { micros: u64::MAX, epoch: u32::MAX, counter: u32::MAX };

impl Receipt {
    /// For the stanza `n` of a ledger.
    pub(super) fn of(ledger: Arc<Ledger>, n: u32, pressing: bool) -> Self {
        Self { duty: Some(Duty::Ledger(ledger)), n, pressing, entry: NOWHERE }
    }

    /// A receipt nobody waits for.
    pub fn none() -> Self {
        Self { duty: None, n: 0, pressing: false, entry: NOWHERE }
    }

    /// One that another node waits for, which may take an error for an answer.
    pub(crate) fn owed(reply: Reply, verdicts: bool) -> Self {
        let owed =
            Owed { reply: Mutex::new(Some((reply, bytes::Bytes::new()))), open: AtomicU32::new(1), verdicts };
        Self { duty: Some(Duty::Remote(Arc::new(owed))), n: 0, pressing: false, entry: NOWHERE }
    }

    /// For a stanza that stands in its sender's archive. If it is refused, the error takes this along, and the entry is taken
    /// back: what was refused is archived nowhere.
    pub(crate) fn archived(mut self, entry: Option<ArchiveId>) -> Self {
        self.entry = entry.unwrap_or(NOWHERE);
        self
    }

    /// See [`Receipt::archived`].
    pub(crate) fn entry(&self) -> Option<ArchiveId> {
        Some(self.entry).filter(|entry| *entry != NOWHERE)
    }

    /// The number of the stanza in its session.
    pub fn number(&self) -> u32 {
        self.n
    }

    /// The stanza's number, if that is one of this ledger's.
    pub(crate) fn number_in(&self, ledger: &Arc<Ledger>) -> Option<u32> {
        matches!(&self.duty, Some(Duty::Ledger(of)) if Arc::ptr_eq(of, ledger)).then_some(self.n)
    }

    /// A second obligation for the same stanza: it is settled when both are done.
    pub fn split(&self) -> Self {
        if let Some(duty) = &self.duty {
            duty.change(self.n, 1, false);
        }
        Self { duty: self.duty.as_ref().map(Duty::same), n: self.n, pressing: self.pressing, entry: NOWHERE }
    }

    /// Whether much from the same stream waits to be settled: soon the stream is not read on. A session that waits for its client's
    /// confirmation asks for that at once.
    pub(crate) fn is_pressing(&self) -> bool {
        self.pressing || matches!(&self.duty, Some(Duty::Ledger(ledger)) if ledger.is_pressed())
    }

    /// Whether it was pressing when the stanza came.
    #[cfg(test)]
    pub(super) fn pressing(&self) -> bool {
        self.pressing
    }

    /// The same receipt, where the stanza was pressing on the node that has sent it.
    pub(crate) fn pressed(mut self, pressing: bool) -> Self {
        self.pressing = pressing;
        self
    }

    /// Whether anybody waits for it.
    pub fn is_open(&self) -> bool {
        self.duty.is_some()
    }

    /// Somebody else sees to the stanza, which comes again: a session of this node that moves with it.
    pub(crate) fn leave(mut self) {
        match self.duty.take() {
            Some(Duty::Ledger(_)) | None => {}
            Some(duty @ Duty::Remote(_)) => duty.change(self.n, 0, true),
        }
    }

    /// The stanza is refused. The node that has sent it is told so in one with the receipt: it can neither miss the error and
    /// send again, nor have both. Where nobody takes that, the error must find its own way; then this comes back.
    ///
    /// # Errors
    /// Nobody takes it.
    pub(crate) fn refuse(self, error: &Stanza) -> Result<(), Self> {
        match &self.duty {
            Some(Duty::Remote(owed)) if owed.verdicts => {
                if let Some((_, answer)) = &mut *owed.reply.lock() {
                    *answer = error.to_bytes().into();
                }
                self.done();
                Ok(())
            }
            _ => Err(self),
        }
    }

    /// The stanza is durable, or answered.
    pub fn done(mut self) {
        if let Some(duty) = self.duty.take() {
            duty.change(self.n, -1, false);
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(duty) = self.duty.take() {
            duty.change(self.n, 0, true);
        }
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Receipt({})", self.n)
    }
}
