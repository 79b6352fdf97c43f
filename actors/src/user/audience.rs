//! The contacts that see a user's presence, and what they are told when that changes (RFC 6121 sections 3.1.5, 3.2.2 and 3.3.3).
//!
//! Presence goes to the contacts that the user remembers. A contact's own transaction may have ended that before the user hears of
//! it, and the user's next change reads the row as it is by then. From then on the contact is told nothing more. So whatever makes
//! the user forget that a contact sees it, tells the contact first that all resources are gone.

use std::sync::Arc;

use rookery_cluster::tables::roster::Item;
use rookery_proto::xmpp::jid::BareJid;

use super::presence::unavailable;
use super::roster::Contact;
use super::subscribe::sees;
use super::{User, UserSession};

impl User {
    /// Takes over what was committed for one contact.
    pub(super) fn take_row(&mut self, item: &Item) {
        if let Ok(contact) = BareJid::parse(&item.jid)
            && !sees(item)
        {
            self.hide_from(&contact);
        }
        self.roster.apply(item);
    }

    /// Forgets a contact whose row was removed.
    pub(super) fn forget_contact(&mut self, contact: &BareJid) {
        self.hide_from(contact);
        self.roster.remove(contact);
    }

    /// The contact is about to be told nothing more.
    fn hide_from(&self, contact: &BareJid) {
        if self.roster.get(contact).is_some_and(Contact::from) {
            self.show_presence(contact, false);
        }
    }

    /// A contact has just been allowed to see this user: it gets the presence there is (3.1.5), or, when it may no
    /// longer, unavailable from all resources (3.2.2, 3.3.3).
    pub(super) fn show_presence(&self, contact: &BareJid, available: bool) {
        let shown = |session: &&UserSession| session.presence.is_some();
        for session in self.sessions.iter().filter(shown) {
            let stanza = match (&session.presence, available) {
                (Some(presence), true) => presence.stanza.clone(),
                _ => Arc::new(unavailable(&session.jid)),
            };
            self.tell(&stanza, contact);
        }
    }
}
