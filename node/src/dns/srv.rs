//! The order of SRV records, as RFC 2782 says.

use rookery_cluster::seams::Seams;

/// What can be put in the order of RFC 2782.
pub(super) trait Ranked {
    /// The priority: the lower goes first.
    fn priority(&self) -> u16;
    /// The weight among those of the same priority.
    fn weight(&self) -> u16;
}

/// Puts `all` in the order in which they are to be tried: by priority, and by chance in proportion to their weights among
/// those of one priority (RFC 2782, "Weight"). In which order they came does not matter.
pub(super) fn order<T: Ranked>(mut all: Vec<T>, seams: &Seams) -> Vec<T> {
    // Those without a weight stand first, so that they have a small chance.
    all.sort_by_key(|one| (one.priority(), one.weight() > 0));
    let mut ordered = Vec::with_capacity(all.len());
    while let Some(priority) = all.first().map(T::priority) {
        let same = all.iter().take_while(|one| one.priority() == priority).count();
        let weights = all.iter().take(same).map(|one| u64::from(one.weight()));
        let drawn = upto(weights.clone().sum(), seams);
        let chosen = weights
            .scan(0, |sum, weight| {
                *sum += weight;
                Some(*sum)
            })
            .position(|sum| sum >= drawn)
            .unwrap_or_default();
        ordered.push(all.remove(chosen));
    }
    ordered
}

/// A random number from 0 to `most`, both included.
fn upto(most: u64, seams: &Seams) -> u64 {
    // The sum of weights is below 2^32: what is left of fairness is a part in 2^32.
    u64::from_le_bytes(seams.bytes()) % most.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Ranked for (u16, u16, &'static str) {
        fn priority(&self) -> u16 {
            self.0
        }
        fn weight(&self) -> u16 {
            self.1
        }
    }

    /// How often each came first in 10,000 draws, by thousandths.
    fn firsts(all: &[(u16, u16, &'static str)]) -> Vec<u32> {
        let seams = Seams::system();
        let mut counts = vec![0; all.len()];
        for _ in 0..10_000 {
            let first = order(all.to_vec(), &seams)[0];
            counts[all.iter().position(|one| *one == first).unwrap()] += 1;
        }
        counts.iter().map(|count| (count + 5) / 10).collect()
    }

    #[test]
    fn priorities_go_first_whatever_the_order_of_the_answer() {
        let all = vec![(20, 900, "d"), (0, 0, "a"), (20, 0, "e"), (5, 0, "b"), (10, 65_535, "c")];
        let ordered = order(all, &Seams::system());
        let names: Vec<&str> = ordered.iter().map(|one| one.2).collect();
        assert_eq!(names[..3], ["a", "b", "c"]);
        assert_eq!(names.len(), 5);
    }

    #[test]
    fn chances_are_as_the_weights_say() {
        let counts = firsts(&[(0, 10, "a"), (0, 30, "b"), (0, 60, "c"), (1, 60_000, "later")]);
        for (count, wanted) in counts.iter().zip([100_u32, 300, 600, 0]) {
            assert!(count.abs_diff(wanted) < 30, "{counts:?}");
        }
    }

    #[test]
    fn no_weight_is_a_small_chance_beside_others_and_any_chance_alone() {
        let counts = firsts(&[(0, 0, "a"), (0, 99, "b")]);
        assert!((1..40).contains(&counts[0]), "{counts:?}");
        assert_eq!(order(vec![(3, 0, "a"), (3, 0, "b")], &Seams::system()).len(), 2);
        assert!(order(Vec::<(u16, u16, &str)>::new(), &Seams::system()).is_empty());
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let all: Vec<_> = (0..100).map(|_| (0, u16::MAX, "x")).collect();
        assert_eq!(order(all, &Seams::system()).len(), 100);
    }
}
