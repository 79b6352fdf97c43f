//! What a session is called.

use rookery_cluster::seams::Seams;

use crate::runtime::origin::OriginName;

/// A session's identity: random, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId(pub [u8; 16]);

impl SessionId {
    /// A new one.
    pub(crate) fn random(seams: &Seams) -> Self {
        Self(seams.bytes())
    }

    /// What marks an entry of the offline queue as this session's alone.
    pub(crate) fn mark(self) -> u64 {
        let Self([a, b, c, d, e, f, g, h, ..]) = self;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// From sixteen bytes.
    pub(crate) fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl From<SessionId> for OriginName {
    fn from(SessionId(bytes): SessionId) -> Self {
        Self(bytes)
    }
}
