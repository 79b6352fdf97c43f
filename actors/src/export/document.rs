//! Reads a large XML document in pieces. Elements are *entered* or taken whole: the classifier says which. What is
//! entered is never held, what is taken whole is limited, and everything passes the strict checks of
//! [`rookery_proto::xml`]: no entity of its own. What may stand in a file but not in a stream is dropped before ([`misc`]).

use bytes::{Buf as _, Bytes, BytesMut};
use rookery_proto::xml::framer::{Framer, Step};
use rookery_proto::xml::{Limits, Scope, Text, check, escape};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::ns;

use misc::Misc;

/// Elements that are taken whole. A vCard with a photo may be large; the code that stores a part has limits of its own.
pub(super) const LIMITS: Limits = Limits { depth: 128, ..Limits::TRUSTED.with_stanza_bytes(8 << 20) };

/// A start or end tag of an element that is entered.
const TAG: usize = 64 << 10;

/// What is wrong with a document, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) line: u64,
    pub(super) reason: String,
}

/// An element that was taken whole.
pub(super) struct Frame {
    /// As it stands in the document.
    pub(super) bytes: Bytes,
    /// What is declared around it.
    pub(super) scope: Scope,
    /// Its name and attributes, without children.
    pub(super) head: Element,
    /// The line it begins in, from 1.
    pub(super) line: u64,
}

/// What comes next.
pub(super) enum Event<P> {
    /// An element was entered; it is given without its children.
    Enter(P, Element),
    /// The innermost element that was entered ends.
    Leave(P),
    /// A child of the innermost element that was entered, not checked yet.
    Whole(P, Frame),
}

/// Says what an element within `P` (the root within `None`) is, if it is to be entered.
pub(super) type Classify<P> = fn(Option<P>, &Element) -> Option<P>;

mod misc;

struct Level<P> {
    place: P,
    /// The name as it was written, which the end tag must repeat.
    name: Bytes,
    scope: Scope,
    declared: Vec<(Text, Text)>,
}

/// A document that is being read.
pub(super) struct Document<P> {
    buf: BytesMut,
    levels: Vec<Level<P>>,
    classify: Classify<P>,
    framer: Framer,
    /// The element that the framer is in, and the line it begins in.
    head: Option<(Element, u64)>,
    /// How far a start tag was looked at, and the quote that is open there, or 0.
    tag: (usize, u8),
    /// An element without content was entered and is to be left.
    leave: Option<P>,
    /// Nothing was taken yet: a declaration may come.
    fresh: bool,
    misc: Misc,
    /// How many bytes of the buffer were taken.
    taken: u64,
    /// The root element has ended.
    over: bool,
    line: u64,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

impl<P: Copy> Document<P> {
    pub(super) fn new(classify: Classify<P>) -> Self {
        let mut framer = Framer::new(LIMITS);
        // The framer frames the children of a stream: from here on it believes to be in one.
        let opened = framer.next(b"<document>");
        debug_assert!(matches!(opened, Ok(Step::Open { .. })));
        Self {
            buf: BytesMut::new(),
            levels: Vec::new(),
            classify,
            framer,
            head: None,
            tag: (1, 0),
            leave: None,
            fresh: true,
            misc: Misc::new(),
            taken: 0,
            over: false,
            line: 1,
        }
    }

    /// The line that is read now.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Adds a piece. Take all events out before the next one.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.misc.push(piece, &mut self.buf);
    }

    /// The document has no more pieces.
    pub(super) fn end(&self) -> Result<(), Broken> {
        if self.over { Ok(()) } else { self.broken("the document ends too early") }
    }

    fn broken<T>(&self, reason: impl Into<String>) -> Result<T, Broken> {
        Err(Broken { line: self.line, reason: reason.into() })
    }

    fn xml<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> Result<T, Broken> {
        result.or_else(|error| self.broken(error.to_string()))
    }

    fn place(&self) -> Option<P> {
        self.levels.last().map(|level| level.place)
    }

    fn take(&mut self, len: usize) -> Bytes {
        let taken = self.buf.split_to(len.min(self.buf.len())).freeze();
        let lines = taken.iter().filter(|byte| **byte == b'\n').count();
        self.taken = self.taken.saturating_add(taken.len() as u64);
        self.line = self.line.saturating_add(lines as u64).saturating_add(self.misc.lines(self.taken));
        self.fresh = false;
        taken
    }

    /// The next event; `None` if it takes more pieces to know it.
    pub(super) fn next(&mut self) -> Result<Option<Event<P>>, Broken> {
        if let Some(place) = self.leave.take() {
            self.over = self.levels.is_empty();
            return Ok(Some(Event::Leave(place)));
        }
        if let Some(reason) = self.misc.refused {
            return self.broken(reason);
        }
        loop {
            if self.head.is_some() {
                return self.whole();
            }
            let space = self.buf.iter().position(|byte| !is_space(*byte)).unwrap_or(self.buf.len());
            if space > 0 {
                self.take(space);
            }
            self.line = self.line.saturating_add(self.misc.lines(self.taken));
            match *self.buf {
                [] | [b'<'] => return Ok(None),
                [b'<', ..] | [0xef, ..] if self.over => {
                    return self.broken("something stands behind the end of the document");
                }
                [b'<', b'/', ..] => return self.close(),
                [b'<', b'?', ..] => {
                    if !self.declaration()? {
                        return Ok(None);
                    }
                }
                [b'<', b'!', ..] => {
                    return self.broken("a comment, CDATA section or document type where none may be");
                }
                [b'<', ..] => match self.open()? {
                    Open::Need => return Ok(None),
                    Open::Entered(event) => return Ok(Some(event)),
                    Open::Whole => {}
                },
                // A byte order mark.
                [0xef] | [0xef, 0xbb] if self.fresh => return Ok(None),
                [0xef, 0xbb, 0xbf, ..] if self.fresh => {
                    self.buf.advance(3);
                    self.taken = self.taken.saturating_add(3);
                }
                _ => return self.broken("text where only elements may be"),
            }
        }
    }

    /// Whether the declaration was complete.
    fn declaration(&mut self) -> Result<bool, Broken> {
        if !self.fresh {
            return self.broken("a processing instruction");
        }
        match self.buf.iter().position(|byte| *byte == b'>') {
            Some(end) => {
                let declaration = self.take(end + 1);
                self.xml(check::declaration(&declaration))?;
                Ok(true)
            }
            None if self.buf.len() > TAG => self.broken("a declaration without an end"),
            None => Ok(false),
        }
    }

    fn close(&mut self) -> Result<Option<Event<P>>, Broken> {
        let Some(end) = self.buf.iter().position(|byte| *byte == b'>') else {
            return if self.buf.len() > TAG { self.broken("an end tag without an end") } else { Ok(None) };
        };
        let tag = self.take(end + 1);
        let name = tag.get(2..end).unwrap_or_default().trim_ascii_end();
        match self.levels.pop() {
            Some(level) if level.name == name => {
                self.over = self.levels.is_empty();
                Ok(Some(Event::Leave(level.place)))
            }
            _ => self.broken("an end tag that does not match"),
        }
    }

    /// Where the start tag in front ends.
    fn tag_end(&mut self) -> Option<usize> {
        let (mut at, mut quote) = self.tag;
        for byte in self.buf.iter().skip(at) {
            at += 1;
            match (quote, *byte) {
                (0, b'>') => {
                    self.tag = (1, 0);
                    return Some(at);
                }
                (0, b'"' | b'\'') => quote = *byte,
                (open, byte) if open == byte => quote = 0,
                _ => {}
            }
        }
        self.tag = (at, quote);
        None
    }

    fn open(&mut self) -> Result<Open<P>, Broken> {
        let Some(end) = self.tag_end() else {
            return if self.buf.len() > TAG {
                self.broken("a start tag that is too long")
            } else {
                Ok(Open::Need)
            };
        };
        if end > TAG {
            return self.broken("a start tag that is too long");
        }
        let raw = self.buf.get(..end).unwrap_or_default();
        let empty = raw.ends_with(b"/>");
        let mut alone = raw.strip_suffix(b">").unwrap_or_default().to_vec();
        alone.extend_from_slice(if empty { b">" } else { b"/>" });
        let scope = self.levels.last().map_or(Scope::NOTHING, |level| level.scope.clone());
        let head = self.xml(Element::parse_in(&alone, &scope, &LIMITS))?;
        let Some(place) = (self.classify)(self.place(), &head) else {
            if self.levels.is_empty() {
                return self.broken("this is no document of XEP-0227");
            }
            self.head = Some((head, self.line));
            return Ok(Open::Whole);
        };
        self.take(end);
        if empty {
            self.leave = Some(place);
            return Ok(Open::Entered(Event::Enter(place, head)));
        }
        let alone = Bytes::from(alone);
        let name_end =
            alone.iter().position(|byte| is_space(*byte) || matches!(byte, b'/' | b'>')).unwrap_or(1);
        let mut declared = self.levels.last().map(|level| level.declared.clone()).unwrap_or_default();
        for (prefix, uri) in declarations(&String::from_utf8_lossy(alone.get(name_end..).unwrap_or_default()))
        {
            declared.retain(|(known, _)| *known != prefix);
            if !uri.is_empty() {
                declared.push((prefix, uri));
            }
        }
        let scope = Scope::new(ns::CLIENT, declared.clone());
        self.levels.push(Level { place, name: alone.slice(1..name_end.max(1)), scope, declared });
        Ok(Open::Entered(Event::Enter(place, head)))
    }

    fn whole(&mut self) -> Result<Option<Event<P>>, Broken> {
        let step = self.framer.next(&self.buf);
        match self.xml(step)? {
            Step::Need => Ok(None),
            Step::Element { len } => {
                let bytes = self.take(len);
                let (Some((head, line)), Some(level)) = (self.head.take(), self.levels.last()) else {
                    return self.broken("an element outside of the document");
                };
                Ok(Some(Event::Whole(level.place, Frame { bytes, scope: level.scope.clone(), head, line })))
            }
            _ => self.broken("something that is no element"),
        }
    }
}

enum Open<P> {
    Need,
    Entered(Event<P>),
    Whole,
}

/// The namespace declarations among the attributes of a start tag that was checked, as (prefix or empty, namespace).
fn declarations(attributes: &str) -> Vec<(Text, Text)> {
    let mut declared = Vec::new();
    let mut rest = attributes;
    while let Some((name, behind)) = rest.split_once('=') {
        let behind = behind.trim_start();
        let Some(quote) = behind.chars().next() else { break };
        let Some((value, after)) = behind.get(1..).and_then(|value| value.split_once(quote)) else { break };
        rest = after;
        let prefix = match name.trim().strip_prefix("xmlns") {
            Some("") => "",
            Some(prefix) => match prefix.strip_prefix(':') {
                Some(prefix) => prefix,
                None => continue,
            },
            None => continue,
        };
        declared.push((Text::from(prefix), Text::from(escape::unescape_attribute(value))));
    }
    declared
}

impl Frame {
    /// The element, checked.
    pub(super) fn element(&self) -> Result<Element, Broken> {
        Element::parse_in(&self.bytes, &self.scope, &LIMITS).map_err(|error| self.broken(&error))
    }

    /// Checks what nobody is going to read.
    pub(super) fn check(&self) -> Result<(), Broken> {
        check::element(&self.bytes, &self.scope, &LIMITS).map_err(|error| self.broken(&error))
    }

    pub(super) fn broken(&self, reason: &dyn std::fmt::Display) -> Broken {
        Broken { line: self.line, reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests;
