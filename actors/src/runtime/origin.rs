//! What makes a repeated stanza known again: a name of its sender, and the sender's number for the stanza.

use bytes::Bytes;
use rookery_proto::xmpp::jid::Jid;
use sha2::{Digest as _, Sha256};

/// The name under which a sender numbers its stanzas: 16 bytes, never used by another sender. A session's is made of its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OriginName(pub(crate) [u8; 16]);

impl OriginName {
    /// A name: 16 bytes that no other sender has, as random ones or a hash of what is random.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From the bytes of a message or a row; `None` if they are not sixteen.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// One stanza of one sender. A stanza with the same origin as one that was taken before is the same stanza.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The sender's name.
    pub(crate) name: OriginName,
    /// The sender's number for it. Numbers wrap (XEP-0198 section 4).
    pub(crate) number: u32,
}

impl Origin {
    /// The stanza `number` of the sender `name`.
    pub fn new(name: impl Into<OriginName>, number: u32) -> Self {
        Self { name: name.into(), number }
    }

    /// Name and number: 20 bytes.
    pub(crate) fn to_bytes(self) -> Bytes {
        [&self.name.0[..], &self.number.to_le_bytes()].concat().into()
    }

    /// The way back; `None` of anything else.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (name, number) = bytes.split_first_chunk()?;
        Some(Self::new(OriginName(*name), u32::from_le_bytes(number.try_into().ok()?)))
    }

    /// The same stanza as one recipient of many knows it: to two devices of a user it is two stanzas.
    pub(crate) fn for_one(self, to: &Jid) -> Self {
        let name = Sha256::new().chain_update(self.name.0).chain_update(to.as_str()).finalize();
        let name = name.first_chunk().map_or(self.name, |name| OriginName(*name));
        Self { name, ..self }
    }
}
