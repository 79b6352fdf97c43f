//! What a node is told when it joins.

use std::time::Duration;

use super::{Error, NodeId};
use crate::tables::nodes::Knows;

/// What this node is, for the others.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub node: NodeId,
    /// Where other nodes reach it.
    pub address: String,
    /// Where clients are sent that are to come to it; empty if there is none.
    pub public: String,
    /// The zone (rack, data centre) it stands in.
    pub zone: String,
    /// How much it takes in comparison with others; 100 is usual.
    pub weight: u32,
    /// Its software.
    pub version: String,
    /// What it understands of what other nodes may send.
    pub knows: Knows,
    /// The times of the cluster: the same on all nodes.
    pub timing: Timing,
}

/// Times and sizes. The defaults are the design's.
#[derive(Clone, Debug)]
pub struct Timing {
    /// From one beat to the next.
    pub beat: Duration,
    /// How long a good beat lets a node act, from its start.
    pub lease: Duration,
    /// How long others must have seen no beat before they vote. Longer than the lease by what clocks may differ in speed over
    /// this time, and then some.
    pub death: Duration,
    /// How long a probe may take; it begins so long before `death`.
    pub probe: Duration,
    /// A node that answers probes and does not beat is given up after this.
    pub patience: Duration,
    /// The map is looked at anew after this, should the watch have failed.
    pub refresh: Duration,
    /// The least time between two readings of the map, and the pause between two rounds of releases.
    pub pace: Duration,
    /// Shards claimed in a transaction.
    pub claim: usize,
    /// Shards given up in a round.
    pub release: usize,
    /// How long moving the actors of a shard may take.
    pub handoff: Duration,
    /// How long leaving may take.
    pub drain: Duration,
    /// The rows of a node that has been seen dead for so long are removed.
    pub forget: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(1),
            lease: Duration::from_secs(4),
            death: Duration::from_secs(5),
            probe: Duration::from_secs(1),
            patience: Duration::from_secs(15),
            refresh: Duration::from_secs(3),
            pace: Duration::from_millis(100),
            claim: 128,
            release: 16,
            handoff: Duration::from_secs(5),
            drain: Duration::from_secs(60),
            forget: Duration::from_secs(3600),
        }
    }
}

impl Timing {
    /// Whether the times fit each other.
    pub(super) fn check(&self) -> Result<(), Error> {
        let fits = self.beat * 2 < self.lease
            && self.lease < self.death
            && self.lease < crate::store::limits::AGE
            && self.probe < self.death
            && self.death <= self.patience
            && self.claim > 0
            && self.release > 0;
        if fits { Ok(()) } else { Err(Error::Timing) }
    }
}
