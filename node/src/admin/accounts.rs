//! Accounts in the store.

use rookery_actors::auth::credentials;
use rookery_cluster::entity::Entity;
use rookery_cluster::seams::Seams;
use rookery_cluster::store::{self, Store};
use rookery_cluster::tables::accounts::{self, Account, Created};
use rookery_ops::admin::{Error, PAGE, User};
use rookery_ops::secret::Password;
use rookery_proto::sasl::Credentials;
use rookery_proto::xmpp::jid::BareJid;

/// The accounts of some domains. Made for each request: the options may have changed.
pub struct Accounts {
    pub(super) store: Store,
    pub(super) seams: Seams,
    /// The domains that are served.
    pub(super) domains: Vec<String>,
    /// PBKDF2 rounds of new passwords.
    pub(super) iterations: u32,
}

impl Accounts {
    /// Over `store`.
    pub fn new(store: Store, seams: Seams, domains: Vec<String>, iterations: u32) -> Self {
        Self { store, seams, domains, iterations }
    }

    pub(super) fn parse(&self, jid: &str) -> Result<BareJid, Error> {
        super::account(jid, &|domain| self.domains.iter().any(|d| d == domain))
    }

    /// Makes an account; answers its JID.
    pub async fn add(&self, jid: &str, password: &Password) -> Result<BareJid, Error> {
        let jid = self.parse(jid)?;
        let account = self.account(password).await?;
        let (user, now) = (Entity::new(jid.as_str()), self.seams.clock.now_micros());
        let (user, account) = (&user, &account);
        let created = self.store.write(store::Options::default(), |tx| {
            Box::pin(async move { accounts::create(&mut **tx, user, account, now).await })
        });
        match created.await.map_err(|e| super::store(&e))? {
            Created::Yes => Ok(jid),
            Created::Exists => Err(Error::exists(format!("{jid} exists already"))),
            Created::Reserved => Err(Error::exists(format!("the name {jid} is reserved"))),
        }
    }

    /// Sets the password of an account, whose sessions can't be resumed then; answers its JID.
    pub async fn passwd(&self, jid: &str, password: &Password) -> Result<BareJid, Error> {
        let jid = self.parse(jid)?;
        let new = self.account(password).await?;
        let (user, now) = (Entity::new(jid.as_str()), self.seams.clock.now_micros());
        let (user, new) = (&user, &new);
        let found = self.store.write(store::Options::default(), |tx| {
            Box::pin(async move { credentials::replace(&mut **tx, user, &new.credentials, None, now).await })
        });
        if found.await.map_err(|e| super::store(&e))? { Ok(jid) } else { Err(missing(&jid)) }
    }

    /// Fails if there is no such account.
    pub(super) async fn known(&self, jid: &BareJid) -> Result<(), Error> {
        let user = Entity::new(jid.as_str());
        let user = &user;
        let exists = self.store.read(|tx| Box::pin(async move { accounts::exists(&mut **tx, user).await }));
        if exists.await.map_err(|e| super::store(&e))? { Ok(()) } else { Err(missing(jid)) }
    }

    /// A page of the list, as [`rookery_ops::admin::Admin::user_list`] has it.
    pub async fn list(&self, domain: &str, after: &str, limit: usize) -> Result<Vec<User>, Error> {
        let mut domains = self.domains.clone();
        domains.sort_unstable();
        if !domain.is_empty() {
            if !domains.iter().any(|d| d == domain) {
                return Err(Error::not_found(format!("{domain} is not served here")));
            }
            domains = vec![domain.to_owned()];
        }
        let (after_name, after_domain) = after.split_once('@').unwrap_or(("", ""));
        let limit = limit.min(PAGE);
        let mut users: Vec<User> = Vec::new();
        for domain in domains.iter().filter(|d| d.as_str() >= after_domain) {
            let after = (domain == after_domain).then_some(after_name);
            let room = limit.saturating_sub(users.len());
            if room == 0 {
                break;
            }
            let rows = self
                .store
                .read(|tx| Box::pin(async move { accounts::list(&mut **tx, domain, after, room).await }))
                .await
                .map_err(|e| super::store(&e))?;
            users.extend(rows.rows.into_iter().map(|row| User { jid: row.user.as_str().to_owned() }));
        }
        Ok(users)
    }

    async fn account(&self, password: &Password) -> Result<Account, Error> {
        let (password, seed, iterations) =
            (password.as_str().to_owned(), self.seams.bytes(), self.iterations);
        let derived =
            tokio::task::spawn_blocking(move || Credentials::derive(&password, &seed, iterations)).await;
        let credentials = derived.map_err(|e| Error::internal(e.to_string()))?;
        let credentials =
            credentials.map_err(|e| Error::invalid(format!("the password cannot be used: {e}")))?;
        Ok(credentials::to_account(&credentials, self.seams.clock.now_micros()))
    }
}

fn missing(jid: &BareJid) -> Error {
    Error::not_found(format!("there is no account {jid}"))
}
