//! What was committed lately: against this the reads of a transaction are judged.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::store::Version;
use crate::store::buffered::pending::keys_in;
use crate::store::buffered::span::Span;

/// The window holds at most that many keys; transactions that would need more of the past are too old.
const KEYS: usize = 1_000_000;

/// What one version changed.
struct Epoch {
    version: Version,
    /// Sorted.
    keys: Vec<Bytes>,
    ranges: Vec<Span>,
}

/// The versions of the last seconds.
#[derive(Default)]
pub(crate) struct Window {
    epochs: VecDeque<Epoch>,
    keys: usize,
    /// Reads before this version cannot be judged.
    floor: Version,
}

impl Window {
    /// A window that begins at `version`.
    pub(crate) fn starting_at(version: Version) -> Self {
        Self { floor: version, ..Self::default() }
    }

    /// The oldest version whose reads can be judged.
    pub(crate) fn floor(&self) -> Version {
        self.floor
    }

    /// Whether anything in `spans` was written after version `seen`.
    pub(crate) fn conflicts(&self, seen: Version, spans: &[Span]) -> bool {
        self.epochs
            .iter()
            .rev()
            .take_while(|epoch| epoch.version > seen)
            .any(|epoch| spans.iter().any(|span| epoch.touches(span)))
    }

    /// Adds what `version` changed; `keys` are sorted.
    pub(crate) fn push(&mut self, version: Version, keys: Vec<Bytes>, ranges: Vec<Span>) {
        self.keys += keys.len() + ranges.len();
        self.epochs.push_back(Epoch { version, keys, ranges });
        while self.keys > KEYS && self.epochs.len() > 1 {
            self.pop();
        }
    }

    /// Forgets what no transaction that reads at `oldest` or later needs.
    pub(crate) fn forget(&mut self, oldest: Version) {
        while self.epochs.front().is_some_and(|epoch| epoch.version <= oldest) {
            self.pop();
        }
        self.floor = self.floor.max(oldest);
    }

    fn pop(&mut self) {
        if let Some(epoch) = self.epochs.pop_front() {
            self.keys -= epoch.keys.len() + epoch.ranges.len();
            self.floor = self.floor.max(epoch.version);
        }
    }
}

impl Epoch {
    fn touches(&self, span: &Span) -> bool {
        let by_key = match span {
            Span::Key(key) => self.keys.binary_search(key).is_ok(),
            Span::Range(begin, end) => {
                let first = self.keys.partition_point(|key| key < begin);
                self.keys.get(first).is_some_and(|key| key < end)
            }
        };
        by_key || self.ranges.iter().any(|range| range.overlaps(span))
    }
}

/// The same question about a group that is being put together.
pub(crate) fn touched<V>(changes: &BTreeMap<Bytes, V>, ranges: &[Span], spans: &[Span]) -> bool {
    if changes.is_empty() && ranges.is_empty() {
        return false;
    }
    spans.iter().any(|span| {
        let by_key = match span {
            Span::Key(key) => changes.contains_key(key),
            Span::Range(begin, end) => keys_in(changes, begin, end).next().is_some(),
        };
        by_key || ranges.iter().any(|range| range.overlaps(span))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn only_later_versions_conflict() {
        let mut window = Window::starting_at(Version(1));
        window.push(Version(2), vec![key("b")], vec![Span::Range(key("x"), key("z"))]);
        for span in [Span::Key(key("b")), Span::Range(key("a"), key("c")), Span::Key(key("y"))] {
            assert!(window.conflicts(Version(1), std::slice::from_ref(&span)), "{span:?}");
            assert!(!window.conflicts(Version(2), &[span]));
        }
        assert!(!window.conflicts(Version(1), &[Span::Range(key("c"), key("x")), Span::Key(key("z"))]));
    }

    #[test]
    fn forgetting_raises_the_floor() {
        let mut window = Window::starting_at(Version(1));
        window.push(Version(2), vec![key("b")], vec![]);
        window.push(Version(3), vec![key("c")], vec![]);
        window.forget(Version(2));
        assert_eq!((window.floor(), window.keys, window.epochs.len()), (Version(2), 1, 1));
    }
}
