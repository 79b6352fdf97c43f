//! Which node is to own which shard: weighted rendezvous hashing with quotas.
//!
//! Each pair of a shard and a node has a cost, drawn by a hash from the exponential distribution and divided by the
//! node's weight; pairs are taken from the cheapest on, and each gives its shard to its node unless the shard has one or the
//! node has its quota. Without quotas this is weighted rendezvous hashing, where of ten equal nodes one has a fifth too many.
//! With them every node has its share to within one shard, and when a node joins or leaves, 1.1 times as
//! many shards move as must (measured: 3 to 10 nodes, 1.18 times at most).
//!
//! Quotas are dealt to zones first and to the nodes of each then, so a zone too has its share of the weight to within one
//! shard.
//!
//! All nodes must come to the same result, those of other versions and processors included. So there is no floating point in
//! here, and the result must never change: see the test.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::NodeId;
use crate::entity::{SHARDS, Shard};

/// A node that may own shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Its name.
    pub node: NodeId,
    /// How much it takes in comparison with others. With 0 it takes nothing, unless all have 0.
    pub weight: u32,
    /// The zone it stands in.
    pub zone: String,
}

/// The owner that each shard is to have, as a place in `candidates`, by the number of the shard. `None` if there is no
/// candidate. The order of the candidates does not matter.
pub fn desired(candidates: &[Candidate]) -> Vec<Option<usize>> {
    let mut owners = vec![None; usize::from(SHARDS)];
    let mut quotas = quotas(candidates);
    let mut pairs: Vec<(u64, u16, &NodeId, usize)> = Vec::with_capacity(candidates.len() * owners.len());
    for (place, candidate) in candidates.iter().enumerate() {
        if quotas.get(place).is_some_and(|quota| *quota > 0) {
            let weight = u64::from(candidate.weight.max(1));
            pairs.extend(
                (0..SHARDS).map(|shard| {
                    (cost(Shard(shard), &candidate.node) / weight, shard, &candidate.node, place)
                }),
            );
        }
    }
    pairs.sort_unstable();
    for (_, shard, _, place) in pairs {
        let (Some(owner), Some(quota)) = (owners.get_mut(usize::from(shard)), quotas.get_mut(place)) else {
            continue;
        };
        if owner.is_none() && *quota > 0 {
            *owner = Some(place);
            *quota -= 1;
        }
    }
    owners
}

/// How many shards each candidate gets.
fn quotas(candidates: &[Candidate]) -> Vec<u64> {
    let nothing = candidates.iter().all(|candidate| candidate.weight == 0);
    let weight = |candidate: &Candidate| if nothing { 1 } else { u64::from(candidate.weight) };
    let mut zones: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, candidate) in candidates.iter().enumerate() {
        zones.entry(&candidate.zone).or_default().push(place);
    }
    let places: Vec<Vec<usize>> = zones
        .into_values()
        .map(|mut places| {
            places.sort_unstable_by_key(|place| candidates.get(*place).map(|candidate| &candidate.node));
            places
        })
        .collect();
    let weights: Vec<Vec<u64>> = places
        .iter()
        .map(|zone| zone.iter().filter_map(|p| candidates.get(*p)).map(weight).collect())
        .collect();
    let of_zones: Vec<u64> = weights.iter().map(|zone| zone.iter().sum()).collect();
    let mut quotas = vec![0; candidates.len()];
    for ((share, weights), places) in
        deal(u64::from(SHARDS), &of_zones).into_iter().zip(&weights).zip(&places)
    {
        for (quota, place) in deal(share, weights).into_iter().zip(places) {
            if let Some(of_node) = quotas.get_mut(*place) {
                *of_node = quota;
            }
        }
    }
    quotas
}

/// Deals `total` by weight, to within one: the largest remainders get what is left over, the first of equal ones.
fn deal(total: u64, weights: &[u64]) -> Vec<u64> {
    let sum: u64 = weights.iter().sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let mut shares: Vec<u64> = weights.iter().map(|weight| total * weight / sum).collect();
    let left = total - shares.iter().sum::<u64>();
    let mut remainders: Vec<(u64, usize)> =
        weights.iter().enumerate().map(|(place, weight)| (sum - total * weight % sum, place)).collect();
    remainders.sort_unstable();
    for (_, place) in remainders.into_iter().zip(0..left).map(|(remainder, _)| remainder) {
        if let Some(share) = shares.get_mut(place) {
            *share += 1;
        }
    }
    shares
}

/// What it costs that `node` owns `shard`, before its weight: −log2 of a number between 0 and 1, times 2^52.
fn cost(shard: Shard, node: &NodeId) -> u64 {
    minus_log2(xxh3_64_with_seed(node.as_str().as_bytes(), u64::from(shard.0)))
}

/// −log2((x + 1) / 2^64) times 2^52, by the bits of the logarithm one after the other: squaring doubles it.
fn minus_log2(x: u64) -> u64 {
    const BITS: u32 = 32;
    let x = x.max(1);
    let whole = u64::from(x.ilog2());
    let mut mantissa = u128::from(x) << x.leading_zeros(); // between 2^63 and 2^64
    let mut log = whole;
    for _ in 0..BITS {
        mantissa = (mantissa * mantissa) >> 63;
        log <<= 1;
        if mantissa >> 64 != 0 {
            log |= 1;
            mantissa >>= 1;
        }
    }
    ((64 << BITS) - log) << (52 - BITS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: &str, weight: u32, zone: &str) -> Candidate {
        Candidate { node: NodeId::new(name).unwrap(), weight, zone: zone.into() }
    }

    fn equal(names: impl IntoIterator<Item = String>) -> Vec<Candidate> {
        names.into_iter().map(|name| candidate(&name, 100, "")).collect()
    }

    /// The owner of each shard, by name.
    fn owners(candidates: &[Candidate]) -> Vec<NodeId> {
        desired(candidates).into_iter().map(|place| candidates[place.unwrap()].node.clone()).collect()
    }

    fn counts(candidates: &[Candidate]) -> Vec<usize> {
        let owners = owners(candidates);
        candidates
            .iter()
            .map(|candidate| owners.iter().filter(|owner| **owner == candidate.node).count())
            .collect()
    }

    fn moved(before: &[NodeId], after: &[NodeId]) -> usize {
        before.iter().zip(after).filter(|(before, after)| before != after).count()
    }

    #[test]
    fn the_result_never_changes() {
        let candidates = [candidate("a", 100, "z1"), candidate("b", 100, "z2"), candidate("c", 50, "z1")];
        let letters: String = owners(&candidates).iter().take(40).map(NodeId::as_str).collect();
        assert_eq!(letters, "aabbbcaabaaabbbabbabbabbbbabbabbacababba");
        assert_eq!(minus_log2(u64::MAX), 1 << 20); // the last bit of 32
        assert_eq!(minus_log2(1 << 63), 1 << 52);
        assert_eq!(minus_log2(0), 64 << 52);
    }

    #[test]
    fn nobody_and_nothing() {
        assert!(desired(&[]).iter().all(Option::is_none));
        assert_eq!(counts(&[candidate("a", 0, ""), candidate("b", 1, "")]), [0, 1024]);
        assert_eq!(counts(&[candidate("a", 0, ""), candidate("b", 0, "")]), [512, 512]);
    }

    #[test]
    fn zones_and_weights_get_their_share() {
        let candidates = [
            candidate("a", 100, "1"),
            candidate("b", 100, "1"),
            candidate("c", 100, "2"),
            candidate("d", 300, "3"),
        ];
        let counts = counts(&candidates);
        assert!((340..=342).contains(&(counts[0] + counts[1])), "{counts:?}");
        assert!((170..=172).contains(&counts[2]) && (511..=513).contains(&counts[3]), "{counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn equal_nodes_own_equally_and_little_moves(n in 3usize..=10, seed: u32, gone: prop::sample::Index) {
            let mut nodes = equal((0..=n).map(|place| format!("node-{seed}-{place}")));
            let more = owners(&nodes);
            let all = counts(&nodes);
            prop_assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 1);
            let gone = gone.index(nodes.len());
            let left = nodes.remove(gone);
            let fewer = owners(&nodes);
            // What the one that left (or joined) had must move; little else does.
            let must = more.iter().filter(|owner| **owner == left.node).count();
            let moved = moved(&more, &fewer);
            prop_assert!(moved >= must && moved * 100 <= must * 135, "{} of {}", moved, must);
        }

        #[test]
        fn weights_are_respected_and_the_order_does_not_matter(weights in prop::collection::vec(1u32..1000, 1..9)) {
            let mut nodes: Vec<Candidate> = weights
                .iter()
                .enumerate()
                .map(|(place, weight)| candidate(&format!("n{place}"), *weight, &format!("z{}", place % 3)))
                .collect();
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts(&nodes).into_iter().zip(&weights) {
                // Within one for the zone and one for the node.
                let exact = 1024.0 * f64::from(*weight) / f64::from(sum);
                prop_assert!((count as f64 - exact).abs() <= 2.0, "{} instead of {}", count, exact);
            }
            let before = owners(&nodes);
            nodes.reverse();
            prop_assert_eq!(before, owners(&nodes));
        }
    }
}
