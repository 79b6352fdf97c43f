//! A light DOM for what a server sends: good enough to compare and to search, written apart from the server's.

use std::fmt::{self, Write as _};

use quick_xml::events::{BytesStart, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;

/// The namespaces that every c2s stream declares.
pub const CLIENT: &str = "jabber:client";
/// The namespace of the `stream` prefix.
pub const STREAMS: &str = "http://etherx.jabber.org/streams";

/// One element with everything in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Local name.
    pub name: String,
    /// Namespace URI, empty for none.
    pub ns: String,
    /// Attributes in document order; the key is `{ns}name` when the attribute is in a namespace.
    pub attrs: Vec<(String, String)>,
    /// Children in document order; neighbouring text is one node.
    pub nodes: Vec<Node>,
}

/// A child of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A child element.
    Element(Element),
    /// Character data, unescaped.
    Text(String),
}

/// What is wrong with a piece of XML.
#[derive(Debug, thiserror::Error)]
#[error("not an XML element: {0}")]
pub struct Error(String);

impl Element {
    /// Parses one element as it stands in a c2s stream (default namespace `jabber:client`, prefix `stream`).
    pub fn parse(text: &str) -> Result<Element, Error> {
        let mut all = Element::parse_all(text)?;
        match all.len() {
            1 => Ok(all.remove(0)),
            n => Err(Error(format!("{n} elements in {text:?}"))),
        }
    }

    /// Parses a run of elements; white space between them is dropped.
    pub fn parse_all(text: &str) -> Result<Vec<Element>, Error> {
        let wrapped = format!("<w xmlns='{CLIENT}' xmlns:stream='{STREAMS}'>{text}</w>");
        let root = Element::parse_document(&wrapped)?;
        root.nodes
            .into_iter()
            .filter_map(|n| match n {
                Node::Element(e) => Some(Ok(e)),
                Node::Text(t) if t.trim().is_empty() => None,
                Node::Text(t) => Some(Err(Error(format!("text outside of an element: {t:?}")))),
            })
            .collect()
    }

    fn parse_document(text: &str) -> Result<Element, Error> {
        let mut reader = NsReader::from_str(text);
        let mut stack: Vec<Element> = Vec::new();
        loop {
            let event = reader.read_event().map_err(|e| Error(format!("{e} in {text}")))?;
            match event {
                Event::Start(start) => stack.push(element(&reader, &start)?),
                Event::Empty(start) => {
                    let made = element(&reader, &start)?;
                    match stack.last_mut() {
                        Some(parent) => parent.nodes.push(Node::Element(made)),
                        None => return Ok(made),
                    }
                }
                Event::End(_) => {
                    let made = stack.pop().ok_or_else(|| Error("unexpected end tag".into()))?;
                    match stack.last_mut() {
                        Some(parent) => parent.nodes.push(Node::Element(made)),
                        None => return Ok(made),
                    }
                }
                Event::Text(t) => push_text(&mut stack, &t),
                Event::CData(t) => push_text(&mut stack, &t),
                Event::GeneralRef(r) => {
                    let name: &str = &r;
                    let text = quick_xml::escape::unescape(&format!("&{name};"))
                        .map_err(|e| Error(e.to_string()))?
                        .into_owned();
                    push_text(&mut stack, &text);
                }
                Event::Eof => return Err(Error(format!("ends too early: {text}"))),
                Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {
                    return Err(Error(format!("not allowed in XMPP: {text}")));
                }
            }
        }
    }

    /// The value of an attribute without namespace.
    pub fn attr(&self, name: &str) -> Option<&str> {
        self.attrs.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// True for this name and namespace.
    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// Child elements.
    pub fn children(&self) -> impl Iterator<Item = &Element> {
        self.nodes.iter().filter_map(|n| match n {
            Node::Element(e) => Some(e),
            Node::Text(_) => None,
        })
    }

    /// The first child with this name and namespace.
    pub fn child(&self, name: &str, ns: &str) -> Option<&Element> {
        self.children().find(|c| c.is(name, ns))
    }

    /// The first child with this name in the element's own namespace.
    pub fn get(&self, name: &str) -> Option<&Element> {
        self.children().find(|c| c.is(name, &self.ns))
    }

    /// The first descendant (or the element itself) with this name and namespace.
    pub fn find(&self, name: &str, ns: &str) -> Option<&Element> {
        if self.is(name, ns) {
            return Some(self);
        }
        self.children().find_map(|c| c.find(name, ns))
    }

    /// All text directly in this element.
    pub fn text(&self) -> String {
        let texts = self.nodes.iter().filter_map(|n| match n {
            Node::Text(t) => Some(t.as_str()),
            Node::Element(_) => None,
        });
        texts.collect()
    }

    fn write(&self, parent_ns: &str, indent: usize, out: &mut String) {
        let _ = write!(out, "{:indent$}<{}", "", self.name);
        if self.ns != parent_ns {
            let _ = write!(out, " xmlns=\"{}\"", self.ns);
        }
        for (key, value) in &self.attrs {
            let _ = write!(out, " {key}=\"{}\"", quick_xml::escape::escape(value.as_str()));
        }
        let text = self.text();
        if self.children().next().is_none() {
            match text.is_empty() {
                true => out.push_str("/>"),
                false => {
                    let _ =
                        write!(out, ">{}</{}>", quick_xml::escape::partial_escape(text.as_str()), self.name);
                }
            }
            return;
        }
        out.push('>');
        if !text.trim().is_empty() {
            let _ = write!(out, "{}", quick_xml::escape::partial_escape(text.trim()));
        }
        for child in self.children() {
            out.push('\n');
            child.write(&self.ns, indent + 2, out);
        }
        let _ = write!(out, "\n{:indent$}</{}>", "", self.name);
    }
}

/// Indented, for people: expanded namespaces, no prefixes.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(CLIENT, 0, &mut out);
        f.write_str(&out)
    }
}

fn push_text(stack: &mut [Element], text: &str) {
    if let Some(top) = stack.last_mut() {
        match top.nodes.last_mut() {
            Some(Node::Text(t)) => t.push_str(text),
            _ => top.nodes.push(Node::Text(text.to_owned())),
        }
    }
}

fn element(reader: &NsReader<&[u8]>, start: &BytesStart<'_>) -> Result<Element, Error> {
    let bad = |e: String| Error(format!("{e} in <{}>", AsRef::<str>::as_ref(start)));
    let (resolved, local) = reader.resolver().resolve_element(start.name());
    let ns = namespace(&resolved).map_err(bad)?;
    let mut attrs = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| bad(e.to_string()))?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        let (resolved, local) = reader.resolver().resolve_attribute(attribute.key);
        let ns = namespace(&resolved).map_err(bad)?;
        let local = local.into_inner().to_owned();
        let key = match ns.as_str() {
            "" => local,
            "http://www.w3.org/XML/1998/namespace" => format!("xml:{local}"),
            ns => format!("{{{ns}}}{local}"),
        };
        let value = AsRef::<str>::as_ref(&attribute.value);
        let value = quick_xml::escape::unescape(value).map_err(|e| bad(e.to_string()))?.into_owned();
        attrs.push((key, value));
    }
    Ok(Element { name: local.into_inner().to_owned(), ns, attrs, nodes: Vec::new() })
}

fn namespace(resolved: &ResolveResult<'_>) -> Result<String, String> {
    match resolved {
        ResolveResult::Bound(ns) => Ok(AsRef::<str>::as_ref(ns).to_owned()),
        ResolveResult::Unbound => Ok(String::new()),
        ResolveResult::Unknown(prefix) => Err(format!("unbound prefix {}", prefix)),
    }
}

/// Escapes text for use in element content and in attribute values.
pub fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}
