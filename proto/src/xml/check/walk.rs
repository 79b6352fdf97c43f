//! The one pass over a frame.

use smallvec::SmallVec;

use super::{
    namespaces::{Namespaces, Resolved},
    tag::{Attribute, Cursor, Name},
};
use crate::xml::{Error, Limits, Scope, chars};

/// What a frame is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Exactly one element, at level 0.
    Element,
    /// Elements and text side by side, at level 1.
    Fragment,
    /// One opening tag, at level 0.
    Open,
}

/// A start tag, checked.
pub(crate) struct Start<'a, 'w> {
    /// Where its `<` is.
    pub(crate) at: usize,
    /// Where its local name starts.
    pub(crate) name_at: usize,
    /// Where the byte behind its `>` is.
    pub(crate) end: usize,
    /// Its level: 0 is the outermost element.
    pub(crate) depth: i32,
    pub(crate) prefix: &'a str,
    pub(crate) local: &'a str,
    /// The namespace of the element.
    pub(crate) ns: Resolved<'w>,
    /// The outermost level at which a prefix used in this tag is declared; `i32::MAX` if none is used.
    pub(crate) prefixes_from: i32,
    /// The attributes, namespace declarations included.
    pub(crate) attributes: &'w [Attribute<'a>],
}

/// Listens to a walk. What it hears may still be part of a frame that fails later.
pub(crate) trait Visitor<'a> {
    /// A start tag.
    fn start(&mut self, tag: &Start<'a, '_>) -> Result<(), Error>;
    /// The end of an element of this level. `at` is where its closing tag starts, `end` is behind its `>`;
    /// both are behind the start tag if that ended it.
    fn end(&mut self, depth: i32, at: usize, end: usize);
}

impl Visitor<'_> for () {
    fn start(&mut self, _: &Start<'_, '_>) -> Result<(), Error> {
        Ok(())
    }

    fn end(&mut self, _: i32, _: usize, _: usize) {}
}

/// Walks over `text`, which [`super::text`] gave.
pub(crate) fn walk<'a, V: Visitor<'a>>(
    text: &'a str,
    shape: Shape,
    scope: &'a Scope,
    limits: &'a Limits,
    visitor: &mut V,
) -> Result<(), Error> {
    let names = Namespaces::new(scope, limits.namespaces);
    let cursor = Cursor { text, at: 0 };
    Walk { cursor, names, open: SmallVec::new(), attributes: SmallVec::new(), limits, visitor }.run(shape)
}

struct Walk<'a, 'v, V> {
    cursor: Cursor<'a>,
    names: Namespaces<'a>,
    /// Names of the open elements, as written.
    open: SmallVec<[Name<'a>; 8]>,
    /// Those of the tag at hand.
    attributes: SmallVec<[Attribute<'a>; 8]>,
    limits: &'a Limits,
    visitor: &'v mut V,
}

impl<'a, V: Visitor<'a>> Walk<'a, '_, V> {
    fn run(mut self, shape: Shape) -> Result<(), Error> {
        let base = i32::from(shape == Shape::Fragment);
        if shape != Shape::Fragment {
            if self.cursor.peek(0) != b'<' {
                return Err(Error::NotWellFormed("text outside of an element"));
            }
            self.markup(base)?;
            if shape == Shape::Open {
                return if self.open.len() == 1 { self.finished() } else { Err(UNEXPECTED) };
            }
        }
        while self.cursor.at < self.cursor.text.len() {
            if shape == Shape::Element && self.open.is_empty() {
                return Err(UNEXPECTED);
            }
            if self.cursor.peek(0) == b'<' {
                self.markup(base)?;
            } else {
                self.cursor.characters()?;
            }
        }
        if self.open.is_empty() { Ok(()) } else { Err(Error::NotWellFormed("element without an end")) }
    }

    fn finished(&self) -> Result<(), Error> {
        if self.cursor.at == self.cursor.text.len() { Ok(()) } else { Err(UNEXPECTED) }
    }

    /// The cursor stands on a `<`.
    fn markup(&mut self, base: i32) -> Result<(), Error> {
        match self.cursor.peek(1) {
            b'/' => self.end(base),
            b'!' => self.cdata(base),
            b'?' => Err(Error::Restricted("processing instruction")),
            _ => self.start(base),
        }
    }

    fn level(&self, base: i32) -> i32 {
        i32::try_from(self.open.len()).unwrap_or(i32::MAX - 1) + base
    }

    fn cdata(&mut self, base: i32) -> Result<(), Error> {
        let Some(body) = self.cursor.rest().strip_prefix("<![CDATA[") else {
            return Err(Error::Restricted("comment or document type"));
        };
        if self.open.is_empty() && base == 0 {
            return Err(Error::NotWellFormed("CDATA outside of an element"));
        }
        let end = body.find("]]>").ok_or(Error::NotWellFormed("CDATA without an end"))?;
        self.cursor.at += "<![CDATA[".len() + end + "]]>".len();
        Ok(())
    }

    fn start(&mut self, base: i32) -> Result<(), Error> {
        let at = self.cursor.at;
        self.cursor.at += 1;
        let depth = self.level(base);
        if depth >= i32::from(self.limits.depth) {
            return Err(Error::TooDeep(self.limits.depth));
        }
        let name = self.cursor.name()?;
        let name_at = self.cursor.at - name.local.len();
        let empty = self.attributes(depth)?;
        let end = self.cursor.at;
        let mut prefixes_from = self.attribute_prefixes()?;
        if name.prefix == "xmlns" {
            return Err(Error::NotWellFormed("an element with the prefix xmlns"));
        }
        let ns = self.names.resolve(name.prefix)?;
        if !name.prefix.is_empty() {
            prefixes_from = prefixes_from.min(ns.depth);
        }
        let Name { prefix, local } = name;
        let attributes = &self.attributes;
        self.visitor.start(&Start {
            at,
            name_at,
            end,
            depth,
            prefix,
            local,
            ns,
            prefixes_from,
            attributes,
        })?;
        if empty {
            self.visitor.end(depth, end, end);
            self.names.leave(depth);
        } else {
            self.open.push(name);
        }
        Ok(())
    }

    /// Reads the attributes and the end of a start tag; whether the tag ends the element.
    fn attributes(&mut self, depth: i32) -> Result<bool, Error> {
        self.attributes.clear();
        loop {
            let space = self.cursor.space();
            match self.cursor.peek(0) {
                b'>' => {
                    self.cursor.at += 1;
                    return Ok(false);
                }
                b'/' if self.cursor.peek(1) == b'>' => {
                    self.cursor.at += 2;
                    return Ok(true);
                }
                _ if !space => return Err(Error::NotWellFormed("no white space before an attribute")),
                _ => {}
            }
            if self.attributes.len() >= usize::from(self.limits.attributes) {
                return Err(Error::TooManyAttributes(self.limits.attributes));
            }
            let attribute = self.cursor.attribute()?;
            if self.attributes.iter().any(|a| a.name == attribute.name) {
                return Err(Error::NotWellFormed("attribute given twice"));
            }
            if let Some(prefix) = attribute.declares() {
                let at = self.cursor.at - 1 - attribute.raw().len();
                self.names.declare(prefix, attribute.raw(), at, depth)?;
            }
            self.attributes.push(attribute);
        }
    }

    /// Resolves the prefixes of attributes, and finds the same attribute under two prefixes.
    fn attribute_prefixes(&self) -> Result<i32, Error> {
        let mut from = i32::MAX;
        for (n, a) in self.attributes.iter().enumerate() {
            if matches!(a.name.prefix, "" | "xmlns") {
                continue;
            }
            let ns = self.names.resolve(a.name.prefix)?;
            from = from.min(ns.depth);
            for b in self.attributes.iter().skip(n + 1) {
                if chars::same(b.name.local, a.name.local)
                    && !matches!(b.name.prefix, "" | "xmlns")
                    && self.names.resolve(b.name.prefix)?.uri == ns.uri
                {
                    return Err(Error::NotWellFormed("attribute given twice"));
                }
            }
        }
        Ok(from)
    }

    fn end(&mut self, base: i32) -> Result<(), Error> {
        let at = self.cursor.at;
        self.cursor.at += 2;
        let name = self.cursor.name()?;
        if self.open.pop().is_none_or(|open| open != name) {
            return Err(Error::NotWellFormed("closing tag does not match"));
        }
        self.cursor.space();
        if self.cursor.peek(0) != b'>' {
            return Err(Error::NotWellFormed("closing tag with more than a name"));
        }
        self.cursor.at += 1;
        let depth = self.level(base);
        self.visitor.end(depth, at, self.cursor.at);
        self.names.leave(depth);
        Ok(())
    }
}

const UNEXPECTED: Error = Error::NotWellFormed("more or less than one element");
