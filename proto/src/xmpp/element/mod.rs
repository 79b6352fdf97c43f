//! A small tree for one element: what a feature reads when it looks into its own child of a stanza.
//!
//! Routing never builds one. Elements in `jabber:client`, the namespace that stanzas are kept in, stand without a
//! declaration at the top: [`Element::parse`] and [`Element::write`] agree on that with `Stanza`'s children.

mod read;

use std::fmt;

pub(crate) use self::read::nodes;
use super::ns;
use crate::xml::{Error, Limits, Scope, Text, Writer};

/// An element with everything in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Element {
    name: Text,
    ns: Text,
    attributes: Vec<Attribute>,
    children: Vec<Node>,
}

/// An attribute; declarations of namespaces are not among them.
#[derive(Clone, PartialEq, Eq)]
struct Attribute {
    /// None for the usual attribute without a prefix.
    ns: Option<Text>,
    name: Text,
    value: Text,
}

/// What stands in an element.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    /// A child element.
    Element(Element),
    /// Character data, unescaped.
    Text(String),
}

impl Element {
    /// An element without attributes and children. `name` has no prefix, `ns` may be empty for no namespace.
    #[must_use]
    pub fn new(name: &str, ns: &str) -> Self {
        Self { name: name.into(), ns: ns.into(), attributes: Vec::new(), children: Vec::new() }
    }

    /// Reads one element; without a declaration it is in `jabber:client`.
    ///
    /// # Errors
    /// What [`check::element`](crate::xml::check::element) refuses under [`Limits::TRUSTED`].
    pub fn parse(raw: &[u8]) -> Result<Self, Error> {
        Self::parse_in(raw, &Scope::CLIENT, &Limits::TRUSTED)
    }

    /// Reads one element that stands where `scope` is in force.
    ///
    /// # Errors
    /// What [`check::element`](crate::xml::check::element) refuses.
    pub fn parse_in(raw: &[u8], scope: &Scope, limits: &Limits) -> Result<Self, Error> {
        crate::xml::check::element(raw, scope, limits)?;
        Self::read(raw, scope)
    }

    /// Reads one element that was checked already.
    pub(crate) fn read(raw: &[u8], scope: &Scope) -> Result<Self, Error> {
        match nodes(raw, scope)?.pop() {
            Some(Node::Element(element)) => Ok(element),
            _ => Err(Error::NotWellFormed("no element")),
        }
    }

    /// The name without its prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the namespace; empty for none.
    #[must_use]
    pub fn ns(&self) -> &str {
        &self.ns
    }

    /// Whether it has this name and this namespace.
    #[must_use]
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// The value of an attribute without a prefix.
    #[must_use]
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attr_ns(name, "")
    }

    /// The value of an attribute in a namespace.
    #[must_use]
    pub fn attr_ns(&self, name: &str, ns: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|a| a.name == name && a.ns.as_deref().unwrap_or_default() == ns)
            .map(|a| a.value.as_str())
    }

    /// The element's own `xml:lang`.
    #[must_use]
    pub fn lang(&self) -> Option<&str> {
        self.attr_ns("lang", ns::XML)
    }

    /// The attributes without a prefix, as (name, value).
    pub fn attrs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes.iter().filter(|a| a.ns.is_none()).map(|a| (a.name.as_str(), a.value.as_str()))
    }

    /// Everything in it, in order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.children
    }

    /// The child elements.
    pub fn children(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The first child element of this name and namespace.
    #[must_use]
    pub fn child(&self, name: &str, ns: &str) -> Option<&Element> {
        self.children().find(|child| child.is(name, ns))
    }

    /// Whether there is a child element of this name and namespace.
    #[must_use]
    pub fn has(&self, name: &str, ns: &str) -> bool {
        self.child(name, ns).is_some()
    }

    /// The character data directly in it.
    #[must_use]
    pub fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        });
        texts.collect()
    }

    /// The character data of the first child of this name and namespace.
    #[must_use]
    pub fn child_text(&self, name: &str, ns: &str) -> Option<String> {
        self.child(name, ns).map(Element::text)
    }

    /// The same with an attribute without a prefix, set or replaced.
    #[must_use]
    pub fn with_attr(mut self, name: &str, value: &str) -> Self {
        self.attributes.retain(|a| !(a.name == name && a.ns.is_none()));
        self.attributes.push(Attribute { ns: None, name: name.into(), value: value.into() });
        self
    }

    /// The same with a child at the end.
    #[must_use]
    pub fn with_child(mut self, child: Element) -> Self {
        self.children.push(Node::Element(child));
        self
    }

    /// The same with character data at the end.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        self.children.push(Node::Text(text.to_owned()));
        self
    }

    /// Appends it as it stands in a stanza.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_to(&mut Writer::new(out));
    }

    /// Appends it as it stands where `outer` is the default namespace.
    pub fn write_in(&self, out: &mut Vec<u8>, outer: &str) {
        self.write_to(&mut Writer::inside(out, outer));
    }

    /// Appends it to what the writer has.
    pub fn write_to(&self, writer: &mut Writer<'_>) {
        self.write_up_to(writer, usize::MAX);
    }

    /// Appends it, or the beginning of it; whether it stayed within `cap` bytes of the whole buffer, or nearly.
    pub(crate) fn write_up_to(&self, writer: &mut Writer<'_>, cap: usize) -> bool {
        writer.start(&self.name, &self.ns);
        for (n, attribute) in self.attributes.iter().enumerate() {
            match &attribute.ns {
                None => writer.attr(&attribute.name, &attribute.value),
                Some(ns) => writer.attr_ns(&format!("a{n}"), ns, &attribute.name, &attribute.value),
            };
        }
        let whole = writer.written() <= cap && self.children.iter().all(|node| node.write_up_to(writer, cap));
        writer.end();
        whole
    }

    /// Takes the children out.
    pub(crate) fn into_nodes(self) -> Vec<Node> {
        self.children
    }

    /// Moves it, and its children as long as they are there too, from the namespace `from` to `jabber:client`.
    pub(crate) fn relabel(&mut self, from: &str) {
        if self.ns == from {
            self.ns = ns::CLIENT.into();
            for node in &mut self.children {
                if let Node::Element(element) = node {
                    element.relabel(from);
                }
            }
        }
    }
}

impl Node {
    pub(crate) fn write_up_to(&self, writer: &mut Writer<'_>, cap: usize) -> bool {
        match self {
            Self::Element(element) => element.write_up_to(writer, cap),
            Self::Text(text) => {
                writer.text(text);
                writer.written() <= cap
            }
        }
    }
}

/// Shows names only: what people write to each other belongs in no log.
impl fmt::Debug for Element {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "<{} xmlns='{}'/> with {} nodes", self.name, self.ns, self.children.len())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element(element) => element.fmt(out),
            Self::Text(text) => write!(out, "{} bytes of text", text.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(xml: &str) -> String {
        let element = Element::parse(xml.as_bytes()).unwrap();
        let mut out = Vec::new();
        element.write(&mut out);
        assert_eq!(Element::parse(&out).unwrap(), element);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reads_and_writes() {
        assert_eq!(round("<body>a &amp; b<![CDATA[<c>]]>&#x21;</body>"), "<body>a &amp; b&lt;c&gt;!</body>");
        assert_eq!(
            round("<x:a xmlns:x='urn:x' xml:lang=\"de\" b='1&#10;2\n3'><b xmlns=''/><x:c/>t\r\n</x:a>"),
            "<a xmlns='urn:x' xml:lang='de' b='1&#10;2 3'><b xmlns=''/><c/>t\n</a>"
        );
        assert_eq!(
            round("<a xmlns='u&#58;v' xmlns:p='urn:p' p:q='r'><p:b/></a>"),
            "<a xmlns='u:v' xmlns:a0='urn:p' a0:q='r'><b xmlns='urn:p'/></a>"
        );
    }

    #[test]
    fn answers() {
        let e = Element::parse(
            b"<query xmlns='jabber:iq:roster' ver='1'> <item jid='a@b'><group>G</group></item><item jid='c'/></query>",
        )
        .unwrap();
        assert!(e.is("query", ns::ROSTER) && e.has("item", ns::ROSTER) && !e.has("item", ns::CLIENT));
        assert_eq!((e.attr("ver"), e.attr("jid"), e.text().as_str()), (Some("1"), None, " "));
        let jids: Vec<_> = e.children().filter_map(|item| item.attr("jid")).collect();
        assert_eq!(jids, ["a@b", "c"]);
        let group = e.child("item", ns::ROSTER).unwrap().child_text("group", ns::ROSTER);
        assert_eq!(group.as_deref(), Some("G"));
        assert_eq!(format!("{e:?}"), "<query xmlns='jabber:iq:roster'/> with 3 nodes");
    }

    #[test]
    fn builds() {
        let e = Element::new("a", "urn:a").with_attr("b", "1").with_attr("b", "2");
        let e = e.with_text("<").with_child(Element::new("c", "urn:a"));
        let mut out = Vec::new();
        e.write_in(&mut out, "urn:a");
        assert_eq!(out, b"<a b='2'>&lt;<c/></a>");
    }

    #[test]
    fn refuses_what_the_check_refuses() {
        for bad in ["", "x", "<a>", "<a/><b/>", "<p:a/>", "<a>&b;</a>", "<!-- --><a/>", "<a/> "] {
            assert!(Element::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
