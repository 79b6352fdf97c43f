//! Observers: a node that shows no sign of life is probed, voted on, and in the end declared dead.
//!
//! Only what was seen unchanged counts, for long enough on this node's own clock, while its own lease held without a gap: a store
//! that stood still for all says nothing about one. A death needs the votes of two observers who saw the same last beat,
//! or of one if no other can observe: all others are dead, or have been silent for as long (the design says: if there are two
//! nodes; then three nodes of which two die at once would wait for ever). A death is written in a transaction that reads the votes, the
//! status and the beat, so a beat that comes in between undoes it. Nothing of this has to be right for the fence to hold;
//! it has to be right so that no node that works is declared dead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::{Instant, sleep_until, timeout};

use super::fence::DEAD;
use super::{Core, Map, Member, NodeId, Standing, Timing, is_dead};
use crate::store::{Options, Result};
use crate::tables::nodes::{self, Beat, State, Vote};

/// What a node sees of the others.
#[derive(Default)]
pub(super) struct Sight {
    seen: BTreeMap<NodeId, Seen>,
    /// The dead, and since when this node has known that generation of them to be so.
    dead: BTreeMap<NodeId, (u64, Instant)>,
    /// The term of the lease in which all this was seen.
    term: u64,
}

/// What was seen of one node.
struct Seen {
    generation: u64,
    beat: Option<Beat>,
    /// When it was first seen: the end of that reading.
    since: Instant,
    /// The beginning of the last reading that showed the same.
    until: Instant,
    probe: Option<Probing>,
}

/// A probe about the beat that is seen.
#[derive(Clone, Copy)]
struct Probing {
    begun: Instant,
    /// `None` while it runs.
    answered: Option<bool>,
}

impl Seen {
    fn unchanged(&self) -> Duration {
        self.until.saturating_duration_since(self.since)
    }
}

impl Core {
    /// Looks at the others until this node is dead.
    pub(super) async fn keep_observing(self: &Arc<Self>) {
        let mut next = Instant::now();
        loop {
            sleep_until(next).await;
            if self.lease.is_over() {
                return;
            }
            let standing = self.position.borrow().standing;
            let observes = matches!(standing, Standing::Active | Standing::Draining);
            next = Instant::now() + self.jitter(self.timing.beat);
            if !observes || !self.lease.holds() {
                continue;
            }
            if let Err(error) = self.look().await {
                tracing::debug!(error = %error, "the heartbeats of other nodes could not be read");
                continue;
            }
            let map = self.board.map();
            self.probe_silent();
            for (node, generation, beat, needed) in self.verdicts(&map) {
                match self.vote(&node, generation, beat, needed).await {
                    Ok(true) => self.board.want(),
                    Ok(false) => {}
                    Err(error) if is_dead(&error) => return self.die(),
                    Err(error) => {
                        tracing::warn!(node = %node, error = %error, "a vote about a silent node could not be written")
                    }
                }
            }
            for (node, generation) in self.forgotten(&map) {
                if let Err(error) = self.remove(&node, generation).await {
                    tracing::debug!(node = %node, error = %error, "the rows of a dead node could not be removed");
                }
            }
            next = next.min(self.earliest());
        }
    }

    /// Reads all beats.
    async fn look(&self) -> Result<()> {
        let term = self.lease.term();
        let begun = Instant::now();
        let beats = self.store.read(|tx| Box::pin(async move { nodes::beats(&mut **tx).await })).await?;
        let now = Instant::now();
        let beats: BTreeMap<NodeId, Beat> = beats.into_iter().collect();
        let map = self.board.map();
        let mut sight = self.sight.lock();
        if sight.term != term || self.lease.term() != term || !self.lease.holds() {
            sight.seen.clear();
            sight.term = self.lease.term();
        }
        let alive = |node: &NodeId| map.member(node).filter(|member| member.status.state() != State::Dead);
        sight.seen.retain(|node, _| alive(node).is_some());
        for member in map.members() {
            let node = &member.node;
            if *node == self.node || alive(node).is_none() {
                continue;
            }
            let (generation, beat) = (member.status.generation, beats.get(node).copied());
            let fresh = Seen { generation, beat, since: now, until: now, probe: None };
            let seen = sight.seen.entry(node.clone()).or_insert(fresh);
            if (seen.generation, seen.beat) == (generation, beat) {
                seen.until = seen.until.max(begun);
            } else {
                *seen = Seen { generation, beat, since: now, until: now, probe: None };
            }
        }
        Ok(())
    }

    /// Probes nodes that have been silent for long, so that the answer is there when it counts.
    fn probe_silent(self: &Arc<Self>) {
        let Timing { death, probe, beat, .. } = self.timing;
        let now = Instant::now();
        let mut sight = self.sight.lock();
        for (node, seen) in &mut sight.seen {
            let again = match &seen.probe {
                None => true,
                Some(probing) => probing.answered == Some(true) && probing.begun + beat <= now,
            };
            if seen.unchanged() + probe < death || !again {
                continue;
            }
            seen.probe = Some(Probing { begun: now, answered: None });
            let (core, node, about) = (Arc::clone(self), node.clone(), seen.beat);
            tokio::spawn(async move {
                let answered = timeout(probe, core.probe.reaches(&node)).await.unwrap_or(false);
                let answer = if answered { "yes" } else { "no" };
                counter!("rookery_mesh_probes_total", "answer" => answer).increment(1);
                let mut sight = core.sight.lock();
                if let Some(seen) = sight.seen.get_mut(&node).filter(|seen| seen.beat == about) {
                    seen.probe = Some(Probing { begun: now, answered: Some(answered) });
                }
            });
        }
    }

    /// The nodes to vote on, with the generation and the beat that were seen, and how many votes it takes.
    fn verdicts(&self, map: &Map) -> Vec<(NodeId, u64, Option<Beat>, usize)> {
        let sight = self.sight.lock();
        let silent = |seen: &Seen| seen.unchanged() >= self.timing.death;
        let observes = |node: &NodeId| {
            let state = map.member(node).map(|member| member.status.state());
            matches!(state, Some(State::Active | State::Draining))
        };
        let others = sight.seen.iter().filter(|(node, seen)| !silent(seen) && observes(node)).count();
        let needed = (others + 1).min(2);
        let guilty = sight.seen.iter().filter(|(_, seen)| {
            let answered = seen.probe.and_then(|probing| probing.answered);
            silent(seen) && (answered == Some(false) || seen.unchanged() >= self.timing.patience)
        });
        guilty.map(|(node, seen)| (node.clone(), seen.generation, seen.beat, needed)).collect()
    }

    /// When the next node is to be probed or judged.
    fn earliest(&self) -> Instant {
        let now = Instant::now();
        let Timing { death, probe, beat, .. } = self.timing;
        let times = self.sight.lock();
        let times = times.seen.values().flat_map(|seen| [seen.since + death - probe, seen.since + death]);
        times.filter(|time| *time > now).min().unwrap_or(now + beat)
    }

    /// Nodes that have been dead for long. Where names are made for each start they would become ever more.
    fn forgotten(&self, map: &Map) -> Vec<(NodeId, u64)> {
        let now = Instant::now();
        let mut sight = self.sight.lock();
        let dead = |member: &&Member| member.status.state() == State::Dead;
        let dead = map.members().iter().filter(dead).map(|m| (m.node.clone(), m.status.generation));
        let dead = dead.map(|(node, generation)| match sight.dead.get(&node) {
            Some(known) if known.0 == generation => (node, *known),
            _ => (node, (generation, now)),
        });
        sight.dead = dead.collect();
        let long = sight.dead.iter().filter(|(_, (_, since))| *since + self.timing.forget <= now);
        long.map(|(node, (generation, _))| (node.clone(), *generation)).collect()
    }

    /// Removes the rows of a dead node. A node without a status is as dead as before: it writes nothing, and what it held is free.
    async fn remove(&self, node: &NodeId, generation: u64) -> Result<()> {
        let removed = self.store.write(Options::default(), |tx| {
            Box::pin(async move {
                let status = nodes::status(&mut **tx, node).await?;
                if status.is_some_and(|s| s.generation == generation && s.state() == State::Dead) {
                    nodes::clear(&mut **tx, node);
                    nodes::bump(&mut **tx);
                }
                Ok(())
            })
        });
        removed.await
    }

    /// How long a node has shown no sign of life, as far as this one sees.
    pub(super) fn silence(&self, node: &NodeId) -> Option<Duration> {
        self.sight.lock().seen.get(node).map(Seen::unchanged)
    }

    /// Votes that a node is dead, and declares it dead if that makes enough votes. Whether it is dead now.
    pub(super) async fn vote(
        &self,
        target: &NodeId,
        generation: u64,
        seen: Option<Beat>,
        needed: usize,
    ) -> Result<bool> {
        let own = Vote { beat: seen, voter_generation: self.generation };
        let own = &own;
        let voted = self.store.write(Options::default(), |tx| {
            Box::pin(async move {
                let status = nodes::status(&mut **tx, &self.node).await?.ok_or(DEAD)?;
                if !status.lives(self.generation) {
                    return Err(DEAD);
                }
                let Some(status) = nodes::status(&mut **tx, target).await? else { return Ok(true) };
                if !status.lives(generation) {
                    return Ok(true); // or it has started again
                }
                if nodes::beat(&mut **tx, target).await? != seen {
                    return Ok(false);
                }
                let votes = nodes::votes(&mut **tx, target).await?;
                let mut agreed = 1;
                for (voter, vote) in &votes {
                    if *voter != self.node && vote.beat == seen {
                        let voter = nodes::status(&mut **tx, voter).await?;
                        agreed += usize::from(voter.is_some_and(|voter| voter.lives(vote.voter_generation)));
                    }
                }
                if agreed >= needed {
                    let dead = nodes::Status { state: State::Dead as i32, ..status };
                    nodes::put_status(&mut **tx, target, &dead);
                    nodes::clear_votes(&mut **tx, target);
                    nodes::bump(&mut **tx);
                    return Ok(true);
                }
                if !votes.iter().any(|(voter, vote)| *voter == self.node && vote == own) {
                    nodes::put_vote(&mut **tx, target, &self.node, own);
                }
                Ok(false)
            })
        });
        let dead = voted.await?;
        counter!("rookery_mesh_votes_total").increment(1);
        if dead {
            counter!("rookery_mesh_deaths_total").increment(1);
            tracing::warn!(node = %target, generation, "node declared dead: no heartbeats arrived");
        }
        Ok(dead)
    }
}
