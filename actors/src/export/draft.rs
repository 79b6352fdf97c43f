//! An account that is being imported. Its messages and private XML go to the store as they come; the account itself is
//! made last. Until then its name is reserved, so that nobody gets hold of what was written of it, and so that an import
//! that broke off can be told and begun again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rookery_cluster::entity::Entity;
use rookery_cluster::store::{self, Ops, Store, Transaction};
use rookery_cluster::tables::accounts::{self, Account, Reservation};
use rookery_cluster::tables::archive::{self, Clock, Collection, Entry, IdCipher};
use rookery_cluster::tables::mam_prefs::Preferences;
use rookery_cluster::tables::roster::Item;
use rookery_cluster::tables::{private, vcard};
use rookery_proto::sasl::{Credentials, keys};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::stanza::Stanza;
use tokio::task::JoinHandle;

use super::messages::Message;
use super::report::{Notes, note};
use crate::host::options::Limits;
use crate::user::requests;

/// Why the name of an account that is being imported is reserved. Fixed for ever: it is found again by it.
const IMPORTING: &str = "import";

/// Bytes that are gathered before they are written. With one more of [`ITEM`] they fit a transaction.
const BATCH: usize = 128 << 10;

/// The largest thing that is taken over: a message, a card, an element of private XML. Bytes.
const ITEM: usize = 768 << 10;

/// What a row costs beside its value: keys, and the conflicts that go with them.
const ROW: usize = 256;

/// What is to be written.
pub(super) enum Write {
    Ops(Ops),
    Private(private::Element),
    Contact(Item),
}

/// One archive of the account.
struct Shelving {
    collection: Collection,
    clock: Clock,
    day: Option<u32>,
}

/// What becomes of the wish to import an account.
pub(super) enum Begun {
    /// The account is begun.
    Yes,
    /// There is such an account.
    Exists,
    /// The name is kept for another reason.
    Reserved,
}

/// An account that is being imported.
pub(super) struct Draft {
    pub(super) store: Store,
    pub(super) jid: BareJid,
    pub(super) entity: Entity,
    /// The line it begins in.
    pub(super) line: u64,
    pub(super) account: Account,
    /// Keys that are being made of a password.
    pub(super) password: Option<JoinHandle<Result<Credentials, keys::Error>>>,
    pub(super) contacts: BTreeMap<String, Item>,
    /// How many of them clients see, and what is written into those, bytes.
    listed: usize,
    roster_bytes: usize,
    /// How many requests wait for an answer.
    requests: usize,
    pub(super) blocked: BTreeSet<String>,
    pub(super) prefs: Option<Preferences>,
    /// Something is in the queue of messages that wait.
    pub(super) waiting: bool,
    pub(super) notes: Notes,
    limits: Limits,
    ids: IdCipher,
    archive: Shelving,
    queue: Shelving,
    writes: Vec<Write>,
    bytes: usize,
}

impl Draft {
    pub(super) fn new(store: Store, jid: BareJid, line: u64, limits: Limits, ids: IdCipher) -> Self {
        let shelving = |collection| Shelving { collection, clock: Clock::default(), day: None };
        Self {
            entity: Entity::new(jid.as_str()),
            jid,
            line,
            account: Account { created_at: store.seams().clock.now_micros(), ..Account::default() },
            store,
            password: None,
            contacts: BTreeMap::new(),
            listed: 0,
            roster_bytes: 0,
            requests: 0,
            blocked: BTreeSet::new(),
            prefs: None,
            waiting: false,
            notes: Notes::new(),
            limits,
            ids,
            archive: shelving(Collection::Archive),
            queue: shelving(Collection::Queue),
            writes: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn note(&mut self, what: &'static str) {
        note(&mut self.notes, what);
    }

    /// Reserves the name, and clears what an import that broke off has left.
    pub(super) async fn begin(&self) -> store::Result<Begun> {
        let (user, now) = (&self.entity, self.store.seams().clock.now_micros());
        self.store
            .write(store::Options::default(), |tx| Box::pin(async move { begin(&mut **tx, user, now).await }))
            .await
    }

    /// Takes everything back, unless the account is made.
    pub(super) async fn forget(&self) -> store::Result<()> {
        let user = &self.entity;
        self.store
            .write(store::Options::default(), |tx| {
                Box::pin(async move {
                    if !accounts::exists(&mut **tx, user).await? {
                        accounts::erase_user(&mut **tx, user).await?;
                        accounts::release(&mut **tx, user);
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Makes the account; `false` if another was quicker.
    pub(super) async fn create(&self) -> store::Result<bool> {
        let (user, account) = (&self.entity, &self.account);
        self.store
            .write(store::Options::default(), |tx| {
                Box::pin(async move {
                    if accounts::exists(&mut **tx, user).await? {
                        return Ok(false);
                    }
                    accounts::put(&mut **tx, user, account);
                    accounts::release(&mut **tx, user);
                    Ok(true)
                })
            })
            .await
    }

    /// A contact of the roster.
    pub(super) fn contact(&mut self, item: Item) {
        let weight = item.weight();
        if weight > self.limits.roster_item_bytes {
            return self.note("a contact beyond the limit roster_item_bytes was left out");
        }
        if self.roster_bytes + weight > self.limits.roster_bytes {
            return self.note("a contact beyond the limit roster_bytes was left out");
        }
        let known = self.contacts.get(&item.jid);
        if known.is_none_or(|known| known.unlisted) && self.listed >= self.limits.roster_items {
            return self.note("a contact beyond the limit roster_items was left out");
        }
        self.listed += usize::from(known.is_none_or(|known| known.unlisted));
        // One that comes twice weighs twice: it is rare, and no document gets more in by that.
        self.roster_bytes += weight;
        let pending_in = known.and_then(|known| known.pending_in.clone());
        self.contacts.insert(item.jid.clone(), Item { pending_in, ..item });
    }

    /// A request that the user has not answered.
    pub(super) fn request(&mut self, from: &BareJid, stanza: &Stanza) {
        if self.requests >= self.limits.requests {
            return self.note("a subscription request beyond the limit requests was left out");
        }
        self.requests += 1;
        let bytes = requests::kept(stanza, self.limits.request_bytes);
        let new = || Item { jid: from.as_str().to_owned(), unlisted: true, ..Item::default() };
        self.contacts.entry(from.as_str().to_owned()).or_insert_with(new).pending_in = Some(bytes.into());
    }

    /// JIDs that the user blocked.
    pub(super) fn block(&mut self, jids: Vec<String>) {
        for jid in jids {
            if self.blocked.len() >= self.limits.blocked && !self.blocked.contains(&jid) {
                self.note("a blocked JID beyond the limit blocked was left out");
            } else {
                self.blocked.insert(jid);
            }
        }
    }

    /// The vCard.
    pub(super) async fn vcard(&mut self, card: &Element) -> store::Result<()> {
        let mut xml = Vec::new();
        card.write(&mut xml);
        if xml.len() > ITEM {
            self.note("a vCard that is too large was left out");
            return Ok(());
        }
        let (size, mut ops) = (xml.len(), Ops::new());
        vcard::put(&mut ops, &self.entity, &Bytes::from(xml))?;
        self.write(Write::Ops(ops), size).await
    }

    /// An element of private XML.
    pub(super) async fn private(&mut self, element: &Element) -> store::Result<()> {
        let mut xml = Vec::new();
        element.write(&mut xml);
        let (namespace, name) = (element.ns().to_owned(), element.name().to_owned());
        if xml.len() > ITEM || namespace.len() + name.len() > private::NAME {
            self.note("an element of private XML that is too large was left out");
            return Ok(());
        }
        let size = xml.len();
        self.write(Write::Private(private::Element { namespace, name, xml: xml.into() }), size).await
    }

    /// A message of the archive. `sealed` is its id in the document: in an archive that this deployment exported it stays
    /// the message's id, so that clients find again what they know.
    pub(super) async fn archived(&mut self, message: Message, sealed: &str, stamp: u64) -> store::Result<()> {
        let stamp = stamp.min(self.store.seams().clock.now_micros());
        let known =
            self.ids.open(sealed).filter(|id| id.micros == stamp && self.archive.clock.last < Some(*id));
        if let Some(id) = known {
            self.archive.clock = Clock::after(Some(id));
        }
        let id = known.unwrap_or_else(|| self.archive.clock.next(stamp, EPOCH));
        self.append(Collection::Archive, id, Entry { stored_at: stamp, ..message.entry }).await
    }

    /// A message that waits for a device.
    pub(super) async fn waits(&mut self, message: Message) -> store::Result<()> {
        let now = self.store.seams().clock.now_micros();
        let stamp = message.stamp.unwrap_or(now).min(now);
        let id = self.queue.clock.next(stamp, EPOCH);
        self.waiting = true;
        self.append(Collection::Queue, id, Entry { stored_at: stamp, ..message.entry }).await
    }

    async fn append(
        &mut self,
        collection: Collection,
        id: archive::ArchiveId,
        entry: Entry,
    ) -> store::Result<()> {
        if entry.stanza.len() > ITEM {
            self.note("a message that is too large was left out");
            return Ok(());
        }
        let (size, mut ops) = (entry.stanza.len(), Ops::new());
        let place = if collection == Collection::Archive { &mut self.archive } else { &mut self.queue };
        place.day = Some(archive::append(&mut ops, place.collection, &self.entity, id, &entry, place.day)?);
        self.write(Write::Ops(ops), size).await
    }

    /// Takes a write of about `size` bytes, and writes what there is if it is enough.
    pub(super) async fn write(&mut self, write: Write, size: usize) -> store::Result<()> {
        self.writes.push(write);
        // A value of many rows costs a key for each.
        self.bytes += size + ROW * (2 + size / store::split::PART);
        if self.bytes > BATCH { self.flush().await } else { Ok(()) }
    }

    /// Writes what there is.
    pub(super) async fn flush(&mut self) -> store::Result<()> {
        let (user, writes) = (&self.entity, &std::mem::take(&mut self.writes));
        self.bytes = 0;
        if writes.is_empty() {
            return Ok(());
        }
        let limits = private::Limits {
            elements: self.limits.private_items,
            bytes: self.limits.private_bytes.max(ITEM).saturating_mul(self.limits.private_items),
        };
        let left = self.store.write(store::Options::default(), |tx| {
            Box::pin(async move { apply(&mut **tx, user, writes, limits).await })
        });
        for _ in 0..left.await? {
            self.note("an element of private XML beyond the limit private_items was left out");
        }
        Ok(())
    }
}

/// The epoch of ids that an import makes: as on a node that is alone.
const EPOCH: u32 = 1;

async fn begin(tx: &mut dyn Transaction, user: &Entity, now: u64) -> store::Result<Begun> {
    if accounts::exists(tx, user).await? {
        return Ok(Begun::Exists);
    }
    if accounts::reserved(tx, user, now).await?.is_some_and(|reservation| reservation.reason != IMPORTING) {
        return Ok(Begun::Reserved);
    }
    accounts::erase_user(tx, user).await?;
    rookery_cluster::tables::roster::begin(tx, user);
    accounts::reserve(tx, user, &Reservation { since: now, until: 0, reason: IMPORTING.to_owned() });
    Ok(Begun::Yes)
}

/// How many elements of private XML were too many.
async fn apply(
    tx: &mut dyn Transaction,
    user: &Entity,
    writes: &[Write],
    limits: private::Limits,
) -> store::Result<usize> {
    let mut left = 0;
    for write in writes {
        match write {
            Write::Ops(ops) => ops.iter().for_each(|op| op.apply(tx)),
            Write::Contact(item) => rookery_cluster::tables::roster::put(tx, user, item)?,
            Write::Private(element) => left += usize::from(!private::put(tx, user, element, limits).await?),
        }
    }
    Ok(left)
}
