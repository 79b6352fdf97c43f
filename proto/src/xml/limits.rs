//! How large XML may be, by stage of the stream.

/// Limits that the framer and the checker enforce while they scan.
///
/// A stream starts with small limits and gets larger ones when its peer has authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one frame: a stanza from its `<` to its last `>`, a stream header, an XML declaration.
    pub stanza_bytes: u32,
    /// Levels of elements; the stanza itself is level 1.
    pub depth: u16,
    /// Attributes on one element, namespace declarations counted.
    pub attributes: u16,
    /// Namespace declarations in force at one place inside one frame.
    pub namespaces: u16,
    /// Child elements directly under one stanza.
    pub children: u16,
}

impl Limits {
    /// Bytes of the name of one namespace, at every stage. Trees and rewritten payloads repeat names that were written
    /// once, so long ones would let a small stanza grow large.
    pub const NAMESPACE_BYTES: usize = 512;

    /// Before authentication: room for the largest SASL exchange, for nothing else.
    pub const LOGIN: Self =
        Self { stanza_bytes: 8192, depth: 16, attributes: 24, namespaces: 16, children: 16 };
    /// A client after login. RFC 6120 section 13.12 asks for at least 10,000 bytes.
    pub const CLIENT: Self =
        Self { stanza_bytes: 256 * 1024, depth: 64, attributes: 64, namespaces: 64, children: 256 };
    /// Another server after it has proved a domain. Its stanzas carry what its own clients may send, and our additions.
    pub const SERVER: Self =
        Self { stanza_bytes: 512 * 1024, depth: 64, attributes: 64, namespaces: 64, children: 256 };
    /// Our own bytes on the way back to us, from the store or from another node.
    pub const TRUSTED: Self = Self {
        stanza_bytes: 16 * 1024 * 1024,
        depth: 512,
        attributes: 1024,
        namespaces: 1024,
        children: u16::MAX,
    };

    /// The same limits with another size of frame.
    #[must_use]
    pub const fn with_stanza_bytes(self, stanza_bytes: u32) -> Self {
        Self { stanza_bytes, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::CLIENT
    }
}
