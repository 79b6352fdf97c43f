//! quick-xml's events made into a tree. The strict check ran before, or runs first: see [`super::Element`].

use quick_xml::{
    events::{BytesStart, Event},
    name::{Namespace, PrefixDeclaration, QName, ResolveResult},
    reader::NsReader,
};
use smallvec::SmallVec;

use super::{Attribute, Element, Node};
use crate::xml::{Error, Scope, Text, escape};

/// Only what the check would have refused comes here.
const BROKEN: Error = Error::NotWellFormed("unchecked XML");

/// The elements and texts that stand side by side in `raw`.
pub(crate) fn nodes(raw: &[u8], scope: &Scope) -> Result<Vec<Node>, Error> {
    let text = std::str::from_utf8(raw).map_err(|_| Error::Encoding)?;
    let mut reader = NsReader::from_str(text);
    let resolver = reader.resolver_mut();
    // The check has limits of its own, lower ones.
    resolver.set_max_namespace_bindings(usize::MAX);
    for (prefix, uri) in scope.declarations() {
        let prefix =
            if prefix.is_empty() { PrefixDeclaration::Default } else { PrefixDeclaration::Named(prefix) };
        let mut raw = Vec::new();
        escape::attribute(&mut raw, uri);
        resolver.add(prefix, Namespace(&String::from_utf8_lossy(&raw))).map_err(|_| BROKEN)?;
    }
    let mut names = Names::default();
    let mut open: Vec<Element> = Vec::new();
    let mut top = Vec::new();
    loop {
        match reader.read_event().map_err(|_| BROKEN)? {
            Event::Start(start) => open.push(element(&reader, &start, &mut names)?),
            Event::Empty(start) => {
                let element = element(&reader, &start, &mut names)?;
                siblings(&mut open, &mut top).push(Node::Element(element));
            }
            Event::End(_) => {
                let element = open.pop().ok_or(BROKEN)?;
                siblings(&mut open, &mut top).push(Node::Element(element));
            }
            Event::Text(text) => push_text(siblings(&mut open, &mut top), &escape::unescape_text(&text)),
            Event::CData(text) => {
                // No references in there, but line ends are line ends.
                let text = text.xml10_content();
                push_text(siblings(&mut open, &mut top), &text);
            }
            Event::GeneralRef(name) => {
                let (c, _) = escape::reference(&format!("&{};", &*name)).ok_or(BROKEN)?;
                push_text(siblings(&mut open, &mut top), c.encode_utf8(&mut [0; 4]));
            }
            Event::Eof => return if open.is_empty() { Ok(top) } else { Err(BROKEN) },
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => return Err(BROKEN),
        }
    }
}

fn siblings<'t>(open: &'t mut [Element], top: &'t mut Vec<Node>) -> &'t mut Vec<Node> {
    match open.last_mut() {
        Some(parent) => &mut parent.children,
        None => top,
    }
}

/// Adds to the text before it, so that a text is one node however it was written.
fn push_text(nodes: &mut Vec<Node>, text: &str) {
    match nodes.last_mut() {
        _ if text.is_empty() => {}
        Some(Node::Text(before)) => before.push_str(text),
        _ => nodes.push(Node::Text(text.to_owned())),
    }
}

/// The names of namespaces used last: elements that share one share its memory.
#[derive(Default)]
struct Names(SmallVec<[Text; 8]>);

impl Names {
    fn share(&mut self, bound: ResolveResult<'_>) -> Result<Text, Error> {
        // quick-xml keeps the names as they were written.
        let uri = match bound {
            ResolveResult::Bound(Namespace(raw)) => escape::unescape_attribute(raw),
            ResolveResult::Unbound => "".into(),
            ResolveResult::Unknown(_) => return Err(Error::UnboundPrefix),
        };
        if let Some(known) = self.0.iter().find(|known| **known == *uri) {
            return Ok(known.clone());
        }
        if self.0.len() == self.0.inline_size() {
            self.0.remove(0);
        }
        let name = Text::from(uri);
        self.0.push(name.clone());
        Ok(name)
    }
}

fn element(reader: &NsReader<&[u8]>, start: &BytesStart<'_>, names: &mut Names) -> Result<Element, Error> {
    let (bound, local) = reader.resolver().resolve_element(start.name());
    let ns = names.share(bound)?;
    let mut attributes = Vec::new();
    for attribute in start.attributes().with_checks(false) {
        let attribute = attribute.map_err(|_| BROKEN)?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        let QName(name) = attribute.key;
        let (ns, name) = match name.split_once(':') {
            None => (None, name),
            Some((_, name)) => {
                (Some(names.share(reader.resolver().resolve_attribute(attribute.key).0)?), name)
            }
        };
        let value = Text::from(escape::unescape_attribute(&attribute.value));
        attributes.push(Attribute { ns, name: name.into(), value });
    }
    Ok(Element { name: local.into_inner().into(), ns, attributes, children: Vec::new() })
}
