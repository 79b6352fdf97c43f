//! Login (RFC 6120 section 6): the conversation around the state machines of `rookery_proto::sasl`.

use rookery_actors::{Authenticated, auth};
use rookery_proto::sasl::{self, Context, Mechanism, Nonce, Server, Step, encoding, offered};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{SaslFailure, StreamCondition};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use tokio::time::Instant;

use super::End;
use super::negotiate::{Frame, Negotiation, is_sm};
use super::offers::{Next, Offer, Stage, Takes};
use crate::net::guesses::{Attempt, Policy};
use crate::transport::Transport;

/// How one attempt ended.
struct Failed {
    failure: SaslFailure,
    /// The attempt was a guess of a password; so many came from the address lately.
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

impl<T: Transport> Negotiation<T> {
    /// RFC 6120 section 6, with channel bindings (XEP-0440).
    pub(super) const SASL: Offer<T> = Offer {
        stages: &[Stage::Login],
        feature: Some(|negotiation, w| {
            let (mechanisms, bindings) = (negotiation.mechanisms(), negotiation.transport.bindings());
            w.with(|out| sasl::features::write(&mechanisms, bindings, out));
        }),
        takes: Some(Takes {
            is: |frame| matches!(frame, Frame::Nonza(element) if element.ns() == ns::SASL),
            handle: |negotiation, frame| Box::pin(negotiation.login(frame)),
        }),
    };

    /// The mechanisms that this client is offered.
    fn mechanisms(&self) -> Vec<Mechanism> {
        let mut mechanisms = offered(self.transport.bindings(), self.transport.security().is_some());
        let domain = self.domain.as_ref().map(BareJid::as_str).unwrap_or_default();
        let scram = self.shared.host.authenticator(domain).abilities().scram;
        mechanisms.retain(|mechanism| match mechanism {
            Mechanism::Plain => self.settings.plain,
            Mechanism::Scram { .. } => scram,
        });
        mechanisms
    }

    /// One attempt of a client to prove who it is.
    async fn login(&mut self, frame: Frame) -> Result<Next, End> {
        let Frame::Nonza(auth) = frame else { return Ok(Next::Stay) };
        if auth.name() != "auth" {
            // Without an attempt there is nothing to abort or to respond to.
            self.say(|out| SaslFailure::MalformedRequest.write(None, out));
            self.flush().await?;
            return Ok(Next::Stay);
        }
        let (name, outcome) = self.attempt(&auth).await;
        match outcome {
            Ok(user) => {
                metrics::counter!("rookery_logins_total", "mechanism" => name, "outcome" => "ok")
                    .increment(1);
                self.standing.proved();
                self.user = Some(Authenticated::by_sasl(user));
                return Ok(Next::Restart(Stage::Session));
            }
            Err(Stop::End(end)) => return Err(end),
            Err(Stop::Failed(failed)) => self.failed(name, &failed).await?,
        }
        self.failures += 1;
        if self.failures >= self.settings.limits.login_attempts {
            metrics::counter!("rookery_limits_hit_total", "limit" => "login_attempts").increment(1);
            return Err(End::because(StreamCondition::PolicyViolation, "too many attempts"));
        }
        Ok(Next::Stay)
    }

    /// One attempt from `<auth/>` to its end; also the mechanism's name for the books.
    async fn attempt(&mut self, auth: &Element) -> (&'static str, Result<BareJid, Stop>) {
        let begun = Instant::now();
        let Some(mechanism) = auth.attr("mechanism").and_then(Mechanism::from_name) else {
            return ("unknown", Err(SaslFailure::InvalidMechanism.into()));
        };
        let outcome = self.exchange(mechanism, auth).await;
        if outcome.is_ok() {
            metrics::histogram!("rookery_login_seconds").record(begun.elapsed().as_secs_f64());
        }
        (mechanism.name(), outcome)
    }

    async fn exchange(&mut self, mechanism: Mechanism, auth: &Element) -> Result<BareJid, Stop> {
        let domain = self.domain.clone().ok_or(SaslFailure::TemporaryAuthFailure)?;
        let initial = encoding::decode_initial(&auth.text())?;
        let authenticator = self.shared.host.authenticator(domain.as_str());
        let context = Context {
            domain,
            bindings: self.transport.bindings().clone(),
            offered: self.mechanisms(),
            nonce: Nonce::from_random(self.shared.seams.bytes()),
            fakes: authenticator.fakes(),
            downgrade_hash: self.settings.downgrade_protection,
        };
        let (mut server, mut step) = Server::start(mechanism, initial.as_deref(), context);
        let mut attempt = None;
        loop {
            step = match step {
                Step::Challenge(data) => {
                    let encoded = encoding::encode(&data);
                    self.tell("challenge", &encoded).await?;
                    server.response(&self.response().await?)
                }
                Step::NeedCredentials { user } => {
                    attempt = Some(self.admit(&user).await?);
                    let found = authenticator.keys(&user).await.map_err(|error| no_answer(&error))?;
                    server.credentials(found)
                }
                Step::NeedPlainVerify(verify) => {
                    attempt = Some(self.admit(&verify.user).await?);
                    let right = authenticator.verify(verify).await.map_err(|error| no_answer(&error))?;
                    server.verified(right)
                }
                Step::Success { user, additional } => {
                    if let Some(attempt) = attempt {
                        attempt.right();
                    }
                    // Section 6.4.6: additional data goes into <success/>; there is none for PLAIN.
                    let data = additional.map(|data| encoding::encode(&data)).unwrap_or_default();
                    self.tell("success", &data).await?;
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

    /// Sends an element of SASL with such data, in base64.
    async fn tell(&mut self, name: &str, data: &str) -> Result<(), End> {
        self.say(|out| {
            let mut put =
                |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
            put(&["<", name, " xmlns='", ns::SASL, "'"]);
            if data.is_empty() {
                put(&["/>"]);
            } else {
                put(&[">", data, "</", name, ">"]);
            }
        });
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
        self.say(|out| failed.failure.write(None, out));
        self.flush().await
    }
}

/// The client learns nothing about why.
fn no_answer(error: &auth::Error) -> SaslFailure {
    if matches!(error, auth::Error::Store(_)) {
        tracing::warn!(%error, "a login failed because the store did not answer");
    }
    SaslFailure::TemporaryAuthFailure
}

#[cfg(test)]
mod tests {
    use rookery_cluster::entity::Entity;
    use rookery_cluster::store;
    use rookery_cluster::tables::accounts;
    use rookery_proto::sasl::{Credentials, Hash, client::Client as Scram};

    use super::*;
    use crate::streams::c2s::tests::{fixture, plain};

    /// An account from another server that had SCRAM-SHA-1 only.
    #[tokio::test]
    async fn plain_completes_the_keys_of_an_account_from_elsewhere() {
        let fixture = fixture(|_| {}).await;
        let whole = Credentials::derive("pencil", &[4; 32], 5_000).unwrap();
        let some = Credentials { sha256: None, sha512: None, ..whole };
        let (user, account) =
            (&Entity::new("old@localhost"), &rookery_actors::auth::credentials::to_account(&some, 1));
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
        assert_eq!(host.authenticator("localhost").keys(&jid).await.unwrap(), Some(some.clone()));
        client.send(&plain("old", "pencil")).await;
        client.until("<success").await;
        let now = host.authenticator("localhost").keys(&jid).await.unwrap().unwrap();
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
