//! A component that speaks for contacts is away, or back.

use rookery_proto::xml::write;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::{User, UserSession};
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::host::components::Said;

/// What a room says to an occupant whom it loses because its service ends (XEP-0045 section 17.3, status 332). Others pass it over.
fn room_is_gone() -> Vec<u8> {
    write::bytes(|w| {
        w.start("x", ns::MUC_USER);
        w.start("item", ns::MUC_USER).attr("affiliation", "none").attr("role", "none").end();
        w.start("status", ns::MUC_USER).attr("code", "110").end();
        w.start("status", ns::MUC_USER).attr("code", "332").end();
        w.end();
    })
}

impl User {
    /// What the home of a component says of it.
    pub(crate) fn hear_of_component(&self, name: &BareJid, said: Said) {
        match said {
            Said::Here => self.show_to_component(name),
            Said::Gone => self.sessions.iter().for_each(|session| self.component_is_gone(name, session)),
            Said::Back => {
                self.show_to_component(name);
                self.component_is_back(name);
            }
        }
    }

    /// Contacts are gone from all resources, and so are the rooms and whoever else the session has shown itself to.
    fn component_is_gone(&self, name: &BareJid, session: &UserSession) {
        let own = Jid::from(session.jid.clone());
        let gone =
            |from: Jid| Stanza::new(Type::Presence(PresenceType::Unavailable)).from(from).to(own.clone());
        let seen = |jid: &&BareJid| jid.domain() == name.domain();
        let contacts = self.roster.iter().filter(|contact| contact.to()).map(|contact| &contact.jid);
        for contact in contacts.filter(seen).filter(|_| session.presence.is_some()) {
            session.deliver(Outgoing::new(gone(Jid::from(contact.clone()))), None, Receipt::none());
        }
        for whom in session.directed.iter().filter(|whom| whom.domain() == name.domain()) {
            let gone = gone(whom.clone());
            let gone = if whom.resource().is_some() { gone.payload(room_is_gone()) } else { gone };
            session.deliver(Outgoing::new(gone), None, Receipt::none());
        }
    }

    /// The component may know nothing of the user any more. It is told by the presence that the gateway itself would get at a login, and then
    /// speaks of its contacts (XEP-0100 section 4.4): to ask for each of them would be too much at once.
    fn component_is_back(&self, name: &BareJid) {
        let Some(contact) = self.roster.get(name) else { return };
        let (shows, asks) = (contact.from(), contact.to());
        for session in self.sessions.iter().filter(|session| session.presence.is_some()) {
            if shows {
                self.announce_to(session, name);
            }
            if asks {
                self.probe_for(session, name);
            }
        }
    }
}
