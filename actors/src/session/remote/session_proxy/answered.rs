//! A request whose answer has come to the connection is not asked again of the next home of its session, and what it was sent
//! is not sent again by that; nor is a message sent again whose error has come.

use bytes::Bytes;
use rookery_proto::xmpp::stanza::{IqType, MessageType, Stanza, Type};

use super::{Item, State};

impl State {
    /// A stanza for the client. If that answers one which the home had not settled, only the number of that goes to the next
    /// home: what is asked twice is answered twice, and what was refused must not be taken then.
    pub(crate) fn note_answer(&mut self, stanza: &Bytes) {
        let Some(name) = answer(stanza) else { return };
        let alike = |item: &Item| matches!(item, Item::Stanza(bytes) if bytes.starts_with(name));
        if !self.ups.iter().any(alike) {
            return;
        }
        let Some(answer) = crate::routing::stored::stanza(stanza) else { return };
        let asked = |item: &&mut Item| match item {
            Item::Stanza(bytes) if bytes.starts_with(name) => {
                crate::routing::stored::stanza(bytes).is_some_and(|request| answers(&answer, &request))
            }
            _ => false,
        };
        if let Some(item) = self.ups.iter_mut().find(asked) {
            *item = Item::Answer(Bytes::new());
        }
    }

    /// The client asks something, or sends a message: an answer like one that it has had is a new one.
    pub(crate) fn note_request(&mut self, item: &Item, n: u32) {
        let Item::Stanza(bytes) = item else { return };
        let known = match bytes.get(1) {
            Some(b'i') => !self.carried.recent.is_empty(),
            Some(b'm') if self.carried.recent.has_errors() => {
                self.carried.recent.forget_settled(self.ledger.settled(), self.carried.h);
                self.carried.recent.has_errors()
            }
            _ => false,
        };
        if !known {
            return;
        }
        if let Some(request) = crate::routing::stored::stanza(bytes) {
            self.carried.recent.asks(&request, n, self.carried.h);
        }
    }
}

/// With what the stanza begins that this may be the answer to; nothing if it is none.
fn answer(stanza: &Bytes) -> Option<&'static [u8]> {
    let tag = stanza.split(|byte| *byte == b'>').next().unwrap_or_default();
    let has = |type_: &[u8]| tag.windows(type_.len()).any(|part| part == type_);
    match tag {
        [b'<', b'i', b'q', ..] if has(b" type='result'") || has(b" type='error'") => Some(b"<iq"),
        [b'<', b'm', ..] if has(b" type='error'") => Some(b"<message"),
        _ => None,
    }
}

/// RFC 6120 sections 8.2.3 and 8.3.1. A request without `to` was for the account.
fn answers(answer: &Stanza, request: &Stanza) -> bool {
    let from = match (&request.to, &answer.from, &answer.to) {
        (Some(to), Some(from), _) => to == from,
        (None, Some(from), Some(own)) => from.as_str() == own.bare_str(),
        (None, None, _) => true,
        (Some(_), None, _) | (None, Some(_), None) => false,
    };
    let kinds = match (answer.type_, request.type_) {
        (Type::Iq(IqType::Result | IqType::Error), Type::Iq(kind)) => {
            matches!(kind, IqType::Get | IqType::Set)
        }
        (Type::Message(MessageType::Error), Type::Message(kind)) => kind != MessageType::Error,
        _ => false,
    };
    // Messages need no id (RFC 6120 section 8.1.3): one without may be any.
    kinds && from && request.id == answer.id && (request.id.is_some() || matches!(request.type_, Type::Iq(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iq(attributes: &str) -> Stanza {
        let iq = format!("<iq id='a' {attributes}><query xmlns='urn:x'/></iq>");
        crate::routing::stored::stanza(&Bytes::from(iq)).unwrap()
    }

    #[test]
    fn an_answer_is_known_by_its_id_and_where_it_comes_from() {
        let answer = iq("type='result' from='b@c/d' to='j@a/x'");
        assert!(answers(&answer, &iq("type='get' to='b@c/d'")));
        for other in ["type='get' to='b@c'", "type='result' to='b@c/d'", "type='set'"] {
            assert!(!answers(&answer, &iq(other)), "{other}");
        }
        assert!(answers(&iq("type='error' from='j@a' to='j@a/x'"), &iq("type='set'")));
    }

    #[test]
    fn an_error_answers_the_message_that_was_refused() {
        let message = |text: &str| crate::routing::stored::stanza(&Bytes::from(text.to_owned())).unwrap();
        let error = "<message id='m' type='error' from='b@c/d' to='j@a/x'><error type='wait'/></message>";
        assert_eq!(answer(&Bytes::from_static(error.as_bytes())), Some(&b"<message"[..]));
        assert_eq!(
            answer(&Bytes::from_static(b"<message from='b@c'><body> type='error'</body></message>")),
            None
        );
        assert_eq!(answer(&Bytes::from_static(b"<iq type='get' id='a'>")), None);
        let (error, body) = (message(error), "<body>x</body></message>");
        assert!(answers(&error, &message(&format!("<message id='m' type='chat' to='b@c/d'>{body}"))));
        for other in ["id='n' to='b@c/d'", "id='m' to='b@c'", "id='m' type='error' to='b@c/d'", "to='b@c/d'"]
        {
            assert!(!answers(&error, &message(&format!("<message {other}>{body}"))), "{other}");
        }
    }
}
