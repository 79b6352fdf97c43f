//! Which requests, answers and errors of others a client was sent last. They are kept nowhere else, so their sender sends them again
//! when the home of the recipient has died, unless the sender heard before. The connection outlives the home of its session, and tells
//! the next one; where both have died, the session's record says what was sent, and the client's count whether it has that.
//!
//! Errors of messages are here for another reason, too. A client must send again whatever lies behind the `h` of `<resumed/>`
//! (XEP-0198 section 5). Where a stanza was lost inside the server, that may be less than what was answered, and a message that
//! was refused would be refused a second time. Such an error is remembered until all that the client had sent by then is settled.
//!
//! Messages of rooms come again likewise, and are remembered with the rest ([`super::heard`]).

use std::collections::VecDeque;

use bytes::Bytes;
use rookery_cluster::tables::sessions::Cursor;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::{IqType, MessageType, Stanza, Type};
use sha2::{Digest as _, Sha256};

use super::heard::Heard;
use super::kept::Kept;
use crate::runtime::origin::Origin;

/// How many requests and answers are remembered.
const REQUESTS: usize = 32;
/// How many are remembered in all. More errors than this wait only if a client sends as many messages while one is stuck.
const MOST: usize = 256;
/// This bit of a key is set for the error of a message, and for nothing else.
const ERROR: u64 = 1 << 63;

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    /// See [`key`].
    pub(crate) key: u64,
    /// Its number among those that the client was sent.
    pub(crate) number: u32,
    /// How many stanzas the client had sent then: a request that it sends again is one of them.
    pub(crate) up: u32,
    /// The stanza has waited for the client to come back: an answer to what it sends again, as long as it has not confirmed it.
    waited: bool,
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Recent {
    sent: VecDeque<Sent>,
    /// Messages of rooms.
    pub(crate) rooms: Heard,
    /// How many stanzas the client had sent when its session lost its home, or a stanza: what was not settled comes again.
    came: Option<u32>,
    /// Nobody knows how many: what comes again comes before the client confirms this stanza.
    until: Option<u32>,
}

/// What the client has done that sends a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asks {
    /// The client asks.
    Anew,
    /// The client asks again, and has had the answer, or will get that; this is the key of the answer.
    Again(u64),
}

/// Numbers wrap (XEP-0198 section 4).
pub(super) fn covers(h: u32, number: u32) -> bool {
    h.wrapping_sub(number) < u32::MAX / 2
}

impl Sent {
    /// One that has not waited for its client.
    pub(crate) fn new(key: u64, number: u32, up: u32) -> Self {
        Self { key, number, up, waited: false }
    }

    fn is_error(&self) -> bool {
        self.key & ERROR != 0
    }

    /// Whether it answers the client's stanza `n`.
    fn knows(&self, n: u32, acked: u32) -> bool {
        covers(self.up, n) || self.waited && !covers(acked, self.number)
    }
}

impl Recent {
    pub(crate) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Those that a client had which counts `h`.
    pub(crate) fn covered_by(&self, h: u32) -> Self {
        let sent = self.sent.iter().filter(|sent| covers(h, sent.number)).copied().collect();
        Self { sent, rooms: self.rooms.covered_by(h), ..Self::default() }
    }

    /// These, in the order in which they were sent.
    pub(crate) fn of(sent: impl Iterator<Item = Sent>) -> Self {
        Self { sent: sent.take(MOST).collect(), ..Self::default() }
    }

    /// All of them, in the order in which they were sent.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter()
    }

    /// What a session's cursor says.
    pub(crate) fn read(cursor: &Cursor) -> Self {
        let sent = |bytes: &[u8; 16]| {
            let [k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, n3, u0, u1, u2, u3] = *bytes;
            Sent::new(
                u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
                u32::from_le_bytes([n0, n1, n2, n3]),
                u32::from_le_bytes([u0, u1, u2, u3]),
            )
        };
        Self { rooms: Heard::read(&cursor.rooms), ..Self::of(cursor.recent.as_chunks().0.iter().map(sent)) }
    }

    /// Into a cursor.
    pub(crate) fn write(&self, cursor: &mut Cursor) {
        (cursor.recent, cursor.rooms) = (self.bytes(), self.rooms.write());
    }

    fn bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.sent.len() * 16);
        for sent in &self.sent {
            bytes.extend_from_slice(&sent.key.to_le_bytes());
            bytes.extend_from_slice(&sent.number.to_le_bytes());
            bytes.extend_from_slice(&sent.up.to_le_bytes());
        }
        bytes.into()
    }

    /// The client is sent something under this number, after so many stanzas of its own.
    pub(crate) fn note(&mut self, key: u64, number: u32, up: u32) {
        let came = self.came.filter(|came| covers(*came, up)).unwrap_or(up);
        self.put(Sent { key, number, up: came, waited: self.until.is_some() });
    }

    /// The client has come back, and is sent what has waited.
    pub(crate) fn note_waited(&mut self, key: u64, number: u32, up: u32) {
        self.put(Sent { key, number, up, waited: true });
    }

    /// The client is sent this, as [`Recent::note`] says; under no number if it confirms nothing.
    pub(crate) fn note_kept(&mut self, kept: &Kept, number: Option<u32>, up: u32) {
        match kept.room() {
            Some(origin) => self.rooms.note(origin, number),
            None => self.note(kept.key(), number.unwrap_or(0), up),
        }
    }

    /// Whether the client was sent this.
    pub(crate) fn has_kept(&self, kept: &Kept) -> bool {
        kept.room().map_or_else(|| self.has(kept.key()), |origin| self.rooms.has(origin))
    }

    /// The client had sent so many stanzas, and sends again what was not settled: what answers one of them does so, although it has
    /// not come again yet.
    pub(crate) fn comes_again(&mut self, came: Option<u32>) {
        self.came = came.or(self.came);
    }

    /// The same where nobody knows how many. The client has not seen any that it is sent after `sent`, so an answer that it has not
    /// confirmed answers what it sends again.
    pub(crate) fn comes_again_after(&mut self, sent: u32) {
        self.until = Some(sent.wrapping_add(1));
    }

    /// The client has confirmed `h` stanzas.
    pub(crate) fn confirmed(&mut self, h: u32) {
        self.rooms.confirmed(h);
        self.until = self.until.filter(|until| !covers(h, *until));
    }

    /// Both sides count from 0 (XEP-0198 section 3).
    pub(crate) fn count_anew(&mut self) {
        self.rooms.count_anew();
        *self = Self { rooms: std::mem::take(&mut self.rooms), ..Self::default() };
    }

    fn put(&mut self, sent: Sent) {
        let key = sent.key;
        if key == 0 {
            return;
        }
        self.sent.retain(|sent| sent.key != key);
        let requests =
            if sent.is_error() { 0 } else { self.sent.iter().filter(|sent| !sent.is_error()).count() };
        let oldest =
            if requests >= REQUESTS { self.sent.iter().position(|sent| !sent.is_error()) } else { None };
        if let Some(oldest) = oldest.or((self.sent.len() >= MOST).then_some(0)) {
            self.sent.remove(oldest);
        }
        self.sent.push_back(sent);
    }

    /// And these.
    pub(crate) fn add(&mut self, more: &Self) {
        for sent in &more.sent {
            if self.sent.len() < MOST && !self.has(sent.key) {
                self.sent.push_front(*sent);
            }
        }
        self.rooms.add(&more.rooms);
    }

    /// `settled` of the client's stanzas are settled, and will not come again: errors that were sent by then are forgotten. One that
    /// has waited is forgotten when the client, which has confirmed `acked`, has it.
    pub(crate) fn forget_settled(&mut self, settled: u32, acked: u32) {
        self.sent.retain(|sent| {
            !sent.is_error() || !covers(settled, sent.up) || sent.waited && !covers(acked, sent.number)
        });
    }

    /// Whether errors are remembered.
    pub(crate) fn has_errors(&self) -> bool {
        self.sent.iter().any(Sent::is_error)
    }

    /// Whether the client was sent what has this key.
    pub(crate) fn has(&self, key: u64) -> bool {
        key != 0 && self.sent.iter().any(|sent| sent.key == key)
    }

    /// The client, which has confirmed so many, sends its stanza `n`. If that asks something anew, an answer like one that it has
    /// had will be a new one.
    pub(crate) fn asks(&mut self, request: &Stanza, n: u32, acked: u32) -> Asks {
        if self.sent.is_empty() {
            return Asks::Anew;
        }
        let Some(key) = asked(request) else { return Asks::Anew };
        match self.sent.iter().position(|sent| sent.key == key) {
            Some(at) if self.sent.get(at).is_some_and(|sent| sent.knows(n, acked)) => Asks::Again(key),
            Some(at) => {
                self.sent.remove(at);
                Asks::Anew
            }
            None => Asks::Anew,
        }
    }
}

/// By which a stanza is known when it comes again: a request by whose it is, an answer by what it answers. 0 if it is neither.
pub(crate) fn key(stanza: &Stanza, origin: Option<Origin>) -> u64 {
    match (stanza.type_, origin, &stanza.from) {
        (Type::Iq(IqType::Get | IqType::Set), Some(origin), _) => key_of(origin),
        (Type::Iq(IqType::Result | IqType::Error), _, Some(from)) => answer(from, stanza.id.as_deref()),
        (Type::Message(MessageType::Error), _, Some(from)) => error(from, stanza.id.as_deref()),
        _ => 0,
    }
}

/// The key of a stanza that is known by its origin.
pub(super) fn key_of(origin: Origin) -> u64 {
    hash(&[&origin.name.0, &origin.number.to_le_bytes()])
}

/// The key of what answers this.
fn asked(request: &Stanza) -> Option<u64> {
    let to = request.to.as_ref()?;
    let key = match request.type_ {
        Type::Iq(IqType::Get | IqType::Set) => answer(to, request.id.as_deref()),
        Type::Message(kind) if kind != MessageType::Error => error(to, request.id.as_deref()),
        _ => 0,
    };
    (key != 0).then_some(key)
}

fn answer(from: &Jid, id: Option<&str>) -> u64 {
    // No JID has a zero in it.
    hash(&[from.as_str().as_bytes(), &[0], id.unwrap_or_default().as_bytes()])
}

/// 0 without an id, which messages need not have (RFC 6120 section 8.1.3).
fn error(from: &Jid, id: Option<&str>) -> u64 {
    id.map_or(0, |id| hash(&[b"message", &[0], from.as_str().as_bytes(), &[0], id.as_bytes()]) | ERROR)
}

/// Nobody can choose an id so that an answer of somebody else is taken for his.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]) & !ERROR).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::origin::OriginName;
    use rookery_proto::xml::{Limits, Scope};

    fn iq(text: &str) -> Stanza {
        Stanza::parse(text.as_bytes(), &Scope::CLIENT, &Limits::TRUSTED).unwrap()
    }

    #[test]
    fn an_answer_is_new_when_its_request_is() {
        let request = iq("<iq type='get' id='a' to='b@c/d'><query xmlns='urn:x'/></iq>");
        let answer = key(&iq("<iq type='error' id='a' from='b@c/d'><query xmlns='urn:x'/></iq>"), None);
        let mut recent = Recent::default();
        recent.note(answer, 5, 7);
        assert!(recent.has(answer));
        let other = iq("<iq type='get' id='b' to='b@c/d'><query xmlns='urn:x'/></iq>");
        assert_eq!(recent.asks(&other, 8, 9), Asks::Anew);
        assert_eq!(recent.asks(&request, 7, 9), Asks::Again(answer));
        assert!(recent.has(answer));
        assert_eq!(recent.asks(&request, 8, 9), Asks::Anew);
        assert!(!recent.has(answer));
        recent.note_waited(answer, 5, 7);
        assert_eq!(
            (recent.asks(&request, 9, 4), recent.asks(&request, 9, 5)),
            (Asks::Again(answer), Asks::Anew)
        );
        let of = |n| key(&request, Some(Origin::new(OriginName([1; 16]), n)));
        assert!(of(1) == of(1) && of(1) != of(2) && key(&request, None) == 0);
    }

    /// An answer came to a session before the client, which had lost it, had sent its request again: that was asked a second time.
    #[test]
    fn an_answer_may_come_before_its_request_comes_again() {
        let request = iq("<iq type='get' id='a' to='b@c/d'><query xmlns='urn:x'/></iq>");
        let answer = key(&iq("<iq type='error' id='a' from='b@c/d'><query xmlns='urn:x'/></iq>"), None);
        let mut moved = Recent::default();
        moved.comes_again(Some(9));
        moved.note(answer, 5, 7);
        assert_eq!(
            (moved.asks(&request, 9, 4), moved.asks(&request, 10, 4)),
            (Asks::Again(answer), Asks::Anew)
        );
        moved.note(answer, 6, 11);
        assert_eq!(moved.asks(&request, 12, 4), Asks::Anew);
        let mut restored = Recent::default();
        restored.comes_again_after(4);
        restored.note(answer, 5, 7);
        assert_eq!(restored.asks(&request, 9, 4), Asks::Again(answer));
        restored.confirmed(5);
        assert_eq!(restored.asks(&request, 20, 5), Asks::Anew);
        restored.note(answer, 6, 20);
        assert_eq!(restored.asks(&request, 21, 5), Asks::Anew);
    }

    #[test]
    fn the_last_are_remembered_here_and_in_a_record() {
        let mut recent = Recent::default();
        (1..=40).for_each(|n: u32| recent.note(n.into(), n, n + 1));
        assert!(!recent.has(8) && recent.has(9) && recent.has(40));
        let mut cursor = Cursor::default();
        recent.write(&mut cursor);
        let read = Recent::read(&cursor);
        assert_eq!((&read.sent, &Recent::of(read.iter().copied()).sent), (&recent.sent, &recent.sent));
        let covered = read.covered_by(20);
        assert!(covered.has(20) && !covered.has(21));
    }

    #[test]
    fn errors_are_remembered_until_what_was_sent_before_them_is_settled() {
        let error = |n: u32| {
            key(
                &iq(&format!("<message type='error' id='{n}' from='b@c'><error type='wait'/></message>")),
                None,
            )
        };
        let message =
            |n: u32| iq(&format!("<message type='chat' id='{n}' to='b@c'><body>x</body></message>"));
        assert_eq!(key(&iq("<message type='error' from='b@c'><error type='wait'/></message>"), None), 0);
        let mut recent = Recent::default();
        recent.note(key(&iq("<iq type='error' id='1' from='b@c'/>"), None), 1, 1);
        assert!(!recent.has_errors());
        (1..=200).for_each(|n| recent.note(error(n), n, 200 + n));
        assert!(recent.has(error(1)) && recent.has_errors());
        recent.forget_settled(210, 0);
        assert!(!recent.has(error(10)) && recent.has(error(11)));
        assert_eq!(recent.asks(&message(11), 211, 0), Asks::Again(error(11)));
        assert_eq!((recent.asks(&message(11), 212, 0), recent.has(error(11))), (Asks::Anew, false));
        recent.note_waited(error(1), 7, 200);
        recent.forget_settled(500, 6);
        assert_eq!(recent.asks(&message(1), 501, 6), Asks::Again(error(1)));
        recent.forget_settled(500, 7);
        assert!(!recent.has_errors() && !recent.is_empty());
    }
}
