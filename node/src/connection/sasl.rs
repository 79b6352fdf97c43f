//! Login (RFC 6120 section 6): the conversation around the state machines of `rookery_proto::sasl`.

use rookery_actors::Authenticated;
use rookery_proto::sasl::{
    Context, Credentials, Mechanism, Nonce, PlainVerify, Server, Step, encoding, offered,
};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{SaslFailure, StreamCondition};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use tokio::time::Instant;

use super::negotiate::{Frame, Negotiation, is_sm};
use super::{End, Shared, features};
use crate::net::Stream;
use crate::net::guesses::{Attempt, Policy};

/// How one attempt ended.
struct Failed {
    failure: SaslFailure,
    /// It was a guess of a password; so many came from the address lately.
    guess: Option<u32>,
}

impl From<SaslFailure> for Failed {
    fn from(failure: SaslFailure) -> Self {
        Self { failure, guess: None }
    }
}

/// An attempt fails, or the whole stream ends.
enum Stop {
    Failed(Failed),
    End(End),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<SaslFailure> for Stop {
    fn from(failure: SaslFailure) -> Self {
        Self::Failed(failure.into())
    }
}

impl<S: Stream> Negotiation<S> {
    /// Offers the mechanisms and goes on until somebody has proved who they are.
    pub(super) async fn login(&mut self) -> Result<Authenticated, End> {
        let plain = self.settings.plain;
        let mut mechanisms = offered(&self.bindings, true);
        mechanisms.retain(|m| plain || *m != Mechanism::Plain);
        let open = self.registration();
        features::before_login(&mut self.out, &mechanisms, &self.bindings, open.as_deref(), &self.settings);
        self.flush().await?;
        let mut attempts = 0;
        loop {
            match self.next().await? {
                Frame::Nonza(auth) if auth.is("auth", ns::SASL) => {
                    let (name, outcome) = self.attempt(&auth, &mechanisms).await;
                    match outcome {
                        Ok(user) => {
                            metrics::counter!("rookery_logins_total", "mechanism" => name, "outcome" => "ok")
                                .increment(1);
                            return Ok(Authenticated::by_sasl(user));
                        }
                        Err(Stop::End(end)) => return Err(end),
                        Err(Stop::Failed(failed)) => self.failed(name, &failed).await?,
                    }
                    attempts += 1;
                    if attempts >= self.settings.limits.login_attempts {
                        metrics::counter!("rookery_limits_hit_total", "limit" => "login_attempts")
                            .increment(1);
                        return Err(End::because(StreamCondition::PolicyViolation, "too many attempts"));
                    }
                }
                // Without an attempt there is nothing to abort or to respond to.
                Frame::Nonza(other) if other.ns() == ns::SASL => {
                    SaslFailure::MalformedRequest.write(None, &mut self.out);
                    self.flush().await?;
                }
                Frame::Stanza(stanza) if open.is_some() && self.register(&stanza).await? => {}
                Frame::Malformed(Some(reply)) => {
                    reply.write(&mut self.out);
                    self.flush().await?;
                }
                // XEP-0198 section 3: not before authentication.
                Frame::Nonza(element) if is_sm(&element) => self.refuse_sm("unexpected-request").await?,
                Frame::Nonza(_) => return Err(End::error(StreamCondition::UnsupportedStanzaType)),
                Frame::Open(_) | Frame::Stanza(_) | Frame::Malformed(None) => {
                    return Err(End::error(StreamCondition::NotAuthorized));
                }
            }
        }
    }

    /// One attempt from `<auth/>` to its end; also the mechanism's name for the books.
    async fn attempt(
        &mut self,
        auth: &Element,
        mechanisms: &[Mechanism],
    ) -> (&'static str, Result<BareJid, Stop>) {
        let begun = Instant::now();
        let Some(mechanism) = auth.attr("mechanism").and_then(Mechanism::from_name) else {
            return ("unknown", Err(SaslFailure::InvalidMechanism.into()));
        };
        let outcome = self.exchange(mechanism, auth, mechanisms).await;
        if outcome.is_ok() {
            metrics::histogram!("rookery_login_seconds").record(begun.elapsed().as_secs_f64());
        }
        (mechanism.name(), outcome)
    }

    async fn exchange(
        &mut self,
        mechanism: Mechanism,
        auth: &Element,
        mechanisms: &[Mechanism],
    ) -> Result<BareJid, Stop> {
        let domain = self.domain.clone().ok_or(SaslFailure::TemporaryAuthFailure)?;
        let initial = encoding::decode_initial(&auth.text())?;
        let context = Context {
            domain,
            bindings: self.bindings.clone(),
            offered: mechanisms.to_vec(),
            nonce: Nonce::from_random(self.shared.seams.bytes()),
            fakes: self.shared.host.fakes(),
            downgrade_hash: self.settings.downgrade_protection,
        };
        let (mut server, mut step) = Server::start(mechanism, initial.as_deref(), context);
        let mut attempt = None;
        loop {
            step = match step {
                Step::Challenge(data) => {
                    let encoded = encoding::encode(&data);
                    self.say("challenge", &encoded).await?;
                    server.response(&self.response().await?)
                }
                Step::NeedCredentials { user } => {
                    attempt = Some(self.admit(&user).await?);
                    let found = credentials(&self.shared, &user).await?;
                    server.credentials(found)
                }
                Step::NeedPlainVerify(verify) => {
                    attempt = Some(self.admit(&verify.user).await?);
                    let found = credentials(&self.shared, &verify.user).await?;
                    // Milliseconds of hashing: on a thread that may block, and only a few at a time.
                    let _permit =
                        self.shared.hashing.acquire().await.map_err(|_| SaslFailure::TemporaryAuthFailure)?;
                    let right = judge(&self.shared, verify, found).await;
                    server.verified(right.map_err(|_| SaslFailure::TemporaryAuthFailure)?)
                }
                Step::Success { user, additional } => {
                    if let Some(attempt) = attempt {
                        attempt.right();
                    }
                    // Section 6.4.6: additional data goes into <success/>; there is none for PLAIN.
                    let data = additional.map(|data| encoding::encode(&data)).unwrap_or_default();
                    self.say("success", &data).await?;
                    return Ok(user);
                }
                Step::Failure(failure) => {
                    let wrong = attempt.filter(|_| failure == SaslFailure::NotAuthorized);
                    return Err(Stop::Failed(Failed { failure, guess: wrong.map(Attempt::wrong) }));
                }
            };
        }
    }

    /// Reserves an attempt, and waits for its turn. What would wait too long is refused without a look at the password.
    async fn admit(&mut self, user: &BareJid) -> Result<Attempt, SaslFailure> {
        let limits = &self.settings.limits;
        let policy = Policy {
            per_account: limits.login_failures_per_account,
            per_address: limits.login_failures_per_address,
            longest: limits.login_delay,
        };
        let hit = |limit| metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
        let reserved = self.shared.guesses.reserve(user.as_str(), self.origin, &policy);
        let attempt = reserved.map_err(|limit| {
            hit(limit);
            tracing::debug!(address = %self.address, limit, "login refused: too many wrong passwords");
            SaslFailure::TemporaryAuthFailure
        })?;
        if let Some((wait, limit)) = attempt.wait {
            hit(limit);
            tokio::time::sleep(wait).await;
        }
        Ok(attempt)
    }

    /// `<response/>`, decoded (section 6.4.3).
    async fn response(&mut self) -> Result<Vec<u8>, Stop> {
        loop {
            return match self.next().await? {
                Frame::Nonza(element) if element.is("response", ns::SASL) => {
                    Ok(encoding::decode(&element.text())?)
                }
                Frame::Nonza(element) if element.is("abort", ns::SASL) => Err(SaslFailure::Aborted.into()),
                Frame::Nonza(element) if element.ns() == ns::SASL => {
                    Err(SaslFailure::MalformedRequest.into())
                }
                Frame::Nonza(element) if is_sm(&element) => {
                    self.refuse_sm("unexpected-request").await?;
                    continue;
                }
                Frame::Nonza(_) => Err(End::error(StreamCondition::UnsupportedStanzaType).into()),
                _ => Err(End::error(StreamCondition::NotAuthorized).into()),
            };
        }
    }

    async fn say(&mut self, name: &str, data: &str) -> Result<(), End> {
        for part in ["<", name, " xmlns='", ns::SASL, "'"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        if data.is_empty() {
            self.out.extend_from_slice(b"/>");
        } else {
            for part in [">", data, "</", name, ">"] {
                self.out.extend_from_slice(part.as_bytes());
            }
        }
        self.flush().await
    }

    /// Tells the client, which learns the same whatever was wrong, and remembers where it came from.
    async fn failed(&mut self, mechanism: &'static str, failed: &Failed) -> Result<(), End> {
        let name = failed.failure.name();
        let outcome = if failed.failure == SaslFailure::Aborted { "aborted" } else { "failed" };
        metrics::counter!("rookery_logins_total", "mechanism" => mechanism, "outcome" => outcome)
            .increment(1);
        metrics::counter!("rookery_login_failures_total", "reason" => name).increment(1);
        if let Some(count) = failed.guess {
            tracing::info!(address = %self.address, mechanism, reason = name, count, "login failed");
        } else {
            tracing::debug!(address = %self.address, mechanism, reason = name, "login failed");
        }
        failed.failure.write(None, &mut self.out);
        self.flush().await
    }
}

/// Whether the password is right. If it is, and the account came from another server with keys for some of the mechanisms, it
/// gets the others.
async fn judge(
    shared: &Shared,
    verify: PlainVerify,
    found: Option<Credentials>,
) -> Result<bool, tokio::task::JoinError> {
    let (fakes, seed) = (shared.host.fakes(), shared.seams.bytes());
    let (user, iterations) = (verify.user.clone(), shared.host.options().iterations);
    let work = move || {
        let right = verify.check(found.as_ref(), &fakes);
        let whole = found.as_ref().filter(|_| right).and_then(|f| verify.completed(f, &seed, iterations));
        (right, found.zip(whole))
    };
    let (right, completed) = tokio::task::spawn_blocking(work).await?;
    if let Some((found, whole)) = completed {
        match shared.host.complete_credentials(&user, &found, &whole).await {
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

async fn credentials(shared: &Shared, user: &BareJid) -> Result<Option<Credentials>, SaslFailure> {
    shared.host.credentials(user).await.map_err(|error| {
        tracing::warn!(%error, "a login failed because the store did not answer");
        SaslFailure::TemporaryAuthFailure
    })
}

#[cfg(test)]
mod tests {
    use rookery_cluster::entity::Entity;
    use rookery_cluster::store;
    use rookery_cluster::tables::accounts;
    use rookery_proto::sasl::{Hash, client::Client as Scram};

    use super::*;
    use crate::connection::tests::{fixture, plain};

    /// An account from another server that had SCRAM-SHA-1 only.
    #[tokio::test]
    async fn plain_completes_the_keys_of_an_account_from_elsewhere() {
        let fixture = fixture(|_| {}).await;
        let whole = Credentials::derive("pencil", &[4; 32], 5_000).unwrap();
        let some = Credentials { sha256: None, sha512: None, ..whole };
        let (user, account) =
            (&Entity::new("old@localhost"), &rookery_actors::credentials::to_account(&some, 1));
        let host = &fixture.shared.host;
        let made = host.store().write(store::Options::default(), |tx| {
            Box::pin(async move { accounts::create(&mut **tx, user, account, 1).await })
        });
        made.await.unwrap();
        let scram = async |hash: Hash, user: &str| {
            let mechanism = Mechanism::Scram { hash, plus: false };
            let mut scram = Scram::new(mechanism, user, "pencil", Nonce::from_random([7; 18]));
            let mut client = fixture.tls().await;
            let initial = encoding::encode_initial(&scram.initial());
            let (ns, name) = (ns::SASL, mechanism.name());
            client.send(&format!("<auth xmlns='{ns}' mechanism='{name}'>{initial}</auth>")).await;
            let challenge = client.until("</challenge>").await;
            let data = challenge.rsplit_once("</").and_then(|(text, _)| text.rsplit_once('>')).unwrap().1;
            let answer = scram.challenge(&encoding::decode(data).unwrap()).unwrap();
            client.send(&format!("<response xmlns='{ns}'>{}</response>", encoding::encode(&answer))).await;
            let end = client.until(">").await;
            if end.starts_with("<success") {
                end.split(' ').next().unwrap().to_owned()
            } else {
                end + &client.until("</failure>").await
            }
        };
        assert_eq!(scram(Hash::Sha1, "old").await, "<success");
        let without = scram(Hash::Sha256, "old").await;
        assert!(without.contains("<not-authorized"), "{without}");
        assert_eq!(without, scram(Hash::Sha256, "nobody").await);
        let jid = BareJid::parse("old@localhost").unwrap();
        let mut client = fixture.tls().await;
        client.send(&plain("old", "wrong")).await;
        client.until("</failure>").await;
        assert_eq!(host.credentials(&jid).await.unwrap(), Some(some.clone()));
        client.send(&plain("old", "pencil")).await;
        client.until("<success").await;
        let now = host.credentials(&jid).await.unwrap().unwrap();
        assert_eq!((now.sha1, now.sha256.map(|k| k.iterations)), (some.sha1, Some(4_096)));
        for hash in Hash::ALL {
            assert_eq!(scram(hash, "old").await, "<success", "{hash:?}");
        }
    }

    #[tokio::test]
    async fn the_operator_sees_the_connection_and_says_why_it_ends() {
        let fixture = fixture(|_| {}).await;
        let mut client = fixture.session("romeo", "orchard").await;
        let sessions = fixture.shared.host.session_list("").await;
        let conn = sessions[0].conn.clone().unwrap();
        assert_eq!((conn.via, conn.tls, &*conn.address), ("c2s_tls", "1.3", "192.0.2.1:40000"));
        assert!(conn.suite.starts_with("AES_") || conn.suite.starts_with("CHACHA20_"), "{}", conn.suite);
        let jid = rookery_proto::xmpp::jid::Jid::parse("romeo@localhost").unwrap();
        assert_eq!(fixture.shared.host.kick(&jid, "no <spam> here".to_owned()).await, 1);
        let end = client.until("</stream:error>").await;
        assert!(end.contains("<not-authorized") && end.contains(">no &lt;spam&gt; here</text>"), "{end}");
    }
}
