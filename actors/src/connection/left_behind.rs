//! Which messages of ended sessions a client was sent last.
//!
//! The offline cursor does not say that of them: each has its own flag in the archive, which changes only when the client has
//! the page. A home that dies or moves before that leaves the flag, and the next home must not send the message again.

use std::collections::VecDeque;

use rookery_cluster::tables::archive::ArchiveId;

/// The last of these messages that a client was sent, in order: some more than a page of the archive.
#[derive(Clone, Default, Debug)]
pub(crate) struct LeftBehind(VecDeque<ArchiveId>);

/// How many are remembered: the page that is not confirmed yet, and the one before it, whose flags may not be written.
const LIMIT: usize = 200;

impl LeftBehind {
    /// The client is sent this one. Beyond the limit the oldest is forgotten, which comes again at worst.
    pub(crate) fn note(&mut self, id: ArchiveId) {
        if self.0.contains(&id) {
            return;
        }
        if self.0.len() >= LIMIT {
            self.0.pop_front();
        }
        self.0.push_back(id);
    }

    /// Whether the client was sent this one.
    pub(crate) fn has(&self, id: ArchiveId) -> bool {
        self.0.contains(&id)
    }

    /// All of them, the oldest first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ArchiveId> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_once() {
        let mut left = LeftBehind::default();
        let id = |n: u64| ArchiveId::first_at(n);
        (0..300).chain(250..300).for_each(|n| left.note(id(n)));
        assert_eq!(left.ids().collect::<Vec<_>>(), (100..300).map(id).collect::<Vec<_>>());
        assert!(!left.has(id(99)) && left.has(id(100)));
    }
}
