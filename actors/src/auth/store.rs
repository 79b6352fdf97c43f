//! Accounts in the store.

use rookery_cluster::entity::Entity;
use rookery_cluster::store as database;
use rookery_cluster::tables::accounts::{self, Account};
use rookery_proto::sasl::{Credentials, Fakes, PlainVerify, keys};
use rookery_proto::xmpp::jid::BareJid;
use tokio::sync::Semaphore;

use super::credentials::{from_account, replace, to_account};
use super::{Abilities, Answer, Authenticator, Created, Error};
use crate::host::Host;
use crate::session::SessionId;

/// How many passwords are hashed at one time. Of each host: a wait here is always for work of the same host, never for that of
/// another one in the process.
struct Turns {
    /// For new accounts and changes: few, so that logins keep some processor.
    making: Semaphore,
    /// For logins: as many as there are cores.
    judging: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { making: Semaphore::new(2), judging: Semaphore::new(cores) }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Stored {
    host: Host,
}

impl Stored {
    /// The accounts in the store of `host`.
    pub(super) fn new(host: Host) -> Self {
        Self { host }
    }

    async fn found(&self, user: &BareJid) -> Result<Option<Credentials>, Error> {
        let user = Entity::new(user.as_str());
        let user = &user;
        let read = self.host.store().read(|tx| Box::pin(async move { accounts::get(&mut **tx, user).await }));
        Ok(read.await?.filter(|account| !account.disabled).and_then(|account| from_account(&account)))
    }

    /// Whether the password is right. If it is, and the account came from another server with keys for some of the
    /// mechanisms, it gets the others.
    async fn judge(&self, attempt: PlainVerify) -> Result<bool, Error> {
        let found = self.found(&attempt.user).await?;
        // Milliseconds of hashing: on a thread that may block, and only a few at a time.
        let turns = self.host.state::<Turns>();
        let _turn = turns.judging.acquire().await.map_err(|_| Error::Failed)?;
        let (fakes, seed) = (self.host.fakes(), self.host.seams().bytes());
        let (user, iterations) = (attempt.user.clone(), self.host.options().iterations);
        let work = move || {
            let right = attempt.check(found.as_ref(), &fakes);
            let whole =
                found.as_ref().filter(|_| right).and_then(|f| attempt.completed(f, &seed, iterations));
            (right, found.zip(whole))
        };
        let (right, completed) = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Failed)?;
        if let Some((found, whole)) = completed {
            match self.complete(&user, &found, &whole).await {
                Ok(true) => {
                    tracing::info!(%user, "keys for the other SCRAM mechanisms were derived from a password")
                }
                Ok(false) => {}
                // The next login tries again.
                Err(error) => {
                    tracing::warn!(%user, %error, "keys for the other SCRAM mechanisms could not be stored")
                }
            }
        }
        Ok(right)
    }

    /// Writes `whole` in place of an account's credentials, if these are still `found`: the keys that other servers did not
    /// have, made of a password that was right. Says whether it did.
    async fn complete(
        &self,
        user: &BareJid,
        found: &Credentials,
        whole: &Credentials,
    ) -> Result<bool, Error> {
        let user = Entity::new(user.as_str());
        let user = &user;
        let written = self.host.store().write(database::Options::default(), |tx| {
            Box::pin(async move {
                let now = accounts::get(&mut **tx, user).await?;
                let Some(old) = now.filter(|now| from_account(now).as_ref() == Some(found)) else {
                    return Ok(false);
                };
                let credentials = to_account(whole, old.created_at).credentials;
                accounts::put(&mut **tx, user, &Account { credentials, ..old });
                Ok(true)
            })
        });
        Ok(written.await?)
    }

    /// The keys of a password, made on a thread that may block. Milliseconds of processor time for each.
    async fn derive(&self, password: String) -> Result<Credentials, Error> {
        let turns = self.host.state::<Turns>();
        let _turn = turns.making.acquire().await.map_err(|_| Error::Failed)?;
        let (seed, iterations): ([u8; 32], _) = (self.host.seams().bytes(), self.host.options().iterations);
        let work = move || Credentials::derive(&password, &seed, iterations);
        let made = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Failed)?;
        made.map_err(|error| match error {
            keys::Error::Password(unfit) => Error::Password(unfit),
            keys::Error::Iterations(_) | keys::Error::Salt => {
                tracing::error!(%error, "a password could not be hashed with the configured sasl.iterations");
                Error::Failed
            }
        })
    }

    async fn make(&self, jid: &BareJid, password: String) -> Result<Created, Error> {
        let now = self.host.seams().clock.now_micros();
        let made = self.derive(password).await?;
        let (user, account) = (&Entity::new(jid.as_str()), &to_account(&made, now));
        // Any node may make an account: the transaction decides which attempt gets the name.
        let options = database::Options::default().operation(self.host.store().operation());
        let created = self.host.store().write(options, |tx| {
            Box::pin(async move { accounts::create(&mut **tx, user, account, now).await })
        });
        Ok(match created.await? {
            accounts::Created::Yes => Created::Yes,
            accounts::Created::Exists | accounts::Created::Reserved => Created::Taken,
        })
    }

    async fn give(&self, jid: &BareJid, password: String, keep: Option<SessionId>) -> Result<bool, Error> {
        let made = self.derive(password).await?;
        let (user, keys) = (&Entity::new(jid.as_str()), &to_account(&made, 0).credentials);
        let (keep, now) = (keep.map(|SessionId(sid)| sid), self.host.seams().clock.now_micros());
        let changed = self.host.store().write(database::Options::owner(user), |tx| {
            Box::pin(async move { replace(&mut **tx, user, keys, keep.as_ref(), now).await })
        });
        Ok(changed.await?)
    }
}

impl Authenticator for Stored {
    fn abilities(&self) -> Abilities {
        Abilities { scram: true, change: true, create: true }
    }

    fn fakes(&self) -> Fakes {
        self.host.fakes()
    }

    fn keys<'a>(&'a self, user: &'a BareJid) -> Answer<'a, Option<Credentials>> {
        Box::pin(self.found(user))
    }

    fn verify(&self, attempt: PlainVerify) -> Answer<'_, bool> {
        Box::pin(self.judge(attempt))
    }

    fn exists<'a>(&'a self, user: &'a BareJid) -> Answer<'a, bool> {
        Box::pin(async move {
            let user = Entity::new(user.as_str());
            let user = &user;
            let store = self.host.store();
            let exists = store.read(|tx| Box::pin(async move { accounts::exists(&mut **tx, user).await }));
            Ok(exists.await?)
        })
    }

    fn create<'a>(&'a self, user: &'a BareJid, password: String) -> Answer<'a, Created> {
        Box::pin(self.make(user, password))
    }

    fn change<'a>(
        &'a self,
        user: &'a BareJid,
        password: String,
        keep: Option<SessionId>,
    ) -> Answer<'a, bool> {
        Box::pin(self.give(user, password, keep))
    }
}

#[cfg(test)]
mod tests {
    use rookery_cluster::entity::Entity;

    use super::*;
    use crate::auth::credentials::to_account;
    use crate::features::testing::Scene;

    #[tokio::test]
    async fn what_another_server_had_is_kept_and_completed_once() {
        let scene = Scene::new(&[]).await;
        let jid = BareJid::parse("old@localhost").unwrap();
        let whole = Credentials::derive("secret", &[1; 32], 4_096).unwrap();
        let some = Credentials { sha256: None, sha512: None, ..whole.clone() };
        let account = &to_account(&some, 7);
        assert_eq!(account.credentials.len(), 1);
        let user = &Entity::new(jid.as_str());
        let stored = Stored::new(scene.host.clone());
        let made = scene.host.store().write(database::Options::default(), |tx| {
            Box::pin(async move { accounts::create(&mut **tx, user, account, 7).await })
        });
        made.await.unwrap();
        assert_eq!(stored.keys(&jid).await.unwrap().as_ref(), Some(&some));
        assert!(stored.complete(&jid, &some, &whole).await.unwrap());
        assert_eq!(stored.keys(&jid).await.unwrap().as_ref(), Some(&whole));
        let record =
            scene.host.store().read(|tx| Box::pin(async move { accounts::get(&mut **tx, user).await }));
        assert_eq!(record.await.unwrap().map(|a| a.created_at), Some(7));
        // A password that was changed meanwhile is not brought back.
        let late = Credentials::derive("late", &[2; 32], 4_096).unwrap();
        assert!(!stored.complete(&jid, &some, &late).await.unwrap());
        assert_eq!(stored.keys(&jid).await.unwrap(), Some(whole));
        let nobody = BareJid::parse("nobody@localhost").unwrap();
        assert!(!stored.complete(&nobody, &some, &late).await.unwrap());
        assert_eq!(stored.keys(&nobody).await.unwrap(), None);
    }
}
