//! What is measured, by peer. The handles are made once, when the channel to or from a node is.

use metrics::{Counter, Gauge, counter, gauge};

use super::inbox::Brought;
use super::node::NodeId;
use super::outbox::{Level, Load};

/// Of the way to one node.
pub(super) struct ToPeer {
    connected: Gauge,
    waiting: Gauge,
    waiting_bytes: Gauge,
    in_flight: Gauge,
    in_flight_bytes: Gauge,
    stalls: Counter,
    full: Counter,
    envelopes: Counter,
    bytes: Counter,
    messages: Counter,
    again: Counter,
    taken: Counter,
    not_owner: Counter,
    lost: Counter,
    connects: Counter,
    failures: Counter,
    refusals: Counter,
}

impl ToPeer {
    pub(super) fn new(peer: &NodeId) -> Self {
        let to = || peer.as_str().to_owned();
        Self {
            connected: gauge!("rookery_mesh_connected", "peer" => to()),
            waiting: gauge!("rookery_mesh_waiting_envelopes", "peer" => to()),
            waiting_bytes: gauge!("rookery_mesh_waiting_bytes", "peer" => to()),
            in_flight: gauge!("rookery_mesh_in_flight_envelopes", "peer" => to()),
            in_flight_bytes: gauge!("rookery_mesh_in_flight_bytes", "peer" => to()),
            stalls: counter!("rookery_mesh_stalls_total", "peer" => to()),
            full: counter!("rookery_mesh_full_total", "peer" => to()),
            envelopes: counter!("rookery_mesh_sent_envelopes_total", "peer" => to()),
            bytes: counter!("rookery_mesh_sent_bytes_total", "peer" => to()),
            messages: counter!("rookery_mesh_sent_messages_total", "peer" => to()),
            again: counter!("rookery_mesh_resent_envelopes_total", "peer" => to()),
            taken: counter!("rookery_mesh_outcomes_total", "peer" => to(), "outcome" => "taken"),
            not_owner: counter!("rookery_mesh_outcomes_total", "peer" => to(), "outcome" => "not_owner"),
            lost: counter!("rookery_mesh_outcomes_total", "peer" => to(), "outcome" => "lost"),
            connects: counter!("rookery_mesh_connects_total", "peer" => to(), "outcome" => "ok"),
            failures: counter!("rookery_mesh_connects_total", "peer" => to(), "outcome" => "failed"),
            refusals: counter!("rookery_mesh_connects_total", "peer" => to(), "outcome" => "refused"),
        }
    }

    pub(super) fn level(&self, level: Level) {
        #[allow(clippy::cast_precision_loss)] // far below 2^52
        let set = |gauge: &Gauge, value: usize| gauge.set(value as f64);
        set(&self.waiting, level.waiting);
        set(&self.waiting_bytes, level.waiting_bytes);
        set(&self.in_flight, level.sent);
        set(&self.in_flight_bytes, level.sent_bytes);
    }

    pub(super) fn sent(&self, load: Load) {
        self.messages.increment(1);
        self.envelopes.increment(load.envelopes);
        self.bytes.increment(load.bytes);
        self.again.increment(load.again);
    }

    pub(super) fn settled(&self, outcome: &super::Outcome) {
        match outcome {
            super::Outcome::Taken(_) => self.taken.increment(1),
            super::Outcome::NotOwner { .. } => self.not_owner.increment(1),
            super::Outcome::Lost => self.lost.increment(1),
        }
    }

    pub(super) fn stalled(&self) {
        self.stalls.increment(1);
    }

    pub(super) fn full(&self) {
        self.full.increment(1);
    }

    pub(super) fn connected(&self) {
        self.connects.increment(1);
        self.connected.set(1.0);
    }

    pub(super) fn disconnected(&self) {
        self.connected.set(0.0);
    }

    pub(super) fn failed(&self, refused: bool) {
        if refused { self.refusals.increment(1) } else { self.failures.increment(1) }
    }
}

/// Of the way from one node.
pub(super) struct FromPeer {
    envelopes: Counter,
    bytes: Counter,
    messages: Counter,
    again: Counter,
}

impl FromPeer {
    pub(super) fn new(peer: &NodeId) -> Self {
        let from = || peer.as_str().to_owned();
        Self {
            envelopes: counter!("rookery_mesh_received_envelopes_total", "peer" => from()),
            bytes: counter!("rookery_mesh_received_bytes_total", "peer" => from()),
            messages: counter!("rookery_mesh_received_messages_total", "peer" => from()),
            again: counter!("rookery_mesh_dropped_again_total", "peer" => from()),
        }
    }

    pub(super) fn brought(&self, brought: Brought) {
        self.messages.increment(1);
        self.envelopes.increment(brought.envelopes);
        self.bytes.increment(brought.bytes);
        self.again.increment(brought.again);
    }
}

/// A caller that was not welcome.
pub(super) fn turned_away(reason: &'static str) {
    counter!("rookery_mesh_turned_away_total", "reason" => reason).increment(1);
}
