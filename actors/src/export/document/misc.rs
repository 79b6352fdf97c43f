//! What a file may hold besides elements and text, and what means nothing: comments, processing instructions and a document
//! type (XML 1.0 sections 2.5, 2.6 and 2.8). All that is dropped before anything else looks at the document. A stream may hold none
//! of that, so that the checks of streams, which judge the rest, need not know it.

use std::collections::VecDeque;

use bytes::{BufMut as _, BytesMut};

/// At how many places dropped lines are remembered; beyond, what is told of lines may be too low for a while.
const PLACES: usize = 1_000;

/// Where the reader is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Between tags.
    Text,
    /// Behind a `<` whose kind is not known yet.
    Open,
    /// In a tag, and the quote that is open there, or 0.
    Tag(u8),
    Data,
    Comment,
    Instruction,
    /// In a document type, and the quote that is open there, or 0.
    Type(u8),
}

/// Passes a document on without what means nothing.
pub(super) struct Misc {
    state: State,
    /// What follows the `<`, or the last bytes of what has a long end.
    tail: Vec<u8>,
    /// An element has begun: no document type may come.
    begun: bool,
    /// How many bytes were passed on.
    passed: u64,
    /// How many lines were dropped behind so many bytes that were passed on.
    dropped: VecDeque<(u64, u64)>,
    /// Why the document can't be read on.
    pub(super) refused: Option<&'static str>,
}

/// What an open tag begins as, once that is known.
fn kind(tail: &[u8], begun: bool) -> Option<State> {
    const KINDS: [(&[u8], State); 4] = [
        (b"!--", State::Comment),
        (b"![CDATA[", State::Data),
        (b"!DOCTYPE", State::Type(0)),
        (b"?xml", State::Text), // the declaration, if a space follows
    ];
    for (name, state) in KINDS {
        match tail.strip_prefix(name) {
            Some([]) if state == State::Text => return None,
            Some([next, ..]) if state == State::Text && !next.is_ascii_whitespace() => {
                return Some(State::Instruction);
            }
            // What comes too late is passed on, and refused.
            Some(_) if begun && state == State::Type(0) => return Some(State::Text),
            Some(_) => return Some(state),
            None if name.starts_with(tail) => return None,
            None => {}
        }
    }
    match tail {
        [b'?', ..] => Some(State::Instruction),
        [b'!', ..] => Some(State::Text), // nothing that XML knows: it is passed on, and refused
        _ => Some(State::Tag(0)),
    }
}

impl Misc {
    pub(super) fn new() -> Self {
        Self {
            state: State::Text,
            tail: Vec::new(),
            begun: false,
            passed: 0,
            dropped: VecDeque::new(),
            refused: None,
        }
    }

    /// How many lines were dropped before the first `taken` bytes of what was passed on were over, and not told yet.
    pub(super) fn lines(&mut self, taken: u64) -> u64 {
        let mut lines = 0;
        while let Some((_, more)) = self.dropped.front().copied().filter(|(at, _)| *at <= taken) {
            lines += more;
            self.dropped.pop_front();
        }
        lines
    }

    /// Passes a piece on.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut BytesMut) {
        let before = out.len();
        for byte in piece {
            let at = self.passed + (out.len() - before) as u64;
            self.byte(*byte, at, out);
        }
        self.passed += (out.len() - before) as u64;
    }

    fn byte(&mut self, byte: u8, at: u64, out: &mut BytesMut) {
        match self.state {
            State::Text if byte == b'<' => self.state = State::Open,
            State::Text => out.put_u8(byte),
            State::Open => self.open(byte, at, out),
            State::Tag(quote) => {
                out.put_u8(byte);
                self.state = match (quote, byte) {
                    (0, b'>') => State::Text,
                    (0, b'"' | b'\'') => State::Tag(byte),
                    (quote, byte) if quote == byte => State::Tag(0),
                    _ => self.state,
                };
            }
            State::Data => {
                out.put_u8(byte);
                self.ends(byte, b"]]>");
            }
            State::Comment => self.drop(byte, at, b"-->"),
            State::Instruction => self.drop(byte, at, b"?>"),
            State::Type(quote) => {
                self.line(byte, at);
                match (quote, byte) {
                    (0, b'[') => {
                        self.refused = Some("a document type with declarations of its own");
                    }
                    (0, b'>') => self.state = State::Text,
                    (0, b'"' | b'\'') => self.state = State::Type(byte),
                    (quote, byte) if quote == byte => self.state = State::Type(0),
                    _ => {}
                }
            }
        }
    }

    fn open(&mut self, byte: u8, at: u64, out: &mut BytesMut) {
        self.tail.push(byte);
        let Some(state) = kind(&self.tail, self.begun) else { return };
        let tail = std::mem::take(&mut self.tail);
        self.state = state;
        match state {
            State::Comment | State::Instruction | State::Type(_) => {
                tail.iter().for_each(|byte| self.line(*byte, at));
                // What ends it may have come already.
                if state == State::Instruction {
                    tail.iter().skip(1).for_each(|byte| self.ends(*byte, b"?>"));
                }
            }
            _ => {
                out.put_u8(b'<');
                out.extend_from_slice(&tail);
                self.begun |= matches!(state, State::Tag(_));
                if byte == b'>' && matches!(state, State::Tag(_)) {
                    self.state = State::Text;
                }
            }
        }
    }

    fn drop(&mut self, byte: u8, at: u64, end: &[u8]) {
        self.line(byte, at);
        self.ends(byte, end);
    }

    fn line(&mut self, byte: u8, at: u64) {
        if byte == b'\n' {
            let many = self.dropped.len() >= PLACES;
            match self.dropped.back_mut() {
                Some((last, lines)) if *last == at || many => *lines += 1,
                _ => self.dropped.push_back((at, 1)),
            }
        }
    }

    /// Back to text if the last bytes are `end`.
    fn ends(&mut self, byte: u8, end: &[u8]) {
        self.tail.push(byte);
        if self.tail.ends_with(end) {
            self.tail.clear();
            self.state = State::Text;
        } else if self.tail.len() >= end.len() {
            self.tail.remove(0);
        }
    }
}
