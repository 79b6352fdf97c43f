//! A rolling upgrade: nodes that run an older program are drained and started with a newer one, one after the other, and nodes of
//! both versions die meanwhile.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Faults, LOOK, WARM_UP, What};
use crate::server::Error;

impl Faults<'_> {
    /// Kills nodes for so long in all: before the upgrade, between two nodes, and after the last.
    pub async fn upgrade(&mut self, newer: &Path, length: Duration) -> Result<(), Error> {
        let nodes = self.world.nodes.len();
        let part = length / u32::try_from(nodes + 1).unwrap_or(1);
        self.kills(part).await?;
        for node in 0..nodes {
            self.all_up().await?;
            self.world.nodes[node].set_binary(newer);
            self.drain_node(node, What::Upgrade, Duration::ZERO).await?;
            self.kills(part).await?;
        }
        self.end().await
    }

    /// Kills for so long; a killed node is started again, with the program that it had.
    async fn kills(&mut self, length: Duration) -> Result<(), Error> {
        let end = Instant::now() + length;
        let mut next = Instant::now() + WARM_UP;
        while Instant::now() < end {
            self.restart_who_is_due()?;
            self.look_for_the_fallen()?;
            if Instant::now() >= next && self.kill().await? {
                next = Instant::now() + self.dice.between(5_000, 9_000);
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}
