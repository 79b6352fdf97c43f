//! Who has been told of changes to rosters: clients by pushes (RFC 6121 section 2.1.6), contacts by their homes. What a node
//! that died had committed and not told, the next home tells.
//!
//! Of each session is known which version of the roster its client has. What the actor hears of is pushed at once; then the
//! store is asked what else has changed since that version: so it makes no difference who changed the roster, in which order
//! that is heard of, or whether it is.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::store::Options;
use rookery_cluster::tables::roster::{self as table, Changes, Item, RosterVersion};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{PresenceType, Stanza, Type};

use super::subscribe::Change;
use super::{Attached, User, roster};
use crate::far::Reply;
use crate::feature::Done;
use crate::features::store_failed;
use crate::ledger::Receipt;
use crate::resident::Handle;
use crate::user::Msg;

/// When what could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl User {
    /// Pushes what is new in the roster to the sessions whose clients do not have it.
    pub(super) fn catch_up(&mut self) {
        let known = self.sessions.iter().filter(|session| session.interested).map(|session| session.roster);
        let Some(since) = known.min() else { return };
        let (host, own) = (self.host.clone(), self.entity.clone());
        let contacts = host.options().limits.roster_items * 2;
        self.operation(Receipt::none(), move || async move {
            let read = host.store().read(|tx| {
                let own = own.clone();
                Box::pin(async move {
                    let limits = (contacts, usize::MAX);
                    if let Some(changes) = table::changes(&mut **tx, &own, &since, limits).await? {
                        return Ok(changes);
                    }
                    // Too long ago: everybody who is there now.
                    let version = table::version(&mut **tx, &own).await?;
                    let version = version.and_then(|version| table::parse_version(&version)).unwrap_or_default();
                    let items = table::load(&mut **tx, &own, contacts).await?.rows;
                    Ok(Changes { rows: items.into_iter().map(|item| (version, Ok(item))).collect(), version })
                })
            });
            Ok(match read.await {
                Ok(changes) => Done::then(move |user: &mut User| user.bring_up(changes)),
                Err(error) => {
                    tracing::warn!(user = %own, %error, "clients are not told of a change to their roster yet; tried again in a second");
                    Done::then(|user: &mut User| user.later(User::catch_up))
                }
            })
        });
    }

    /// Tries something again that the store did not answer.
    pub(super) fn later(&self, again: impl FnOnce(&mut User) + Send + 'static) {
        let Some(me) = self.me.as_ref().map(Handle::downgrade) else { return };
        self.host.wheel().after(AGAIN, move || {
            if let Some(me) = me.upgrade() {
                let _ = me.cast_always(Msg::Then(Box::new(again)));
            }
        });
    }

    /// Pushes a change of which the actor knows, at once.
    pub(super) fn push(&mut self, query: &[u8], version: &RosterVersion) {
        let wants = |session: &Attached| session.interested && session.roster < *version;
        self.push_to(query, wants);
        for session in self.sessions.iter().filter(|session| wants(session)) {
            self.roster.pushed(version, session.sid);
        }
        self.catch_up();
    }

    fn bring_up(&mut self, changes: Changes) {
        for (at, row) in changes.rows {
            let query = match &row {
                Ok(item) if roster::in_roster(item) => roster::query(&at, std::slice::from_ref(item)),
                Ok(_) => continue,
                Err(contact) => roster::query_removed(&at, contact),
            };
            let roster = &self.roster;
            self.push_to(&query, |session| {
                session.interested && session.roster < at && !roster.was_pushed(&at, session.sid)
            });
        }
        let version = changes.version;
        self.roster.caught_up(&version);
        let behind =
            self.sessions.iter_mut().filter(|session| session.interested && session.roster < version);
        let mut told = Vec::new();
        for session in behind {
            session.roster = version;
            told.push(session.sid);
        }
        told.into_iter().for_each(|sid| self.changed(sid));
    }

    /// Tells a contact that a transaction of this user has changed its roster. `name` is the change's, if this user is to
    /// remember it until the contact's home has heard.
    pub(super) fn tell_change(&self, contact: &BareJid, stanza: Arc<Stanza>, change: Change, name: u64) {
        let (me, whom) = (self.me.as_ref().map(Handle::downgrade), contact.clone());
        let receipt = match name {
            0 => Receipt::none(),
            name => Receipt::owed(Reply::when_taken(move || {
                if let Some(me) = me.and_then(|me| me.upgrade()) {
                    let _ = me.cast_always(Msg::Then(Box::new(move |user: &mut User| user.told(whom, name))));
                }
            })),
        };
        self.host.to_user(contact, stanza, receipt, None, Some(Box::new(change)));
    }

    /// The contact's home has heard of that change.
    fn told(&mut self, contact: BareJid, name: u64) {
        let (host, own) = (self.host.clone(), self.entity.clone());
        self.operation(Receipt::none(), move || async move {
            let write = host.store().write(Options::owner(&own), |tx| {
                let (own, contact) = (own.clone(), contact.clone());
                Box::pin(async move {
                    let Some(item) = table::get(&mut **tx, &own, contact.as_str()).await? else {
                        return Ok(());
                    };
                    if item.untold != name {
                        return Ok(()); // there is a later one
                    }
                    let item = Item { untold: 0, ..item };
                    if item == Item::unlisted(&item.jid) {
                        table::forget(&mut **tx, &own, &item.jid);
                        return Ok(());
                    }
                    table::keep(&mut **tx, &own, &item)
                })
            });
            // If not now, then when this user is loaded next: to hear it twice does no harm.
            write.await.map(|()| Done::default()).map_err(|error| store_failed(&error))
        });
    }

    /// Changes that this user's last home committed, and may not have told.
    pub(super) fn tell_untold(&self, untold: Vec<(String, u64)>) {
        if self.host.far().is_none() {
            return; // whoever they are, they have read their rosters after that
        }
        for (contact, name) in untold {
            let Ok(contact) = BareJid::parse(&contact) else { continue };
            let stanza = Stanza::new(Type::Presence(PresenceType::Unavailable));
            let stanza = stanza.from(Jid::from(self.jid.clone())).to(Jid::from(contact.clone()));
            metrics::counter!("rookery_roster_changes_retold_total").increment(1);
            self.tell_change(&contact, Arc::new(stanza), Change::again(&self.jid), name);
        }
    }
}
