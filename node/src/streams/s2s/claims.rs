//! On how many streams other servers have proved themselves to this node, by pair of domains. A remote domain that talks to many domains of
//! this deployment needs a stream for each, so its bound follows the number of its pairs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use rookery_actors::link::stream::Pair;
use rookery_proto::xmpp::jid::BareJid;

use super::Federation;

/// How many streams a remote domain may have for each of its pairs, over those of the first: a new stream stands beside a lost one for a
/// while, and a cluster has several nodes.
const FOR_EACH_PAIR: usize = 4;

/// The proofs of one remote domain.
#[derive(Default)]
struct Proofs {
    all: usize,
    /// By the local domain.
    pairs: HashMap<BareJid, usize>,
}

impl Proofs {
    fn has_room(&self, local: &BareJid, most: usize) -> bool {
        let own = self.pairs.get(local).copied().unwrap_or_default();
        let pairs = self.pairs.len() + usize::from(own == 0);
        own < most && self.all < most.saturating_add(FOR_EACH_PAIR.saturating_mul(pairs))
    }
}

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Claims(Arc<Mutex<HashMap<BareJid, Proofs>>>);

/// A proof that is counted; it goes with the drop.
pub(super) struct Claim {
    claims: Claims,
    pair: Pair,
}

/// A pair that the other side may send for.
pub(super) struct Proved {
    pub(super) pair: Pair,
    /// `certificate`, `dane`, `posh` or `dialback`.
    pub(super) by: &'static str,
    /// Counts it, on streams that other servers have opened.
    pub(super) _claim: Option<Claim>,
}

impl Claims {
    fn has_room(&self, pair: &Pair, most: usize) -> bool {
        let all = self.0.lock();
        all.get(pair.remote()).is_none_or(|proofs| proofs.has_room(pair.local(), most))
    }

    /// Counts a proof if there is room for it.
    fn claim(&self, pair: &Pair, most: usize) -> Option<Claim> {
        let mut all = self.0.lock();
        if !all.get(pair.remote()).is_none_or(|proofs| proofs.has_room(pair.local(), most)) {
            return None;
        }
        let proofs = all.entry(pair.remote().clone()).or_default();
        proofs.all += 1;
        *proofs.pairs.entry(pair.local().clone()).or_default() += 1;
        Some(Claim { claims: self.clone(), pair: pair.clone() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.claims.0.lock();
        let Entry::Occupied(mut remote) = all.entry(self.pair.remote().clone()) else { return };
        let proofs = remote.get_mut();
        proofs.all = proofs.all.saturating_sub(1);
        if let Entry::Occupied(mut pair) = proofs.pairs.entry(self.pair.local().clone()) {
            *pair.get_mut() -= 1;
            if *pair.get() == 0 {
                pair.remove();
            }
        }
        if proofs.all == 0 {
            remote.remove();
        }
    }
}

impl Federation {
    /// Whether a remote domain may prove itself to a local one on one more stream. Nothing is counted: whoever has not proved the
    /// domain takes no room from it.
    pub(super) fn has_room(&self, pair: &Pair) -> bool {
        noted(self.claims.has_room(pair, self.settings.load().federation.limits.streams_per_domain))
    }

    /// The same for a domain that is proved, which is counted.
    pub(super) fn claim(&self, pair: &Pair) -> Option<Claim> {
        let claim = self.claims.claim(pair, self.settings.load().federation.limits.streams_per_domain);
        noted(claim.is_some());
        claim
    }
}

fn noted(room: bool) -> bool {
    if !room {
        let limit = "federation.streams_per_domain";
        metrics::counter!("rookery_limits_hit_total", "limit" => limit).increment(1);
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(local: &str, remote: &str) -> Pair {
        Pair::new(&BareJid::parse(local).unwrap(), &BareJid::parse(remote).unwrap()).unwrap()
    }

    #[test]
    fn each_pair_has_room_of_its_own() {
        let claims = Claims::default();
        // A hundred domains of ours, and one stream for each.
        let all: Vec<_> = (0..100)
            .map(|n| claims.claim(&pair(&format!("a{n}.example"), "b.example"), 3).unwrap())
            .collect();
        // One of the pairs has three streams, and no fourth; that is nothing to another remote domain.
        let first = pair("a0.example", "b.example");
        let two = [claims.claim(&first, 3), claims.claim(&first, 3)];
        assert!(two.iter().all(Option::is_some) && claims.claim(&first, 3).is_none());
        assert!(claims.has_room(&pair("a0.example", "c.example"), 3));
        drop(two);
        assert!(claims.has_room(&first, 3));
        drop(all);
        assert!(claims.0.lock().is_empty());
    }

    #[test]
    fn a_remote_domain_has_a_bound_that_follows_its_pairs() {
        let claims = Claims::default();
        let (one, other) = (pair("a.example", "b.example"), pair("conference.a.example", "b.example"));
        let first: Vec<_> = (0..30).map_while(|_| claims.claim(&one, 20)).collect();
        let second: Vec<_> = (0..30).map_while(|_| claims.claim(&other, 20)).collect();
        assert_eq!((first.len(), second.len()), (20, 8));
        // The least that can be set lets each pair have one.
        let third: Vec<_> =
            (0..9).map_while(|n| claims.claim(&pair(&format!("a{n}.example"), "c.example"), 1)).collect();
        assert_eq!(third.len(), 9);
    }
}
