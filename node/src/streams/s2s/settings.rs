//! What of the configuration streams between servers look at.

use std::time::Duration;

use rookery_proto::xml;

use crate::config::{self, Config};
use crate::streams::rate::{InForce, Rate};

/// Limits and switches in force for streams between servers; replaced by a reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[federation]` and the routes.
    pub federation: config::Federation,
    /// The rates among its limits.
    pub(super) rates: InForce,
    /// How many new streams an address may open.
    pub(super) arrivals: InForce,
    /// What the framer allows before a domain is proved.
    pub before: xml::Limits,
    /// What it allows afterwards.
    pub after: xml::Limits,
    /// How long the other server may leave unread what it is sent.
    pub answer: Duration,
    /// How long the other server may take to close its side.
    pub close: Duration,
}

/// What an honest server sends before it has proved anything: headers, SASL, keys; and the features of one that we call.
const BEFORE: u32 = 32 * 1024;

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let limits = config.federation.limits;
        let minute = Duration::from_secs(60);
        let arrivals = Rate::each(
            minute / limits.new_streams_per_minute.max(1),
            u64::from(limits.new_streams_per_minute),
        );
        Self {
            rates: limits.traffic.into(),
            arrivals: InForce { bytes: arrivals, stanzas: arrivals },
            before: xml::Limits::LOGIN.with_stanza_bytes(BEFORE),
            after: xml::Limits {
                depth: u16::try_from(config.limits.stanza_depth).unwrap_or(u16::MAX),
                ..xml::Limits::SERVER
                    .with_stanza_bytes(u32::try_from(limits.stanza_bytes).unwrap_or(u32::MAX))
            },
            answer: config.limits.answer,
            close: config.limits.close,
            federation: config.federation.clone(),
        }
    }
}
