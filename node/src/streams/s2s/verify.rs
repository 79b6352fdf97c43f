//! Asking the server that is authoritative for a domain whether a key is its own (XEP-0220 section 2.1.2). Each question has a
//! connection of its own, which is closed with the answer: it must not be the one that the key came on.

use rookery_actors::link::stream::Pair;
use rookery_proto::xmpp::dialback::{Dialback, Kind, Says};
use rookery_proto::xmpp::error::Condition;
use tokio::time::timeout;

use super::Federation;
use super::conn::{End, Frame};
use super::open::{Closed, Opened};
use crate::net::Origin;
use crate::net::places::Place;

/// What the authoritative server says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The key is the domain's own.
    Valid,
    /// The key is not the domain's own.
    Invalid,
    /// No verdict: the authoritative server could not be asked, or could not say.
    Error(Condition),
}

impl Federation {
    /// A place among those that verify, for a key that came from an address, if one can be had.
    pub(super) fn may_verify(&self, from: Option<Origin>) -> Option<Place<Option<Origin>>> {
        let place = self.verifying.try_take(self.settings.load().federation.limits.verifications, &from);
        if place.is_none() {
            let limit = "federation.verifications";
            metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
        }
        place
    }

    /// Whether `key` is what the pair's remote domain gave for our stream `id`. Takes twice `negotiation_seconds` at most.
    pub(super) async fn verify(
        &self,
        pair: &Pair,
        id: &str,
        key: String,
        place: Place<Option<Origin>>,
    ) -> Verdict {
        let wait = self.settings.load().federation.limits.negotiation.saturating_mul(2);
        let asked = tokio::select! {
            asked = timeout(wait, self.ask(pair, id, key)) => asked.ok(),
            () = place.sent_away() => None,
        };
        let verdict = match asked {
            Some(Ok(verdict)) => verdict,
            Some(Err(closed)) => {
                tracing::debug!(pair = %pair, ?closed, "a dialback key could not be verified");
                Verdict::Error(closed.condition())
            }
            None => Verdict::Error(Condition::RemoteServerTimeout),
        };
        let outcome = match verdict {
            Verdict::Valid => "valid",
            Verdict::Invalid => "invalid",
            Verdict::Error(_) => "error",
        };
        metrics::counter!("rookery_dialback_total", "outcome" => outcome).increment(1);
        verdict
    }

    async fn ask(&self, pair: &Pair, id: &str, key: String) -> Result<Verdict, Closed> {
        let Opened { mut conn, .. } = self.open(pair).await?;
        let question = Dialback {
            kind: Kind::Verify { id: id.to_owned() },
            from: pair.local().clone(),
            to: pair.remote().clone(),
            says: Says::Key(key),
        };
        question.write(&mut conn.out);
        conn.flush(self).await?;
        let verdict = loop {
            let Frame::Nonza(element) = conn.next().await? else { continue };
            if !Dialback::is(&element) {
                continue;
            }
            // Section 3: only the answer to this very question counts.
            let Ok(answer) = Dialback::parse(&element) else { continue };
            if answer.kind != question.kind || answer.from != question.to || answer.to != question.from {
                continue;
            }
            break match answer.says {
                Says::Valid => Verdict::Valid,
                Says::Invalid => Verdict::Invalid,
                // Section 2.5: whatever the reason is there, here it is that nobody can say.
                Says::Error(_) => Verdict::Error(Condition::RemoteServerNotFound),
                Says::Key(_) => continue,
            };
        };
        tokio::spawn(conn.close(End::Clean, None));
        Ok(verdict)
    }
}
