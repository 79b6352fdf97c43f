//! The beat: every second a node writes a sign of life in a transaction that reads its own status. If that does not say what the node
//! knows, the same transaction writes it again.

use metrics::{counter, histogram};
use tokio::time::{Instant, sleep_until};

use super::fence::DEAD;
use super::{Core, Standing, is_dead, version_of};
use crate::store::{Class, Options, Result};
use crate::tables::nodes::{self, Beat, State, Status};

impl Core {
    /// One beat: renews the lease and proves a version to the fence, or finds the node dead.
    pub(super) async fn beat(&self, count: u64) -> Result<()> {
        let begun = Instant::now();
        let beat = Beat { generation: self.generation, count };
        // Two of them, if need be, within a lease.
        let options = Options::default().deadline(self.timing.lease / 2);
        let outcome = self.store.write_stamped(options, |tx| {
            Box::pin(async move {
                // The lease runs from before the status was read, in the attempt that succeeds.
                let start = Instant::now();
                let status = nodes::status(&mut **tx, &self.node).await?.ok_or(DEAD)?;
                if !status.lives(self.generation) {
                    return Err(DEAD);
                }
                nodes::put_beat(&mut **tx, &self.node, &beat);
                let state = status.state();
                if status.knows.as_ref() != Some(&self.knows) {
                    // A node of an older version, which does not know this of a row, has written it.
                    let status = Status { knows: Some(self.knows.clone()), ..status };
                    nodes::put_status(&mut **tx, &self.node, &status);
                    nodes::bump(&mut **tx);
                }
                Ok((start, state))
            })
        });
        match outcome.await {
            Ok(((start, state), stamp)) => {
                let version = version_of(&stamp);
                self.guard.prove(version);
                self.lease.renew(start, self.timing.lease);
                self.stand(state, version);
                counter!("rookery_mesh_beats_total", "outcome" => "ok").increment(1);
                histogram!("rookery_mesh_beat_seconds").record(begun.elapsed().as_secs_f64());
                Ok(())
            }
            Err(error) => {
                counter!("rookery_mesh_beats_total", "outcome" => error.class.name()).increment(1);
                if is_dead(&error) {
                    self.die();
                } else if error.class != Class::Unavailable || !self.lease.holds() {
                    tracing::warn!(error = %error, detail = ?error.detail, "a heartbeat failed");
                }
                Err(error)
            }
        }
    }

    /// Beats until the node is dead.
    pub(super) async fn keep_beating(&self) {
        let mut next = Instant::now() + self.jitter(self.timing.beat);
        let mut count = 1;
        loop {
            sleep_until(next).await;
            if self.lease.is_over() {
                return;
            }
            next = Instant::now() + self.jitter(self.timing.beat);
            count += 1;
            let _ = self.beat(count).await;
        }
    }

    /// The node's status was `state` at `version`.
    pub(super) fn stand(&self, state: State, version: crate::store::Version) {
        let standing = match state {
            State::Unknown | State::Joining => Standing::Joining,
            State::Active => Standing::Active,
            State::Draining => Standing::Draining,
            State::Dead => return self.die(),
        };
        if self.position.send_if_modified(|position| position.advance(standing, version)) {
            tracing::info!(node = %self.node, state = state.name(), "the state of this node changed");
            self.board.touch();
        }
    }
}
