//! What a foreign contact says about a subscription: the inbound half of RFC 6121 section 3, on this user's roster alone.

use std::sync::Arc;

use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::roster::{self as table, Item};
use rookery_proto::xmpp::jid::{BareJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;

use super::name;
use crate::connection::ledger::Receipt;
use crate::connection::pipe::Outgoing;
use crate::features::contract::{Direction, Done, Verdict};
use crate::host::kind::Inbound;
use crate::user::subscribe::{self, Room, requests};
use crate::user::subscription::{self, Inbound as Outcome, Kind};
use crate::user::{User, foreign};

/// What a contact's stanza has done to the user's item.
struct Said {
    item: Item,
    outcome: Outcome,
    push: bool,
    /// Whether the contact sees the user now and did not before, or the other way round.
    shows: Option<bool>,
    /// How many older requests have made room.
    displaced: usize,
}

/// A subscription stanza that could not be stored, or that came behind one. What a contact sends takes effect in its order.
pub(super) struct Late {
    kind: Kind,
    stanza: Arc<Stanza>,
    contact: BareJid,
    receipt: Receipt,
}

/// How many of these wait.
const LATE: usize = 256;

impl foreign::Foreign {
    fn is_late(&self, contact: &BareJid) -> bool {
        self.late.iter().any(|late| late.contact == *contact)
    }
}

/// One stanza of a contact, as its transaction sees it.
struct Hears<'a> {
    user: &'a rookery_cluster::entity::Entity,
    contact: &'a BareJid,
    kind: Kind,
    /// A request as it is kept, and when it came, microseconds since 1970.
    request: (&'a [u8], u64),
    room: Room,
    name: u64,
}

async fn hear(tx: &mut dyn Transaction, hears: &Hears<'_>) -> store::Result<Option<Said>> {
    let Hears { user, contact, kind, request: (request, now), room, name } = *hears;
    let item = table::get(tx, user, contact.as_str()).await?;
    let mut item = item.unwrap_or_else(|| Item::unlisted(contact.as_str()));
    let (was, saw) = (subscribe::visible(&item), subscribe::sees(&item));
    let outcome = subscription::inbound(&mut item, kind, request);
    let mut displaced = 0;
    match outcome {
        Outcome::Ignore => return Ok(None),
        Outcome::Ask => {
            item.asked_at = now;
            displaced = table::make_room(tx, user, contact.as_str(), (room.requests, room.rows)).await?;
        }
        // The contact must hear that it was approved before.
        Outcome::AutoReply if subscribe::visible(&item) != was => {
            item.untold = foreign::untold(name, Kind::Subscribed, item.untold);
        }
        Outcome::AutoReply | Outcome::Deliver => {}
    }
    let changed = subscribe::visible(&item) != was;
    subscribe::write(tx, user, &item, changed)?;
    let shows = (subscribe::sees(&item) != saw).then_some(subscribe::sees(&item));
    Ok(Some(Said { push: changed && !item.unlisted, item, outcome, shows, displaced }))
}

impl User {
    /// Whether a presence of somebody foreign must wait: a subscription stanza that the contact sent before is being stored, and
    /// nothing overtakes that.
    pub(in crate::user) fn waits_for_foreign(&self, contact: &BareJid) -> bool {
        self.foreign.changing.contains(contact)
    }

    /// A presence behind a subscription stanza of the same contact. Where too much waits, it is lost like one that the network has
    /// lost; the contact's next one is not.
    pub(in crate::user) fn presence_in_turn(&mut self, inbound: Inbound) {
        if !self.others_may_change() {
            metrics::counter!("rookery_limits_hit_total", "limit" => "user_operations").increment(1);
            return inbound.receipt.done();
        }
        self.operation(Receipt::none(), move |_| async move {
            Ok(Done::then(move |user: &mut User| user.take_presence(inbound)))
        });
    }

    /// `subscribe`, `subscribed`, `unsubscribe` or `unsubscribed` of a foreign contact. The receipt is done when it is stored.
    pub(in crate::user) fn hear_foreign(
        &mut self,
        kind: Kind,
        stanza: Arc<Stanza>,
        contact: BareJid,
        receipt: Receipt,
    ) {
        let late = Late { kind, stanza, contact, receipt };
        if !self.others_may_change() || self.foreign.is_late(&late.contact) {
            return self.hear_later(late, false);
        }
        let Late { stanza, contact, receipt, .. } = late;
        self.foreign.changing.push(contact.clone());
        let heard = receipt.split();
        self.operation(receipt, move |user| {
            let behind = user.foreign.is_late(&contact);
            // Whatever it was addressed to: section 3.1.3 has it treated as between bare JIDs.
            let stanza = Stanza::clone(&stanza).from(Jid::from(contact.clone())).to(Jid::from(user.jid.clone()));
            let (host, own) = (user.host.clone(), user.entity.clone());
            // Both are changes, of which one runs at a time: the block list is that of this moment.
            let unheard = kind == Kind::Subscribe && user.is_shut_out(&stanza, &contact);
            async move {
                if behind {
                    // One that the contact sent before could not be stored, and comes again first.
                    return Ok(Done::then(move |user: &mut User| {
                        user.foreign_changed(&contact);
                        let stanza = Arc::new(stanza);
                        user.hear_later(Late { kind, stanza, contact, receipt: heard }, false);
                    }));
                }
                if unheard {
                    // XEP-0191: nobody hears of the request, now or later, and it is not approved.
                    return Ok(Done::then(move |user: &mut User| {
                        user.foreign_changed(&contact);
                        heard.done();
                    }));
                }
                let limits = &host.options().limits;
                let request = match kind {
                    Kind::Subscribe => requests::kept(&stanza, limits.request_bytes),
                    _ => Vec::new(),
                };
                let now = host.seams().clock.now_micros();
                let (request, room, name) = ((&request[..], now), Room::of(limits), name(&host));
                let hears = &Hears { user: &own, contact: &contact, kind, request, room, name };
                // Named: done again after an unknown result it would find nothing to do, and nobody would be told.
                let options = store::Options::owner(&own).operation(host.store().operation());
                let said =
                    host.store().write(options, |tx| Box::pin(async move { hear(&mut **tx, hears).await }));
                Ok(match said.await {
                    Ok(said) => Done::then(move |user: &mut User| {
                        user.foreign_changed(&contact);
                        if let Some(said) = said {
                            user.heard_foreign(&contact, stanza, said);
                        }
                        heard.done();
                    }),
                    Err(error) => {
                        tracing::warn!(user = %own, contact = contact.as_str(), %error, "a subscription stanza of another server could not be stored; retrying in one second");
                        Done::then(move |user: &mut User| {
                            user.foreign_changed(&contact);
                            let stanza = Arc::new(stanza);
                            user.hear_later(Late { kind, stanza, contact, receipt: heard }, true);
                        })
                    }
                })
            }
        });
    }

    /// A subscription stanza is tried again in a second: behind those that wait so, or `first` of its contact's.
    fn hear_later(&mut self, stanza: Late, first: bool) {
        let late = &mut self.foreign.late;
        if late.len() >= LATE {
            // It counts as lost, and comes again with the connection on which it came.
            metrics::counter!("rookery_limits_hit_total", "limit" => "user_retries").increment(1);
            return;
        }
        let idle = late.is_empty();
        if first {
            late.push_front(stanza)
        } else {
            late.push_back(stanza)
        }
        if idle && !self.try_later(User::hear_late) {
            self.foreign.late.clear();
        }
    }

    fn hear_late(&mut self) {
        for Late { kind, stanza, contact, receipt } in std::mem::take(&mut self.foreign.late) {
            self.hear_foreign(kind, stanza, contact, receipt);
        }
    }

    /// One of the contact's stanzas waits no longer.
    fn foreign_changed(&mut self, contact: &BareJid) {
        let changing = &mut self.foreign.changing;
        if let Some(at) = changing.iter().position(|other| other == contact) {
            changing.swap_remove(at);
        }
    }

    /// Whether the user wants to hear nothing of a contact.
    fn is_shut_out(&self, stanza: &Stanza, contact: &BareJid) -> bool {
        !matches!(self.filter(Direction::In, stanza, &Jid::from(contact.clone())), Verdict::Pass)
    }

    /// What a foreign contact has said is stored: memory, clients, and the contact follow.
    fn heard_foreign(&mut self, contact: &BareJid, stanza: Stanza, said: Said) {
        let Said { item, outcome, push, shows, displaced } = said;
        if displaced > 0 {
            metrics::counter!("rookery_limits_hit_total", "limit" => "requests").increment(1);
        }
        self.take_row(&item); // section 3.3.3: the contact may see this user no more
        self.roster.limit_requests(self.host.options().limits.requests);
        let shut_out = self.is_shut_out(&stanza, contact);
        // Section 3.1.6: the stanza before the push, so that clients know why.
        if matches!(outcome, Outcome::Deliver | Outcome::Ask) && !shut_out {
            self.to_interested(Outgoing::new(stanza));
        }
        if push {
            self.catch_up();
            self.push_to_components(Ok(&item));
        }
        if outcome == Outcome::AutoReply {
            // Section 3.1.3, second rule, and 3.4.2.
            let granted = self.about_subscription(contact, Kind::Subscribed);
            let name = if shows.is_some() { item.untold } else { 0 };
            self.tell_foreign(contact, Arc::new(granted), name);
            self.show_presence(contact, true);
        }
    }
}
