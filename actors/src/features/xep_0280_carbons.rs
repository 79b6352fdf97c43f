//! XEP-0280 Message Carbons, version 1.0.1: all devices of a user see both sides of all conversations.

use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::jid::{BareJid, FullJid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use super::xep_0297_forwarding;
use crate::features::contract::{
    Direction, Feature, Hints, Iq, MessageHook, Method, Passing, Phase, Request, Run, Scope, Verdict, Who,
    Xep,
};
use crate::user::User;

/// XEP-0280. `urn:xmpp:carbons:rules:0` is not promised: nobody remembers which message an error answers.
pub const CARBONS: Feature = Feature {
    xep: Xep {
        number: 280,
        version: "1.0.1",
        name: "Message Carbons",
        note: "section 6.1 except that every error counts as the answer to a message that was copied",
    },
    disco: &[(Scope::Host, ns::CARBONS)],
    iq: &[
        iq("enable", |user, request| switch(user, request, true)),
        iq("disable", |user, request| switch(user, request, false)),
    ],
    messages: &[MessageHook { phase: Phase::Copy, run: copy }],
    ..Feature::NONE
};

const fn iq(name: &'static str, run: fn(&mut User, &Request) -> Result<Vec<u8>, StanzaError>) -> Iq {
    Iq {
        scope: Scope::Account,
        method: Method::Set,
        name,
        ns: ns::CARBONS,
        who: Who::Owner,
        run: Run::Now(run),
    }
}

/// Sections 4 and 5; as often as the client likes (section 10.1).
fn switch(user: &mut User, request: &Request, carbons: bool) -> Result<Vec<u8>, StanzaError> {
    let sid = request.sid.ok_or(StanzaError::new(Condition::NotAllowed))?;
    if let Some(session) = user.session_mut(sid)
        && session.carbons != carbons
    {
        session.carbons = carbons;
        user.changed(sid);
    }
    Ok(Vec::new())
}

fn copy(_: &User, passing: &mut Passing) -> Verdict {
    passing.copies = eligible(&passing.stanza, passing.direction, passing.hints);
    Verdict::Pass
}

/// Section 6.1: whether a message is copied to the user's other devices.
pub fn eligible(stanza: &Stanza, direction: Direction, hints: Hints) -> bool {
    let Type::Message(kind) = stanza.type_ else { return false };
    if hints.no_copy || kind == MessageType::Groupchat || stanza.has("private", ns::CARBONS) {
        return false;
    }
    if let Some(room) = stanza.child("x", ns::MUC_USER) {
        // An invitation, or a private message in a room: what comes of these the room sends to every device itself.
        return room.element().has("invite", ns::MUC_USER)
            || direction == Direction::Out
            || from_bare(stanza);
    }
    match kind {
        MessageType::Chat | MessageType::Error => true,
        _ => stanza.children().any(|child| {
            let payload = [ns::RECEIPTS, ns::CHATSTATES].contains(&child.ns())
                || super::payload(&child).is_some_and(|payload| payload.copied);
            let body = kind == MessageType::Normal && child.is("body", ns::CLIENT);
            payload || body || child.is("x", ns::CONFERENCE)
        }),
    }
}

fn from_bare(stanza: &Stanza) -> bool {
    stanza.from.as_ref().is_some_and(|from| from.is_bare())
}

/// Which side of a conversation a copy shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// What another device of the user has sent (section 8).
    Sent,
    /// What another device of the user has got (section 7).
    Received,
}

/// The copy of `stanza` for one device. `extra` are elements to stand in the copied message, as its `<stanza-id/>`
/// (XEP-0313 section 3.5).
pub fn carbon(kind: Kind, own: &BareJid, stanza: &Stanza, extra: &[u8], to: &FullJid) -> Stanza {
    let (open, close): (&[u8], &[u8]) = match kind {
        Kind::Sent => (b"<sent xmlns='urn:xmpp:carbons:2'>", b"</sent>"),
        Kind::Received => (b"<received xmlns='urn:xmpp:carbons:2'>", b"</received>"),
    };
    let payload = [open, &xep_0297_forwarding::forwarded(stanza, b"", extra), close].concat();
    Stanza::new(stanza.type_).from(own).to(to).payload(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::Scene;
    use crate::features::xep_0334_hints::hints;
    use rookery_proto::xmpp::jid::Jid;

    fn copied(type_: &str, direction: Direction, from: &str, payload: &str) -> bool {
        let kind = rookery_proto::xmpp::stanza::Kind::Message;
        let type_ = Type::parse(kind, Some(type_)).unwrap();
        let stanza = Stanza::new(type_).from(Jid::parse(from).unwrap()).payload(payload.as_bytes().to_vec());
        eligible(&stanza, direction, hints(&stanza))
    }

    #[test]
    fn the_rules_of_section_6_1() {
        let both = |type_: &str, payload: &str| {
            let results = [Direction::In, Direction::Out].map(|way| copied(type_, way, "a@b/c", payload));
            assert_eq!(results[0], results[1], "{type_} {payload}");
            results[0]
        };
        let body = "<body>hi</body>";
        assert!(both("chat", body) && both("chat", "") && both("normal", body) && both("error", ""));
        assert!(!both("normal", "") && !both("headline", body) && !both("groupchat", body));
        assert!(both("normal", "<received xmlns='urn:xmpp:receipts' id='1'/>"));
        assert!(both("headline", "<active xmlns='http://jabber.org/protocol/chatstates'/>"));
        assert!(both("normal", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"));
        assert!(both("normal", "<x xmlns='jabber:x:conference' jid='r@c'/>"));
        assert!(both("normal", "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x>"));
        for private in ["<private xmlns='urn:xmpp:carbons:2'/>", "<no-copy xmlns='urn:xmpp:hints'/>"] {
            assert!(!both("chat", &format!("{body}{private}")));
        }
    }

    #[test]
    fn private_messages_of_rooms_are_copied_on_their_way_out_only() {
        let payload = "<body>hi</body><x xmlns='http://jabber.org/protocol/muc#user'/>";
        assert!(copied("chat", Direction::Out, "me@b/c", payload));
        assert!(!copied("chat", Direction::In, "room@muc/nick", payload));
    }

    #[test]
    fn a_copy_looks_as_in_section_7() {
        let own = BareJid::parse("romeo@montague.example").unwrap();
        let stanza = Stanza::new(MessageType::Chat)
            .from(Jid::parse("juliet@capulet.example/balcony").unwrap())
            .to(Jid::parse("romeo@montague.example/garden").unwrap())
            .payload(&b"<body>hi</body>"[..]);
        let copy = carbon(
            Kind::Received,
            &own,
            &stanza,
            b"<id xmlns='urn:x'/>",
            &own.with_resource("home").unwrap(),
        );
        let mut written = Vec::new();
        copy.write(&mut written);
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "<message from='romeo@montague.example' to='romeo@montague.example/home' type='chat'>\
             <received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' \
             from='juliet@capulet.example/balcony' to='romeo@montague.example/garden' type='chat'><body>hi</body>\
             <id xmlns='urn:x'/></message></forwarded></received></message>"
        );
        assert!(
            carbon(Kind::Sent, &own, &stanza, b"", &own.with_resource("x").unwrap()).has("sent", ns::CARBONS)
        );
    }

    #[tokio::test]
    async fn other_devices_get_copies_while_they_want_them() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        let mut orchard = scene.session("romeo/orchard").await;
        let mut home = scene.session("romeo/home").await;
        let mut juliet = scene.session("juliet/balcony").await;
        let switch = |name: &str| format!("<iq type='set' id='1'><{name} xmlns='urn:xmpp:carbons:2'/></iq>");
        assert!(home.ask(&switch("enable")).await.contains("type='result'"));
        assert!(home.ask(&switch("enable")).await.contains("type='result'"));
        orchard.send("<message to='juliet@localhost/balcony' type='chat'><body>one</body></message>");
        let copy = home.next().await;
        assert!(copy.contains("<sent xmlns='urn:xmpp:carbons:2'>") && copy.contains("one"), "{copy}");
        assert!(copy.contains("stanza-id"), "the copy names its place in the archive: {copy}");
        assert!(juliet.next().await.contains("one"));
        juliet.send("<message to='romeo@localhost/orchard' type='chat'><body>two</body></message>");
        assert!(orchard.next().await.contains("two"));
        let copy = home.next().await;
        assert!(copy.contains("<received xmlns='urn:xmpp:carbons:2'>") && copy.contains("two"), "{copy}");
        assert!(home.ask(&switch("disable")).await.contains("type='result'"));
        orchard.send("<message to='juliet@localhost/balcony' type='chat'><body>three</body></message>");
        assert!(juliet.next().await.contains("three"));
        let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
        assert!(home.ask(ping).await.contains("id='p'"), "no copy came before it");
    }
}
