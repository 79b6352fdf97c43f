//! Reading what stands inside a tag.

use std::borrow::Cow;

use crate::xml::{Error, chars, escape};

/// A name with its prefix; the prefix is empty if there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) local: &'a str,
}

impl PartialEq for Name<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        chars::same(self.local, other.local) && chars::same(self.prefix, other.prefix)
    }
}

/// An attribute as written, namespace declarations among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribute<'a> {
    pub(crate) name: Name<'a>,
    raw: &'a str,
}

impl<'a> Attribute<'a> {
    /// The value, references read and white space normalised.
    pub(crate) fn value(&self) -> Cow<'a, str> {
        escape::unescape_attribute(self.raw)
    }

    /// The value as written.
    pub(crate) fn raw(&self) -> &'a str {
        self.raw
    }

    /// The prefix that this attribute declares (empty for the default namespace), if it declares one.
    pub(crate) fn declares(&self) -> Option<&'a str> {
        match self.name {
            Name { prefix: "xmlns", local } => Some(local),
            Name { prefix: "", local: "xmlns" } => Some(""),
            _ => None,
        }
    }
}

/// A place in the text. Reading past the end gives 0, which legal text never holds.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    pub(crate) text: &'a str,
    pub(crate) at: usize,
}

/// Bits of [`NAME`].
const START: u8 = 1;
const INSIDE: u8 = 2;

/// The ASCII characters of names.
const NAME: [u8; 256] = names();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a const loop over all bytes")]
const fn names() -> [u8; 256] {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = match b as u8 {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => START | INSIDE,
            b'0'..=b'9' | b'-' | b'.' => INSIDE,
            _ => 0,
        };
        b += 1;
    }
    table
}

fn class(b: u8) -> u8 {
    NAME.get(usize::from(b)).copied().unwrap_or_default()
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(crate) fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn from(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Skips white space; whether there was any.
    #[inline]
    pub(crate) fn space(&mut self) -> bool {
        let start = self.at;
        while chars::is_space(self.peek(0)) {
            self.at += 1;
        }
        self.at > start
    }

    /// Reads a qualified name.
    pub(crate) fn name(&mut self) -> Result<Name<'a>, Error> {
        let start = self.at;
        self.nc_name()?;
        if self.peek(0) != b':' {
            return Ok(Name { prefix: "", local: self.from(start) });
        }
        let prefix = self.from(start);
        self.at += 1;
        let start = self.at;
        self.nc_name()?;
        if self.peek(0) == b':' {
            return Err(Error::NotWellFormed("more than one colon in a name"));
        }
        Ok(Name { prefix, local: self.from(start) })
    }

    /// Skips a name without a colon.
    #[inline]
    fn nc_name(&mut self) -> Result<(), Error> {
        let mut allowed = START;
        loop {
            let b = self.peek(0);
            if class(b) & allowed != 0 {
                self.at += 1;
            } else if b >= 0x80 && self.wide(allowed) {
            } else if allowed == INSIDE {
                return Ok(());
            } else {
                return Err(Error::NotWellFormed("illegal start of a name"));
            }
            allowed = INSIDE;
        }
    }

    /// Skips one character of a name beyond ASCII.
    fn wide(&mut self, allowed: u8) -> bool {
        let Some(c) = self.rest().chars().next() else { return false };
        let legal = if allowed == START { chars::is_name_start(c) } else { chars::is_name(c) };
        if legal {
            self.at += c.len_utf8();
        }
        legal
    }

    /// Reads `name = "value"`.
    pub(crate) fn attribute(&mut self) -> Result<Attribute<'a>, Error> {
        let name = self.name()?;
        self.space();
        if self.peek(0) != b'=' {
            return Err(Error::NotWellFormed("attribute without a value"));
        }
        self.at += 1;
        self.space();
        let quote = self.peek(0);
        if !matches!(quote, b'"' | b'\'') {
            return Err(Error::NotWellFormed("attribute value without quotes"));
        }
        self.at += 1;
        let start = self.at;
        loop {
            let Some(n) = memchr::memchr3(quote, b'<', b'&', self.rest().as_bytes()) else {
                return Err(Error::NotWellFormed("attribute value without an end"));
            };
            self.at += n;
            match self.peek(0) {
                b'<' => return Err(Error::NotWellFormed("< in an attribute value")),
                b'&' => self.reference()?,
                _ => break,
            }
        }
        let raw = self.from(start);
        self.at += 1;
        Ok(Attribute { name, raw })
    }

    /// Skips a reference that starts here.
    pub(crate) fn reference(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        if let Some((_, length)) = escape::reference(rest) {
            self.at += length;
            return Ok(());
        }
        // A well-formed reference to an entity that nobody could have declared is forbidden; all else is broken.
        let mut name = Self { text: self.text, at: self.at + 1 };
        if name.name().is_ok() && name.peek(0) == b';' {
            return Err(Error::Restricted("entity reference"));
        }
        Err(Error::NotWellFormed("illegal reference"))
    }

    /// Skips character data up to the next `<` or the end.
    pub(crate) fn characters(&mut self) -> Result<(), Error> {
        loop {
            let Some(n) = memchr::memchr3(b'<', b'&', b']', self.rest().as_bytes()) else {
                self.at = self.text.len();
                return Ok(());
            };
            self.at += n;
            match self.peek(0) {
                b'<' => return Ok(()),
                b'&' => self.reference()?,
                _ if self.rest().starts_with("]]>") => return Err(Error::NotWellFormed("]]> in text")),
                _ => self.at += 1,
            }
        }
    }
}

/// An attribute without a prefix of the element that checked `raw` starts with.
pub(crate) fn attribute<'a>(raw: &'a str, name: &str) -> Option<Attribute<'a>> {
    let mut found = None;
    scan(raw, |a| {
        if a.name == (Name { prefix: "", local: name }) {
            found = Some(a);
        }
    })?;
    found
}

/// What is behind the start tag that checked `raw` starts with, unless that ends the element.
pub(crate) fn after_tag(raw: &str) -> Option<&str> {
    let cursor = scan(raw, |_| ())?;
    (cursor.peek(0) == b'>').then(|| cursor.rest().get(1..))?
}

/// Reads a start tag up to its `>` or `/>`.
fn scan<'a>(raw: &'a str, mut each: impl FnMut(Attribute<'a>)) -> Option<Cursor<'a>> {
    let mut cursor = Cursor { text: raw, at: 1 };
    cursor.name().ok()?;
    while cursor.space() && !matches!(cursor.peek(0), b'>' | b'/') {
        each(cursor.attribute().ok()?);
    }
    Some(cursor)
}
