//! What others ask of an entity: read from the store apart from what its own sources do, which never wait for it. Room is
//! shared out fairly: one account, or one domain that is not served here, does not take all of it.

use rookery_cluster::invariant;
use rookery_proto::xmpp::jid::Jid;

use super::{Counted, Limits, Queued};

/// A read, and the JID that has asked.
struct Asked<R> {
    from: Jid,
    read: R,
}

impl<R: Queued> Queued for Asked<R> {
    fn size(&self) -> usize {
        self.read.size()
    }

    fn leave(self) {
        self.read.leave();
    }
}

/// What strangers have asked of one entity; `R` is a read.
pub(crate) struct Strangers<R> {
    limits: &'static Limits,
    /// Strangers for whom a read is under way.
    reading: Vec<Jid>,
    waiting: Counted<Asked<R>>,
}

impl<R: Queued> Strangers<R> {
    pub(super) fn new(limits: &'static Limits) -> Self {
        Self { limits, reading: Vec::new(), waiting: Counted::default() }
    }

    pub(super) fn are_reading(&self) -> bool {
        !self.reading.is_empty()
    }

    pub(super) fn shrink(&mut self) {
        self.reading.shrink_to_fit();
        self.waiting.items.shrink_to_fit();
    }

    fn count(&self, same: impl Fn(&Jid) -> bool) -> usize {
        let waiting = self.waiting.items.iter().map(|asked| &asked.from);
        self.reading.iter().chain(waiting).filter(|jid| same(jid)).count()
    }

    /// Enters a read for `from`; `local`: its domain is served here. [`Strangers::next`] says when it is to be started.
    ///
    /// # Errors
    /// There is no room, or no share of it is left for `from`: the read comes back.
    pub(crate) fn push(&mut self, from: Jid, local: bool, read: R) -> Result<(), R> {
        let limits = self.limits;
        let fits = self.reading.len() + self.waiting.len() < limits.strangers.items
            && self.waiting.bytes + read.size() <= limits.strangers.bytes
            && self.count(|jid| jid.bare_str() == from.bare_str()) < limits.strangers_of_account
            && (local || self.count(|jid| jid.domain() == from.domain()) < limits.strangers_of_domain);
        if !fits {
            return Err(read);
        }
        self.waiting.push_back(Asked { from, read });
        Ok(())
    }

    /// The next read, to be started, unless enough are. The read ends with [`Strangers::done`].
    pub(crate) fn next(&mut self) -> Option<(Jid, R)> {
        if self.reading.len() >= self.limits.strangers_at_once {
            return None;
        }
        let Asked { from, read } = self.waiting.pop_front()?;
        self.reading.push(from.clone());
        Some((from, read))
    }

    /// A read for this stranger is done. [`Strangers::next`] follows.
    pub(crate) fn done(&mut self, from: &Jid) {
        let at = self.reading.iter().position(|jid| jid == from);
        invariant!("stranger_answered_once", at.is_some());
        if let Some(at) = at {
            self.reading.swap_remove(at);
        }
    }

    /// The reads that have not begun: the entity lives elsewhere, and they are answered there.
    pub(crate) fn take_all(&mut self) -> Vec<R> {
        self.waiting.take_all().into_iter().map(|asked| asked.read).collect()
    }
}
