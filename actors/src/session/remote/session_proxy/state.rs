//! What is known of a connection whose session is elsewhere, and the edges of the diagram in [`crate::session::remote`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rookery_cluster::mesh::peer::NodeId;
use rookery_cluster::tables::archive::ArchiveId;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::time::Instant;

use crate::connection::budget::Charged;
use crate::connection::kept::Kept;
use crate::connection::ledger::Ledger;
use crate::connection::left_behind::LeftBehind;
use crate::connection::recent::Recent;
use crate::routing::wire::{self, up};

/// What the client sent, until it is settled.
#[derive(Clone)]
pub(crate) enum Item {
    Stanza(Bytes),
    Answer(Bytes),
    Enable { resume: bool, max: Option<u32> },
}

impl Item {
    pub(crate) fn of_stanza(stanza: &Stanza) -> Self {
        Self::Stanza(stanza.to_bytes().into())
    }

    pub(crate) fn is_counted(&self) -> bool {
        !matches!(self, Self::Enable { .. })
    }

    pub(crate) fn up(self) -> up::What {
        match self {
            Self::Stanza(bytes) => up::What::Stanza(bytes),
            Self::Answer(bytes) => up::What::Answer(bytes),
            Self::Enable { resume, max } => up::What::Enable(wire::Enable { resume, max }),
        }
    }
}

/// Where the session is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum At {
    /// Asked for, for the first time.
    Asking,
    /// There, in that generation of the node.
    Home(NodeId, u64),
    /// Between two homes, since then; an answer may be on its way.
    Looking { since: Instant, asked: bool },
    /// The session, or the connection, has ended.
    Over,
}

/// What a connection carries from one home of its session to the next.
#[derive(Default)]
pub(crate) struct Carried {
    /// What it takes to bring the session back; nothing if its home never said.
    pub(crate) capsule: Option<wire::Capsule>,
    /// The client manages its stream (XEP-0198).
    pub(crate) managed: bool,
    /// Nobody looks at the client (XEP-0352).
    pub(crate) inactive: bool,
    /// How much the client has confirmed.
    pub(crate) h: u32,
    /// What it was sent after that.
    pub(crate) tail: VecDeque<(wire::Stanza, Charged)>,
    /// The newest of the archive that it has confirmed.
    pub(crate) acked: Option<ArchiveId>,
    /// The newest of the archive that it was sent.
    pub(crate) last: Option<ArchiveId>,
    /// The newest of what was offline for all devices that it was sent.
    pub(crate) drained: Option<ArchiveId>,
    /// What of ended sessions it was sent last.
    pub(crate) left_behind: LeftBehind,
    /// The requests, answers and messages of rooms that it was sent last.
    pub(crate) recent: Recent,
}

/// What is known of such a connection.
pub(crate) struct State {
    at: At,
    pub(crate) attempt: u32,
    pub(crate) ledger: Arc<Ledger>,
    /// Which ledger that is: the one after `<enable/>`.
    pub(crate) counted: bool,
    /// How many were settled in the one before.
    pub(crate) before: u32,
    pub(crate) ups: VecDeque<Item>,
    pub(crate) carried: Carried,
    /// What of the offline queue it has confirmed last.
    pub(crate) unqueue: VecDeque<Bytes>,
    /// The client is gone; whether it said so.
    pub(crate) closed: Option<bool>,
    /// Since when the map has named another home, while the old one lives.
    pub(crate) doubt: Option<Instant>,
    /// The home takes nothing more from the client.
    pub(crate) refused: bool,
    /// The last home gave the session up in order.
    pub(crate) moved: bool,
    /// The session has closed the connection.
    pub(super) ending: bool,
    /// Items and bytes that are in the pipe and not yet given back.
    pub(crate) taken: u32,
    pub(super) bytes: usize,
    /// The last mark that was written out while there was no home to hear it.
    pub(crate) marked: Option<u64>,
    /// What came before it was known which home has taken the session. A home that gave it up meanwhile may have said something, too.
    pub(super) early: Vec<(NodeId, wire::Down)>,
}

/// How many confirmed entries of the offline queue are remembered.
const UNQUEUE: usize = 64;

impl State {
    /// Of a connection that is about to ask for its session.
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            at: At::Asking,
            attempt: 0,
            ledger,
            counted: false,
            before: 0,
            ups: VecDeque::new(),
            carried: Carried::default(),
            unqueue: VecDeque::new(),
            closed: None,
            doubt: None,
            refused: false,
            moved: false,
            ending: false,
            taken: 0,
            bytes: 0,
            marked: None,
            early: Vec::new(),
        }
    }

    /// Where the session is.
    pub(crate) fn at(&self) -> &At {
        &self.at
    }

    /// The edge *found*: the session is at that node.
    pub(crate) fn found(&mut self, node: NodeId, generation: u64) {
        self.at = At::Home(node, generation);
    }

    /// The edge *look*: the session has lost its home, or that has given it up in order.
    pub(crate) fn look(&mut self, moved: bool) {
        self.moved = moved;
        self.attempt = self.attempt.wrapping_add(1);
        self.at = if self.ending { At::Over } else { At::Looking { since: Instant::now(), asked: false } };
        (self.doubt, self.refused) = (None, false);
        // Credit and marks are of the one pipe.
        (self.taken, self.marked) = (0, None);
    }

    /// The edge *ask*: a home is asked to take the session over.
    pub(crate) fn ask(&mut self) {
        if let At::Looking { asked, .. } = &mut self.at {
            *asked = true;
        }
    }

    /// The edge *not found*: the home that was asked in this attempt has not taken the session.
    pub(crate) fn not_found(&mut self, attempt: u32) {
        if let At::Looking { asked: asked @ true, .. } = &mut self.at
            && self.attempt == attempt
        {
            *asked = false;
            self.attempt = self.attempt.wrapping_add(1); // should somebody have taken it after all, it says nothing here
        }
    }

    /// The edge *end*: the session or the connection is over, or the connection leads to the session without a proxy.
    pub(crate) fn end(&mut self) {
        self.at = At::Over;
    }

    /// Whether the answer to this attempt is still waited for.
    pub(crate) fn is_looking(&self, attempt: u32) -> bool {
        self.attempt == attempt && matches!(self.at, At::Looking { .. })
    }

    /// `<enable/>` is on its way: what is settled is counted by the ledger before.
    pub(crate) fn is_enabling(&self) -> bool {
        self.counted && !self.carried.managed
    }

    /// The client is sent something that may come again.
    pub(crate) fn note_had(&mut self, kept: &Kept) {
        let number = self.carried.h.wrapping_add(u32::try_from(self.carried.tail.len()).unwrap_or(0));
        self.carried.recent.note_kept(kept, self.carried.managed.then_some(number), self.ledger.received());
    }

    pub(crate) fn confirm(&mut self, h: u32) {
        while self.carried.h != h {
            let Some((stanza, _)) = self.carried.tail.pop_front() else { break };
            self.carried.h = self.carried.h.wrapping_add(1);
            self.carried.acked = self.carried.acked.max(wire::id_of(&stanza.id));
            if !stanza.queued.is_empty() {
                if self.unqueue.len() >= UNQUEUE {
                    self.unqueue.pop_front();
                }
                self.unqueue.push_back(stanza.queued);
            }
        }
        self.carried.recent.confirmed(self.carried.h);
        if self.carried.tail.is_empty() && self.carried.tail.capacity() > 32 {
            self.carried.tail = VecDeque::new();
        }
    }

    /// The home has settled so many; they need not be kept.
    pub(crate) fn trim(&mut self, settled: u32) {
        let mut more = settled.wrapping_sub(self.ledger.processed());
        if more as usize > self.ups.len() {
            return;
        }
        while more > 0 && self.ups.front().is_some_and(Item::is_counted) {
            self.ups.pop_front();
            more -= 1;
        }
        if self.ups.is_empty() && self.ups.capacity() > 32 {
            self.ups = VecDeque::new();
        }
    }
}
