//! Accounts: credentials and state of a user, the list of a domain's accounts, and names that nobody may take.

use bytes::Bytes;

use super::{Rows, decode, encode, roster, scan};
use crate::entity::Entity;
use crate::store::keys::{Key, Kind, Parts, Scope};
use crate::store::{Isolation, Mutate, Result, Transaction};
use crate::tables::archive::{self, Collection};

/// The hash of a SCRAM mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Hash {
    /// Not known to this version.
    Unknown = 0,
    /// SCRAM-SHA-1 (RFC 5802).
    Sha1 = 1,
    /// SCRAM-SHA-256 (RFC 7677).
    Sha256 = 2,
    /// SCRAM-SHA-512.
    Sha512 = 3,
}

/// What is kept of a password for one hash (RFC 5802 section 3).
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct ScramKeys {
    /// Which hash.
    #[prost(enumeration = "Hash", tag = "1")]
    pub hash: i32,
    /// PBKDF2 rounds.
    #[prost(uint32, tag = "2")]
    pub iterations: u32,
    /// The salt, raw.
    #[prost(bytes = "bytes", tag = "3")]
    pub salt: Bytes,
    /// `StoredKey`, raw.
    #[prost(bytes = "bytes", tag = "4")]
    pub stored_key: Bytes,
    /// `ServerKey`, raw.
    #[prost(bytes = "bytes", tag = "5")]
    pub server_key: Bytes,
}

/// Without the keys and the salt.
impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramKeys({:?}, {} rounds)", self.hash(), self.iterations)
    }
}

/// An account.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Account {
    /// Keys for each hash, made from the password once. Empty: nobody can log in with a password.
    #[prost(message, repeated, tag = "1")]
    pub credentials: Vec<ScramKeys>,
    /// When it was made, microseconds since 1970.
    #[prost(uint64, tag = "2")]
    pub created_at: u64,
    /// Whether logins are refused.
    #[prost(bool, tag = "3")]
    pub disabled: bool,
    /// When its password was last changed, microseconds since 1970: sessions that are older hold no more. 0: never.
    #[prost(uint64, tag = "4")]
    pub password_at: u64,
}

impl Account {
    /// The keys for a hash.
    pub fn keys(&self, hash: Hash) -> Option<&ScramKeys> {
        self.credentials.iter().find(|keys| keys.hash() == hash)
    }
}

/// An account in the list of its domain.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct Indexed {
    /// When it was made, microseconds since 1970.
    #[prost(uint64, tag = "1")]
    created_at: u64,
}

/// An account in the list of its domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The user.
    pub user: Entity,
    /// Its name within the domain.
    pub name: String,
    /// When it was made, microseconds since 1970.
    pub created_at: u64,
}

/// Why a name is kept from being registered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reservation {
    /// Since when, microseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub since: u64,
    /// Until when; 0 for ever.
    #[prost(uint64, tag = "2")]
    pub until: u64,
    /// Why, for the operator.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// What became of the wish for an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// The account was made.
    Yes,
    /// There is one of that name; nothing was changed.
    Exists,
    /// The name is reserved; nothing was changed.
    Reserved,
}

/// The account of `user`.
pub async fn get(tx: &mut dyn Transaction, user: &Entity) -> Result<Option<Account>> {
    let key = Key::of(Kind::Account, user).finish();
    tx.get(&key, Isolation::Serializable).await?.map(decode).transpose()
}

/// Whether there is an account of `user`, disabled or not.
pub async fn exists(tx: &mut dyn Transaction, user: &Entity) -> Result<bool> {
    let key = Key::of(Kind::Account, user).finish();
    Ok(tx.get(&key, Isolation::Serializable).await?.is_some())
}

/// Makes an account unless the name is taken or, at `now` (microseconds since 1970), reserved.
pub async fn create(tx: &mut dyn Transaction, user: &Entity, account: &Account, now: u64) -> Result<Created> {
    if exists(tx, user).await? {
        return Ok(Created::Exists);
    }
    if reserved(tx, user, now).await?.is_some() {
        return Ok(Created::Reserved);
    }
    put(tx, user, account);
    roster::begin(tx, user);
    Ok(Created::Yes)
}

/// Writes an account in place of what is stored, and its line in the list of its domain. Looks at nothing: for a
/// new one use [`create`].
pub fn put(out: &mut (impl Mutate + ?Sized), user: &Entity, account: &Account) {
    out.put(Key::of(Kind::Account, user).finish(), encode(account));
    out.put(index(user), encode(&Indexed { created_at: account.created_at }));
}

/// Removes the account alone; what the user stored stays. To remove a user use [`erase_user`].
pub fn remove(out: &mut (impl Mutate + ?Sized), user: &Entity) {
    out.delete(Key::of(Kind::Account, user).finish());
    out.delete(index(user));
}

/// Removes an account and everything that its user stored, in every table. What others store about the user
/// (their roster items) is not touched; a reservation stays.
pub async fn erase_user(tx: &mut dyn Transaction, user: &Entity) -> Result<()> {
    // Rows of the indexes by day lie outside the user's ranges.
    archive::purge_all(tx, Collection::Archive, user).await?;
    archive::purge_all(tx, Collection::Queue, user).await?;
    remove(tx, user);
    for kind in Kind::ALL.iter().filter(|kind| kind.scope() == Scope::User) {
        let range = Key::of(*kind, user).range();
        tx.delete_range(range.start, range.end);
    }
    // An overlapping transaction that read the roster to change it must look again, even if the roster was empty.
    roster::conflict(tx, user);
    Ok(())
}

/// At most `limit` accounts of a domain in the order of their names, from the one behind `after`. Conflicts with
/// nothing.
pub async fn list(
    tx: &mut dyn Transaction,
    domain: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Rows<Listed>> {
    let prefix = Key::deployment(Kind::AccountIndex).text(domain);
    let mut range = prefix.clone().range();
    let prefix = prefix.finish();
    if let Some(name) = after {
        range.start = Key::deployment(Kind::AccountIndex).text(domain).text(name).range().end;
    }
    let page = scan(tx, range, limit, Isolation::Snapshot).await?;
    let mut rows = Vec::with_capacity(page.rows.len());
    for (key, value) in page.rows {
        let mut parts = Parts::after(&prefix, &key)?;
        let name = parts.text()?;
        parts.end()?;
        let user = if name.is_empty() { domain.to_owned() } else { format!("{name}@{domain}") };
        let created_at = decode::<Indexed>(value)?.created_at;
        rows.push(Listed { user: Entity::new(user), name, created_at });
    }
    Ok(Rows { rows, more: page.more })
}

/// Keeps a name from being registered.
pub fn reserve(out: &mut (impl Mutate + ?Sized), user: &Entity, reservation: &Reservation) {
    out.put(Key::of(Kind::Reserved, user).finish(), encode(reservation));
}

/// Frees a reserved name.
pub fn release(out: &mut (impl Mutate + ?Sized), user: &Entity) {
    out.delete(Key::of(Kind::Reserved, user).finish());
}

/// The reservation of a name that is in force at `now` (microseconds since 1970).
pub async fn reserved(tx: &mut dyn Transaction, user: &Entity, now: u64) -> Result<Option<Reservation>> {
    let key = Key::of(Kind::Reserved, user).finish();
    let found: Option<Reservation> = tx.get(&key, Isolation::Serializable).await?.map(decode).transpose()?;
    Ok(found.filter(|r| r.until == 0 || now < r.until))
}

/// The key of a user's line in the list of its domain: a bare JID's part behind the first `@` is its domain
/// (RFC 7622 section 3.3.1 keeps `@` out of names).
fn index(user: &Entity) -> Bytes {
    let (name, domain) = user.as_str().split_once('@').unwrap_or(("", user.as_str()));
    Key::deployment(Kind::AccountIndex).text(domain).text(name).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Ops;
    use crate::tables::double::{Double, still_decodes};

    fn account() -> Account {
        let keys = ScramKeys {
            hash: Hash::Sha256 as i32,
            iterations: 10_000,
            salt: Bytes::from_static(b"salt"),
            stored_key: Bytes::from_static(b"stored"),
            server_key: Bytes::from_static(b"server"),
        };
        Account { credentials: vec![keys], created_at: 1_700_000_000_000_000, disabled: true, password_at: 0 }
    }

    #[test]
    fn old_records_decode_and_debug_shows_no_key() {
        still_decodes(
            "0a1b080210904e1a0473616c74220673746f7265642a06736572766572108080f9c0c1c482031801",
            &account(),
        );
        still_decodes("08ac02", &Indexed { created_at: 300 });
        still_decodes(
            "080110021a0772656d6f766564",
            &Reservation { since: 1, until: 2, reason: "removed".into() },
        );
        let shown = format!("{:?}", account());
        assert!(!shown.contains("stored\"") && !shown.contains("salt"), "{shown}");
    }

    #[tokio::test]
    async fn a_name_is_given_once_and_not_while_reserved() {
        let mut tx = Double::new();
        let juliet = Entity::new("juliet@example.org");
        assert_eq!(get(&mut tx, &juliet).await.unwrap(), None);
        reserve(&mut tx as &mut dyn Transaction, &juliet, &Reservation { until: 10, ..Default::default() });
        assert_eq!(create(&mut tx, &juliet, &account(), 9).await.unwrap(), Created::Reserved);
        assert_eq!(create(&mut tx, &juliet, &account(), 10).await.unwrap(), Created::Yes);
        assert_eq!(create(&mut tx, &juliet, &Account::default(), 11).await.unwrap(), Created::Exists);
        assert_eq!(get(&mut tx, &juliet).await.unwrap(), Some(account()));
        assert_eq!(account().keys(Hash::Sha256).map(|k| k.iterations), Some(10_000));
        assert_eq!(account().keys(Hash::Sha1), None);
        release(&mut tx as &mut dyn Transaction, &juliet);
        assert_eq!(reserved(&mut tx, &juliet, 0).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_domain_is_listed_by_name_page_by_page() {
        let mut tx = Double::new();
        let mut ops = Ops::new();
        for name in ["romeo@a", "b@a", "bb@a", "ü@a", "b@aa", "x@b"] {
            put(&mut ops, &Entity::new(name), &account());
        }
        ops.iter().for_each(|op| op.apply(&mut tx));
        let mut names = Vec::new();
        loop {
            let after = names.last().cloned();
            let page = list(&mut tx, "a", after.as_deref(), 2).await.unwrap();
            assert!(page.rows.iter().all(|l| l.user.as_str() == format!("{}@a", l.name)));
            names.extend(page.rows.into_iter().map(|l| l.name));
            if !page.more {
                break;
            }
        }
        assert_eq!(names, ["b", "bb", "romeo", "ü"]);
        remove(&mut tx as &mut dyn Transaction, &Entity::new("b@a"));
        assert_eq!(list(&mut tx, "a", None, 10).await.unwrap().rows.len(), 3);
    }

    /// A row in every table of a user.
    async fn fill(tx: &mut Double, user: &Entity) {
        use crate::tables::{blocks, last, mam_prefs, offline, private, seen, sessions, vcard};
        put(tx as &mut dyn Transaction, user, &account());
        roster::put(tx, user, &roster::Item { jid: "n@b".into(), ..Default::default() }).unwrap();
        let element = private::Element { namespace: "a".into(), name: "b".into(), xml: Bytes::new() };
        let limits = private::Limits { elements: 9, bytes: 9 };
        assert!(private::put(tx, user, &element, limits).await.unwrap());
        let tx: &mut dyn Transaction = tx;
        let id = archive::ArchiveId::first_at(1 << 50);
        for collection in [Collection::Archive, Collection::Queue] {
            archive::append(tx, collection, user, id, &archive::Entry::default(), None).unwrap();
        }
        offline::set(tx, user, offline::Cursor::at(id));
        sessions::put(tx, user, &[1; 16], &sessions::Record::default()).unwrap();
        seen::put(tx, user, &[1; 16], seen::Seen::default());
        vcard::put(tx, user, &Bytes::from(vec![b'x'; 30_000])).unwrap();
        blocks::add(tx, user, "paris@b", 1);
        mam_prefs::put(tx, user, &mam_prefs::Preferences::default()).unwrap();
        last::put(tx, user, &last::Last::default()).unwrap();
    }

    #[tokio::test]
    async fn erasure_leaves_no_row_of_any_table_and_touches_no_neighbour() {
        let mut tx = Double::new();
        for near in ["juliet@", "juliet@aa", "juliet@a\0", "juliet@A"] {
            fill(&mut tx, &Entity::new(near)).await;
        }
        let neighbours = tx.rows.clone();
        let juliet = Entity::new("juliet@a");
        fill(&mut tx, &juliet).await;
        for kind in Kind::ALL.iter().filter(|kind| kind.scope() == Scope::User) {
            let range = Key::of(*kind, &juliet).range();
            assert!(tx.rows.range(range).next().is_some(), "the test leaves {kind:?} out");
        }
        erase_user(&mut tx, &juliet).await.unwrap();
        assert!(tx.rows.keys().eq(neighbours.keys()));
    }
}
