//! Login (RFC 6120 section 6): the conversation around the state machines of `rookery_proto::sasl`.

use rookery_actors::Authenticated;
use rookery_proto::sasl::{Context, Credentials, Mechanism, Nonce, Server, Step, encoding, offered};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{SaslFailure, StreamCondition};
use rookery_proto::xmpp::jid::BareJid;
use rookery_proto::xmpp::ns;
use tokio::time::Instant;

use super::negotiate::{Frame, Negotiation};
use super::{End, Shared, features};
use crate::net::Stream;

/// How one attempt ended.
struct Failed {
    failure: SaslFailure,
    /// Counts against the client's address: it tried a password, or the like.
    guess: bool,
}

impl From<SaslFailure> for Failed {
    fn from(failure: SaslFailure) -> Self {
        Self { failure, guess: failure == SaslFailure::NotAuthorized }
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
        let limits = &self.settings.limits;
        let delay =
            self.shared.failures.delay(self.origin, limits.login_failures_per_address, limits.login_delay);
        if !delay.is_zero() {
            metrics::counter!("rookery_limits_hit_total", "limit" => "login_failures_per_address")
                .increment(1);
            tokio::time::sleep(delay).await;
        }
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
        let fakes = self.shared.host.fakes().clone();
        let context = Context {
            domain,
            bindings: self.bindings.clone(),
            offered: mechanisms.to_vec(),
            nonce: Nonce::from_random(self.shared.seams.bytes()),
            fakes: fakes.clone(),
            downgrade_hash: self.settings.downgrade_protection,
        };
        let (mut server, mut step) = Server::start(mechanism, initial.as_deref(), context);
        loop {
            step = match step {
                Step::Challenge(data) => {
                    let encoded = encoding::encode(&data);
                    self.say("challenge", &encoded).await?;
                    server.response(&self.response().await?)
                }
                Step::NeedCredentials { user } => {
                    let found = credentials(&self.shared, &user).await?;
                    server.credentials(found)
                }
                Step::NeedPlainVerify(verify) => {
                    let found = credentials(&self.shared, &verify.user).await?;
                    // Milliseconds of hashing: on a thread that may block, and only a few at a time.
                    let _permit =
                        self.shared.hashing.acquire().await.map_err(|_| SaslFailure::TemporaryAuthFailure)?;
                    let fakes = fakes.clone();
                    let check = move || verify.check(found.as_ref(), &fakes);
                    let right = tokio::task::spawn_blocking(check).await;
                    server.verified(right.map_err(|_| SaslFailure::TemporaryAuthFailure)?)
                }
                Step::Success { user, additional } => {
                    // Section 6.4.6: additional data goes into <success/>; there is none for PLAIN.
                    let data = additional.map(|data| encoding::encode(&data)).unwrap_or_default();
                    self.say("success", &data).await?;
                    return Ok(user);
                }
                Step::Failure(failure) => return Err(failure.into()),
            };
        }
    }

    /// `<response/>`, decoded (section 6.4.3).
    async fn response(&mut self) -> Result<Vec<u8>, Stop> {
        match self.next().await? {
            Frame::Nonza(element) if element.is("response", ns::SASL) => {
                Ok(encoding::decode(&element.text())?)
            }
            Frame::Nonza(element) if element.is("abort", ns::SASL) => Err(SaslFailure::Aborted.into()),
            Frame::Nonza(element) if element.ns() == ns::SASL => Err(SaslFailure::MalformedRequest.into()),
            Frame::Nonza(_) => Err(End::error(StreamCondition::UnsupportedStanzaType).into()),
            _ => Err(End::error(StreamCondition::NotAuthorized).into()),
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
        if failed.guess {
            let count = self.shared.failures.add(self.origin);
            tracing::info!(address = %self.address, mechanism, reason = name, count, "login failed");
        } else {
            tracing::debug!(address = %self.address, mechanism, reason = name, "login failed");
        }
        failed.failure.write(None, &mut self.out);
        self.flush().await
    }
}

async fn credentials(shared: &Shared, user: &BareJid) -> Result<Option<Credentials>, SaslFailure> {
    shared.host.credentials(user).await.map_err(|error| {
        tracing::warn!(%error, "a login failed because the store did not answer");
        SaslFailure::TemporaryAuthFailure
    })
}
