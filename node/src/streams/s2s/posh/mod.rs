//! POSH (RFC 7711): the fingerprints that a domain's web site gives of its certificates, fetched where nothing else proves a certificate, and
//! kept for a while.
//!
//! - `fetch`: from the domain to its fingerprints, over HTTPS, with references and redirects.
//!
//! Each domain is asked by one fetch at a time, which all who want to know wait for. Fetches for streams that this node opens have places of
//! their own: strangers, who can name any domain, do not take them. What strangers cause takes nothing from what is known either: fingerprints
//! count while newer ones are fetched, and go only when a web server has said something else.

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

/// What is known of a domain, and the fetch that is under way. One of them at least.
#[derive(Default)]
struct Entry {
    known: Option<Known>,
    under_way: Option<watch::Receiver<Option<Answer>>>,
}

/// An answer.
#[derive(Clone)]
struct Known {
    /// When the web server was asked.
    since: Instant,
    /// How long the answer holds.
    until: Instant,
    answer: Answer,
}

impl Entry {
    /// Whether a fetch is under way: its task runs.
    fn is_under_way(&self) -> bool {
        self.under_way.as_ref().is_some_and(|under_way| under_way.has_changed().is_ok())
    }

    /// What holds of what is known.
    fn holds(&self, now: Instant) -> Option<&Known> {
        self.known.as_ref().filter(|known| known.until > now)
    }
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

    /// Forgets everything. What is under way is told to those who wait for it, and to nobody else: other settings may hold now.
    pub(super) fn clear(&self) {
        self.known.lock().clear();
    }

    /// The answer of `domain`, if one is known that still holds and is not older than `at_most`.
    fn get(&self, domain: &str, at_most: Duration) -> Option<Answer> {
        let now = Instant::now();
        let all = self.known.lock();
        let known = all.get(domain)?.holds(now)?;
        (now - known.since <= at_most).then(|| known.answer.clone())
    }

    /// The answer of a domain, fetched if none is known that is not older than `at_most`.
    async fn find(self: &Arc<Self>, fetch: Fetch, at_most: Duration, direction: Direction) -> Answer {
        if let Some(known) = self.get(&fetch.domain, at_most) {
            return known;
        }
        let fetch = Arc::new(fetch);
        let mut answer = self.ask(&fetch, direction).await;
        if answer == Err(Missing::Busy) && direction == Direction::Outgoing {
            // It may have been a stranger's fetch that had to make room. Ours have places of their own.
            answer = self.ask(&fetch, direction).await;
        }
        answer
    }

    async fn ask(self: &Arc<Self>, fetch: &Arc<Fetch>, direction: Direction) -> Answer {
        let mut under_way = self.begin(fetch, direction)?;
        let answer = under_way.wait_for(Option::is_some).await;
        answer.ok().and_then(|answer| answer.clone()).unwrap_or(Err(Missing::Late))
    }

    /// The fetch that is under way, else a new one. A task of its own: whoever stops waiting leaves the answer to others.
    fn begin(
        self: &Arc<Self>,
        fetch: &Arc<Fetch>,
        direction: Direction,
    ) -> Result<watch::Receiver<Option<Answer>>, Missing> {
        let mut known = self.known.lock();
        if let Some(entry) = known.get(&fetch.domain)
            && entry.is_under_way()
            && let Some(under_way) = &entry.under_way
        {
            return Ok(under_way.clone());
        }
        let places = if direction == Direction::Outgoing { &self.calling } else { &self.called };
        let Some(place) = places.try_take(AT_ONCE, &zone(&fetch.domain)) else {
            metrics::counter!("rookery_limits_hit_total", "limit" => "posh_fetches").increment(1);
            return Err(Missing::Busy);
        };
        let (told, under_way) = watch::channel(None);
        if !known.contains_key(&fetch.domain) {
            make_room(&mut known);
        }
        known.entry(fetch.domain.clone()).or_default().under_way = Some(under_way.clone());
        tokio::spawn(self.clone().run(fetch.clone(), place, told));
        Ok(under_way)
    }

    async fn run(
        self: Arc<Self>,
        fetch: Arc<Fetch>,
        place: Place<String>,
        told: watch::Sender<Option<Answer>>,
    ) {
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
        let mut all = self.known.lock();
        let own = |entry: &Entry| {
            entry.under_way.as_ref().is_some_and(|under_way| under_way.same_channel(&told.subscribe()))
        };
        let answer = match all.get_mut(&fetch.domain).filter(|entry| own(entry)) {
            None => answer, // everything was forgotten meanwhile
            Some(entry) => {
                entry.under_way = None;
                let answer = entry.learn(answer, holds);
                if entry.known.is_none() {
                    all.remove(&fetch.domain);
                }
                answer
            }
        };
        #[allow(clippy::cast_precision_loss)] // at most MOST
        metrics::gauge!("rookery_posh_domains").set(all.len() as f64);
        drop(all);
        told.send_replace(Some(answer));
    }
}

impl Entry {
    /// What those are told who wait for an answer, which holds for so long.
    fn learn(&mut self, answer: Answer, holds: Duration) -> Answer {
        let now = Instant::now();
        let before = self.holds(now).filter(|known| known.answer.is_ok()).cloned();
        let known = match (&answer, before) {
            // Nobody was asked: that says nothing.
            (Err(Missing::Busy), _) => return answer,
            // Fingerprints hold for as long as their document has said (RFC 7711 section 6), also while their web server is away.
            (Err(missing), Some(before)) if missing.is_passing() => Known { since: now, ..before },
            _ => Known { since: now, until: now + holds, answer },
        };
        self.known.insert(known).answer.clone()
    }
}

/// Room for one more: answers that do not hold any more go, then those that say that there is nothing, which strangers can make with any name,
/// then every second one. Fetches that are under way stay: places bound their number.
fn make_room(known: &mut HashMap<String, Entry>) {
    if known.len() < MOST {
        return;
    }
    let now = Instant::now();
    known.retain(|_, entry| entry.is_under_way() || entry.holds(now).is_some());
    if known.len() >= MOST {
        let found = |entry: &Entry| entry.known.as_ref().is_some_and(|known| known.answer.is_ok());
        known.retain(|_, entry| entry.is_under_way() || found(entry));
    }
    if known.len() >= MOST {
        let mut keep = false;
        known.retain(|_, entry| {
            keep = !keep;
            keep || entry.is_under_way()
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
        let now = Instant::now();
        Some(self.known.lock().get(domain)?.holds(now)?.until - now)
    }

    /// Makes what is known of `domain` older.
    pub(super) fn age(&self, domain: &str, by: Duration) {
        if let Some(known) = self.known.lock().get_mut(domain).and_then(|entry| entry.known.as_mut()) {
            known.since -= by;
        }
    }

    /// Takes all places of streams that others open, each for a zone of its own, or all for one.
    pub(super) fn fill_called(&self, zones: bool) -> Vec<Place<String>> {
        let zone = |n| if zones { format!("{n}.example") } else { "b.example".to_owned() };
        (0..AT_ONCE).map_while(|n| self.called.try_take(AT_ONCE, &zone(n))).collect()
    }

    /// One of them.
    pub(super) fn call(&self, zone: &str) -> Option<Place<String>> {
        self.called.try_take(AT_ONCE, &zone.to_owned())
    }

    /// Whether a stream of our own finds the fingerprints of `domain`.
    pub(super) async fn finds(self: &Arc<Self>, federation: &Federation, domain: &str) -> bool {
        let fetch = Fetch::new(federation, domain).unwrap();
        self.find(fetch, HOLDS, Direction::Outgoing).await.is_ok()
    }

    /// How many fetches are under way.
    pub(super) fn under_way(&self) -> usize {
        self.known.lock().values().filter(|entry| entry.is_under_way()).count()
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
            let known = Known { since, until: since + holds, answer: Err(Missing::None(404)) };
            Entry { known: Some(known), under_way: None }
        };
        let (told, under_way) = watch::channel(None);
        known.insert("slow.example".to_owned(), Entry { known: None, under_way: Some(under_way) });
        for n in 0..2 * MOST {
            make_room(&mut known);
            known.insert(format!("{n}.example"), entry(MISSES));
            assert!(known.len() <= MOST);
        }
        assert!(known.get("slow.example").is_some_and(Entry::is_under_way));
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
