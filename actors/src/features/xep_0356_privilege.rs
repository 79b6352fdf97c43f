//! XEP-0356 Privileged Entity, version 0.4.1: the XML of it. What a component may is in [`Privileges`]; what it does in the name of
//! users is in `crate::user::behalf` and `crate::component::privilege`.

use rookery_proto::xml::{Limits, Scope, Writer, write};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, StanzaError};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{Stanza, Type};

use crate::features::contract::{Feature, Xep};
use crate::host::options::{Access, PresenceAccess, Privileges};

/// Nothing is advertised: components are told what they may.
pub const PRIVILEGE: Feature = Feature {
    xep: Xep {
        number: 356,
        version: "0.4.1",
        name: "Privileged Entity",
        note: "presence of contacts is told while their user is online",
    },
    ..Feature::NONE
};

/// Whether a message carries another one, to be sent in somebody's name.
pub(crate) fn is_message_in_name(stanza: &Stanza) -> bool {
    matches!(stanza.type_, Type::Message(_))
        && stanza.from.as_ref().is_some_and(|from| from.local().is_none())
        && stanza.has("privilege", ns::PRIVILEGE)
}

/// The message in `<privilege><forwarded>` (section 5.3).
///
/// # Errors
/// `bad-request` if there is none.
pub(crate) fn forwarded_message(stanza: &Stanza) -> Result<Stanza, StanzaError> {
    let wrong = || StanzaError::new(Condition::BadRequest);
    let privilege = stanza.child("privilege", ns::PRIVILEGE).ok_or_else(wrong)?.element();
    let forwarded = privilege.child("forwarded", ns::FORWARD).ok_or_else(wrong)?;
    let mut inner = forwarded.children().filter(|child| child.name() == "message");
    let (Some(message), None) = (inner.next(), inner.next()) else { return Err(wrong()) };
    let message = inner_stanza(message).ok_or_else(wrong)?;
    if message.to.is_none() { Err(wrong()) } else { Ok(message) }
}

/// The request in `<privileged_iq>` (section 6.3).
///
/// # Errors
/// `forbidden` if it is not in `jabber:client`, `bad-request` if there is none.
pub(crate) fn privileged_iq(stanza: &Stanza) -> Result<Stanza, StanzaError> {
    let wrong = || StanzaError::new(Condition::BadRequest);
    let outer = stanza.child("privileged_iq", ns::PRIVILEGE).ok_or_else(wrong)?.element();
    let mut inner = outer.children();
    let (Some(iq), None) = (inner.next(), inner.next()) else { return Err(wrong()) };
    if iq.name() != "iq" || iq.ns() != ns::CLIENT {
        return Err(StanzaError::new(Condition::Forbidden));
    }
    inner_stanza(iq).ok_or_else(wrong)
}

/// A stanza within another one. Programs leave the inner one in the namespace of their stream as often as not.
pub(crate) fn inner_stanza(element: &Element) -> Option<Stanza> {
    let scope = match element.ns() {
        ns::CLIENT => Scope::CLIENT,
        ns::COMPONENT_ACCEPT => Scope::COMPONENT,
        _ => return None,
    };
    let mut bytes = Vec::new();
    element.write_in(&mut bytes, "");
    Stanza::parse(&bytes, &scope, &Limits::TRUSTED).ok()
}

/// The answer to a `<privileged_iq>`, with the answer to the request in it. An error within is one without, as clients of the
/// component's library expect.
pub(crate) fn answer(outer: &Stanza, inner: &Stanza) -> Stanza {
    let payload = write::bytes(|w| {
        w.start("privilege", ns::PRIVILEGE).start("forwarded", ns::FORWARD);
        w.with(|out| inner.write_in(out, ns::CLIENT));
        w.end().end();
        if let Some(error) = inner.error() {
            w.with(|out| error.write(out));
        }
    });
    let mut answer = outer.result(payload);
    if inner.type_.is_error() {
        answer.type_ = inner.type_;
    }
    answer
}

/// What a component may (sections 4.2, 5.2, 6.2 and 7.2), after it could do what was `before`: what it may not do any more is said,
/// too. Nothing if there is nothing to say.
pub(crate) fn announcement(privileges: &Privileges, before: &Privileges) -> Option<Vec<u8>> {
    if (privileges, before) == (&Privileges::default(), &Privileges::default()) {
        return None;
    }
    Some(write::bytes(|w| {
        w.start("privilege", ns::PRIVILEGE);
        if privileges.roster != Access::default() || before.roster != Access::default() {
            perm(w, "roster", privileges.roster.name());
            w.attr("push", if privileges.roster_push { "true" } else { "false" }).end();
        }
        if privileges.message || before.message {
            perm(w, "message", if privileges.message { "outgoing" } else { "none" }).end();
        }
        if privileges.presence != PresenceAccess::None || before.presence != PresenceAccess::None {
            perm(w, "presence", privileges.presence.name()).end();
        }
        let gone = before.iq.iter().filter(|(ns, _)| privileges.iq(ns) == Access::default());
        let gone = gone.map(|(ns, _)| (ns, Access::default()));
        let mut all = privileges.iq.iter().map(|(ns, access)| (ns, *access)).chain(gone).peekable();
        if all.peek().is_some() {
            w.start("perm", ns::PRIVILEGE).attr("access", "iq");
            for (name, access) in all {
                w.start("namespace", ns::PRIVILEGE).attr("ns", name).attr("type", access.name()).end();
            }
            w.end();
        }
    }))
}

fn perm<'w, 'o>(w: &'w mut Writer<'o>, access: &str, kind: &str) -> &'w mut Writer<'o> {
    w.start("perm", ns::PRIVILEGE).attr("access", access).attr("type", kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(text: &str) -> Stanza {
        Stanza::parse(text.as_bytes(), &Scope::COMPONENT, &Limits::CLIENT).unwrap()
    }

    #[test]
    fn what_is_within() {
        for inner in ["jabber:client", "jabber:component:accept"] {
            let outer = stanza(&format!(
                "<message from='p.example' to='example'><privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='{inner}' from='a@example' to='b@example/c'><body>x</body></message></forwarded></privilege></message>"
            ));
            let message = forwarded_message(&outer).unwrap();
            assert_eq!(message.child("body", ns::CLIENT).unwrap().text(), "x");
            assert!(is_message_in_name(&outer));
        }
        let none = stanza(
            "<message from='p.example' to='example'><privilege xmlns='urn:xmpp:privilege:2'/></message>",
        );
        assert_eq!(forwarded_message(&none).unwrap_err().condition, Condition::BadRequest);
        let iq = |inner: &str| {
            stanza(&format!(
                "<iq type='get' id='1' from='p.example' to='a@example'><privileged_iq xmlns='urn:xmpp:privilege:2'><iq xmlns='{inner}' type='get' id='2'><x xmlns='urn:x'/></iq></privileged_iq></iq>"
            ))
        };
        assert!(privileged_iq(&iq("jabber:client")).unwrap().has("x", "urn:x"));
        assert_eq!(privileged_iq(&iq("jabber:server")).unwrap_err().condition, Condition::Forbidden);
    }

    #[test]
    fn what_is_announced() {
        let nothing = Privileges::default();
        assert!(announcement(&nothing, &nothing).is_none());
        let privileges = Privileges {
            roster: Access { get: true, set: true },
            roster_push: true,
            message: true,
            presence: PresenceAccess::Roster,
            iq: vec![("urn:x".into(), Access { get: false, set: true })],
        };
        let text = String::from_utf8(announcement(&privileges, &nothing).unwrap()).unwrap();
        for part in [
            "<perm access='roster' type='both' push='true'/>",
            "<perm access='message' type='outgoing'/>",
            "<perm access='presence' type='roster'/>",
            "<perm access='iq'><namespace ns='urn:x' type='set'/></perm>",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let text = String::from_utf8(announcement(&nothing, &privileges).unwrap()).unwrap();
        for part in ["access='roster' type='none'", "access='presence' type='none'", "ns='urn:x' type='none'"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
