//! Server dialback on a running stream (XEP-0220 version 1.1.1): the receiving server's part, which judges keys, and that of the
//! authoritative server, which knows its own.

use rookery_actors::link::stream::Pair;
use rookery_proto::xmpp::dialback::{Dialback, Error, Kind, Says};
use rookery_proto::xmpp::element::Element;
use rookery_proto::xmpp::error::{Condition, ErrorType, StanzaError, StreamCondition};

use super::claims::Proved;
use super::conn::End;
use super::running::Running;
use super::table::Order;
use super::verify::Verdict;
use super::{Federation, proof};
use crate::config::Policy;
use crate::net::Origin;
use crate::net::seldom::Seldom;

/// Limits the log's lines about false keys, since any server can send false keys.
static FALSE_KEYS: Seldom = Seldom::new();

/// An error of dialback (section 2.5) with a text for the other operator.
pub(super) fn error(condition: Condition, text: &'static str) -> Says {
    Says::Error(StanzaError::new(condition).text(text))
}

/// The same for what may go well later.
fn later(condition: Condition, text: &'static str) -> Says {
    Says::Error(StanzaError::new(condition).type_(ErrorType::Wait).text(text))
}

/// Reads an element.
///
/// # Errors
/// The stream error that it deserves.
pub(super) fn read(element: &Element) -> Result<Dialback, End> {
    Dialback::parse(element).map_err(|error| match error {
        Error::Addressing => End::error(StreamCondition::ImproperAddressing),
        Error::Schema => End::error(StreamCondition::InvalidXml),
    })
}

impl Federation {
    /// The authoritative server's answer (section 2.2.2): whether the key is the one that this deployment made for its domain `to`,
    /// the server `from`, and that server's stream.
    pub(super) fn is_ours(&self, request: &Dialback, id: &str, key: &str) -> Says {
        if !self.host.answers(request.to.as_str()) {
            return error(Condition::ItemNotFound, "the domain is not served here");
        }
        match self.host.is_dialback_key(request.from.as_str(), request.to.as_str(), id, key) {
            true => Says::Valid,
            false => Says::Invalid,
        }
    }
}

impl Running {
    /// An element of dialback.
    pub(super) fn dialback(&mut self, element: &Element) -> Result<(), End> {
        let read = read(element)?;
        match (&read.kind, &read.says) {
            (Kind::Verify { id }, Says::Key(key)) => {
                let says = self.federation.is_ours(&read, id, key);
                read.answer(says).write(&mut self.own);
            }
            (Kind::Result, Says::Key(key)) => {
                if let Some(says) = self.judge(&read, key) {
                    read.answer(says).write(&mut self.own);
                }
            }
            // Section 3: an answer that nobody asked for proves nothing. This stream asks nobody.
            (_, Says::Valid | Says::Invalid | Says::Error(_)) => {
                metrics::counter!("rookery_dialback_total", "outcome" => "unasked").increment(1);
                tracing::debug!(address = %self.address, from = %read.from, "an answer of dialback that nobody asked for");
            }
        }
        Ok(())
    }

    /// A key (section 2.2.1). What to answer at once; `None`: it is verified.
    fn judge(&mut self, request: &Dialback, key: &str) -> Option<Says> {
        let host = &self.federation.host;
        if !host.answers(request.to.as_str()) {
            return Some(error(Condition::ItemNotFound, "the domain is not served here"));
        }
        let pair = Pair::new(&request.to, &request.from);
        let pair = pair.filter(|_| !host.answers(request.from.as_str()));
        let Some(pair) = pair else {
            return Some(error(Condition::NotAcceptable, "the domain is served here"));
        };
        let remote = pair.remote().domain();
        if !self.both_ways() {
            return Some(error(Condition::PolicyViolation, "this stream goes one way"));
        }
        if !self.federation.settings.load().federation.admits(remote) {
            return Some(error(Condition::PolicyViolation, "this server does not talk to the domain"));
        }
        if self.is_proved(&pair) {
            return Some(Says::Valid);
        }
        if self.verifying.contains(&pair) {
            // The answer to the first will do. A replay gets nothing of its own.
            return None;
        }
        let most = self.settings.federation.limits.domains_per_stream;
        if self.proved.len() + self.verifying.len() >= most {
            let limit = "federation.domains_per_stream";
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
            return Some(later(Condition::ResourceConstraint, "too many domains on one stream"));
        }
        if !self.federation.has_room(&pair) {
            return Some(later(Condition::ResourceConstraint, "too many streams of this domain"));
        }
        self.verify(pair, key.to_owned())
    }

    /// Has a key verified, or the certificate do without ("dialback without dialing back").
    fn verify(&mut self, pair: Pair, key: String) -> Option<Says> {
        let dials =
            self.federation.settings.load().federation.policy(pair.remote().domain()) == Policy::Dialback;
        let from = self.address.parse::<std::net::SocketAddr>().ok().map(|from| Origin::from(from.ip()));
        let place = if dials { self.federation.may_verify(from) } else { None };
        if dials && place.is_none() {
            return Some(later(Condition::ResourceConstraint, "too many keys are being verified"));
        }
        self.verifying.push(pair.clone());
        let (federation, chain) = (self.federation.clone(), self.io.wire.chain.clone());
        let (orders, id) = (self.place.orders().clone(), self.id.clone());
        tokio::spawn(async move {
            let proved = federation.judge_caller(&chain, pair.remote()).await;
            let (verdict, by) = match (proved, place) {
                (Some(found), _) => (Verdict::Valid, proof::name(Some(found))),
                (None, Some(place)) => (federation.verify(&pair, &id, key, place).await, proof::name(None)),
                (None, None) => (Verdict::Error(Condition::NotAuthorized), ""),
            };
            // If the stream has ended, the verdict is of no use.
            let _ = orders.send(Order::Verified(pair, verdict, by)).await;
        });
        None
    }

    /// What became of a key.
    pub(super) fn verified(&mut self, pair: Pair, verdict: Verdict, by: &'static str) -> Result<(), End> {
        let Some(at) = self.verifying.iter().position(|one| *one == pair) else { return Ok(()) };
        self.verifying.swap_remove(at);
        let (from, to) = (pair.remote().clone(), pair.local().clone());
        let answer = |says| Dialback { kind: Kind::Result, from: to.clone(), to: from.clone(), says };
        // The lists may be others by now, and the policy.
        let settings = self.federation.settings.load_full();
        let says = match verdict {
            _ if !settings.federation.admits(from.domain()) => {
                error(Condition::PolicyViolation, "this server does not talk to the domain")
            }
            Verdict::Valid if !settings.federation.takes(from.domain(), by) => {
                error(Condition::NotAuthorized, "a valid certificate is required")
            }
            // Counted on streams that another server has opened.
            Verdict::Valid => match self.incoming().then(|| self.federation.claim(&pair)) {
                Some(None) => later(Condition::ResourceConstraint, "too many streams of this domain"),
                claim => {
                    self.prove(Proved { pair, by, _claim: claim.flatten() });
                    Says::Valid
                }
            },
            Verdict::Invalid => {
                if let Some(others) = FALSE_KEYS.now() {
                    tracing::warn!(
                        address = %self.address, domain = %from, others,
                        "another server claims a domain with a dialback key that the domain's own server does not know"
                    );
                }
                if self.proved.is_empty() && self.verifying.is_empty() {
                    // Section 2.2.1: the stream is of no use.
                    answer(Says::Invalid).write(&mut self.own);
                    return Err(End::Clean);
                }
                error(Condition::Forbidden, "the key is not that of the domain")
            }
            Verdict::Error(Condition::NotAuthorized) => {
                error(Condition::NotAuthorized, "a valid certificate is required")
            }
            Verdict::Error(condition) => later(condition, "the key could not be verified"),
        };
        answer(says).write(&mut self.own);
        Ok(())
    }
}
