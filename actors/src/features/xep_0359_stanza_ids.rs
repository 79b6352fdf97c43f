//! XEP-0359 Unique and Stable Stanza IDs, version 0.7.0: the name of a message in an account's archive, and that nobody
//! else gives one in the account's name.

use rookery_proto::xml::write;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{ChildRef, Stanza};

use crate::features::contract::{Feature, MessageHook, Passing, Phase, Scope, Verdict, Xep};
use crate::user::User;

/// XEP-0359: runs before everything that keeps or copies a message.
pub const STANZA_IDS: Feature = Feature {
    xep: Xep { number: 359, version: "0.7.0", name: "Unique and Stable Stanza IDs", note: "" },
    disco: &[(Scope::Host, ns::STANZA_ID), (Scope::Account, ns::STANZA_ID)],
    messages: &[MessageHook { phase: Phase::Check, run: check }],
    ..Feature::NONE
};

fn check(user: &User, passing: &mut Passing) -> Verdict {
    if passing.stanza.has("stanza-id", ns::STANZA_ID) {
        passing.stanza = without_forged(&passing.stanza, user.jid()).into();
    }
    Verdict::Pass
}

/// Section 3, rule 2: without ids given in the name of this account or of its domain.
fn without_forged(stanza: &Stanza, own: &BareJid) -> Stanza {
    stanza.without(|child| {
        child.is("stanza-id", ns::STANZA_ID)
            && by(child).is_none_or(|by| by.bare_str() == own.as_str() || by.bare_str() == own.domain())
    })
}

/// The entity that gives an id. Compared as an address, so that no other spelling of ours passes (rule 7); a name that is no address is
/// nobody's, and against rule 5.
fn by(child: &ChildRef<'_>) -> Option<Jid> {
    Jid::parse(&child.attr("by")?).ok()
}

/// `<stanza-id xmlns='urn:xmpp:sid:0' by='…' id='…'/>`; `sealed` is the id as clients see it
/// ([`IdCipher::seal`](rookery_cluster::tables::archive::IdCipher::seal)).
pub fn stanza_id(by: &BareJid, sealed: &str) -> Vec<u8> {
    write::bytes(|w| {
        w.start("stanza-id", ns::STANZA_ID).attr("by", by.as_str()).attr("id", sealed);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_proto::xmpp::stanza::MessageType;

    #[test]
    fn forged_ids_go_and_those_of_others_stay() {
        let own = BareJid::parse("juliet@example.org").unwrap();
        let id = |by: &str| format!("<stanza-id xmlns='urn:xmpp:sid:0' id='1' by='{by}'/>");
        for forged in
            ["juliet@example.org", "JULIET@Example.ORG", "example.org", "juliet@example.org/x", "@", ""]
        {
            let stanza =
                Stanza::new(MessageType::Chat).payload(format!("<body>hi</body>{}", id(forged)).into_bytes());
            let left = without_forged(&stanza, &own);
            assert!(left.has("body", ns::CLIENT) && !left.has("stanza-id", ns::STANZA_ID), "{forged}");
        }
        let payload = format!("{}<origin-id xmlns='urn:xmpp:sid:0' id='2'/>", id("room@muc.example.org"));
        let stanza = Stanza::new(MessageType::Chat).payload(payload.into_bytes());
        assert_eq!(without_forged(&stanza, &own), stanza);
    }

    #[test]
    fn is_written_as_section_2_1_shows() {
        let by = BareJid::parse("juliet@example.org").unwrap();
        assert_eq!(
            String::from_utf8(stanza_id(&by, "aGk")).unwrap(),
            "<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.org' id='aGk'/>"
        );
    }
}
