//! POSH (RFC 7711): the fingerprints that a domain's web site gives of its certificates, fetched where nothing else proves a certificate, and
//! kept for a while.
//!
//! - `fetch`: from the domain to its fingerprints, over HTTPS, with references and redirects.
//!
//! Each domain is asked by one fetch at a time, which all who want to know wait for. Fetches for streams that this node opens have places of
//! their own: strangers, who can name any domain, do not take them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Direction, Federation};
use crate::config::Policy;
use crate::dns::names::zone;
use crate::net::places::{Place, Places};
use crate::tls::remote::posh::Fingerprints;
use crate::tls::remote::{NotProved, Proof};

mod fetch;

use fetch::{Fetch, Missing};

/// How long one fetch may take, with all that it refers to. Tests wait for its end.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 10 });
/// Fetches at a time for either direction of streams.
const AT_ONCE: usize = 64;
/// How many domains are remembered at most.
const MOST: usize = 10_000;
/// How long fingerprints hold: as their document says, and a day at most.
const HOLDS: Duration = Duration::from_secs(86_400);
/// How long it is believed that there are none, and how long a failure keeps others from trying.
const MISSES: Duration = Duration::from_secs(300);
const FAILS: Duration = Duration::from_secs(60);
/// Fingerprints that are older are fetched again where a certificate is not among them: it may be the next one.
const FRESH: Duration = Duration::from_secs(60);

/// The fingerprints of a domain, or why there are none.
type Answer = Result<Arc<Fingerprints>, Missing>;

enum Entry {
    UnderWay(watch::Receiver<Option<Answer>>),
    Known { since: Instant, until: Instant, answer: Answer },
}

/// The fingerprints that domains give of their certificates.
pub(super) struct Posh {
    known: Mutex<HashMap<String, Entry>>,
    calling: Arc<Places<String>>,
    called: Arc<Places<String>>,
}

impl Posh {
    pub(super) fn new() -> Arc<Self> {
        let places = || Places::new("posh_fetches", super::FAIR);
        Arc::new(Self { known: Mutex::default(), calling: places(), called: places() })
    }

    /// Forgets everything but what is under way.
    pub(super) fn clear(&self) {
        self.known.lock().retain(|_, entry| matches!(entry, Entry::UnderWay(_)));
    }

    /// The answer of `domain`, if one is known that still holds and is not older than `at_most`.
    fn get(&self, domain: &str, at_most: Duration) -> Option<Answer> {
        let now = Instant::now();
        match self.known.lock().get(domain)? {
            Entry::Known { since, until, answer } if *until > now && now - *since <= at_most => {
                Some(answer.clone())
            }
            _ => None,
        }
    }

    /// The answer of a domain, fetched if none is known that is not older than `at_most`.
    async fn find(self: &Arc<Self>, fetch: Fetch, at_most: Duration, direction: Direction) -> Answer {
        if let Some(known) = self.get(&fetch.domain, at_most) {
            return known;
        }
        let mut under_way = self.begin(fetch, direction)?;
        let answer = under_way.wait_for(Option::is_some).await;
        answer.ok().and_then(|answer| answer.clone()).unwrap_or(Err(Missing::Late))
    }

    /// The fetch that is under way, else a new one. A task of its own: whoever stops waiting leaves the answer to others.
    fn begin(
        self: &Arc<Self>,
        fetch: Fetch,
        direction: Direction,
    ) -> Result<watch::Receiver<Option<Answer>>, Missing> {
        let mut known = self.known.lock();
        if let Some(Entry::UnderWay(under_way)) = known.get(&fetch.domain)
            && under_way.has_changed().is_ok()
        {
            return Ok(under_way.clone());
        }
        let places = if direction == Direction::Outgoing { &self.calling } else { &self.called };
        let Some(place) = places.try_take(AT_ONCE, &zone(&fetch.domain)) else {
            metrics::counter!("rookery_limits_hit_total", "limit" => "posh_fetches").increment(1);
            return Err(Missing::Busy);
        };
        let (told, under_way) = watch::channel(None);
        make_room(&mut known);
        known.insert(fetch.domain.clone(), Entry::UnderWay(under_way.clone()));
        tokio::spawn(self.clone().run(fetch, place, told));
        Ok(under_way)
    }

    async fn run(self: Arc<Self>, fetch: Fetch, place: Place<String>, told: watch::Sender<Option<Answer>>) {
        let fetched = tokio::select! {
            fetched = timeout(PATIENCE, fetch.run()) => fetched.unwrap_or(Err(Missing::Late)),
            () = place.sent_away() => Err(Missing::Busy),
        };
        let outcome = fetched.as_ref().map_or_else(Missing::outcome, |_| "found");
        metrics::counter!("rookery_posh_fetches_total", "outcome" => outcome).increment(1);
        let (answer, holds) = match fetched {
            Ok((fingerprints, holds)) => (Ok(Arc::new(fingerprints)), holds.min(HOLDS)),
            Err(missing) => {
                tracing::debug!(domain = fetch.domain, %missing, "another domain has no POSH file that can be used");
                let holds = if missing.is_passing() { FAILS } else { MISSES };
                (Err(missing), holds)
            }
        };
        let since = Instant::now();
        let entry = Entry::Known { since, until: since + holds, answer: answer.clone() };
        let mut known = self.known.lock();
        known.insert(fetch.domain, entry);
        #[allow(clippy::cast_precision_loss)] // at most MOST
        metrics::gauge!("rookery_posh_domains").set(known.len() as f64);
        drop(known);
        told.send_replace(Some(answer));
    }
}

/// Room for one more: answers that do not hold any more go, then every second one. Fetches that are under way stay: places bound their number.
fn make_room(known: &mut HashMap<String, Entry>) {
    if known.len() < MOST {
        return;
    }
    let now = Instant::now();
    known.retain(|_, entry| !matches!(entry, Entry::Known { until, .. } if *until <= now));
    if known.len() >= MOST {
        let mut keep = false;
        known.retain(|_, entry| {
            keep = !keep;
            keep || matches!(entry, Entry::UnderWay(_))
        });
    }
}

impl Federation {
    /// Whether the POSH file of `remote` proves a certificate that nothing else has proved, which is why `error`. The error says why not, for the
    /// operator.
    pub(super) async fn judge_by_posh(
        &self,
        chain: &[CertificateDer<'_>],
        remote: &str,
        error: NotProved,
        direction: Direction,
    ) -> Result<Proof, String> {
        let settings = self.settings.load_full();
        let federation = &settings.federation;
        // With the policy `dane` it would not be enough, and with `dialback` it is not needed.
        let wanted = federation.posh && federation.policy(remote) == Policy::Certificate;
        if !wanted || !can_help(&error) || !federation.admits(remote) {
            return Err(error.to_string());
        }
        for at_most in [HOLDS, FRESH] {
            let fetch = Fetch::new(self, remote).map_err(|missing| format!("{error}; {missing}"))?;
            let found = self.posh.find(fetch, at_most, direction).await;
            let fingerprints = found.map_err(|missing| format!("{error}; its POSH file: {missing}"))?;
            match self.judge.load().by_fingerprint(chain, &fingerprints) {
                Ok(proof) => return Ok(proof),
                Err(NotProved::WrongFingerprint) => {}
                Err(other) => return Err(other.to_string()),
            }
        }
        Err(format!("{error}; {}", NotProved::WrongFingerprint))
    }
}

/// Whether a POSH file can prove a certificate with this fault. DANE decides alone where it decides (RFC 7673 section 4).
fn can_help(error: &NotProved) -> bool {
    match error {
        NotProved::WrongName { .. }
        | NotProved::UnknownAuthority
        | NotProved::WrongUsage
        | NotProved::Invalid(_) => true,
        NotProved::NoCertificate
        | NotProved::Malformed(_)
        | NotProved::Expired(_)
        | NotProved::NotYetValid(_)
        | NotProved::WrongRecord
        | NotProved::WrongFingerprint => false,
    }
}

/// Tests look at this, and change it.
#[cfg(test)]
impl Posh {
    /// Why nothing is known of `domain`.
    pub(super) fn why(&self, domain: &str) -> Option<String> {
        self.get(domain, HOLDS)?.err().map(|missing| missing.to_string())
    }

    /// How long what is known of `domain` holds.
    pub(super) fn holds(&self, domain: &str) -> Option<Duration> {
        match self.known.lock().get(domain)? {
            Entry::Known { until, .. } => Some(*until - Instant::now()),
            Entry::UnderWay(_) => None,
        }
    }

    /// Makes what is known of `domain` older.
    pub(super) fn age(&self, domain: &str, by: Duration) {
        if let Some(Entry::Known { since, .. }) = self.known.lock().get_mut(domain) {
            *since -= by;
        }
    }

    /// Takes all places of streams that others open.
    pub(super) fn fill_called(&self) -> Vec<Place<String>> {
        (0..AT_ONCE).map(|n| self.called.try_take(AT_ONCE, &format!("{n}.example")).unwrap()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_known_has_a_bound_and_an_end() {
        let mut known = HashMap::new();
        let entry = |holds| {
            let since = Instant::now();
            Entry::Known { since, until: since + holds, answer: Err(Missing::None(404)) }
        };
        let (told, under_way) = watch::channel(None);
        known.insert("slow.example".to_owned(), Entry::UnderWay(under_way));
        for n in 0..2 * MOST {
            make_room(&mut known);
            known.insert(format!("{n}.example"), entry(MISSES));
            assert!(known.len() <= MOST);
        }
        assert!(matches!(known.get("slow.example"), Some(Entry::UnderWay(_))));
        let posh = Posh::new();
        posh.known.lock().insert("b.example".to_owned(), entry(MISSES));
        tokio::time::advance(FRESH).await;
        assert!(posh.get("b.example", FRESH).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(posh.get("b.example", FRESH).is_none() && posh.get("b.example", HOLDS).is_some());
        tokio::time::advance(MISSES).await;
        assert!(posh.get("b.example", HOLDS).is_none());
        drop(told);
    }
}
