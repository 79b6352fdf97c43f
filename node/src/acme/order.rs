//! One order (RFC 8555 section 7.4) from its beginning to its end. Where it stands is in the store after every step, so that another
//! node can go on.

use std::time::Duration;

use bytes::Bytes;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rookery_cluster::store;
use rookery_cluster::tables::certificates::{Certificate, How, State};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::client::Client;
use super::{Acme, hook, keep, schedule};
use crate::config::{self, Challenge};

/// How an order is looked at: from a quarter of a second on less and less often, for three minutes.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// The longest text of an error that is kept, characters.
const TEXT: usize = 500;

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// For the operator.
    pub(super) text: String,
    /// The order can't succeed any more, or is unknown to the authority.
    pub(super) over: bool,
    /// The authority does not know the account.
    pub(super) stranger: bool,
}

impl Failure {
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        let text =
            error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT).collect();
        Self { text, over: false, stranger: false }
    }

    /// The order is over.
    fn over(error: impl std::fmt::Display) -> Self {
        Self { over: true, ..Self::of(error) }
    }
}

impl From<instant_acme::Error> for Failure {
    fn from(error: instant_acme::Error) -> Self {
        let instant_acme::Error::Api(problem) = &error else { return Self::of(error) };
        let kind = problem.r#type.as_deref().unwrap_or_default();
        let stranger = kind.ends_with(":accountDoesNotExist");
        let detail = problem.detail.as_deref().unwrap_or("no detail");
        // What was refused for now can be tried again; what is wrong stays wrong.
        let passes = [":badNonce", ":rateLimited", ":serverInternal"].iter().any(|end| kind.ends_with(end));
        let over = !passes && problem.status.is_none_or(|status| status < 500);
        let part = |sub: &instant_acme::Subproblem| format!("; {sub}");
        let parts: String = problem.subproblems.iter().map(part).collect();
        Self { over, stranger, ..Self::of(format!("the authority refused: {detail}{parts} ({kind})")) }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::of(format!("the store failed: {error}"))
    }
}

/// What an attempt works with.
pub(super) struct Attempt<'a> {
    pub(super) acme: &'a Acme,
    pub(super) config: &'a config::Acme,
    pub(super) client: &'a Client,
    pub(super) name: &'a str,
}

impl Attempt<'_> {
    /// Orders a certificate, or goes on with the order under way. Nothing is stored of the certificate itself.
    pub(super) async fn run(
        &self,
        mut state: State,
        before: Option<&Certificate>,
    ) -> Result<Certificate, Failure> {
        let account = self.acme.account(self.config, self.client).await?;
        if schedule::goes_on(&state, &self.config.directory, self.acme.now()) {
            tracing::info!(domain = self.name, order = state.order, "the order under way goes on");
            match self.go_on(&account, &state).await {
                Err(failure) if failure.over && !failure.stranger => {
                    tracing::debug!(domain = self.name, error = failure.text, "the order under way is over");
                }
                outcome => return outcome,
            }
        }
        // Before the authority has any work: the store accepts what follows, and the turn is still this node's.
        let (now, directory) = (self.acme.now(), &self.config.directory);
        let claim = |state: &mut State| {
            state.order.clear();
            state.directory.clone_from(directory);
            (state.begun, state.key) = (now, Bytes::new());
        };
        self.acme.update(self.name, claim).await?;
        let order = self.open(&account, before).await?;
        let url = order.url().to_owned();
        let opened = |state: &mut State| {
            state.order.clone_from(&url);
            state.wanted = false;
        };
        state = self.acme.update(self.name, opened).await?;
        self.finish(order, &state).await
    }

    /// A new order, with the certificate that the order replaces (RFC 9773 section 5) if the authority can take that.
    async fn open(&self, account: &Account, before: Option<&Certificate>) -> Result<Order, Failure> {
        let names = [Identifier::Dns(self.name.to_owned())];
        let before = before.filter(|before| before.directory == self.config.directory);
        if let Some(replaced) = before.and_then(identifier) {
            match account.new_order(&NewOrder::new(&names).replaces(replaced)).await {
                Ok(order) => return Ok(order),
                // The authority cannot, or was told so before: then without.
                Err(instant_acme::Error::Unsupported(_)) => {}
                Err(instant_acme::Error::Api(problem))
                    if problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":alreadyReplaced"))
                        || matches!(problem.status, Some(400 | 404 | 409)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(account.new_order(&NewOrder::new(&names)).await?)
    }

    async fn go_on(&self, account: &Account, state: &State) -> Result<Certificate, Failure> {
        let order = account.order(state.order.clone()).await?;
        self.finish(order, state).await
    }

    async fn finish(&self, mut order: Order, state: &State) -> Result<Certificate, Failure> {
        if order.state().status == OrderStatus::Pending {
            self.prove(&mut order).await?;
        }
        let key = match order.state().status {
            OrderStatus::Ready => self.finalize(&mut order, state).await?,
            OrderStatus::Processing | OrderStatus::Valid if !state.key.is_empty() => state.key.clone(),
            OrderStatus::Processing | OrderStatus::Valid => {
                return Err(Failure::over("the order has no key here"));
            }
            OrderStatus::Pending | OrderStatus::Invalid => {
                return Err(Failure::over("the authority gave the order up"));
            }
        };
        let pem = order.poll_certificate(&POLL).await?;
        let chain = CertificateDer::pem_slice_iter(pem.as_bytes());
        let chain = chain.map(|der| der.map(|der| Bytes::copy_from_slice(&der)));
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(Failure::over)?;
        let certificate = Certificate { chain, key, directory: self.config.directory.clone() };
        self.acme.tls.check(self.name, &keep::issued(&certificate)).map_err(Failure::over)?;
        Ok(certificate)
    }

    /// Sends the request for the certificate. Its key is stored before: without it the certificate is of no use.
    async fn finalize(&self, order: &mut Order, state: &State) -> Result<Bytes, Failure> {
        let key = match state.key.is_empty() {
            true => KeyPair::generate().map_err(Failure::of)?,
            false => KeyPair::try_from(&*state.key).map_err(Failure::over)?,
        };
        let der = Bytes::from(key.serialize_der());
        self.acme.update(self.name, |state| state.key.clone_from(&der)).await?;
        let mut params = CertificateParams::new(vec![self.name.to_owned()]).map_err(Failure::of)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(Failure::of)?;
        order.finalize_csr(request.der()).await?;
        Ok(der)
    }

    /// Answers the challenges of a pending order until it is ready.
    async fn prove(&self, order: &mut Order) -> Result<(), Failure> {
        let mut answers = Vec::new();
        let outcome = self.answer(order, &mut answers).await;
        for answer in answers {
            self.withdraw(answer).await;
        }
        match outcome {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(Failure::over(self.why(order).await)),
            Err(failure) if failure.over => Err(Failure { text: self.why(order).await, ..failure }),
            Err(failure) => Err(failure),
        }
    }

    async fn answer(&self, order: &mut Order, answers: &mut Vec<Answer>) -> Result<OrderStatus, Failure> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => return Err(Failure::over(format!("the authorization of the name is {other:?}"))),
            }
            let wanted = self.kind();
            let Some(mut challenge) = authorization.challenge(wanted.clone()) else {
                return Err(Failure::over(format!(
                    "the authority offers no {} for this name",
                    word(&wanted)
                )));
            };
            let authorization = challenge.key_authorization();
            let answer = match &self.config.challenge {
                Challenge::Http01 => Answer::Stored(How::Http, challenge.token.clone()),
                Challenge::TlsAlpn01 => Answer::Stored(How::Alpn, self.name.to_owned()),
                Challenge::Dns01(hook) => Answer::Record(hook.clone(), authorization.dns_value()),
            };
            // Before it is set: what fails half way is removed, too.
            answers.push(answer.clone());
            match &answer {
                Answer::Stored(how, of) => self.acme.put_answer(*how, of, authorization.as_str()).await?,
                Answer::Record(hook, value) => {
                    hook::call(hook, hook::Verb::Set, self.name, value).await.map_err(Failure::of)?;
                }
            }
            if challenge.status == ChallengeStatus::Pending {
                challenge.set_ready().await?;
            }
        }
        Ok(order.poll_ready(&POLL).await?)
    }

    async fn withdraw(&self, answer: Answer) {
        let removed = match &answer {
            Answer::Stored(how, of) => self.acme.remove_answer(*how, of).await.map_err(|e| e.to_string()),
            Answer::Record(hook, value) => hook::call(hook, hook::Verb::Remove, self.name, value).await,
        };
        if let Err(error) = removed {
            tracing::debug!(domain = self.name, error, "the answer to a challenge could not be removed");
        }
    }

    /// Why the authority gave an order up: the errors of its challenges.
    async fn why(&self, order: &mut Order) -> String {
        let mut all = String::new();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            let Ok(state) = authorization.refresh().await else { continue };
            for problem in state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
                all.push_str("; ");
                all.push_str(problem.detail.as_deref().unwrap_or("no detail"));
            }
        }
        let reason = all.strip_prefix("; ").unwrap_or("no reason was given");
        format!("the authority could not check the name by {}: {reason}", word(&self.kind()))
    }

    fn kind(&self) -> ChallengeType {
        match self.config.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::Dns01(_) => ChallengeType::Dns01,
        }
    }
}

/// What was set up for a challenge.
#[derive(Clone)]
enum Answer {
    Stored(How, String),
    Record(config::Hook, String),
}

fn word(kind: &ChallengeType) -> &'static str {
    match kind {
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::Http01 => "http-01",
        _ => "dns-01",
    }
}

/// How an authority names a certificate in renewal information (RFC 9773 section 4.1).
pub(super) fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let der = CertificateDer::from(certificate.chain.first()?.to_vec());
    CertificateIdentifier::try_from(&der).ok().map(CertificateIdentifier::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, status: u16) -> Failure {
        let json = format!(
            r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"no\u001b[2J\nmore","status":{status}}}"#
        );
        instant_acme::Error::Api(serde_json::from_str(&json).unwrap()).into()
    }

    #[test]
    fn what_can_be_tried_again_keeps_the_order() {
        for (kind, status, over) in [
            ("rateLimited", 429, false),
            ("badNonce", 400, false),
            ("serverInternal", 500, false),
            ("connection", 503, false),
            ("unauthorized", 403, true),
            ("malformed", 404, true),
        ] {
            let failure = refused(kind, status);
            assert_eq!((failure.over, failure.stranger), (over, false), "{kind}");
        }
        assert!(refused("accountDoesNotExist", 400).stranger);
        assert!(!Failure::from(instant_acme::Error::Timeout(None)).over);
    }

    #[test]
    fn what_an_authority_says_cannot_disturb_a_terminal_or_fill_the_store() {
        let text = refused("malformed", 400).text;
        assert!(
            text.starts_with("the authority refused: no") && !text.contains(char::is_control),
            "{text:?}"
        );
        assert_eq!(Failure::of("x".repeat(100_000)).text.len(), TEXT);
    }
}
