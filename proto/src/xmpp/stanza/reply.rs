//! Answers to a stanza.

use bytes::Bytes;

use super::{IqType, Stanza, StanzaError, Type};

impl Stanza {
    /// This stanza's error: addresses swapped, same id, the error as its only content.
    /// `None` if this is an error or a result: those are never answered (RFC 6120 section 8.3.1).
    #[must_use]
    pub fn error_reply(&self, error: &StanzaError) -> Option<Self> {
        if !self.type_.is_answerable() {
            return None;
        }
        let mut payload = Vec::new();
        error.write(&mut payload);
        Some(self.back(self.type_.to_error()).payload(payload))
    }

    /// The result of this IQ, with `payload` in it (empty for none).
    #[must_use]
    pub fn result(&self, payload: impl Into<Bytes>) -> Self {
        self.back(Type::Iq(IqType::Result)).payload(payload)
    }

    fn back(&self, type_: Type) -> Self {
        let (to, from, id) = (self.from.clone(), self.to.clone(), self.id.clone());
        Self { to, from, id, ..Self::new(type_) }
    }
}
