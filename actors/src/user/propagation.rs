//! Who has been told of changes to rosters: clients by pushes (RFC 6121 section 2.1.6), contacts by their homes, or elsewhere by stanzas. What a node
//! that died had committed and not told, the next home tells.
//!
//! Of each session is known which version of the roster its client has. Pushes are read from the store, from that version on:
//! so it makes no difference who changed the roster, in which order that is heard of, or whether it is; and clients get
//! changes in the order of their versions, so that the last one they have says what they have.

use std::sync::Arc;
use std::time::Duration;

use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Options};
use rookery_cluster::tables::roster::{self as table, Changes, Item, RosterVersion};
use rookery_proto::xmpp::error::StanzaError;
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::{MessageType, PresenceType, Stanza, Type};

use super::subscribe::Change;
use super::worth::worth_keeping;
use super::{User, UserSession, roster};
use crate::connection::ledger::Receipt;
use crate::connection::reply::Reply;
use crate::features::contract::Done;
use crate::features::{self, store_failed};
use crate::host::Host;
use crate::host::kind::{Inbound, USER};
use crate::runtime::actor::Handle;
use crate::user::Msg;

/// Newer than any: no client wants to hear.
const NOBODY: RosterVersion = [0xff; 10];

/// When what could not be read is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// How much one user tries again at a time.
const RETRIES: u16 = 256;

/// A read of a user's roster, about to begin.
pub(super) struct Reading {
    host: Host,
    own: Entity,
    /// What the oldest of the clients has.
    pub(super) since: RosterVersion,
    contacts: usize,
}

impl Reading {
    /// One contact, if it is asked for, and all that is newer than what the oldest of the clients has; if that was too long
    /// ago, or is not known, everything.
    pub(super) async fn with(self, contact: Option<&str>) -> store::Result<(Option<Item>, Changes)> {
        let Self { host, own, since, contacts } = &self;
        let (since, contacts) = (*since, *contacts);
        let nobody = since == NOBODY;
        let read = host.store().read(|tx| {
            Box::pin(async move {
                let item = match contact {
                    Some(contact) => table::get(&mut **tx, own, contact).await?,
                    None => None,
                };
                if nobody {
                    return Ok((item, Changes::default()));
                }
                let changes = table::changes(&mut **tx, own, &since, (contacts, usize::MAX)).await?;
                match changes {
                    Some(changes) => Ok((item, changes)),
                    None => Ok((item, table::everything(&mut **tx, own, contacts).await?)),
                }
            })
        });
        read.await
    }
}

impl User {
    /// Pushes what is new in the roster to the sessions whose clients do not have it.
    pub(super) fn catch_up(&mut self) {
        if !self.sessions.iter().any(|session| session.interested) || self.will_catch_up() {
            return;
        }
        self.catching_up(|user| {
            let (own, read) = (user.entity.clone(), user.read_changes());
            let since = read.since;
            async move {
                Ok(match read.with(None).await {
                    Ok((_, changes)) => Done::then(move |user: &mut User| user.bring_up(&since, changes)),
                    Err(error) => {
                        tracing::warn!(user = %own, %error, "roster changes could not be read, so the clients of the user do not have them yet; retrying in one second");
                        Done::then(|user: &mut User| user.later(User::catch_up))
                    }
                })
            }
        });
    }

    /// To read what is newer than the oldest version that a client has, of those that want to hear.
    pub(super) fn read_changes(&self) -> Reading {
        let contacts = self.host.options().limits.roster_rows();
        let interested = self.sessions.iter().filter(|session| session.interested);
        let since = interested.map(|session| session.roster).min().unwrap_or(NOBODY);
        Reading { host: self.host.clone(), own: self.entity.clone(), since, contacts }
    }

    /// Tries something again that the store did not answer, or for which there was no room. Not if too much is tried again
    /// already: it is then made good by the next change, or when the user is loaded anew.
    pub(super) fn later(&mut self, again: impl FnOnce(&mut User) + Send + 'static) {
        self.try_later(again);
    }

    /// The same; `false` if it will not be done.
    pub(super) fn try_later(&mut self, again: impl FnOnce(&mut User) + Send + 'static) -> bool {
        if self.retries >= RETRIES {
            metrics::counter!("rookery_limits_hit_total", "limit" => "user_retries").increment(1);
            return false;
        }
        let Some(me) = self.me.as_ref().map(Handle::downgrade) else { return false };
        self.retries += 1;
        self.host.wheel().after(AGAIN, move || {
            if let Some(me) = me.upgrade() {
                let again = move |user: &mut User| {
                    user.retries = user.retries.saturating_sub(1);
                    again(user);
                };
                let _ = me.cast_always(Msg::Then(Box::new(again)));
            }
        });
        true
    }

    /// Pushes what was read of the changes since a version. Sessions whose clients have less have come since then, and are
    /// about to be brought up themselves.
    pub(super) fn bring_up(&mut self, since: &RosterVersion, changes: Changes) {
        let covered = |session: &UserSession| session.interested && session.roster >= *since;
        for (at, row) in changes.rows {
            let query = match &row {
                Ok(item) if roster::in_roster(item) => roster::query(&at, std::slice::from_ref(item)),
                Ok(_) => continue,
                Err(contact) => roster::query_removed(&at, contact),
            };
            self.push_to(&query, |session| covered(session) && session.roster < at);
        }
        let version = changes.version;
        let mut told = Vec::new();
        for session in self.sessions.iter_mut().filter(|session| covered(session)) {
            if session.roster < version {
                session.roster = version;
                told.push(session.sid);
            }
        }
        told.into_iter().for_each(|sid| self.changed(sid));
    }

    /// Tells a contact that a transaction of this user has changed its roster. `name` is the change's, if this user is to
    /// remember it until the contact's home has heard; `show`: then it sees this user's presence.
    pub(super) fn tell_change(
        &self,
        contact: &BareJid,
        stanza: Arc<Stanza>,
        change: Change,
        (name, show): (u64, bool),
    ) {
        let (me, whom) = (self.me.as_ref().map(Handle::downgrade), contact.clone());
        let heard = move |taken| {
            if let Some(me) = me.and_then(|me| me.upgrade()) {
                let then = move |user: &mut User| user.change_heard(whom, (name, show), taken);
                let _ = me.cast_always(Msg::Then(Box::new(then)));
            }
        };
        let receipt = Receipt::owed(Reply::heard(heard), false);
        let change = Some(Box::new(change.to_wire()));
        self.host.to_entity(USER, contact, Inbound { stanza, receipt, origin: None, change });
    }

    fn change_heard(&mut self, contact: BareJid, (name, show): (u64, bool), taken: bool) {
        if !taken {
            return self.later(move |user| user.tell_again(&contact, (name, show)));
        }
        if show && self.roster.get(&contact).is_some_and(roster::Contact::from) {
            self.show_presence(&contact, true);
        }
        if name != 0 {
            self.told(contact, name);
        }
    }

    /// Tells a contact that something has changed, which it may have heard already.
    fn tell_again(&self, contact: &BareJid, told: (u64, bool)) {
        let stanza = Stanza::new(Type::Presence(PresenceType::Unavailable));
        let stanza = stanza.from(Jid::from(self.jid.clone())).to(Jid::from(contact.clone()));
        metrics::counter!("rookery_roster_changes_retold_total").increment(1);
        self.tell_change(contact, Arc::new(stanza), Change::again(&self.jid), told);
    }

    /// What came for this user cannot be taken: its sender is answered, or, if it is no stanza of somebody's, tries again.
    pub(super) fn refuse_inbound(&self, inbound: Inbound, error: &StanzaError) {
        match inbound.change {
            Some(_) => inbound.receipt.leave(),
            None => self.refuse(&inbound.stanza, inbound.receipt, error),
        }
    }

    /// What came for an account that does not exist (RFC 6121 section 8.5.1): presence is ignored, and so is what an account
    /// would forget whose user is away, which else would tell names that exist and leave no trace. All else is answered.
    pub(super) fn not_here(&self, inbound: Inbound) {
        let Inbound { stanza, receipt, .. } = inbound;
        if stanza.type_ == Type::Presence(PresenceType::Probe) && self.is_from_elsewhere(&stanza) {
            return self.host.answer_probe(&stanza, receipt);
        }
        let bare = stanza.to.as_ref().is_some_and(|to| to.resource().is_none());
        let forgotten = match stanza.type_ {
            Type::Presence(_) | Type::Message(MessageType::Headline) => true,
            Type::Message(MessageType::Chat) => !worth_keeping(&stanza),
            Type::Message(MessageType::Normal) => bare && !worth_keeping(&stanza),
            _ => false,
        };
        match features::not_there(&stanza) {
            _ if forgotten => receipt.done(),
            Ok(reply) => self.host.route(stanza.result(reply), receipt, None),
            Err(error) => self.refuse(&stanza, receipt, &error),
        }
    }

    /// The contact's home has heard of that change.
    pub(super) fn told(&mut self, contact: BareJid, name: u64) {
        if !self.others_may_change() {
            metrics::counter!("rookery_limits_hit_total", "limit" => "user_operations").increment(1);
            return; // so the next home tells it again
        }
        let (host, own) = (self.host.clone(), self.entity.clone());
        self.operation(Receipt::none(), move |_| async move {
            let write = host.store().write(Options::owner(&own), |tx| {
                let (own, contact) = (own.clone(), contact.clone());
                Box::pin(async move {
                    let Some(item) = table::get(&mut **tx, &own, contact.as_str()).await? else {
                        return Ok(());
                    };
                    if item.untold != name {
                        return Ok(()); // there is a later one
                    }
                    table::keep(&mut **tx, &own, &Item { untold: 0, ..item })
                })
            });
            // If not now, then when this user is loaded next: to hear it twice does no harm.
            write.await.map(|()| Done::default()).map_err(|error| store_failed(&error))
        });
    }

    /// Changes that this user's last home committed, and may not have told.
    pub(super) fn tell_untold(&mut self, untold: Vec<(String, u64)>) {
        for (contact, name) in untold {
            match BareJid::parse(&contact) {
                Ok(contact) if self.is_foreign(&contact) => self.tell_foreign_again(&contact, name),
                Ok(contact) => self.tell_again(&contact, (name, false)),
                Err(_) => {}
            }
        }
    }
}
