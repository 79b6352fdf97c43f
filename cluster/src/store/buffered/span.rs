//! Stretches of keys, as conflicts are judged by them.

use bytes::{BufMut as _, Bytes, BytesMut};

/// One key, or the keys from the first (included) to the second (excluded).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Span {
    /// One key.
    Key(Bytes),
    /// A range.
    Range(Bytes, Bytes),
}

impl Span {
    /// What `begin..end` is, the cheap way if it is one key.
    pub(crate) fn new(begin: &[u8], end: &[u8]) -> Self {
        match end.split_last() {
            Some((0, head)) if head == begin => Self::Key(Bytes::copy_from_slice(begin)),
            _ => Self::Range(Bytes::copy_from_slice(begin), Bytes::copy_from_slice(end)),
        }
    }

    /// Bytes that FoundationDB counts for it: begin and end; a key's end is the key and a zero byte.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Key(key) => key.len() * 2 + 1,
            Self::Range(begin, end) => begin.len() + end.len(),
        }
    }

    /// Whether the key lies inside.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Range(begin, end) => begin <= key && key < end,
        }
    }

    /// Whether a key lies in both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(key), other) | (other, Self::Key(key)) => other.contains(key),
            (Self::Range(begin, end), Self::Range(other_begin, other_end)) => {
                begin < other_end && other_begin < end && begin < end && other_begin < other_end
            }
        }
    }
}

/// The first key behind `key`.
pub(crate) fn next_key(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_recognised() {
        assert_eq!(Span::new(b"a", b"a\0"), Span::Key(Bytes::from_static(b"a")));
        assert!(matches!(Span::new(b"a", b"b\0"), Span::Range(..)));
    }

    #[test]
    fn overlaps_by_half_open_ranges() {
        let span = |begin: &str, end: &str| Span::new(begin.as_bytes(), end.as_bytes());
        assert!(span("a", "c").overlaps(&span("b", "d")));
        assert!(!span("a", "b").overlaps(&span("b", "c")));
        assert!(!span("a", "c").overlaps(&span("b", "b")), "an empty range touches nothing");
        assert!(span("a", "c").overlaps(&span("b", "b\0")));
        assert!(!span("b", "b\0").overlaps(&span("a", "b")));
    }
}
