//! How many bytes wait for clients: per session, per account and on this node. What a session is handed is charged from the
//! moment its user hands it over until nobody holds it any more: it is written to the socket, and confirmed where the client
//! confirms (XEP-0198).
//!
//! A stanza that goes to many is charged to each of them, although its payload is there once: the sums say at most too much.
//! Each level has a share for everybody in it, so that nobody is refused for what others let lie: the limit of an account
//! or of the node is only held against a session that takes more than its share, and nothing grows beyond twice a limit.
//! Account and node hear of a session's bytes in steps of 4 kB: every stanza passes here, and many threads share their counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rookery_cluster::invariant;

use crate::connection::pipe::{Outgoing, PIPE_ITEMS};

/// What a stanza takes beside its bytes, about: its places in queues and its index.
const OVERHEAD: usize = 256;
/// From this part of a limit on room is low. An answer, or a page of an archive, fits into the rest.
const LOW: usize = 3;
/// The most bytes that are moved to another node with a session.
pub(crate) const MOVED: usize = 2 << 20;
/// What account and node need not know of a session.
const STEP: usize = 4 << 10;
/// Of a pipe's places so many may be taken before room is low.
const PIPE_LOW: usize = PIPE_ITEMS * 3 / 4;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes for one session.
    pub(crate) session: usize,
    /// Stanzas that one session's client has not confirmed.
    pub(crate) stanzas: usize,
    /// Bytes for the sessions of one account together.
    pub(crate) account: usize,
    /// Bytes on this node.
    pub(crate) node: usize,
}

/// The limits in force, and what waits on this node.
#[derive(Default)]
struct Node {
    session: AtomicUsize,
    stanzas: AtomicUsize,
    account: AtomicUsize,
    node: AtomicUsize,
    level: Level,
}

/// What waits in all sessions of an account, or of the node.
#[derive(Default)]
struct Level {
    bytes: AtomicUsize,
    sessions: AtomicUsize,
}

impl Level {
    fn bytes(&self) -> usize {
        let bytes = self.bytes.load(Ordering::Relaxed);
        // Less than nothing for a moment, when a session has told that something is gone before another has told of that.
        if bytes > usize::MAX / 2 { 0 } else { bytes }
    }

    /// Whether the limit is reached, and a session with `own` bytes takes more than its share of it.
    fn is_over(&self, limit: usize, own: usize) -> bool {
        self.bytes() >= limit && own >= limit / self.sessions.load(Ordering::Relaxed).max(1)
    }
}

/// The budget of a node. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Budget(Arc<Node>);

impl Budget {
    /// Takes over the limits. `moves`: sessions may move to another node, with what waits for them.
    pub(crate) fn set(&self, limits: Limits, moves: bool) {
        let session = if moves { limits.session.min(MOVED) } else { limits.session };
        self.0.session.store(session, Ordering::Relaxed);
        self.0.stanzas.store(limits.stanzas, Ordering::Relaxed);
        self.0.account.store(limits.account, Ordering::Relaxed);
        self.0.node.store(limits.node, Ordering::Relaxed);
    }

    /// The bytes that wait on this node.
    pub(crate) fn waiting(&self) -> usize {
        self.0.level.bytes()
    }

    /// The budget of an account.
    pub(crate) fn account(&self) -> Account {
        Account(Arc::new(OfAccount { node: self.0.clone(), level: Level::default() }))
    }
}

struct OfAccount {
    node: Arc<Node>,
    level: Level,
}

/// The budget of an account, shared by its sessions on this node.
#[derive(Clone)]
pub(crate) struct Account(Arc<OfAccount>);

impl Account {
    /// The budget of one of its sessions.
    pub(crate) fn session(&self) -> Waits {
        for level in [&self.0.level, &self.0.node.level] {
            level.sessions.fetch_add(1, Ordering::Relaxed);
        }
        Waits(Arc::new(OfSession {
            account: self.0.clone(),
            waits: AtomicU64::new(0),
            told: AtomicUsize::new(0),
        }))
    }
}

struct OfSession {
    account: Arc<OfAccount>,
    /// Stanzas above, bytes below [`STANZA`]: both change with each stanza, and one write is half as dear as two.
    waits: AtomicU64,
    /// What account and node know of the bytes.
    told: AtomicUsize,
}

/// One stanza among what waits for a session; a session has room for less than this in bytes.
const STANZA: u64 = 1 << 40;

impl OfSession {
    fn stanzas(&self) -> usize {
        usize::try_from(self.waits.load(Ordering::Relaxed) / STANZA).unwrap_or(usize::MAX)
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.waits.load(Ordering::Relaxed) % STANZA).unwrap_or(usize::MAX)
    }
}

/// A stanza of so many bytes in [`OfSession::waits`].
fn one(bytes: usize) -> u64 {
    STANZA + u64::try_from(bytes).unwrap_or(STANZA).min(STANZA - 1)
}

impl Drop for OfSession {
    fn drop(&mut self) {
        let left = (self.waits.load(Ordering::Relaxed), self.told.load(Ordering::Relaxed));
        invariant!("budget_given_back", left == (0, 0), "{left:?} of a session that is gone");
        for level in [&self.account.level, &self.account.node.level] {
            level.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What waits for one session. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Waits(Arc<OfSession>);

impl Waits {
    /// The budget of its account.
    pub(crate) fn account(&self) -> Account {
        Account(self.0.account.clone())
    }

    /// Charges a stanza to the session, unless it is charged already.
    pub(crate) fn charge(&self, outgoing: &mut Outgoing) {
        if outgoing.charged.0.is_none() {
            outgoing.charged = self.bytes(outgoing.size());
        }
    }

    /// The same; returns the limit that had been reached before, if one had: one stanza may be as long as it is.
    pub(crate) fn charge_within(&self, outgoing: &mut Outgoing) -> Option<&'static str> {
        self.charge(outgoing);
        let last = outgoing.charged.0.as_ref().map_or(0, |charge| charge.bytes);
        self.over(self.0.bytes().saturating_sub(last), 1)
    }

    /// Charges so many bytes, until what this returns is dropped.
    pub(crate) fn bytes(&self, bytes: usize) -> Charged {
        let bytes = bytes + OVERHEAD;
        self.0.waits.fetch_add(one(bytes), Ordering::Relaxed);
        self.0.tell();
        Charged(Some(Charge { waits: self.0.clone(), bytes }))
    }

    /// The limit near which the session is: what can be read back is not sent to it now, and what it asks for is not begun.
    pub(crate) fn low(&self) -> Option<&'static str> {
        let node = &self.0.account.node;
        let most = (node.stanzas.load(Ordering::Relaxed) / 2).min(PIPE_LOW);
        if self.0.stanzas() >= most {
            return Some("unacked_stanzas");
        }
        self.over(self.0.bytes(), LOW)
    }

    fn over(&self, own: usize, part: usize) -> Option<&'static str> {
        if own < STEP {
            return None; // less than any share
        }
        let (account, node) = (&self.0.account, &self.0.account.node);
        let limit = |limit: &AtomicUsize| limit.load(Ordering::Relaxed) / part;
        if own >= limit(&node.session) {
            Some("unacked_bytes")
        } else if account.level.is_over(limit(&node.account), own) {
            Some("waiting_bytes_per_account")
        } else if node.level.is_over(limit(&node.node), own) {
            Some("waiting_bytes")
        } else {
            None
        }
    }
}

impl OfSession {
    /// Tells account and node, if they know too much or too little.
    fn tell(&self) {
        loop {
            let (told, now) = (self.told.load(Ordering::Relaxed), self.bytes());
            if now.abs_diff(told) < STEP && (now != 0 || told == 0) {
                return;
            }
            if self.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                for level in [&self.account.level, &self.account.node.level] {
                    // Wraps where it is less.
                    level.bytes.fetch_add(now.wrapping_sub(told), Ordering::Relaxed);
                }
            }
        }
    }
}

struct Charge {
    waits: Arc<OfSession>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let before = self.waits.waits.fetch_sub(one(self.bytes), Ordering::Relaxed);
        invariant!("budget_counted", before >= one(self.bytes), "{} of {before}", self.bytes);
        self.waits.tell();
    }
}

/// What holds a stanza for a client holds this: when it is dropped, the stanza waits no more. A copy of the stanza is not
/// charged: the original outlives it, as what a client has not confirmed outlives what is still to be written to it.
#[derive(Default)]
pub struct Charged(Option<Charge>);

impl Clone for Charged {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Charged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Charged({})", self.0.as_ref().map_or(0, |charge| charge.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(session: usize, account: usize, node: usize) -> Budget {
        let budget = Budget::default();
        budget.set(Limits { session, stanzas: 8_192, account, node }, false);
        budget
    }

    #[test]
    fn what_nobody_holds_waits_no_more() {
        let budget = budget(3_000_000, 3_000_000, 3_000_000);
        let waits = budget.account().session();
        let one = waits.bytes(999_744);
        assert_eq!((budget.waiting(), waits.low()), (1_000_000, Some("unacked_bytes")));
        drop(one.clone());
        assert_eq!(budget.waiting(), 1_000_000);
        drop(one);
        assert_eq!((budget.waiting(), waits.low()), (0, None));
    }

    #[test]
    fn who_takes_no_more_than_a_share_is_not_refused() {
        let budget = budget(30_000_000, 3_000_000, 12_000_000);
        let account = budget.account();
        let (greedy, modest) = (account.session(), account.session());
        let _held = greedy.bytes(1_000_000);
        let _little = modest.bytes(400_000);
        assert_eq!((greedy.low(), modest.low()), (Some("waiting_bytes_per_account"), None));
        // Other accounts feel it when the node's limit is near, and then only those that take much.
        let others: Vec<Account> = (0..8).map(|_| budget.account()).collect();
        let sessions: Vec<Waits> = others.iter().map(Account::session).collect();
        let _much: Vec<Charged> = sessions.iter().take(4).map(|waits| waits.bytes(900_000)).collect();
        let _some = sessions.last().map(|waits| waits.bytes(1_000));
        assert_eq!(sessions.first().and_then(Waits::low), Some("waiting_bytes"));
        assert_eq!(sessions.last().and_then(Waits::low), None);
    }
}
