//! Counts stanzas. The counters are looked up once: this is the hot path.

use std::sync::OnceLock;

use metrics::Counter;
use rookery_proto::xmpp::stanza::Kind;

/// From or to the client.
#[derive(Clone, Copy)]
pub(super) enum Way {
    In,
    Out,
}

struct Counters {
    message: [Counter; 2],
    presence: [Counter; 2],
    iq: [Counter; 2],
}

fn both(kind: &'static str) -> [Counter; 2] {
    ["in", "out"].map(|way| metrics::counter!("rookery_stanzas_total", "kind" => kind, "direction" => way))
}

/// One more stanza.
pub(super) fn count(kind: Kind, way: Way) {
    static COUNTERS: OnceLock<Counters> = OnceLock::new();
    let counters = COUNTERS.get_or_init(|| Counters {
        message: both("message"),
        presence: both("presence"),
        iq: both("iq"),
    });
    let [taken, sent] = match kind {
        Kind::Message => &counters.message,
        Kind::Presence => &counters.presence,
        Kind::Iq => &counters.iq,
    };
    match way {
        Way::In => taken.increment(1),
        Way::Out => sent.increment(1),
    }
}
