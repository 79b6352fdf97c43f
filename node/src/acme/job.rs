//! The node that orders: the owner of one shard. This node looks after all names; when it loses the shard, or its lease, it stops in the
//! midst of whatever it does, and the next owner goes on from what is stored.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use instant_acme::{RevocationReason, RevocationRequest};
use rookery_cluster::store::{self, Transaction};
use rookery_cluster::tables::certificates::{self, Certificate, State};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::Client;
use super::order::{Attempt, Failure, identifier};
use super::schedule::{self, Next};
use super::{Acme, keep, names, shard};
use crate::config;

/// How often a node looks whether the shard is its own.
const GLANCE: Duration = Duration::from_millis(250);
/// Names that are attended to at a time.
const AT_ONCE: usize = 4;
/// When the store could not be read.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a name waits whose failure could not be stored.
const UNNOTED: Duration = Duration::from_secs(60);
/// The longest time without a look at all names, seconds.
const ROUND: i64 = 3_600;
/// How long one attempt may take, beside what the operator's program may.
const ATTEMPT: Duration = Duration::from_secs(600);

impl Acme {
    /// Orders while it is this node's turn, for ever.
    pub(super) async fn job(self: Arc<Self>) {
        loop {
            let turn = self.turn();
            if turn.is_some() {
                tokio::select! {
                    () = self.clone().work() => {}
                    () = self.until_not(turn) => {}
                }
            }
            sleep(GLANCE).await;
        }
    }

    /// Since when the shard is this node's, if effects outside the store are allowed.
    fn turn(&self) -> Option<u32> {
        let allowed = self.mesh.as_ref().is_none_or(|mesh| mesh.lease().holds());
        self.store.epoch(shard()).filter(|_| allowed)
    }

    async fn until_not(&self, turn: Option<u32>) {
        while self.turn() == turn {
            sleep(GLANCE).await;
        }
    }

    /// Attends to all names. Those under way are dropped with it.
    async fn work(self: Arc<Self>) {
        let (mut running, mut busy) = (JoinSet::new(), BTreeSet::new());
        let mut changed = self.changed.subscribe();
        let mut swept = i64::MIN;
        loop {
            changed.borrow_and_update();
            if self.now().saturating_sub(swept) >= ROUND {
                swept = self.now();
                if let Err(error) = self.sweep().await {
                    tracing::debug!(%error, "old certificates could not be removed");
                }
            }
            let watch = self.watch().await;
            let looked = match watch {
                Ok(watch) => self.look(&mut running, &mut busy).await.map(|next| (watch, next)),
                Err(error) => Err(error),
            };
            let (watch, next) = match looked {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::debug!(%error, "the states of certificates could not be read");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            let wait = (next - self.now()).clamp(1, ROUND).unsigned_abs();
            tokio::select! {
                _ = watch => {}
                _ = changed.changed() => {}
                Some(done) = running.join_next() => match done {
                    Ok(name) => { busy.remove(&name); }
                    Err(error) => {
                        // A panic: the next round starts what is still due.
                        tracing::debug!(%error, "an attempt ended unexpectedly");
                        busy.clear();
                        running.shutdown().await;
                        sleep(AGAIN).await;
                    }
                },
                () = sleep(Duration::from_secs(wait)) => {}
            }
        }
    }

    /// Starts what is due. Answers when something will be.
    async fn look(
        self: &Arc<Self>,
        running: &mut JoinSet<String>,
        busy: &mut BTreeSet<String>,
    ) -> store::Result<i64> {
        let config = self.config.load_full();
        let Some(acme) = config.acme.clone() else { return Ok(i64::MAX) };
        let (acme, mut soonest) = (Arc::new(acme), i64::MAX);
        for name in names::wanted(&config, &self.tls) {
            if busy.contains(&name) {
                continue;
            }
            let (certificate, state) = self.read(&name).await?;
            let state = schedule::as_of(state, &acme.directory);
            let current = certificate.as_ref().is_some_and(|c| c.directory == acme.directory);
            let next = schedule::next(&state, current, self.now());
            if next.at() > self.now() {
                soonest = soonest.min(next.at());
            } else if busy.len() < AT_ONCE {
                busy.insert(name.clone());
                let (this, acme) = (self.clone(), acme.clone());
                running.spawn(async move {
                    this.attend(&acme, &name, next, state, certificate).await;
                    name
                });
            }
        }
        Ok(soonest)
    }

    /// Removes certificates that ended long ago and that nobody asks for any more, with their keys.
    async fn sweep(&self) -> store::Result<()> {
        let (config, mut after) = (self.config.load_full(), String::new());
        let wanted = names::configured(&config);
        loop {
            let from = after.as_str();
            let page = self
                .store
                .read(|tx| Box::pin(async move { certificates::list(&mut **tx, from, keep::PAGE).await }))
                .await?;
            let Some((last, _)) = page.rows.last() else { return Ok(()) };
            let last = last.clone();
            for (name, _) in page.rows.iter().filter(|(name, _)| !wanted.contains(name)) {
                let (_, state) = self.read(name).await?;
                if schedule::is_over(&state, self.now()) {
                    self.forget(name).await?;
                    tracing::info!(
                        domain = name,
                        "the certificate of a name that is not served any more is removed"
                    );
                }
            }
            if !page.more {
                return Ok(());
            }
            after = last;
        }
    }

    async fn forget(&self, name: &str) -> store::Result<()> {
        let options = store::Options { shards: vec![shard()], ..store::Options::default() };
        self.store
            .write(options, |tx| {
                Box::pin(async move {
                    certificates::remove(&mut **tx as &mut dyn Transaction, name);
                    Ok(())
                })
            })
            .await
    }

    /// What is stored of a name.
    pub(super) async fn read(&self, name: &str) -> store::Result<(Option<Certificate>, State)> {
        self.store
            .read(|tx| {
                Box::pin(async move {
                    let state = certificates::state(&mut **tx, name).await?;
                    Ok((certificates::get(&mut **tx, name).await?, state))
                })
            })
            .await
    }

    async fn attend(
        &self,
        config: &config::Acme,
        name: &str,
        next: Next,
        state: State,
        certificate: Option<Certificate>,
    ) {
        let (ca, seams) = (config.ca.clone(), self.seams.clone());
        let client = tokio::task::spawn_blocking(move || Client::new(ca.as_ref(), seams)).await;
        let client = match client.map_err(Failure::of).and_then(|client| client.map_err(Failure::of)) {
            Ok(client) => client,
            Err(failure) => return self.failed(config, name, failure, None).await,
        };
        let attempt = Attempt { acme: self, config, client: &client, name };
        let work = async {
            match next {
                Next::Order(_) => {
                    let new = attempt.run(state, certificate.as_ref()).await?;
                    self.store_certificate(name, &new, certificate.as_ref()).await?;
                    metrics::counter!("rookery_acme_orders_total", "outcome" => "ok").increment(1);
                    Ok(())
                }
                Next::Ask(_) => self.ask(config, &client, name, certificate.as_ref()).await,
                Next::Revoke(_) => self.revoke(config, &client, name, &state.revoked).await,
            }
        };
        let late = |_| Err(Failure::of("it took too long"));
        let outcome = timeout(limit(config), work).await.unwrap_or_else(late);
        if let Err(failure) = outcome {
            self.failed(config, name, failure, client.after()).await;
        }
    }

    /// Puts a new certificate in the place of the old one, and lets all nodes know.
    async fn store_certificate(
        &self,
        name: &str,
        new: &Certificate,
        old: Option<&Certificate>,
    ) -> Result<(), Failure> {
        let identity = self.tls.check(name, &keep::issued(new)).map_err(Failure::of)?;
        let renew = schedule::renew(identity.not_before, identity.not_after, self.chance());
        let (now, old) = (self.now(), old.and_then(|old| old.chain.first()).cloned().unwrap_or_default());
        let (old, options) = (&old, store::Options { shards: vec![shard()], ..store::Options::default() });
        let (expires, directory) = (identity.not_after, &new.directory);
        let operation = self.store.operation();
        self.store
            .write(options.operation(operation), |tx| {
                Box::pin(async move {
                    let before = certificates::state(&mut **tx, name).await?;
                    let revoked = if before.revoke { old.clone() } else { before.revoked };
                    let state = State {
                        renew,
                        ask: now,
                        revoked,
                        expires,
                        directory: directory.clone(),
                        ..State::default()
                    };
                    let tx = &mut **tx as &mut dyn Transaction;
                    certificates::put_state(tx, name, &state)?;
                    certificates::put(tx, name, new)?;
                    certificates::bump(tx);
                    Ok(())
                })
            })
            .await?;
        let days = (identity.not_after - now) / 86_400;
        tracing::info!(domain = name, issuer = identity.issuer, days, "certificate issued");
        Ok(())
    }

    /// Asks the authority when to renew (RFC 9773). One that cannot say is not asked again for this certificate.
    async fn ask(
        &self,
        config: &config::Acme,
        client: &Client,
        name: &str,
        certificate: Option<&Certificate>,
    ) -> Result<(), Failure> {
        let account = self.account(config, client).await?;
        let (now, chance) = (self.now(), self.chance());
        let told = match certificate.and_then(identifier) {
            Some(identifier) => account.renewal_info(&identifier).await,
            None => Err(instant_acme::Error::Unsupported("ARI")),
        };
        let (window, ask) = match told {
            Ok((info, after)) => {
                let (start, end) = (info.suggested_window.start, info.suggested_window.end);
                let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
                (Some((start.unix_timestamp(), end.unix_timestamp())), schedule::ask(now, after))
            }
            Err(instant_acme::Error::Unsupported(_)) => (None, 0),
            // What it does not say now it may say later; the renewal stands.
            Err(error) => {
                tracing::debug!(domain = name, %error, "the authority did not say when to renew");
                (None, schedule::ask(now, client.after().unwrap_or(0)))
            }
        };
        let life = certificate.and_then(|certificate| self.tls.check(name, &keep::issued(certificate)).ok());
        let life = life.map(|identity| (identity.not_before, identity.not_after));
        let told = self.update(name, move |state| {
            state.ask = ask;
            if let (Some(window), Some(life)) = (window, life)
                && !(window.0..=window.1).contains(&state.renew)
            {
                state.renew = schedule::within(window, life, chance);
            }
        });
        let hours = (told.await?.renew - now) / 3_600;
        tracing::debug!(domain = name, hours, asks = ask > 0, "the authority was asked when to renew");
        Ok(())
    }

    /// Revokes a certificate that has been replaced (RFC 8555 section 7.6).
    async fn revoke(
        &self,
        config: &config::Acme,
        client: &Client,
        name: &str,
        der: &Bytes,
    ) -> Result<(), Failure> {
        let account = self.account(config, client).await?;
        let certificate = CertificateDer::from(der.to_vec());
        let reason = Some(RevocationReason::Superseded);
        match account.revoke(&RevocationRequest { certificate: &certificate, reason }).await {
            Ok(()) => tracing::info!(domain = name, "the replaced certificate is revoked"),
            Err(instant_acme::Error::Api(problem))
                if problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":alreadyRevoked")) => {}
            Err(error) => {
                let failure = Failure::from(error);
                if !failure.over || failure.stranger {
                    return Err(failure);
                }
                let error = failure.text;
                tracing::warn!(domain = name, error, "the replaced certificate could not be revoked");
            }
        }
        self.update(name, |state| {
            state.revoked = Bytes::new();
            (state.failures, state.not_before) = (0, 0);
            state.error.clear();
        })
        .await?;
        Ok(())
    }

    /// Notes a failure, and when to try again.
    async fn failed(&self, config: &config::Acme, name: &str, failure: Failure, after: Option<i64>) {
        metrics::counter!("rookery_acme_orders_total", "outcome" => "failed").increment(1);
        if failure.stranger
            && let Err(error) = self.forget_account(&config.directory).await
        {
            tracing::debug!(%error, "the account could not be forgotten");
        }
        let (now, chance, failure) = (self.now(), self.chance(), &failure);
        let noted = self.update(name, move |state| {
            state.failures = state.failures.saturating_add(1);
            state.error.clone_from(&failure.text);
            state.not_before = schedule::again(now, state.failures, after, chance);
            state.wanted = false;
            if failure.over || failure.stranger {
                state.order.clear();
                state.key = Bytes::new();
            }
        });
        match noted.await {
            Ok(State { failures, not_before, .. }) => {
                let minutes = (not_before - now) / 60;
                let error = &failure.text;
                tracing::warn!(
                    domain = name,
                    error,
                    failures,
                    next_attempt_minutes = minutes,
                    "no certificate could be ordered; correct the cause, then run `rookery certificate order`"
                );
            }
            // Another node orders now, or the store fails.
            Err(error) => {
                tracing::debug!(domain = name, %error, "a failure could not be noted");
                // The wait is due all the same: the authority must not suffer for the store.
                sleep(UNNOTED).await;
            }
        }
    }
}

fn limit(config: &config::Acme) -> Duration {
    match &config.challenge {
        config::Challenge::Dns01(hook) => ATTEMPT + 2 * hook.limit,
        _ => ATTEMPT,
    }
}
