//! A fault begins, or the way back from one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rookery_cluster::store::faults::Chances;
use turmoil::Sim;

use super::{Conductor, Cure, Kind};
use crate::client::Cut;
use crate::world::Order;

impl Conductor {
    /// A node's clients cannot reach it any more; it does not notice. Or they can again.
    pub(super) fn sever(&self, n: usize, severed: bool) {
        let Some(place) = self.world.places.get(n) else { return };
        place.severed.store(severed, Ordering::Relaxed);
        if !severed {
            return;
        }
        let waiting: Vec<usize> = place.visitors.lock().drain(..).collect();
        for client in &self.world.clients {
            let mut client = client.lock();
            if waiting.contains(&client.n) {
                client.at = None;
            } else if client.at == Some(n) {
                client.cut = Some(Cut::Silent);
            }
        }
    }

    pub(super) fn set_chances(&self, n: usize, chances: Chances, seed: u64) {
        if let Some(place) = self.world.places.get(n) {
            place.faults.set_chances(chances, seed);
        }
    }

    pub(super) fn strike(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let Some(kind) = self.chance.pick(&self.world.plan.faults).copied() else { return };
        let count = self.world.places.len();
        let n = self.chance.below(count);
        let m = (n + 1 + self.chance.below(count - 1)) % count;
        let (a, b) = (self.name(n), self.name(m));
        let end = now + self.chance.millis(300, 7_000);
        self.world.log.note("world", format_args!("{kind:?} {a} {b} until {:.3}", end.as_secs_f64()));
        match kind {
            Kind::Crash => self.crash(sim, n, end),
            Kind::Restart => self.crash(sim, n, now + Duration::from_millis(100)),
            Kind::Crashes => {
                self.crash(sim, n, end);
                let end = end + self.chance.millis(0, 2_000);
                self.crash(sim, m, end);
            }
            Kind::Leave => {
                if let Some(place) = self.world.places.get(n) {
                    place.order.lock().replace(Order::Leave);
                    place.call.notify_one();
                }
            }
            Kind::Apart => self.part(sim, end, a, b),
            Kind::NoStore => self.part(sim, end, a, "store".into()),
            Kind::Alone => {
                for m in (0..count).filter(|m| *m != n) {
                    let b = self.name(m);
                    self.part(sim, end, a.clone(), b);
                }
                if self.chance.hits(500) {
                    self.part(sim, end, a, "store".into());
                }
            }
            Kind::Severed => {
                let end = now + self.chance.millis(2_000, 12_000);
                self.world.log.count("node cut off from all");
                for m in (0..count).filter(|m| *m != n) {
                    let b = self.name(m);
                    self.part(sim, end, a.clone(), b);
                }
                self.part(sim, end, a, "store".into());
                self.sever(n, true);
                self.cures.push((end, Cure::Join(n)));
            }
            Kind::OneWay => {
                sim.partition_oneway(a.as_str(), b.as_str());
                self.cures.push((end, Cure::Repair(a, b)));
            }
            Kind::HalfStore => {
                let (from, to) =
                    if self.chance.hits(500) { (a, "store".to_owned()) } else { ("store".to_owned(), a) };
                sim.partition_oneway(from.as_str(), to.as_str());
                self.cures.push((end, Cure::Repair(from, to)));
            }
            Kind::Stalled => {
                let b = if self.chance.hits(400) { "store".to_owned() } else { b };
                sim.hold(a.as_str(), b.as_str());
                self.cures.push((end, Cure::Release(a, b)));
            }
            Kind::Refusals => {
                let mut share = || u16::try_from(self.chance.below(60)).unwrap_or(0);
                let chances = Chances {
                    conflict: share(),
                    too_old: share(),
                    unknown_done: share(),
                    unknown_lost: share(),
                    unknown_late: share(),
                    unreachable: share(),
                    latency: share(),
                    longest: Duration::from_millis(400),
                };
                let seed = self.chance.next();
                self.set_chances(n, chances, seed);
                self.cures.push((end, Cure::Chances(n)));
            }
            Kind::Slow => {
                let longest = self.chance.millis(50, 1_500);
                let seed = self.chance.next();
                self.set_chances(n, Chances { latency: 900, longest, ..Chances::default() }, seed);
                self.cures.push((end, Cure::Chances(n)));
            }
            Kind::Unreachable => {
                if let Some(place) = self.world.places.get(n) {
                    place.faults.set_reachable(false);
                }
                self.cures.push((end, Cure::Reach(n)));
            }
            Kind::Stopped => {
                let end = now + self.chance.millis(5_500, 9_000);
                self.world.log.count("store out of reach for all");
                for (n, place) in self.world.places.iter().enumerate() {
                    place.faults.set_reachable(false);
                    self.cures.push((end, Cure::Reach(n)));
                }
            }
            Kind::Cuts => {
                for client in &self.world.clients {
                    if self.chance.hits(400) {
                        let cut = if self.chance.hits(500) { Cut::Lost } else { Cut::Silent };
                        client.lock().cut = Some(cut);
                    }
                }
            }
        }
    }

    fn part(&mut self, sim: &mut Sim<'_>, end: Duration, a: String, b: String) {
        sim.partition(a.as_str(), b.as_str());
        self.cures.push((end, Cure::Repair(a, b)));
    }
}
