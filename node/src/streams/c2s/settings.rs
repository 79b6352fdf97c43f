//! What of the configuration connections look at.

use rookery_proto::xml;

use crate::config::{Config, Limits, Network};
use crate::streams::rate::InForce;

/// Limits and switches in force for connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[limits]`.
    pub limits: Limits,
    /// The rates among them.
    pub(super) rates: InForce,
    /// Those of a component.
    pub(in crate::streams) component_rates: InForce,
    /// What the framer allows before a session is bound.
    pub before: xml::Limits,
    /// What it allows afterwards.
    pub after: xml::Limits,
    /// Whether PLAIN is offered.
    pub plain: bool,
    /// Whether SCRAM carries XEP-0474's attribute.
    pub downgrade_protection: bool,
    /// Whether clients are sent to the node where their user lives.
    pub redirect: bool,
    /// From where a PROXY header is required, if from anywhere.
    pub proxy: Option<Vec<Network>>,
    /// The proxies of HTTP that are believed.
    pub http_proxies: Vec<Network>,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let limits = config.limits;
        let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            limits,
            rates: InForce::from(limits.traffic),
            component_rates: InForce::of_component(&limits),
            before: xml::Limits::LOGIN.with_stanza_bytes(bytes(limits.stanza_bytes_before_login)),
            after: xml::Limits {
                depth: u16::try_from(limits.stanza_depth).unwrap_or(u16::MAX),
                ..xml::Limits::CLIENT.with_stanza_bytes(bytes(limits.stanza_bytes))
            },
            plain: config.sasl.plain,
            downgrade_protection: config.sasl.downgrade_protection,
            redirect: config.cluster.as_ref().is_some_and(|cluster| cluster.redirect),
            proxy: config.listen.proxy.clone(),
            http_proxies: config.listen.http_proxies.clone(),
        }
    }
}
