//! The inside of a stanza: bytes, and where the children are in them.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    index::{Child, Children, Index, Space},
    ns,
};
use crate::{
    xml::{
        Error, Limits, Scope, Writer,
        check::{self, Shape},
        escape,
    },
    xmpp::element::{Element, Node, nodes},
};

/// Everything between the tags of a stanza, self-contained and indexed. Shared: cloning counts a reference.
#[derive(Clone, Default)]
pub struct Payload(Option<Arc<Inner>>);

struct Inner {
    bytes: Bytes,
    /// Made at once for what peers send, and when first asked for where the bytes are our own: most of those are
    /// written and never looked into.
    index: OnceLock<Indexed>,
}

impl Inner {
    /// Indexes bytes of our own making.
    fn walk(&self) -> Indexed {
        let limits = Limits::TRUSTED;
        let mut index = Index::new(ns::CLIENT, &limits);
        let walked = check::text(&self.bytes, &limits)
            .and_then(|text| check::walk(text, Shape::Fragment, &Scope::CLIENT, &limits, &mut index));
        // Only a bug of ours makes bytes that fail here; nobody then finds a child in them.
        if walked.is_err() || index.foreign {
            return Indexed::default();
        }
        let (children, names) = index.finish();
        Indexed { children, names: names.into() }
    }
}

#[derive(Default)]
struct Indexed {
    children: Children,
    /// Names of namespaces that were written with references; nearly always empty.
    names: Box<str>,
}

/// The longest payload that the 32-bit ranges of the index are used for.
const LONGEST: usize = 1 << 30;

impl Payload {
    /// Checks and indexes bytes as they may stand in a stanza in `jabber:client`.
    ///
    /// # Errors
    /// What [`check::fragment`] refuses under [`Limits::TRUSTED`].
    pub fn index(bytes: Bytes) -> Result<Self, Error> {
        let limits = Limits::TRUSTED;
        let mut index = Index::new(ns::CLIENT, &limits);
        check::walk(check::text(&bytes, &limits)?, Shape::Fragment, &Scope::CLIENT, &limits, &mut index)?;
        if index.foreign {
            return Self::canonical(nodes(&bytes, &Scope::CLIENT)?, ns::CLIENT, &limits);
        }
        let (children, names) = index.finish();
        Ok(Self::new(bytes, children, names))
    }

    /// Takes bytes of our own making without looking at them: such as a [`Writer`]'s, or what was checked before.
    #[must_use]
    pub fn trusted(bytes: Bytes) -> Self {
        debug_assert!(Self::index(bytes.clone()).is_ok(), "a payload that is no XML");
        Self((!bytes.is_empty()).then(|| Arc::new(Inner { bytes, index: OnceLock::new() })))
    }

    /// The inside of a frame that was walked over by `index`.
    pub(super) fn of(frame: &str, index: Index<'_>, scope: &Scope, limits: &Limits) -> Result<Self, Error> {
        if index.foreign {
            let stanza = Element::read(frame.as_bytes(), scope)?;
            return Self::canonical(stanza.into_nodes(), scope.content(), limits);
        }
        let (from, to) = index.inner;
        let inner = frame.as_bytes().get(from..to).unwrap_or_default();
        Ok(if inner.is_empty() {
            Self::default()
        } else {
            let (children, names) = index.finish();
            Self::new(Bytes::copy_from_slice(inner), children, names)
        })
    }

    fn new(bytes: Bytes, children: Children, names: impl Into<Box<str>>) -> Self {
        let index = OnceLock::from(Indexed { children, names: names.into() });
        Self((!bytes.is_empty()).then(|| Arc::new(Inner { bytes, index })))
    }

    /// The slow path: the same elements written so that each declares what it uses. Since declarations are repeated,
    /// this may grow; what it has grown to is what is stored and sent, so the limit of a stanza is for that.
    fn canonical(mut nodes: Vec<Node>, content: &str, limits: &Limits) -> Result<Self, Error> {
        let cap = usize::try_from(limits.stanza_bytes).unwrap_or(usize::MAX);
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for node in &mut nodes {
            if let Node::Element(element) = node {
                element.relabel(content);
            }
            if !node.write_up_to(&mut writer, cap) {
                return Err(Error::TooLarge(limits.stanza_bytes));
            }
        }
        let limits = Limits::TRUSTED;
        let mut index = Index::new(ns::CLIENT, &limits);
        check::walk(check::text(&out, &limits)?, Shape::Fragment, &Scope::CLIENT, &limits, &mut index)?;
        debug_assert!(!index.foreign, "rewritten, and still not self-contained");
        let (children, names) = index.finish();
        Ok(Self::new(out.into(), children, names))
    }

    /// The bytes, as they may stand where `jabber:client` is the default namespace.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |inner| &inner.bytes)
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    #[inline]
    fn indexed(&self) -> Option<&Indexed> {
        let inner = self.0.as_ref()?;
        Some(inner.index.get_or_init(|| inner.walk()))
    }

    #[inline]
    fn index_of(&self) -> &[Child] {
        self.indexed().map_or(&[], |indexed| &indexed.children)
    }

    fn names(&self) -> &str {
        self.indexed().map_or("", |indexed| &indexed.names)
    }

    /// The child elements, in order.
    #[inline]
    pub fn children(&self) -> impl Iterator<Item = ChildRef<'_>> {
        self.index_of().iter().map(|child| ChildRef { payload: self, child })
    }

    /// The first child of this name and namespace.
    #[inline]
    #[must_use]
    pub fn child(&self, name: &str, ns: &str) -> Option<ChildRef<'_>> {
        self.children().find(|child| child.is(name, ns))
    }

    pub(super) fn append(&self, elements: &[u8]) -> Result<Self, Error> {
        let more = Self::index(Bytes::copy_from_slice(elements))?;
        if self.is_empty() || more.is_empty() {
            return Ok(if more.is_empty() { self.clone() } else { more });
        }
        if self.len() + more.len() > LONGEST {
            return Err(Error::TooLarge(Limits::TRUSTED.stanza_bytes));
        }
        let bytes = [self.as_bytes(), more.as_bytes()].concat();
        let shift = u32::try_from(self.len()).unwrap_or(u32::MAX);
        let kept = u32::try_from(self.names().len()).unwrap_or(u32::MAX);
        let moved = more.index_of().iter().map(|child| child.map(|n| n.saturating_add(shift)).map_kept(kept));
        let children = self.index_of().iter().copied().chain(moved).collect();
        Ok(Self::new(bytes.into(), children, [self.names(), more.names()].concat()))
    }

    pub(super) fn without(&self, remove: impl Fn(&ChildRef<'_>) -> bool) -> Self {
        let removed: Vec<_> = self.children().map(|child| remove(&child)).collect();
        if !removed.contains(&true) {
            return self.clone();
        }
        let mut bytes = Vec::with_capacity(self.len());
        let mut children = Children::new();
        let mut copied = 0;
        let mut gone = 0;
        for (child, removed) in self.index_of().iter().zip(removed) {
            let whole = child.whole.usize();
            if removed {
                bytes.extend_from_slice(self.as_bytes().get(copied..whole.start).unwrap_or_default());
                gone += u32::try_from(whole.len()).unwrap_or(u32::MAX);
                copied = whole.end;
            } else {
                children.push(child.map(|n| n.saturating_sub(gone)));
            }
        }
        bytes.extend_from_slice(self.as_bytes().get(copied..).unwrap_or_default());
        Self::new(bytes.into(), children, self.names())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Payload {}

/// Shows names only: what people write to each other belongs in no log.
impl fmt::Debug for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} bytes ", self.len())?;
        out.debug_list().entries(self.children()).finish()
    }
}

/// A child element of a stanza.
#[derive(Clone, Copy)]
pub struct ChildRef<'a> {
    payload: &'a Payload,
    child: &'a Child,
}

impl<'a> ChildRef<'a> {
    /// The name without its prefix.
    #[must_use]
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(self.child.name.of(self.payload.as_bytes())).unwrap_or_default()
    }

    /// The namespace; `jabber:client` for what is in the content namespace.
    #[must_use]
    pub fn ns(&self) -> &'a str {
        let (bytes, range) = match self.child.ns {
            Space::Content => return ns::CLIENT,
            Space::Written(range) => (self.payload.as_bytes(), range),
            Space::Kept(range) => (self.payload.names().as_bytes(), range),
        };
        std::str::from_utf8(range.of(bytes)).unwrap_or_default()
    }

    /// Whether it has this name and this namespace. The bytes are compared, since each message is asked this about ten times.
    #[inline]
    #[must_use]
    pub fn is(&self, name: &str, ns: &str) -> bool {
        match self.child.ns {
            // Most of what is asked for is in another namespace, which needs no look at the bytes.
            Space::Content if ns != ns::CLIENT => false,
            _ => self.child.name.of(self.payload.as_bytes()) == name.as_bytes() && self.is_in(ns),
        }
    }

    /// Whether it has this namespace.
    #[inline]
    #[must_use]
    pub fn is_in(&self, ns: &str) -> bool {
        match self.child.ns {
            Space::Content => ns == ns::CLIENT,
            Space::Written(range) => range.of(self.payload.as_bytes()) == ns.as_bytes(),
            Space::Kept(range) => range.of(self.payload.names().as_bytes()) == ns.as_bytes(),
        }
    }

    /// The element as it was written, self-contained where `jabber:client` is the default namespace.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.child.whole.of(self.payload.as_bytes())
    }

    /// [`raw`](Self::raw) as bytes that share the payload's memory.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        match &self.payload.0 {
            Some(inner) if self.child.whole.usize().end <= inner.bytes.len() => {
                inner.bytes.slice(self.child.whole.usize())
            }
            _ => Bytes::new(),
        }
    }

    /// The element as a tree.
    #[must_use]
    pub fn element(&self) -> Element {
        let element = Element::read(self.raw(), &Scope::CLIENT);
        debug_assert!(element.is_ok(), "checked XML that can't be read");
        element.unwrap_or_else(|_| Element::new(self.name(), self.ns()))
    }

    /// An attribute without a prefix, read without a tree.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<Cow<'a, str>> {
        check::attribute(std::str::from_utf8(self.raw()).ok()?, name).map(|a| a.value())
    }

    /// The text of an element that holds nothing else, read without a tree where that is simple.
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        let raw = std::str::from_utf8(self.raw()).unwrap_or_default();
        let simple = || {
            let inner = check::after_tag(raw)?.rsplit_once("</")?.0;
            (!inner.contains('<')).then(|| escape::unescape_text(inner))
        };
        simple().unwrap_or_else(|| self.element().text().into())
    }
}

impl fmt::Debug for ChildRef<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "<{} xmlns='{}'/>", self.name(), self.ns())
    }
}
