//! Which prefix means what, at the place where the walk stands.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::{
    xml::{Error, Limits, Scope, chars, escape},
    xmpp::ns,
};

/// A namespace declaration inside the frame.
struct Binding<'a> {
    prefix: &'a str,
    uri: Cow<'a, str>,
    at: usize,
    depth: i32,
}

/// What a prefix is bound to, and where that was declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved<'w> {
    /// The name of the namespace, references read; empty for no namespace.
    pub(crate) uri: &'w str,
    /// The level of the element that declares it: 0 is the outermost, -1 is outside of the frame.
    pub(crate) depth: i32,
    /// Where the raw value starts in the frame, if it stands there letter by letter as in `uri`.
    pub(crate) at: Option<usize>,
}

impl Resolved<'_> {
    /// What is known without any declaration.
    const fn fixed(uri: &'static str, depth: i32) -> Resolved<'static> {
        Resolved { uri, depth, at: None }
    }
}

/// The declarations in force, innermost last.
pub(crate) struct Namespaces<'a> {
    live: SmallVec<[Binding<'a>; 6]>,
    scope: &'a Scope,
    limit: u16,
}

impl<'a> Namespaces<'a> {
    pub(crate) fn new(scope: &'a Scope, limit: u16) -> Self {
        Self { live: SmallVec::new(), scope, limit }
    }

    /// Takes in a declaration: `prefix` is empty for the default namespace, `raw` the value as written at `at`.
    pub(crate) fn declare(
        &mut self,
        prefix: &'a str,
        raw: &'a str,
        at: usize,
        depth: i32,
    ) -> Result<(), Error> {
        if self.live.len() >= usize::from(self.limit) {
            return Err(Error::TooManyNamespaces(self.limit));
        }
        if raw.len() > Limits::NAMESPACE_BYTES {
            return Err(Error::LongNamespace);
        }
        let uri = escape::unescape_attribute(raw);
        match (prefix, &*uri) {
            ("xmlns", _) => return Err(Error::NotWellFormed("the prefix xmlns declared")),
            ("xml", ns::XML) => return Ok(()),
            ("xml", _) => return Err(Error::NotWellFormed("the prefix xml bound to another namespace")),
            (_, ns::XML | ns::XMLNS) => return Err(Error::NotWellFormed("a reserved namespace declared")),
            ("", _) => {}
            (_, "") => return Err(Error::NotWellFormed("a prefix bound to no namespace")),
            _ => {}
        }
        self.live.push(Binding { prefix, uri, at, depth });
        Ok(())
    }

    /// Forgets what elements of this level and below declared.
    pub(crate) fn leave(&mut self, depth: i32) {
        while self.live.last().is_some_and(|b| b.depth >= depth) {
            self.live.pop();
        }
    }

    /// What the prefix means here; without a prefix, the default namespace.
    pub(crate) fn resolve(&self, prefix: &str) -> Result<Resolved<'_>, Error> {
        if let Some(b) = self.live.iter().rev().find(|b| chars::same(b.prefix, prefix)) {
            let at = matches!(b.uri, Cow::Borrowed(_)).then_some(b.at);
            return Ok(Resolved { uri: &b.uri, depth: b.depth, at });
        }
        match (self.scope.lookup(prefix), prefix) {
            // The prefix xml is bound everywhere, so it never ties an element to its surroundings.
            (_, "xml") => Ok(Resolved::fixed(ns::XML, i32::MAX)),
            (Some(uri), _) => Ok(Resolved { uri, depth: -1, at: None }),
            (None, "") => Ok(Resolved::fixed("", -1)),
            (None, _) => Err(Error::UnboundPrefix),
        }
    }
}
