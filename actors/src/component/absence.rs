//! A component that is away for a while: users are told that its contacts are gone, and when it is back.
//!
//! XEP-0114 has no word for that, and a component that dies says nothing: without this its contacts would be shown as they were until each
//! client connects anew. The presence that a component has sent holds as long as stanzas wait for the component
//! (`component_wait_seconds`, and no less than [`LEAST`]): a gateway that is restarted quickly is not noticed.
//!
//! Users of other servers are told what is known to have been shown to them ([`super::abroad`]).

use std::time::Duration;

use rookery_cluster::entity::Shard;
use rookery_cluster::store::{self, Fut};
use rookery_proto::xmpp::jid::BareJid;
use tokio::time::Instant;

use super::home::Component;
use super::messages::Msg;
use super::serve::KEEP;
use crate::host::Host;
use crate::host::components::Said;

/// The connections of a component find a new home within this time.
const LEAST: Duration = KEEP.saturating_mul(2);

/// Since when a component has no connection, and what users know of that.
pub(super) struct Absence {
    since: Instant,
    told: bool,
}

impl Absence {
    /// From now on.
    pub(super) fn begin() -> Self {
        Self { since: Instant::now(), told: false }
    }

    /// For how long.
    pub(super) fn lasts(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether users have not been told, though nothing may come of it but that.
    pub(super) fn is_untold(&self) -> bool {
        !self.told
    }

    /// A second has passed without a connection.
    pub(super) fn look(&mut self, host: &Host, component: &BareJid) {
        if !self.told && self.lasts() >= host.options().limits.component_wait.max(LEAST) {
            self.told = true;
            tracing::info!(%component, "the component is away: its contacts are shown as absent until it connects");
            host.tell_users_of(component, Said::Gone);
        }
    }

    /// There is a connection.
    pub(super) fn end(&mut self, host: &Host, component: &BareJid) {
        let said = if std::mem::take(&mut self.told) { Said::Back } else { Said::Here };
        host.tell_users_of(component, said);
    }
}

/// Wakes the homes of a shard's components: one that does not come back has died with the last home, perhaps.
pub(super) fn restore<'a>(host: &'a Host, shard: Shard) -> Fut<'a, store::Result<u64>> {
    let options = host.options();
    let own = options.components.iter().filter(|component| Shard::of(&component.name) == shard);
    for name in own.filter_map(|component| BareJid::parse(&component.name).ok()) {
        if let Some(components) = host.kinds().of::<Component>() {
            let _ = components.cast(host, &name, Msg::Nothing);
        }
    }
    Box::pin(async { Ok(0) }) // what is counted are sessions
}
