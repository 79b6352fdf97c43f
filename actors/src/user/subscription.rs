//! The subscription state machine of RFC 6121 appendix A, as pure functions over one side's state. What a user does
//! and what it means for a local contact is computed, and committed, for both rosters in one transaction.

use rookery_cluster::tables::roster::{Item, Subscription};
use rookery_proto::xmpp::stanza::PresenceType;

/// The four kinds of subscription stanza.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
}

impl Kind {
    pub(crate) fn of(presence: PresenceType) -> Option<Self> {
        Some(match presence {
            PresenceType::Subscribe => Self::Subscribe,
            PresenceType::Subscribed => Self::Subscribed,
            PresenceType::Unsubscribe => Self::Unsubscribe,
            PresenceType::Unsubscribed => Self::Unsubscribed,
            _ => return None,
        })
    }

    pub(crate) fn presence(self) -> PresenceType {
        match self {
            Self::Subscribe => PresenceType::Subscribe,
            Self::Subscribed => PresenceType::Subscribed,
            Self::Unsubscribe => PresenceType::Unsubscribe,
            Self::Unsubscribed => PresenceType::Unsubscribed,
        }
    }
}

fn to(item: &Item) -> bool {
    matches!(item.subscription(), Subscription::To | Subscription::Both)
}

fn from(item: &Item) -> bool {
    matches!(item.subscription(), Subscription::From | Subscription::Both)
}

fn set(item: &mut Item, to: bool, from: bool) {
    item.set_subscription(match (to, from) {
        (false, false) => Subscription::None,
        (true, false) => Subscription::To,
        (false, true) => Subscription::From,
        (true, true) => Subscription::Both,
    });
}

/// What a user's own stanza does to the user's item for the contact (appendix A.2). Returns whether the stanza is
/// routed on.
pub(crate) fn outbound(item: &mut Item, kind: Kind) -> bool {
    match kind {
        Kind::Subscribe => {
            item.unlisted = false;
            if !to(item) {
                item.ask_subscribe = true;
            }
            true // A.2.1: routed in every state
        }
        Kind::Unsubscribe => {
            set(item, false, from(item));
            item.ask_subscribe = false;
            true // A.2.2
        }
        Kind::Subscribed => {
            if item.pending_in.is_some() {
                item.forget_request();
                item.unlisted = false;
                item.approved = false;
                set(item, to(item), true);
                return true; // A.2.3
            }
            if !from(item) {
                // Section 3.4: approval before the request; the item exists from now on.
                item.approved = true;
                item.unlisted = false;
            }
            false
        }
        Kind::Unsubscribed => {
            item.approved = false; // section 3.4.3: cancels a pre-approval
            let routed = from(item) || item.pending_in.is_some(); // A.2.4
            item.forget_request();
            set(item, to(item), false);
            routed
        }
    }
}

/// What becomes of a contact's stanza at the user it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Inbound {
    /// Nothing changes and nobody hears of it.
    Ignore,
    /// The state changed; the stanza goes to the user's sessions.
    Deliver,
    /// A request: goes to available resources, and to others when they come.
    Ask,
    /// The server answers `subscribed` for the user, since the user has approved before.
    AutoReply,
}

/// What a contact's stanza does to the user's item for that contact (appendix A.3).
pub(crate) fn inbound(item: &mut Item, kind: Kind, stanza: &[u8]) -> Inbound {
    match kind {
        Kind::Subscribe => {
            if from(item) {
                return Inbound::AutoReply; // section 3.1.3, second rule
            }
            if item.approved {
                item.approved = false;
                item.unlisted = false;
                set(item, to(item), true);
                return Inbound::AutoReply; // section 3.4.2
            }
            if item.pending_in.is_some() {
                return Inbound::Ignore; // A.3.1: already pending
            }
            item.pending_in = Some(bytes::Bytes::copy_from_slice(stanza));
            Inbound::Ask
        }
        Kind::Subscribed => {
            if !item.ask_subscribe || to(item) {
                return Inbound::Ignore; // A.3.3: nobody asked
            }
            item.ask_subscribe = false;
            set(item, true, from(item));
            Inbound::Deliver
        }
        Kind::Unsubscribe => {
            if !from(item) && item.pending_in.is_none() {
                return Inbound::Ignore;
            }
            item.forget_request();
            set(item, to(item), false);
            Inbound::Deliver
        }
        Kind::Unsubscribed => {
            if !to(item) && !item.ask_subscribe {
                return Inbound::Ignore;
            }
            item.ask_subscribe = false;
            set(item, false, from(item));
            Inbound::Deliver
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nine states of appendix A.1, written as people do: subscription, pending out, pending in.
    fn state(subscription: Subscription, out: bool, pending: bool) -> Item {
        let mut item = Item { jid: "juliet@example.org".into(), ..Item::default() };
        item.set_subscription(subscription);
        item.ask_subscribe = out;
        item.pending_in = pending.then(bytes::Bytes::new);
        item
    }

    fn show(item: &Item) -> String {
        let mut text = format!("{:?}", item.subscription());
        if item.ask_subscribe {
            text.push_str("+Out");
        }
        if item.pending_in.is_some() {
            text.push_str("+In");
        }
        text
    }

    use Subscription::{Both, From, None, To};

    const STATES: [(Subscription, bool, bool); 9] = [
        (None, false, false),
        (None, true, false),
        (None, false, true),
        (None, true, true),
        (To, false, false),
        (To, false, true),
        (From, false, false),
        (From, true, false),
        (Both, false, false),
    ];

    fn outs(kind: Kind) -> Vec<String> {
        STATES
            .iter()
            .map(|&(s, o, p)| {
                let mut item = state(s, o, p);
                let routed = outbound(&mut item, kind);
                format!("{} {}", if routed { "route" } else { "keep" }, show(&item))
            })
            .collect()
    }

    fn ins(kind: Kind) -> Vec<String> {
        STATES
            .iter()
            .map(|&(s, o, p)| {
                let mut item = state(s, o, p);
                let what = inbound(&mut item, kind, b"<presence/>");
                format!("{what:?} {}", show(&item))
            })
            .collect()
    }

    #[test]
    fn outbound_tables_of_appendix_a() {
        assert_eq!(
            outs(Kind::Subscribe),
            [
                "route None+Out",
                "route None+Out",
                "route None+Out+In",
                "route None+Out+In",
                "route To",
                "route To+In",
                "route From+Out",
                "route From+Out",
                "route Both"
            ]
        );
        assert_eq!(
            outs(Kind::Unsubscribe),
            [
                "route None",
                "route None",
                "route None+In",
                "route None+In",
                "route None",
                "route None+In",
                "route From",
                "route From",
                "route From"
            ]
        );
        assert_eq!(
            outs(Kind::Subscribed),
            [
                "keep None",
                "keep None+Out",
                "route From",
                "route From+Out",
                "keep To",
                "route Both",
                "keep From",
                "keep From+Out",
                "keep Both"
            ]
        );
        assert_eq!(
            outs(Kind::Unsubscribed),
            [
                "keep None",
                "keep None+Out",
                "route None",
                "route None+Out",
                "keep To",
                "route To",
                "route None",
                "route None+Out",
                "route To"
            ]
        );
    }

    #[test]
    fn inbound_tables_of_appendix_a() {
        assert_eq!(
            ins(Kind::Subscribe),
            [
                "Ask None+In",
                "Ask None+Out+In",
                "Ignore None+In",
                "Ignore None+Out+In",
                "Ask To+In",
                "Ignore To+In",
                "AutoReply From",
                "AutoReply From+Out",
                "AutoReply Both"
            ]
        );
        assert_eq!(
            ins(Kind::Unsubscribe),
            [
                "Ignore None",
                "Ignore None+Out",
                "Deliver None",
                "Deliver None+Out",
                "Ignore To",
                "Deliver To",
                "Deliver None",
                "Deliver None+Out",
                "Deliver To"
            ]
        );
        assert_eq!(
            ins(Kind::Subscribed),
            [
                "Ignore None",
                "Deliver To",
                "Ignore None+In",
                "Deliver To+In",
                "Ignore To",
                "Ignore To+In",
                "Ignore From",
                "Deliver Both",
                "Ignore Both"
            ]
        );
        assert_eq!(
            ins(Kind::Unsubscribed),
            [
                "Ignore None",
                "Deliver None",
                "Ignore None+In",
                "Deliver None+In",
                "Deliver None",
                "Deliver None+In",
                "Ignore From",
                "Deliver From",
                "Deliver From"
            ]
        );
    }

    #[test]
    fn a_pre_approval_answers_the_request_that_comes_later() {
        let mut item = state(None, false, false);
        assert!(!outbound(&mut item, Kind::Subscribed));
        assert!(item.approved);
        assert_eq!(inbound(&mut item, Kind::Subscribe, b""), Inbound::AutoReply);
        assert_eq!((show(&item).as_str(), item.approved), ("From", false));
    }
}
