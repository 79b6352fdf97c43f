//! Listens to the check of a frame and notes where a stanza's parts are.

use smallvec::SmallVec;

use super::{Kind, ns};
use crate::xml::{
    Error, Limits, chars,
    check::{Attribute, Start, Visitor},
};

/// Where a child element is, in bytes of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) whole: Range,
    pub(super) name: Range,
    pub(super) ns: Space,
}

/// Where the name of a child's namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// The content namespace.
    Content,
    /// In the payload, letter by letter.
    Written(Range),
    /// In the names kept beside the payload, since it was written with references.
    Kept(Range),
}

/// A range of bytes; frames are smaller than 4 GB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    from: u32,
    to: u32,
}

pub(super) type Children = SmallVec<[Child; 3]>;

impl Range {
    pub(super) fn new(from: usize, to: usize) -> Self {
        // Limits count bytes in a u32, so nothing is cut off here.
        let narrow = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self { from: narrow(from), to: narrow(to) }
    }

    #[inline]
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.usize()).unwrap_or_default()
    }

    #[inline]
    pub(super) fn usize(self) -> std::ops::Range<usize> {
        let wide = |n| usize::try_from(n).unwrap_or(usize::MAX);
        wide(self.from)..wide(self.to)
    }

    fn map(self, f: impl Fn(u32) -> u32) -> Self {
        Self { from: f(self.from), to: f(self.to) }
    }
}

impl Child {
    /// Moves what points into the payload.
    pub(super) fn map(self, f: impl Fn(u32) -> u32 + Copy) -> Self {
        let ns = match self.ns {
            Space::Written(ns) => Space::Written(ns.map(f)),
            ns => ns,
        };
        Self { whole: self.whole.map(f), name: self.name.map(f), ns }
    }

    /// Moves what points into the names kept beside the payload.
    pub(super) fn map_kept(self, by: u32) -> Self {
        match self.ns {
            Space::Kept(ns) => Self { ns: Space::Kept(ns.map(|n| n.saturating_add(by))), ..self },
            _ => self,
        }
    }
}

/// What the outermost element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Stanza(Kind),
    /// `<r/>` of XEP-0198.
    AckRequest,
    /// `<a/>` of XEP-0198.
    Ack,
    /// In the content namespace, but no stanza.
    Unknown,
    /// In another namespace.
    Nonza,
}

/// The outermost element and its attributes, as written.
#[derive(Clone, Copy)]
pub(super) struct Root<'a> {
    pub(super) is: Is,
    pub(super) to: Option<Attribute<'a>>,
    pub(super) from: Option<Attribute<'a>>,
    pub(super) id: Option<Attribute<'a>>,
    pub(super) type_: Option<Attribute<'a>>,
    pub(super) lang: Option<Attribute<'a>>,
    pub(super) h: Option<Attribute<'a>>,
}

/// The visitor. Ranges of children count from the start of the frame until [`Index::finish`].
pub(super) struct Index<'a> {
    content: &'static str,
    limit: u16,
    pub(super) root: Option<Root<'a>>,
    children: Children,
    /// Names that [`Space::Kept`] points into.
    pub(super) names: String,
    /// What is between the tags of the outermost element.
    pub(super) inner: (usize, usize),
    /// Whether a child depends on declarations outside of it, or declares what it should not: it must be rewritten.
    pub(super) foreign: bool,
}

impl<'a> Index<'a> {
    pub(super) fn new(content: &'static str, limits: &Limits) -> Self {
        let limit = limits.children;
        let (children, names) = (Children::new(), String::new());
        Self { content, limit, root: None, children, names, inner: (0, 0), foreign: false }
    }

    /// The children, counted from the start of the payload, and the kept names.
    pub(super) fn finish(mut self) -> (Children, String) {
        let from = Range::new(self.inner.0, 0).from;
        for child in &mut self.children {
            *child = child.map(|n| n.saturating_sub(from));
        }
        (self.children, self.names)
    }

    fn root(&mut self, tag: &Start<'a, '_>) {
        let is = match (tag.ns.uri, tag.local) {
            (uri, name) if chars::same(uri, self.content) => {
                Kind::from_name(name).map_or(Is::Unknown, Is::Stanza)
            }
            (ns::SM, "r") => Is::AckRequest,
            (ns::SM, "a") => Is::Ack,
            _ => Is::Nonza,
        };
        let mut root = Root { is, to: None, from: None, id: None, type_: None, lang: None, h: None };
        for attribute in tag.attributes {
            let place = match (attribute.name.prefix, attribute.name.local) {
                ("", "to") => &mut root.to,
                ("", "from") => &mut root.from,
                ("", "id") => &mut root.id,
                ("", "type") => &mut root.type_,
                ("", "h") => &mut root.h,
                ("xml", "lang") => &mut root.lang,
                _ => continue,
            };
            *place = Some(*attribute);
        }
        self.root = Some(root);
        self.inner = (tag.end, tag.end);
    }

    fn is_content(&self, uri: &str) -> bool {
        chars::same(uri, self.content) || chars::same(uri, ns::CLIENT)
    }

    fn child(&mut self, tag: &Start<'a, '_>) -> Result<(), Error> {
        if self.children.len() >= usize::from(self.limit) {
            return Err(Error::TooManyChildren(self.limit));
        }
        let uri = tag.ns.uri;
        let ns = if self.is_content(uri) {
            self.foreign |= tag.ns.depth >= 1 || !tag.prefix.is_empty();
            Space::Content
        } else if let Some(at) = tag.ns.at {
            Space::Written(Range::new(at, at + uri.len()))
        } else {
            self.names.push_str(uri);
            Space::Kept(Range::new(self.names.len() - uri.len(), self.names.len()))
        };
        let name = Range::new(tag.name_at, tag.name_at + tag.local.len());
        self.children.push(Child { whole: Range::new(tag.at, tag.end), name, ns });
        Ok(())
    }
}

impl<'a> Visitor<'a> for Index<'a> {
    #[inline]
    fn start(&mut self, tag: &Start<'a, '_>) -> Result<(), Error> {
        if tag.depth == 0 {
            self.root(tag);
            return Ok(());
        }
        // What a prefix, or no prefix, means here must not have been said outside of the child.
        self.foreign |= tag.prefixes_from < 1
            || (tag.prefix.is_empty() && tag.ns.depth < 1 && !self.is_content(tag.ns.uri));
        if tag.depth == 1 { self.child(tag) } else { Ok(()) }
    }

    #[inline]
    fn end(&mut self, depth: i32, at: usize, end: usize) {
        match depth {
            0 => self.inner.1 = at,
            1 => {
                if let Some(child) = self.children.last_mut() {
                    child.whole.to = Range::new(0, end).to;
                }
            }
            _ => {}
        }
    }
}
