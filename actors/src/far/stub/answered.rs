//! A request whose answer has come to the connection is not asked again of the next home of its session, and what it was sent
//! is not sent again by that.

use bytes::Bytes;
use rookery_proto::xmpp::stanza::{IqType, Stanza, Type};

use super::{Item, State};

impl State {
    /// A stanza for the client. If that answers a request which the home had not settled, only the request's number goes to the next
    /// home: what is asked twice is answered twice.
    pub(super) fn note_answer(&mut self, stanza: &Bytes) {
        if !is_iq(stanza) || !self.ups.iter().any(|item| matches!(item, Item::Stanza(bytes) if is_iq(bytes)))
        {
            return;
        }
        let Some(answer) = crate::stored::stanza(stanza) else { return };
        if !matches!(answer.type_, Type::Iq(IqType::Result | IqType::Error)) {
            return;
        }
        let asked = |item: &&mut Item| match item {
            Item::Stanza(bytes) if is_iq(bytes) => {
                crate::stored::stanza(bytes).is_some_and(|request| answers(&answer, &request))
            }
            _ => false,
        };
        if let Some(item) = self.ups.iter_mut().find(asked) {
            *item = Item::Answer(Bytes::new());
        }
    }

    /// The client asks something: an answer like one that it has had is a new one.
    pub(super) fn note_request(&mut self, item: &Item, n: u32) {
        let Item::Stanza(bytes) = item else { return };
        if self.had.is_empty() || !is_iq(bytes) {
            return;
        }
        if let Some(request) = crate::stored::stanza(bytes) {
            self.had.asks(&request, n, self.h);
        }
    }
}

fn is_iq(bytes: &Bytes) -> bool {
    bytes.starts_with(b"<iq")
}

/// RFC 6120 section 8.2.3. A request without `to` was for the account.
fn answers(answer: &Stanza, request: &Stanza) -> bool {
    let from = match (&request.to, &answer.from, &answer.to) {
        (Some(to), Some(from), _) => to == from,
        (None, Some(from), Some(own)) => from.as_str() == own.bare_str(),
        (None, None, _) => true,
        (Some(_), None, _) | (None, Some(_), None) => false,
    };
    let request_kind = matches!(request.type_, Type::Iq(IqType::Get | IqType::Set));
    request_kind && from && request.id == answer.id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iq(attributes: &str) -> Stanza {
        let iq = format!("<iq id='a' {attributes}><query xmlns='urn:x'/></iq>");
        crate::stored::stanza(&Bytes::from(iq)).unwrap()
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
}
