//! Rosters (RFC 6121 section 2) and the state of subscriptions (appendix A), one row per contact.
//!
//! Each change sets the roster's version (section 2.6) to the versionstamp of its commit, so versions grow in the
//! order of changes and no two changes share one. Beside the contacts lies when each was changed or removed last, so that a client that
//! knows an older version is told what is new and no more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Rows, decode, encode, join, scan};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Class, Error, Isolation, Result, Transaction, Versionstamp, split};

/// In which directions presence is shared (RFC 6121 section 2.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Subscription {
    /// Nobody's.
    None = 0,
    /// The contact's to the user.
    To = 1,
    /// The user's to the contact.
    From = 2,
    /// Each other's.
    Both = 3,
}

/// A contact.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Item {
    /// The contact's bare JID.
    #[prost(string, tag = "1")]
    pub jid: String,
    /// The handle that the user gave.
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    /// The groups that the user put the contact into.
    #[prost(string, repeated, tag = "3")]
    pub groups: Vec<String>,
    /// The state of the subscription.
    #[prost(enumeration = "Subscription", tag = "4")]
    pub subscription: i32,
    /// Whether the user asked for a subscription and waits for the answer ("pending out").
    #[prost(bool, tag = "5")]
    pub ask_subscribe: bool,
    /// Whether the user approved a subscription in advance (RFC 6121 section 3.4).
    #[prost(bool, tag = "6")]
    pub approved: bool,
    /// The contact's request that the user has not answered ("pending in"): the presence stanza, to be delivered
    /// again whenever the user comes online (RFC 6121 section 3.1.3).
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub pending_in: Option<Bytes>,
    /// Whether the row holds only what the server must remember, a request or an approval: it is then not part of
    /// the roster that clients see (RFC 6121 appendix A.1).
    #[prost(bool, tag = "8")]
    pub unlisted: bool,
    /// The name of a change that the user's transaction made to the contact's roster too, until the contact's home has
    /// heard of it; 0 if it has.
    #[prost(fixed64, tag = "9")]
    pub untold: u64,
    /// When the contact's request came, microseconds since 1970; 0 if that is not known, or there is none.
    #[prost(fixed64, tag = "10")]
    pub asked_at: u64,
}

impl Item {
    /// A row for a contact of which nothing is known.
    pub fn unlisted(jid: &str) -> Self {
        Self { jid: jid.to_owned(), unlisted: true, ..Self::default() }
    }

    /// Whether the row says nothing that must be remembered.
    pub fn is_blank(&self) -> bool {
        *self == Self::unlisted(&self.jid)
    }

    /// What its user has written into it, bytes: what a limit is checked by.
    pub fn weight(&self) -> usize {
        let groups = self.groups.iter().map(String::len).sum::<usize>();
        self.jid.len() + self.name.as_ref().map_or(0, String::len) + groups
    }

    /// Takes the contact's request out: it is answered, or is not to be shown any more.
    pub fn forget_request(&mut self) {
        self.pending_in = None;
        self.asked_at = 0;
    }
}

/// The version of a roster: the versionstamp of its last change, or zeros. As clients see it: [`version_text`].
pub type RosterVersion = Versionstamp;

/// What has changed in a roster since a version, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Contacts as they are now, or the name of one that was removed, each with the version that this made.
    pub rows: Vec<(RosterVersion, std::result::Result<Item, String>)>,
    /// The roster's version now.
    pub version: RosterVersion,
}

/// Versions without this letter are of a time when changes were not remembered.
const MARK: &str = "c";

/// How many removed contacts are remembered: a client with a version before that must read the whole roster.
const REMOVED: usize = 64;

/// The parts of [`Kind::RosterChange`]: when a contact was changed last, when it was removed, and before which version
/// removals are forgotten.
const AT: u8 = 0;
const REMOVED_AT: u8 = 1;
const FORGOTTEN: u8 = 2;

/// How many contacts are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Items that clients see.
    pub listed: usize,
    /// Rows that only the server sees.
    pub unlisted: usize,
    /// What users have written into the items that clients see, bytes ([`Item::weight`]).
    pub bytes: usize,
    /// Whether counting stopped at the limit.
    pub more: bool,
}

/// All contacts in the order of their JIDs, at most `max`, by one range read.
pub async fn load(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Rows<Item>> {
    let found = join(tx, Key::of(Kind::Roster, user).range(), max, Isolation::Serializable).await?;
    let rows = found.rows.into_iter().map(|(_, value)| decode(value)).collect::<Result<_>>()?;
    Ok(Rows { rows, more: found.more })
}

/// One contact.
pub async fn get(tx: &mut dyn Transaction, user: &Entity, contact: &str) -> Result<Option<Item>> {
    split::get(tx, &key(user, contact), Isolation::Serializable).await?.map(decode).transpose()
}

/// Counts contacts, to `max` rows: what a limit is checked by before [`put`] of a new one, in the same transaction.
pub async fn count(tx: &mut dyn Transaction, user: &Entity, max: usize) -> Result<Count> {
    let found = load(tx, user, max).await?;
    let unlisted = found.rows.iter().filter(|item| item.unlisted).count();
    let bytes = found.rows.iter().filter(|item| !item.unlisted).map(Item::weight).sum();
    Ok(Count { listed: found.rows.len() - unlisted, unlisted, bytes, more: found.more })
}

/// Which of the requests that wait for a user's answer make room, where `most` may wait: places in `waiting`, which says when each came
/// and from which domain. The oldest of the domain that has the most goes, so that no server takes all the room.
pub fn displaced(waiting: &[(u64, &str)], most: usize) -> Vec<usize> {
    let domain =
        |jid: &str| jid.rsplit_once('@').map_or_else(|| jid.to_owned(), |(_, domain)| domain.to_owned());
    let more = waiting.len().saturating_sub(most);
    let mut of: BTreeMap<String, BTreeSet<(u64, &str, usize)>> = BTreeMap::new();
    if more > 0 {
        for (place, (at, jid)) in waiting.iter().enumerate() {
            of.entry(domain(jid)).or_default().insert((*at, jid, place));
        }
    }
    let mut gone = Vec::with_capacity(more);
    while gone.len() < more {
        // Of several domains with as many, the one that has waited longest.
        let largest = of.values_mut().max_by_key(|of| (of.len(), Reverse(of.first().copied())));
        let Some((_, _, place)) = largest.and_then(BTreeSet::pop_first) else { break };
        gone.push(place);
    }
    gone
}

/// Makes room for the request of `asks`, where `most` may wait for the user's answer ([`displaced`]). Looks at `max` rows and, since
/// anybody may ask and a few more do no harm, conflicts with no request at the same time. Returns how many have gone.
pub async fn make_room(
    tx: &mut dyn Transaction,
    user: &Entity,
    asks: &str,
    (most, max): (usize, usize),
) -> Result<usize> {
    let found = join(tx, Key::of(Kind::Roster, user).range(), max, Isolation::Snapshot).await?;
    let rows = found.rows.into_iter().map(|(_, value)| decode::<Item>(value));
    let mut waiting: Vec<Item> = rows.collect::<Result<_>>()?;
    waiting.retain(|item| item.pending_in.is_some());
    let all: Vec<(u64, &str)> = waiting.iter().map(|item| (item.asked_at, &item.jid[..])).collect();
    let all = [&all[..], &[(u64::MAX, asks)]].concat(); // the newest of all
    let gone = displaced(&all, most);
    for item in gone.iter().filter_map(|place| waiting.get(*place)) {
        drop_request(tx, user, &item.jid).await?;
    }
    Ok(gone.len())
}

/// Drops the requests of contacts for which `unwanted` is true, of at most `max` rows.
pub async fn drop_requests(
    tx: &mut dyn Transaction,
    user: &Entity,
    max: usize,
    unwanted: impl Fn(&str) -> bool,
) -> Result<()> {
    for item in load(tx, user, max).await?.rows {
        if item.pending_in.is_some() && unwanted(&item.jid) {
            drop_request(tx, user, &item.jid).await?;
        }
    }
    Ok(())
}

/// Clients see nothing of it. The row is read again, so that what was changed meanwhile is not written over.
async fn drop_request(tx: &mut dyn Transaction, user: &Entity, contact: &str) -> Result<()> {
    let Some(mut item) = get(tx, user, contact).await? else { return Ok(()) };
    item.forget_request();
    keep(tx, user, &item)
}

/// Writes a contact in place of what is stored, and a new version. [`Class::TooLarge`] above [`split::MAX`] bytes.
pub fn put(tx: &mut dyn Transaction, user: &Entity, item: &Item) -> Result<()> {
    keep(tx, user, item)?;
    if !item.unlisted {
        tx.set_versionstamped_value(&change(user, AT, &item.jid), &[0; 10], 0);
        tx.clear(&change(user, REMOVED_AT, &item.jid));
    }
    touch(tx, user);
    Ok(())
}

/// The same where nothing has changed that a client sees; a row that says nothing goes. [`Class::TooLarge`] above
/// [`split::MAX`] bytes.
pub fn keep(tx: &mut dyn Transaction, user: &Entity, item: &Item) -> Result<()> {
    if item.is_blank() {
        split::remove(tx, &key(user, &item.jid));
        return Ok(());
    }
    split::replace(tx, &key(user, &item.jid), &encode(item))
}

/// Removes a row that clients never saw.
pub fn forget(tx: &mut dyn Transaction, user: &Entity, contact: &str) {
    split::remove(tx, &key(user, contact));
}

/// Removes a contact, and writes a new version.
pub async fn remove(tx: &mut dyn Transaction, user: &Entity, contact: &str) -> Result<()> {
    split::remove(tx, &key(user, contact));
    tx.clear(&change(user, AT, contact));
    let range = Key::of(Kind::RosterChange, user).u8(REMOVED_AT).range();
    let removed = scan(tx, range.clone(), REMOVED, Isolation::Snapshot).await?.rows;
    if removed.len() >= REMOVED {
        tx.clear_range(&range.start, &range.end);
        let newest = removed.iter().map(|(_, at)| at).max().map_or(&[][..], |at| at);
        tx.set(&Key::of(Kind::RosterChange, user).u8(FORGOTTEN).finish(), newest);
    }
    tx.set_versionstamped_value(&change(user, REMOVED_AT, contact), &[0; 10], 0);
    touch(tx, user);
    Ok(())
}

/// What has changed since a version, of a roster of at most `contacts`. `None` if that is more than `max` rows, or no version
/// that this roster had, or one too long ago: then the whole roster is to be read. The same holds for [`version`].
pub async fn changes(
    tx: &mut dyn Transaction,
    user: &Entity,
    since: &RosterVersion,
    (contacts, max): (usize, usize),
) -> Result<Option<Changes>> {
    let version = version(tx, user).await?;
    if version == *since {
        return Ok(Some(Changes { rows: Vec::new(), version }));
    }
    let prefix = Key::of(Kind::RosterChange, user).finish();
    let range = Key::of(Kind::RosterChange, user).range();
    let limit = contacts.saturating_add(REMOVED + 2);
    let found = scan(tx, range, limit, Isolation::Serializable).await?;
    let mut known = *since < version && found.rows.len() < limit;
    let mut changed = Vec::new();
    for (key, value) in &found.rows {
        let (mut parts, at) = (Parts::after(&prefix, key)?, stamp(value)?);
        let what = parts.u8()?;
        if what == FORGOTTEN {
            known &= at <= *since;
        } else if at > *since {
            changed.push((at, what, parts.text()?));
        }
    }
    if !known || changed.len() > max {
        return Ok(None);
    }
    changed.sort();
    let mut rows = Vec::with_capacity(changed.len());
    for (at, what, contact) in changed {
        match get(tx, user, &contact).await? {
            Some(item) if what == AT => rows.push((at, Ok(item))),
            _ => rows.push((at, Err(contact))),
        }
    }
    Ok(Some(Changes { rows, version }))
}

/// The whole roster as changes: of the removed contacts, those that are remembered.
pub async fn everything(tx: &mut dyn Transaction, user: &Entity, contacts: usize) -> Result<Changes> {
    let version = version(tx, user).await?;
    let range = Key::of(Kind::RosterChange, user).u8(REMOVED_AT).range();
    let removed = scan(tx, range.clone(), REMOVED + 1, Isolation::Serializable).await?.rows;
    let mut rows = Vec::new();
    for (key, _) in &removed {
        rows.push((version, Err(Parts::after(&range.start, key)?.text()?)));
    }
    let items = load(tx, user, contacts).await?.rows;
    rows.extend(items.into_iter().map(|item| (version, Ok(item))));
    Ok(Changes { rows, version })
}

/// The version of the roster; zeros if there never was one. Not to be read in a transaction that changes the roster: the
/// version of that change is known after the commit.
pub async fn version(tx: &mut dyn Transaction, user: &Entity) -> Result<RosterVersion> {
    let key = Key::of(Kind::RosterVersion, user).finish();
    tx.get(&key, Isolation::Serializable).await?.map_or(Ok(RosterVersion::default()), |value| stamp(&value))
}

/// The roster of a new account begins, empty: a client with a version of an earlier account of that name gets all of it.
pub fn begin(tx: &mut dyn Transaction, user: &Entity) {
    let forgotten = Key::of(Kind::RosterChange, user).u8(FORGOTTEN).finish();
    tx.set_versionstamped_value(&forgotten, &[0; 10], 0);
    touch(tx, user);
}

fn stamp(value: &[u8]) -> Result<RosterVersion> {
    Versionstamp::try_from(value)
        .map_err(|_| Error::new(Class::Corrupt, "a roster's version is not a versionstamp"))
}

/// A version as a client has it; `None` if it is no version of ours.
pub fn parse_version(text: &str) -> Option<RosterVersion> {
    let mut version = RosterVersion::default();
    let text = text.strip_prefix(MARK)?;
    if text.len() != 2 * version.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in version.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(version)
}

/// The version that a commit gave to the rosters it changed, as clients see it: opaque, a letter and 20 hexadecimal digits.
pub fn version_text(version: &RosterVersion) -> String {
    let digits = version.iter().map(|byte| format!("{byte:02x}"));
    std::iter::once(MARK.to_owned()).chain(digits).collect()
}

/// A new version without a change.
pub fn touch(tx: &mut dyn Transaction, user: &Entity) {
    tx.set_versionstamped_value(&Key::of(Kind::RosterVersion, user).finish(), &[0; 10], 0);
}

/// Makes transactions that read this roster conflict with this one although it changes nothing.
pub(super) fn conflict(tx: &mut dyn Transaction, user: &Entity) {
    let range = Key::of(Kind::Roster, user).range();
    tx.add_write_conflict(&range.start, &range.end);
}

fn key(user: &Entity, contact: &str) -> Bytes {
    Key::of(Kind::Roster, user).text(contact).finish()
}

fn change(user: &Entity, what: u8, contact: &str) -> Bytes {
    Key::of(Kind::RosterChange, user).u8(what).text(contact).finish()
}

#[cfg(test)]
mod tests;
