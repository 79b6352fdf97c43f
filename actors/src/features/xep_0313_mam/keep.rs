//! Which messages are archived.

use rookery_cluster::tables::mam_prefs::{Policy, Preferences};
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use crate::features;
use crate::features::contract::{Direction, Hints, Passing, Verdict};
use crate::host::options::Archive;
use crate::user::User;

pub(super) fn hook(user: &User, passing: &mut Passing) -> Verdict {
    let other = match passing.direction {
        Direction::In => passing.stanza.from.as_ref(),
        Direction::Out => passing.stanza.to.as_ref(),
    };
    passing.archive = worth_it(&passing.stanza, passing.hints)
        && other.is_some_and(|other| {
            let known = || passing.with == *user.jid() || user.roster().get(&passing.with).is_some();
            wanted(user.prefs.as_ref(), user.host().options().archive, other, known)
        })
        && user.host().archives(user.jid(), passing.stanza.size());
    Verdict::Pass
}

/// Section 6.1.1: what people say to each other, and what belongs to it; not what only tells a state.
pub(crate) fn worth_it(stanza: &Stanza, hints: Hints) -> bool {
    let Type::Message(kind) = stanza.type_ else { return false };
    if hints.no_store || hints.no_permanent_store {
        return false;
    }
    match kind {
        // An error archived would be taken for a message, and rooms have archives of their own.
        MessageType::Error | MessageType::Groupchat => false,
        MessageType::Headline => hints.store,
        MessageType::Normal | MessageType::Chat => hints.store || meaningful(stanza),
    }
}

/// Encryptions whose elements carry what a body would (OMEMO in both versions, OX).
const ENCRYPTED: [&str; 3] = ["eu.siacs.conversations.axolotl", "urn:xmpp:omemo:2", "urn:xmpp:openpgp:0"];

fn meaningful(stanza: &Stanza) -> bool {
    stanza.children().any(|child| match child.ns() {
        ns::CLIENT => child.name() == "body" || (child.name() == "subject" && !child.text().is_empty()),
        // What other devices must know to show a conversation alike: receipts, reactions, calls.
        ns::RECEIPTS => child.name() == "received",
        ns::REACTIONS | ns::JINGLE_MESSAGE | ns::EME => true,
        ns::CONFERENCE => true,
        ns::MUC_USER => child.element().has("invite", ns::MUC_USER),
        ns => ENCRYPTED.contains(&ns) || features::payload(&child).is_some_and(|payload| payload.archived),
    })
}

/// XEP-0441 section 2.2: what the user says about messages with `other`, and if nothing, the operator. `known` tells
/// whether its bare JID is in the roster.
pub(crate) fn wanted(
    prefs: Option<&Preferences>,
    operator: Archive,
    other: &Jid,
    known: impl Fn() -> bool,
) -> bool {
    let listed = |list: &[String]| list.iter().any(|jid| jid == other.as_str() || jid == other.bare_str());
    // The more careful of the two if a JID is in both lists.
    if prefs.is_some_and(|prefs| listed(&prefs.never)) {
        return false;
    }
    if prefs.is_some_and(|prefs| listed(&prefs.always)) {
        return true;
    }
    match policy(prefs, operator) {
        Archive::Always => true,
        Archive::Roster => known(),
        Archive::Never => false,
    }
}

/// The default that is in force.
pub(crate) fn policy(prefs: Option<&Preferences>, operator: Archive) -> Archive {
    match prefs.map(Preferences::policy) {
        Some(Policy::Always) => Archive::Always,
        Some(Policy::Roster) => Archive::Roster,
        Some(Policy::Never) => Archive::Never,
        Some(Policy::Unset) | None => operator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::xep_0334_hints::hints;
    use rookery_proto::xmpp::stanza::Kind;

    fn kept(type_: &str, payload: &str) -> bool {
        let stanza = Stanza::new(Type::parse(Kind::Message, Some(type_)).unwrap())
            .payload(payload.as_bytes().to_vec());
        worth_it(&stanza, hints(&stanza))
    }

    #[test]
    fn what_is_said_is_kept_and_states_are_not() {
        let body = "<body>hi</body>";
        for payload in [
            body,
            "<subject>tea</subject>",
            "<encrypted xmlns='eu.siacs.conversations.axolotl'/>",
            "<received xmlns='urn:xmpp:receipts' id='1'/>",
            "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
            "<reactions xmlns='urn:xmpp:reactions:0' id='1'/>",
            "<x xmlns='http://jabber.org/protocol/muc#user'><invite from='a@b'/></x>",
        ] {
            assert!(kept("chat", payload) && kept("normal", payload), "{payload}");
            assert!(
                !kept("error", payload) && !kept("groupchat", payload) && !kept("headline", payload),
                "{payload}"
            );
            for hint in ["no-store", "no-permanent-store"] {
                assert!(!kept("chat", &format!("{payload}<{hint} xmlns='urn:xmpp:hints'/>")), "{payload}");
            }
        }
        for payload in [
            "",
            "<subject/>",
            "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
            "<request xmlns='urn:xmpp:receipts'/>",
            "<event xmlns='http://jabber.org/protocol/pubsub#event'/>",
            "<x xmlns='http://jabber.org/protocol/muc#user'/>",
        ] {
            assert!(!kept("chat", payload), "{payload}");
            assert!(kept("chat", &format!("{payload}<store xmlns='urn:xmpp:hints'/>")), "{payload}");
        }
        assert!(kept("headline", "<body>news</body><store xmlns='urn:xmpp:hints'/>"));
        assert!(!kept("error", "<store xmlns='urn:xmpp:hints'/>"));
    }

    #[test]
    fn preferences_go_before_the_operator_s_policy() {
        let prefs = |policy: Policy, always: &[&str], never: &[&str]| Preferences {
            policy: policy.into(),
            always: always.iter().map(ToString::to_string).collect(),
            never: never.iter().map(ToString::to_string).collect(),
        };
        let jid = Jid::parse("a@b/c").unwrap();
        let decide =
            |prefs: Option<&Preferences>, operator, known: bool| wanted(prefs, operator, &jid, || known);
        assert!(decide(None, Archive::Always, false) && !decide(None, Archive::Never, true));
        assert!(decide(None, Archive::Roster, true) && !decide(None, Archive::Roster, false));
        let none = prefs(Policy::Unset, &[], &[]);
        assert!(decide(Some(&none), Archive::Always, false) && !decide(Some(&none), Archive::Never, false));
        assert!(!decide(Some(&prefs(Policy::Never, &[], &[])), Archive::Always, true));
        assert!(decide(Some(&prefs(Policy::Roster, &[], &[])), Archive::Never, true));
        // A bare JID in a list means all its resources, a full one itself.
        for (listed, hit) in [("a@b", true), ("a@b/c", true), ("a@b/d", false), ("b", false)] {
            assert_eq!(
                decide(Some(&prefs(Policy::Never, &[listed], &[])), Archive::Never, false),
                hit,
                "{listed}"
            );
            assert_eq!(
                decide(Some(&prefs(Policy::Always, &[], &[listed])), Archive::Always, false),
                !hit,
                "{listed}"
            );
        }
        assert!(!decide(Some(&prefs(Policy::Always, &["a@b"], &["a@b"])), Archive::Always, false));
    }
}
