//! The namespace declarations that a stream header leaves in force for what follows.

use std::sync::Arc;

use super::Text;
use crate::xmpp::ns;

/// Which prefixes are bound, and to what, where a frame starts; and which namespace is the content namespace.
///
/// The usual header takes no memory: only unusual declarations are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    content: &'static str,
    declared: Declared,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Declared {
    /// Nothing: every frame declares what it uses.
    Nothing,
    /// The content namespace as default, and `stream` for the namespace of streams.
    Usual,
    /// The same, and `db` for server dialback: the usual header between servers (XEP-0220 section 2.4.1).
    Dialback,
    /// Something else: prefixes (empty for the default) and names.
    Own(Arc<[(Text, Text)]>),
}

impl Scope {
    /// Of a client stream with the usual header: `xmlns='jabber:client'` and `xmlns:stream`.
    pub const CLIENT: Self = Self { content: ns::CLIENT, declared: Declared::Usual };
    /// Of a server stream with the usual header: `xmlns='jabber:server'`, `xmlns:stream` and `xmlns:db`.
    pub const SERVER: Self = Self { content: ns::SERVER, declared: Declared::Dialback };
    /// Of a component's stream with the usual header: `xmlns='jabber:component:accept'` and `xmlns:stream`.
    pub const COMPONENT: Self = Self { content: ns::COMPONENT_ACCEPT, declared: Declared::Usual };
    /// No declaration at all, as in WebSocket frames (RFC 7395) and in what we stored; content `jabber:client`.
    pub const NOTHING: Self = Self { content: ns::CLIENT, declared: Declared::Nothing };

    /// What a header declared, with its content namespace. `declared` holds (prefix or empty, namespace).
    #[must_use]
    pub fn new(content: &'static str, declared: Vec<(Text, Text)>) -> Self {
        let known = declared.iter().all(|(prefix, uri)| match prefix.as_str() {
            "" => uri == content,
            "stream" => uri == ns::STREAM,
            "db" => uri == ns::DIALBACK,
            _ => false,
        });
        let bound = |prefix: &str| declared.iter().any(|(p, _)| p == prefix);
        let usual = known && bound("") && bound("stream");
        let declared = match (usual, bound("db")) {
            (true, false) => Declared::Usual,
            (true, true) => Declared::Dialback,
            (false, _) => Declared::Own(declared.into()),
        };
        Self { content, declared }
    }

    /// The content namespace: `jabber:client`, `jabber:server` or `jabber:component:accept`.
    #[must_use]
    pub fn content(&self) -> &'static str {
        self.content
    }

    /// What the prefix is bound to; the empty prefix asks for the default namespace.
    #[must_use]
    pub fn lookup(&self, prefix: &str) -> Option<&str> {
        match (&self.declared, prefix) {
            (Declared::Usual | Declared::Dialback, "") => Some(self.content),
            (Declared::Usual | Declared::Dialback, "stream") => Some(ns::STREAM),
            (Declared::Dialback, "db") => Some(ns::DIALBACK),
            (Declared::Own(declared), _) => {
                declared.iter().find(|(p, _)| p == prefix).map(|(_, uri)| uri.as_str())
            }
            _ => None,
        }
    }

    /// Whether some prefix is bound to `uri`.
    #[must_use]
    pub fn declares(&self, uri: &str) -> bool {
        match &self.declared {
            Declared::Nothing => false,
            Declared::Usual => uri == self.content || uri == ns::STREAM,
            Declared::Dialback => uri == self.content || uri == ns::STREAM || uri == ns::DIALBACK,
            Declared::Own(own) => own.iter().any(|(_, bound)| bound == uri),
        }
    }

    /// All declarations: (prefix or empty, namespace).
    pub(crate) fn declarations(&self) -> Vec<(&str, &str)> {
        match &self.declared {
            Declared::Nothing => Vec::new(),
            Declared::Usual => vec![("", self.content), ("stream", ns::STREAM)],
            Declared::Dialback => vec![("", self.content), ("stream", ns::STREAM), ("db", ns::DIALBACK)],
            Declared::Own(own) => own.iter().map(|(prefix, uri)| (prefix.as_str(), uri.as_str())).collect(),
        }
    }
}
