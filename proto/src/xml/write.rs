//! Building elements as bytes.
//!
//! ```
//! use rookery_proto::xml::Writer;
//! let mut out = Vec::new();
//! let mut w = Writer::new(&mut out);
//! w.start("query", "jabber:iq:roster").attr("ver", "v<1");
//! w.start("item", "jabber:iq:roster").attr("jid", "romeo@example.org");
//! w.leaf("group", "jabber:iq:roster", "Friends & foes");
//! w.end().end();
//! assert_eq!(
//!     String::from_utf8_lossy(&out),
//!     "<query xmlns='jabber:iq:roster' ver='v&lt;1'><item jid='romeo@example.org'>\
//!      <group>Friends &amp; foes</group></item></query>"
//! );
//! ```

use std::fmt::Display;

use smallvec::SmallVec;

use super::{chars, escape};
use crate::xmpp::ns;

/// An element that was started and not ended. Names are ranges of what was written, so nothing is copied aside.
#[derive(Clone, Copy)]
struct Open {
    name: (usize, usize),
    ns: Space,
}

/// Where the name of the current default namespace stands.
#[derive(Clone, Copy)]
enum Space {
    /// The one that surrounds all that is written.
    Outer,
    /// A range of the output, escaped.
    Written(usize, usize),
}

/// Appends well-formed XML to a buffer. Values are escaped; a namespace is declared where it changes.
///
/// Elements that are still open when the writer goes away stay open: call [`end`](Self::end) for every
/// [`start`](Self::start), or [`finish`](Self::finish) once.
pub struct Writer<'o> {
    out: &'o mut Vec<u8>,
    outer: &'o str,
    open: SmallVec<[Open; 6]>,
    /// Whether the last start tag still lacks its `>`.
    in_tag: bool,
}

impl<'o> Writer<'o> {
    /// A writer of children of stanzas: elements in `jabber:client` carry no declaration.
    #[must_use]
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self::inside(out, ns::CLIENT)
    }

    /// A writer whose output will stand where `outer` is the default namespace; empty for none.
    #[must_use]
    pub fn inside(out: &'o mut Vec<u8>, outer: &'o str) -> Self {
        Self { out, outer, open: SmallVec::new(), in_tag: false }
    }

    /// Starts an element. A name that is not a legal XML name without a prefix is written as `_`.
    pub fn start(&mut self, name: &str, ns: &str) -> &mut Self {
        debug_assert!(chars::is_nc_name(name), "illegal name");
        self.close_tag();
        self.out.push(b'<');
        let from = self.out.len();
        // The namespace of `xml` can't be declared; its prefix is bound everywhere.
        let reserved = ns == ns::XML;
        if reserved {
            self.out.extend_from_slice(b"xml:");
        }
        self.out.extend_from_slice(if chars::is_nc_name(name) { name.as_bytes() } else { b"_" });
        let name = (from, self.out.len());
        let mut space = self.open.last().map_or(Space::Outer, |open| open.ns);
        let same = match space {
            _ if reserved => true,
            Space::Outer => self.outer == ns,
            // A name that needs escaping compares unequal and is declared again, which is harmless.
            Space::Written(from, to) => self.out.get(from..to) == Some(ns.as_bytes()),
        };
        if !same {
            self.out.extend_from_slice(b" xmlns='");
            let from = self.out.len();
            escape::attribute(self.out, ns);
            space = Space::Written(from, self.out.len());
            self.out.push(b'\'');
        }
        self.open.push(Open { name, ns: space });
        self.in_tag = true;
        self
    }

    /// Adds an attribute without a namespace (or `xml:lang`, by that name) to the element just started.
    /// After content it does nothing.
    pub fn attr(&mut self, name: &str, value: &str) -> &mut Self {
        let legal = name == "xml:lang" || (chars::is_nc_name(name) && name != "xmlns");
        debug_assert!(self.in_tag && legal, "attribute at a wrong place or with a wrong name");
        if self.in_tag && legal {
            self.raw_attr(name, value);
        }
        self
    }

    /// [`attr`](Self::attr), if there is a value.
    pub fn attr_opt(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.attr(name, value);
        }
        self
    }

    /// [`attr`](Self::attr) with a number or anything else that shows itself.
    pub fn attr_display(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.attr(name, &value.to_string())
    }

    /// Adds an attribute in a namespace, with a prefix made up by the caller (a legal name, used once in the tag).
    pub(crate) fn attr_ns(&mut self, prefix: &str, space: &str, name: &str, value: &str) -> &mut Self {
        if !self.in_tag || !chars::is_nc_name(name) || !chars::is_nc_name(prefix) {
            return self;
        }
        if space == ns::XML {
            self.raw_attr(&format!("xml:{name}"), value);
        } else {
            self.raw_attr(&format!("xmlns:{prefix}"), space);
            self.raw_attr(&format!("{prefix}:{name}"), value);
        }
        self
    }

    fn raw_attr(&mut self, name: &str, value: &str) {
        self.out.push(b' ');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"='");
        escape::attribute(self.out, value);
        self.out.push(b'\'');
    }

    /// Adds character data.
    pub fn text(&mut self, text: &str) -> &mut Self {
        if !text.is_empty() {
            self.close_tag();
            escape::text(self.out, text);
        }
        self
    }

    /// Adds elements that are well-formed already and mean the same here: made by a writer in the same surrounding
    /// namespace, or declaring what they use.
    pub fn raw(&mut self, elements: &[u8]) -> &mut Self {
        if !elements.is_empty() {
            self.close_tag();
            self.out.extend_from_slice(elements);
        }
        self
    }

    /// Lets `write` append elements under the rules of [`raw`](Self::raw).
    pub fn with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.close_tag();
        write(self.out);
        self
    }

    /// Ends the innermost open element.
    pub fn end(&mut self) -> &mut Self {
        if let Some(Open { name: (from, to), .. }) = self.open.pop() {
            if self.in_tag {
                self.out.extend_from_slice(b"/>");
                self.in_tag = false;
            } else {
                self.out.extend_from_slice(b"</");
                self.out.extend_from_within(from..to);
                self.out.push(b'>');
            }
        }
        self
    }

    /// An element with nothing in it.
    pub fn empty(&mut self, name: &str, ns: &str) -> &mut Self {
        self.start(name, ns).end()
    }

    /// An element with text in it.
    pub fn leaf(&mut self, name: &str, ns: &str, text: &str) -> &mut Self {
        self.start(name, ns).text(text).end()
    }

    /// [`leaf`](Self::leaf), if there is a text.
    pub fn leaf_opt(&mut self, name: &str, ns: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.leaf(name, ns, text);
        }
        self
    }

    /// Ends all open elements.
    pub fn finish(&mut self) {
        while !self.open.is_empty() {
            self.end();
        }
    }

    /// Bytes in the buffer so far, a start tag that still lacks its `>` included.
    #[must_use]
    pub fn written(&self) -> usize {
        self.out.len()
    }

    fn close_tag(&mut self) {
        if self.in_tag {
            self.out.push(b'>');
            self.in_tag = false;
        }
    }
}

/// The bytes that `build` writes as children of a stanza.
#[must_use]
pub fn bytes(build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    build(&mut writer);
    writer.finish();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::{Limits, Scope, check};

    fn shown(build: impl FnOnce(&mut Writer<'_>)) -> String {
        let out = bytes(build);
        check::fragment(&out, &Scope::CLIENT, &Limits::TRUSTED).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn namespaces_are_declared_where_they_change() {
        let out = shown(|w| {
            w.leaf("body", ns::CLIENT, "a<b")
                .start("x", "urn:x")
                .empty("y", "urn:x")
                .empty("body", ns::CLIENT);
            w.start("z", "").empty("y", "").end().text("]]>").end();
        });
        assert_eq!(
            out,
            "<body>a&lt;b</body><x xmlns='urn:x'><y/><body xmlns='jabber:client'/>\
             <z xmlns=''><y/></z>]]&gt;</x>"
        );
    }

    #[test]
    fn hostile_values_stay_values() {
        let out = shown(|w| {
            w.start("a", "urn:'/><evil xmlns='").attr("b", "'><c/>\n\0").attr_opt("d", None);
            w.attr_display("n", 7).attr("xml:lang", "en");
        });
        assert_eq!(
            out,
            "<a xmlns='urn:&apos;/&gt;&lt;evil xmlns=&apos;' b='&apos;&gt;&lt;c/&gt;&#10;' n='7' xml:lang='en'/>"
        );
    }

    #[test]
    fn raw_and_finish() {
        let out = shown(|w| {
            w.start("a", "u").start("b", "u").raw(b"<c/>").with(|out| out.extend_from_slice(b"<d/>"));
        });
        assert_eq!(out, "<a xmlns='u'><b><c/><d/></b></a>");
        assert_eq!(
            shown(|w| {
                w.end();
            }),
            ""
        );
    }
}
