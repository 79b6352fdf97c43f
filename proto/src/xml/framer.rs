//! Finds where the next top-level item of a stream ends.
//!
//! The framer looks only at `<`, `>`, quotes and CDATA, and judges nothing else: whatever it takes for one element,
//! [`check`](super::check) must accept as exactly one element, so the two can't disagree to an attacker's benefit.

use smallvec::SmallVec;

use super::{Error, Limits, chars, check};

/// What the bytes at hand begin with. The caller takes `len` bytes away before it asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing complete yet: read more, keep what is there.
    Need,
    /// White space between top-level items: a keepalive (RFC 6120 section 4.6.1).
    Whitespace {
        /// Bytes of it.
        len: usize,
    },
    /// An XML declaration, already checked.
    Declaration {
        /// Bytes of it.
        len: usize,
    },
    /// The opening tag of the stream.
    Open {
        /// Bytes of it.
        len: usize,
    },
    /// One complete element: a stanza, or something else on the first level.
    Element {
        /// Bytes of it.
        len: usize,
    },
    /// The closing tag of the stream. Nothing but white space may follow.
    Close {
        /// Bytes of it.
        len: usize,
    },
}

/// Where the scan stands. `at` of the framer is the next byte to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Content,
    /// After `<`.
    Markup,
    /// In a tag; `quote` is the open quote or 0.
    Tag {
        closing: bool,
        quote: u8,
    },
    /// After `<`, at a `!`.
    Bang,
    Cdata,
    Declaration,
}

/// The stage of the stream, which decides what an opening or closing tag on the top level means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing seen; a declaration may come. `again`: after a restart, where a line end may trail the old stream.
    Start {
        again: bool,
    },
    /// White space or the declaration was seen, the header was not.
    Declared,
    Open,
    Closed,
}

/// An incremental framer for one direction of one stream.
#[derive(Clone, Debug)]
pub struct Framer {
    limits: Limits,
    at: usize,
    depth: u16,
    state: State,
    stage: Stage,
    /// The name of the stream's opening tag, if it is not `stream:stream`.
    name: Option<Box<[u8]>>,
    /// Where the tag that is scanned begins (its `<`).
    tag_at: usize,
    /// Where the names of the open elements begin: a closing tag that matches none must not wait for one that does.
    open: SmallVec<[u32; 4]>,
}

const CDATA: &[u8] = b"![CDATA[";
const USUAL_NAME: &[u8] = b"stream:stream";

impl Framer {
    /// A framer at the start of a stream.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let stage = Stage::Start { again: false };
        Self {
            limits,
            at: 0,
            depth: 0,
            state: State::Between,
            stage,
            name: None,
            tag_at: 0,
            open: SmallVec::new(),
        }
    }

    /// Changes the limits, from the next byte on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Expects a new stream header: after STARTTLS or SASL (RFC 6120 section 4.3.3). Unconsumed bytes stay valid.
    pub fn restart(&mut self) {
        *self = Self { stage: Stage::Start { again: true }, ..Self::new(self.limits) };
    }

    /// Looks at `buf`, which holds every byte that was not consumed yet: those of the last call, and new ones.
    ///
    /// # Errors
    /// At the first byte that can't belong to a stream or passes a limit. The stream is then over; call no more.
    pub fn next(&mut self, buf: &[u8]) -> Result<Step, Error> {
        let step = self.scan(buf)?;
        let limit = usize::try_from(self.limits.stanza_bytes).unwrap_or(usize::MAX);
        match step {
            // A frame that is not complete at the limit will be longer than it.
            Step::Need if buf.len() >= limit => Err(Error::TooLarge(self.limits.stanza_bytes)),
            Step::Declaration { len } | Step::Open { len } | Step::Element { len } | Step::Close { len }
                if len > limit =>
            {
                Err(Error::TooLarge(self.limits.stanza_bytes))
            }
            Step::Need | Step::Whitespace { .. } => Ok(step),
            _ => {
                (self.at, self.depth, self.state) = (0, 0, State::Between);
                self.open.clear();
                Ok(step)
            }
        }
    }

    fn scan(&mut self, buf: &[u8]) -> Result<Step, Error> {
        loop {
            match self.state {
                State::Between => match buf.first() {
                    None => return Ok(Step::Need),
                    Some(b'<') => self.go(1, State::Markup),
                    Some(b) if chars::is_space(*b) => {
                        if self.stage == (Stage::Start { again: false }) {
                            self.stage = Stage::Declared;
                        }
                        let len = buf.iter().position(|b| !chars::is_space(*b)).unwrap_or(buf.len());
                        return Ok(Step::Whitespace { len });
                    }
                    Some(_) if self.stage == Stage::Open => {
                        return Err(Error::Format("text between the elements of a stream"));
                    }
                    Some(_) => return Err(Error::NotWellFormed("text outside of the stream")),
                },
                State::Content => match memchr::memchr(b'<', rest(buf, self.at)) {
                    None => return Ok(self.starve(buf)),
                    Some(n) => self.go(n + 1, State::Markup),
                },
                State::Markup => {
                    let Some(b) = buf.get(self.at) else { return Ok(Step::Need) };
                    self.markup(*b)?;
                }
                State::Bang => {
                    let seen = rest(buf, self.at);
                    let seen = seen.get(..CDATA.len()).unwrap_or(seen);
                    if !CDATA.starts_with(seen) {
                        return Err(Error::Restricted("comment or document type"));
                    }
                    if seen.len() < CDATA.len() {
                        return Ok(Step::Need);
                    }
                    if self.depth == 0 {
                        return Err(Error::NotWellFormed("CDATA outside of an element"));
                    }
                    self.go(CDATA.len(), State::Cdata);
                }
                State::Cdata => match memchr::memchr(b'>', rest(buf, self.at)) {
                    None => return Ok(self.starve(buf)),
                    Some(n) => {
                        // The opening `[` can't be taken for a `]`, so looking back is safe.
                        let closed = buf.get(..self.at + n).is_some_and(|b| b.ends_with(b"]]"));
                        self.go(n + 1, if closed { State::Content } else { State::Cdata });
                    }
                },
                State::Declaration => match memchr::memchr(b'>', rest(buf, self.at)) {
                    None => return Ok(self.starve(buf)),
                    Some(n) => {
                        let len = self.at + n + 1;
                        check::declaration(buf.get(..len).unwrap_or_default())?;
                        self.stage = Stage::Declared;
                        return Ok(Step::Declaration { len });
                    }
                },
                State::Tag { closing, quote: 0 } => {
                    match memchr::memchr3(b'>', b'"', b'\'', rest(buf, self.at)) {
                        None => return Ok(self.starve(buf)),
                        Some(n) => {
                            let quote = buf.get(self.at + n).copied().unwrap_or_default();
                            self.go(n + 1, State::Tag { closing, quote });
                            if quote == b'>'
                                && let Some(step) = self.tag(buf, closing)?
                            {
                                return Ok(step);
                            }
                        }
                    }
                }
                State::Tag { closing, quote } => match memchr::memchr(quote, rest(buf, self.at)) {
                    None => return Ok(self.starve(buf)),
                    Some(n) => self.go(n + 1, State::Tag { closing, quote: 0 }),
                },
            }
        }
    }

    fn go(&mut self, bytes: usize, state: State) {
        self.at += bytes;
        self.state = state;
    }

    /// All was looked at: the next scan starts behind it.
    fn starve(&mut self, buf: &[u8]) -> Step {
        self.at = self.at.max(buf.len());
        Step::Need
    }

    /// `b` is the byte after a `<`.
    fn markup(&mut self, b: u8) -> Result<(), Error> {
        self.tag_at = self.at.saturating_sub(1);
        match b {
            b'/' if self.depth == 0 && self.stage != Stage::Open => {
                return Err(Error::NotWellFormed("closing tag without an opening one"));
            }
            b'/' => self.go(1, State::Tag { closing: true, quote: 0 }),
            b'!' => self.state = State::Bang,
            b'?' if matches!(self.stage, Stage::Start { .. }) => self.go(1, State::Declaration),
            b'?' => return Err(Error::Restricted("processing instruction")),
            _ if self.stage == Stage::Closed => {
                return Err(Error::NotWellFormed("element after the end of the stream"));
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | 0x80.. => self.state = State::Tag { closing: false, quote: 0 },
            _ => return Err(Error::NotWellFormed("illegal start of a name")),
        }
        Ok(())
    }

    /// `at` is behind the `>` of a tag.
    fn tag(&mut self, buf: &[u8], closing: bool) -> Result<Option<Step>, Error> {
        self.state = State::Content;
        let len = self.at;
        let tag = buf.get(..len).unwrap_or_default();
        let empty = tag.ends_with(b"/>");
        if closing {
            if self.depth == 0 {
                self.close(tag)?;
                return Ok(Some(Step::Close { len }));
            }
            self.depth -= 1;
            let opened = self.open.pop().and_then(|at| usize::try_from(at).ok()).map(|at| tag_name(tag, at));
            if opened != Some(tag_name(tag, self.tag_at + 2)) {
                return Err(Error::NotWellFormed("closing tag does not match"));
            }
        } else if self.stage == Stage::Open {
            if self.depth >= self.limits.depth {
                return Err(Error::TooDeep(self.limits.depth));
            }
            if !empty {
                self.depth += 1;
                // Frames are shorter than 4 GiB: their limit is a u32.
                self.open.push(u32::try_from(self.tag_at + 1).unwrap_or(u32::MAX));
            }
        } else {
            if empty {
                return Err(Error::Format("stream header without a stream"));
            }
            let name = tag_name(tag, 1);
            self.name = (name != USUAL_NAME).then(|| name.into());
            self.stage = Stage::Open;
            return Ok(Some(Step::Open { len }));
        }
        Ok((self.depth == 0).then_some(Step::Element { len }))
    }

    /// The closing tag of the stream must bear the name of the opening one.
    fn close(&mut self, tag: &[u8]) -> Result<(), Error> {
        let name = tag_name(tag, 2);
        let tail = rest(tag, 2 + name.len());
        let (Some((b'>', space)), true) =
            (tail.split_last(), name == self.name.as_deref().unwrap_or(USUAL_NAME))
        else {
            return Err(Error::NotWellFormed("closing tag does not match"));
        };
        if !space.iter().all(|b| chars::is_space(*b)) {
            return Err(Error::NotWellFormed("closing tag with more than a name"));
        }
        self.stage = Stage::Closed;
        Ok(())
    }
}

fn rest(buf: &[u8], at: usize) -> &[u8] {
    buf.get(at..).unwrap_or_default()
}

/// The bytes of a name that starts at `at`.
fn tag_name(tag: &[u8], at: usize) -> &[u8] {
    let tail = rest(tag, at);
    let end = tail.iter().position(|b| chars::is_space(*b) || matches!(b, b'/' | b'>')).unwrap_or(tail.len());
    tail.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
