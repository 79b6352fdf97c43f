//! Certificates from ACME authorities (RFC 8555): the account, what was issued, how far each name is, and the answers to
//! challenges. Everyone who can read the store can read the private keys in it, as with the keys of accounts.

use bytes::Bytes;

use super::{Rows, decode, encode, join};
use crate::store::keys::{Key, Kind, Parts};
use crate::store::{Isolation, Mutate, Result, Transaction, split};

/// An account at an authority.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Account {
    /// The account's URL and private key, as the ACME client writes them. A secret.
    #[prost(bytes = "bytes", tag = "1")]
    pub credentials: Bytes,
    /// The contacts that the authority was told, as in `mailto:admin@example.org`.
    #[prost(string, repeated, tag = "2")]
    pub contacts: Vec<String>,
}

/// Without the key.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({:?})", self.contacts)
    }
}

/// A certificate that was issued.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct Certificate {
    /// DER: the certificate and its chain.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub chain: Vec<Bytes>,
    /// DER, PKCS #8: the private key. A secret.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// The directory URL of the authority that issued it.
    #[prost(string, tag = "3")]
    pub directory: String,
}

/// Without the key.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({} of {})", self.chain.len(), self.directory)
    }
}

/// How far the certificate of a name is. Times are seconds since 1970; 0 is never.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct State {
    /// The URL of the order under way, or empty.
    #[prost(string, tag = "1")]
    pub order: String,
    /// DER, PKCS #8: the private key of the certificate that is ordered, once the order is ready. A secret.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// When that order began.
    #[prost(int64, tag = "3")]
    pub begun: i64,
    /// Attempts that failed since the last success.
    #[prost(uint32, tag = "4")]
    pub failures: u32,
    /// Why the last attempt failed, or empty.
    #[prost(string, tag = "5")]
    pub error: String,
    /// No attempt before this time, unless an operator asks for one.
    #[prost(int64, tag = "6")]
    pub not_before: i64,
    /// When the certificate is to be renewed.
    #[prost(int64, tag = "7")]
    pub renew: i64,
    /// When the authority is to be asked again when to renew it (RFC 9773).
    #[prost(int64, tag = "8")]
    pub ask: i64,
    /// An operator wants a new certificate now.
    #[prost(bool, tag = "9")]
    pub wanted: bool,
    /// An operator wants the certificate revoked that the next one replaces.
    #[prost(bool, tag = "10")]
    pub revoke: bool,
    /// DER: a certificate that has been replaced and is still to be revoked, or empty.
    #[prost(bytes = "bytes", tag = "11")]
    pub revoked: Bytes,
    /// The directory URL of the last order, which may be under way.
    #[prost(string, tag = "12")]
    pub directory: String,
    /// When the certificate expires.
    #[prost(int64, tag = "13")]
    pub expires: i64,
}

/// Without the key.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { order, failures, error, not_before, renew, .. } = self;
        write!(f, "State({order:?}, failures {failures}, {error:?}, not before {not_before}, renew {renew})")
    }
}

/// How an authority finds the answer to a challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// By HTTP, by the token (RFC 8555 section 8.3).
    Http = 1,
    /// By a TLS handshake, by the name (RFC 8737).
    Alpn = 2,
}

/// The answer to a challenge.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Answer {
    /// The key authorization (RFC 8555 section 8.1). Public once the authority asks for it.
    #[prost(string, tag = "1")]
    pub authorization: String,
}

/// The account at the authority of that directory URL.
pub async fn account(tx: &mut dyn Transaction, directory: &str) -> Result<Option<Account>> {
    tx.get(&account_key(directory), Isolation::Serializable).await?.map(decode).transpose()
}

/// Stores an account in place of the one before.
pub fn put_account(out: &mut (impl Mutate + ?Sized), directory: &str, account: &Account) {
    out.put(account_key(directory), encode(account));
}

/// Forgets an account.
pub fn remove_account(out: &mut (impl Mutate + ?Sized), directory: &str) {
    out.delete(account_key(directory));
}

/// The certificate of `name` (A-labels, lower case).
pub async fn get(tx: &mut dyn Transaction, name: &str) -> Result<Option<Certificate>> {
    split::get(tx, &key(Kind::Certificate, name), Isolation::Serializable).await?.map(decode).transpose()
}

/// At most `limit` certificates and their names, of those behind `after`, in the order of names.
pub async fn list(
    tx: &mut dyn Transaction,
    after: &str,
    limit: usize,
) -> Result<Rows<(String, Certificate)>> {
    let mut range = Key::deployment(Kind::Certificate).range();
    if !after.is_empty() {
        range.start = Key::deployment(Kind::Certificate).text(after).range().end;
    }
    let Rows { rows, more } = join(tx, range, limit, Isolation::Snapshot).await?;
    let read = |(key, value): (Bytes, Bytes)| {
        Ok((Parts::of(Kind::Certificate, &key)?.text()?, decode::<Certificate>(value)?))
    };
    Ok(Rows { rows: rows.into_iter().map(read).collect::<Result<_>>()?, more })
}

/// Stores a certificate in place of the one before. See [`bump`].
pub fn put(out: &mut (impl Mutate + ?Sized), name: &str, certificate: &Certificate) -> Result<()> {
    split::replace(out, &key(Kind::Certificate, name), &encode(certificate))
}

/// Forgets a name: its certificate and its state. See [`bump`].
pub fn remove(out: &mut (impl Mutate + ?Sized), name: &str) {
    split::remove(out, &key(Kind::Certificate, name));
    split::remove(out, &key(Kind::CertificateState, name));
}

/// How far the certificate of `name` is; that of a new name is the default.
pub async fn state(tx: &mut dyn Transaction, name: &str) -> Result<State> {
    let value = split::get(tx, &key(Kind::CertificateState, name), Isolation::Serializable).await?;
    Ok(value.map(decode).transpose()?.unwrap_or_default())
}

/// Stores how far a name is.
pub fn put_state(out: &mut (impl Mutate + ?Sized), name: &str, state: &State) -> Result<()> {
    split::replace(out, &key(Kind::CertificateState, name), &encode(state))
}

/// The answer to the challenge of that name or token.
pub async fn answer(tx: &mut dyn Transaction, how: How, of: &str) -> Result<Option<Answer>> {
    tx.get(&answer_key(how, of), Isolation::Serializable).await?.map(decode).transpose()
}

/// Stores the answer to a challenge.
pub fn put_answer(out: &mut (impl Mutate + ?Sized), how: How, of: &str, answer: &Answer) {
    out.put(answer_key(how, of), encode(answer));
}

/// Removes the answer to a challenge.
pub fn remove_answer(out: &mut (impl Mutate + ?Sized), how: How, of: &str) {
    out.delete(answer_key(how, of));
}

/// The key to watch: another value with every change that nodes must see.
pub fn version_key() -> Bytes {
    Key::deployment(Kind::CertificateVersion).finish()
}

/// To be called with every new certificate and every wish of an operator.
pub fn bump(tx: &mut dyn Transaction) {
    tx.add(&version_key(), 1);
}

fn key(kind: Kind, name: &str) -> Bytes {
    Key::deployment(kind).text(name).finish()
}

fn account_key(directory: &str) -> Bytes {
    key(Kind::AcmeAccount, directory)
}

fn answer_key(how: How, of: &str) -> Bytes {
    Key::deployment(Kind::AcmeChallenge).u8(how as u8).text(of).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::double::{Double, still_decodes};

    fn certificate(size: usize) -> Certificate {
        let key = Bytes::from_static(b"k");
        Certificate {
            chain: vec![vec![7; size].into(), Bytes::from_static(b"ca")],
            key,
            directory: "d".into(),
        }
    }

    #[test]
    fn old_records_decode() {
        let account = Account { credentials: Bytes::from_static(b"{}"), contacts: vec!["m".into()] };
        still_decodes("0a027b7d12016d", &account);
        still_decodes("0a01070a02636112016b1a0164", &certificate(1));
        let state = State {
            order: "u".into(),
            key: Bytes::from_static(b"k"),
            begun: 1,
            failures: 2,
            error: "e".into(),
            not_before: 3,
            renew: 4,
            ask: 5,
            wanted: true,
            revoke: true,
            revoked: Bytes::from_static(b"r"),
            directory: "d".into(),
            expires: 6,
        };
        still_decodes("0a017512016b180120022a0165300338044005480150015a01726201646806", &state);
        still_decodes("0a0161", &Answer { authorization: "a".into() });
    }

    #[test]
    fn keys_are_not_shown() {
        let state = State { key: Bytes::from_static(b"secret"), ..State::default() };
        let account = Account { credentials: Bytes::from_static(b"secret"), contacts: Vec::new() };
        let certificate = Certificate { key: Bytes::from_static(b"secret"), ..certificate(1) };
        assert!(!format!("{state:?}{account:?}{certificate:?}").contains("secret"));
    }

    #[tokio::test]
    async fn rows_come_back_by_their_names() {
        let mut tx = Double::new();
        for (name, size) in [("a.example", 30_000), ("aa.example", 10), ("b.example", 500)] {
            put(&mut tx as &mut dyn Transaction, name, &certificate(size)).unwrap();
        }
        assert_eq!(get(&mut tx, "a.example").await.unwrap(), Some(certificate(30_000)));
        let Rows { rows, more } = list(&mut tx, "", 2).await.unwrap();
        assert_eq!((rows[0].0.as_str(), rows[1].0.as_str(), more), ("a.example", "aa.example", true));
        let Rows { rows, more } = list(&mut tx, "aa.example", 2).await.unwrap();
        assert_eq!((rows.len(), rows[0].0.as_str(), more), (1, "b.example", false));
        assert_eq!(state(&mut tx, "a.example").await.unwrap(), State::default());
        let failed = State { failures: 3, ..State::default() };
        put_state(&mut tx as &mut dyn Transaction, "a.example", &failed).unwrap();
        assert_eq!(state(&mut tx, "a.example").await.unwrap(), failed);
        remove(&mut tx as &mut dyn Transaction, "a.example");
        assert_eq!(get(&mut tx, "a.example").await.unwrap(), None);
        assert_eq!(state(&mut tx, "a.example").await.unwrap(), State::default());
        assert!(get(&mut tx, "aa.example").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn answers_are_for_one_way_of_asking() {
        let mut tx = Double::new();
        let right = Answer { authorization: "token.thumb".into() };
        put_answer(&mut tx as &mut dyn Transaction, How::Http, "token", &right);
        assert_eq!(answer(&mut tx, How::Http, "token").await.unwrap(), Some(right));
        assert_eq!(answer(&mut tx, How::Alpn, "token").await.unwrap(), None);
        remove_answer(&mut tx as &mut dyn Transaction, How::Http, "token");
        assert_eq!(answer(&mut tx, How::Http, "token").await.unwrap(), None);
    }

    #[tokio::test]
    async fn accounts_are_by_directory() {
        let mut tx = Double::new();
        let one = Account { credentials: Bytes::from_static(b"1"), contacts: Vec::new() };
        put_account(&mut tx as &mut dyn Transaction, "https://a/dir", &one);
        assert_eq!(account(&mut tx, "https://a/dir").await.unwrap(), Some(one));
        assert_eq!(account(&mut tx, "https://b/dir").await.unwrap(), None);
    }
}
