//! XEP-0203 Delayed Delivery, version 2.0: a stamp on what comes later than it was sent.

use rookery_proto::xml::write;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;
use rookery_proto::xmpp::{datetime, ns};

use crate::features::contract::{Direction, Feature, MessageHook, Passing, Phase, Verdict, Xep};
use crate::host::Host;
use crate::user::User;

/// XEP-0203, which has no discovery (revision 1.1 took that out).
pub const DELAY: Feature = Feature {
    xep: Xep {
        number: 203,
        version: "2.0",
        name: "Delayed Delivery",
        note: "on offline messages and archive results; nobody else stamps in the name of this server",
    },
    messages: &[MessageHook { phase: Phase::Check, run: check }],
    ..Feature::NONE
};

fn check(user: &User, passing: &mut Passing) -> Verdict {
    // What comes in was looked at when an account here sent it.
    if passing.direction == Direction::In {
        return Verdict::Pass;
    }
    if let Some(honest) = without_forged(user.host(), &passing.stanza) {
        passing.stanza = honest.into();
    }
    Verdict::Pass
}

/// Without stamps in the name of a domain that is served here or of an account in it: only the server speaks for those. A
/// client may say of its own full JID that it was late. `None` if there is nothing to take out.
pub(crate) fn without_forged(host: &Host, stanza: &Stanza) -> Option<Stanza> {
    if !stanza.has("delay", ns::DELAY) {
        return None;
    }
    let own = |by: &Jid| {
        by.resource().is_some() && stanza.from.as_ref().is_some_and(|from| from.bare_str() == by.bare_str())
    };
    Some(stanza.without(|child| {
        let by = child.is("delay", ns::DELAY).then(|| child.attr("from")).flatten();
        by.and_then(|by| Jid::parse(&by).ok()).is_some_and(|by| host.serves(by.domain()) && !own(&by))
    }))
}

/// `<delay xmlns='urn:xmpp:delay' from='…' stamp='…'/>`: what was received at `micros` (microseconds since 1970) is
/// delivered late by `from`, for an offline message the user's domain (section 4).
pub fn delay(from: &Jid, micros: u64) -> Vec<u8> {
    write::bytes(|w| {
        w.start("delay", ns::DELAY).attr("from", from.as_str()).attr("stamp", &datetime::format(micros));
    })
}

/// The same without the optional `from`: within a forwarded stanza, whose wrapper names the forwarder (XEP-0297 section 3).
pub fn stamp(micros: u64) -> Vec<u8> {
    write::bytes(|w| {
        w.start("delay", ns::DELAY).attr("stamp", &datetime::format(micros));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::Scene;

    #[tokio::test]
    async fn nobody_stamps_in_the_name_of_the_server() {
        let scene = Scene::new(&["romeo", "juliet"]).await;
        scene.friends("romeo", "juliet").await;
        let mut romeo = scene.session("romeo/orchard").await;
        let mut juliet = scene.session("juliet/balcony").await;
        juliet.available("").await;
        let stamp =
            |from: &str| format!("<delay xmlns='urn:xmpp:delay'{from} stamp='2002-09-10T23:08:25Z'/>");
        for (from, passes) in [
            ("localhost", false),
            ("LOCALHOST", false),
            ("juliet@localhost", false),
            ("romeo@localhost", false),
            ("juliet@localhost/balcony", false),
            ("romeo@localhost/orchard", true),
            ("room@muc.example.org", true),
        ] {
            let stamp = stamp(&format!(" from='{from}'"));
            let body = format!("<message to='juliet@localhost' type='chat'><body>hi</body>{stamp}</message>");
            romeo.send(&body);
            let got = juliet.next().await;
            assert_eq!((got.contains("<body>hi"), got.contains("urn:xmpp:delay")), (true, passes), "{got}");
            romeo.send(&format!("<presence>{stamp}</presence>"));
            let got = juliet.next().await;
            assert_eq!((got.contains("<presence"), got.contains("urn:xmpp:delay")), (true, passes), "{got}");
            romeo.send(&format!("<presence to='juliet@localhost'>{stamp}</presence>"));
            assert_eq!(juliet.next().await.contains("urn:xmpp:delay"), passes, "{from}");
        }
        romeo.send(&format!(
            "<message to='juliet@localhost' type='chat'><body>hi</body>{}</message>",
            stamp("")
        ));
        assert!(juliet.next().await.contains("urn:xmpp:delay"));
    }

    #[test]
    fn is_written_as_section_2_shows() {
        let from = Jid::parse("capulet.com").unwrap();
        assert_eq!(
            String::from_utf8(delay(&from, 1_031_699_305_000_000)).unwrap(),
            "<delay xmlns='urn:xmpp:delay' from='capulet.com' stamp='2002-09-10T23:08:25Z'/>"
        );
        assert_eq!(
            String::from_utf8(stamp(1_031_699_305_250_000)).unwrap(),
            "<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25.250000Z'/>"
        );
    }
}
