//! Which requests and answers a client was sent last. They are kept nowhere else, so who has sent one does so again when the home of
//! its recipient has died, unless it heard before. A connection outlives the home of its session, and tells the next one.

use std::collections::VecDeque;

use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};
use sha2::{Digest as _, Sha256};

use crate::session::SessionId;

/// How many are remembered.
const MOST: usize = 64;

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Had(VecDeque<u64>);

impl Had {
    /// What another node says.
    pub(crate) fn of(keys: &[u64]) -> Self {
        Self(keys.iter().copied().take(MOST).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// The client was sent this; 0 is nothing.
    pub(crate) fn note(&mut self, key: u64) {
        if key == 0 || self.has(key) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(key);
    }

    pub(crate) fn has(&self, key: u64) -> bool {
        key != 0 && self.0.contains(&key)
    }

    /// The client asks something: an answer like one that it has had is a new one.
    pub(crate) fn asked(&mut self, request: &Stanza) {
        if let (false, Type::Iq(IqType::Get | IqType::Set), Some(to)) =
            (self.0.is_empty(), request.type_, &request.to)
        {
            let key = answer(to, request.id.as_deref());
            self.0.retain(|had| *had != key);
        }
    }
}

/// By which a stanza is known when it comes again: a request by whose it is, an answer by what it answers. 0 if it is neither.
pub(crate) fn key(stanza: &Stanza, origin: Option<(SessionId, u32)>) -> u64 {
    match (stanza.type_, origin, &stanza.from) {
        (Type::Iq(IqType::Get | IqType::Set), Some((sid, n)), _) => hash(&[&sid.0, &n.to_le_bytes()]),
        (Type::Iq(IqType::Result | IqType::Error), _, Some(from)) => answer(from, stanza.id.as_deref()),
        _ => 0,
    }
}

fn answer(from: &Jid, id: Option<&str>) -> u64 {
    // No JID has a zero in it.
    hash(&[from.as_str().as_bytes(), &[0], id.unwrap_or_default().as_bytes()])
}

/// Nobody can choose an id so that an answer of others is taken for another.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn iq(text: &str) -> Stanza {
        crate::stored::stanza(&Bytes::from(text.to_owned())).unwrap()
    }

    #[test]
    fn an_answer_is_new_when_its_request_is() {
        let request = iq("<iq type='get' id='a' to='b@c/d'><query xmlns='urn:x'/></iq>");
        let answer = iq("<iq type='error' id='a' from='b@c/d'><query xmlns='urn:x'/></iq>");
        let mut had = Had::default();
        had.note(key(&answer, None));
        assert!(had.has(key(&answer, Some((SessionId([1; 16]), 7)))));
        had.asked(&iq("<iq type='get' id='b' to='b@c/d'><query xmlns='urn:x'/></iq>"));
        assert!(had.has(key(&answer, None)));
        had.asked(&request);
        assert!(!had.has(key(&answer, None)));
        let of = |n| key(&request, Some((SessionId([1; 16]), n)));
        assert!(of(1) == of(1) && of(1) != of(2) && key(&request, None) == 0);
    }

    #[test]
    fn the_last_are_remembered() {
        let mut had = Had::default();
        (1..=70).for_each(|key| had.note(key));
        assert!(!had.has(6) && had.has(7) && had.has(70) && had.keys().count() == MOST);
    }
}
