//! What a campaign found, in figures.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::Plan;
use super::check::Verdict;
use super::faults::{Fault, What};
use super::talker::{Return, Talker};

/// A kill after which nothing else happens for so long is one alone.
const ALONE: Duration = Duration::from_secs(10);

/// Times, sorted.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    fn new(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times(times)
    }

    /// The time that this part (0 to 1) of all does not exceed.
    pub fn at(&self, part: f64) -> Duration {
        let at = (self.0.len() as f64 * part).ceil() as usize;
        self.0.get(at.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |time: Duration| time.as_secs_f64();
        let (p50, p99, longest) = (s(self.at(0.5)), s(self.at(0.99)), s(self.longest()));
        write!(f, "p50 {p50:.2} s, p99 {p99:.2} s, longest {longest:.2} s ({} of them)", self.len())
    }
}

/// Everything.
pub struct Report {
    pub verdict: Verdict,
    pub seed: u64,
    pub clients: usize,
    pub length: Duration,
    /// Connections that were lost, sessions resumed, sessions begun anew.
    pub cut: usize,
    pub resumed: usize,
    pub anew: usize,
    /// Why connections were lost; what went wrong on the way back.
    pub reasons: BTreeMap<String, usize>,
    pub troubles: BTreeMap<String, usize>,
    /// From a kill until another node knew; until every shard had a home.
    pub detected: Times,
    pub whole: Times,
    /// From a kill to the first message, said after it, that a user of the killed node got: of kills that
    /// found all nodes ready, and were not followed by another within ten seconds.
    pub takeover: Times,
    /// The same of all other kills: those that hit a node that was taking over, or that had just come.
    pub mingled: Times,
    /// From the loss of a connection to the session's resumption.
    pub away: Times,
    /// From when a message was to be said to when it came.
    pub waits: Times,
    /// The same for what was said during a drain.
    pub drain: Times,
    /// One line for each fault.
    pub story: Vec<String>,
    /// The longest waits, one for each recipient, with the cuts of both sides near it.
    pub slowest: Vec<String>,
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        begun: Instant,
        faults: Vec<Fault>,
        talkers: &[Talker],
        verdict: Verdict,
    ) -> Report {
        let by_name: HashMap<&str, &Talker> = talkers.iter().map(|t| (t.name.as_str(), t)).collect();
        // (when it was to be said, when it came, the recipient)
        let mut messages: Vec<(Instant, Instant, &str)> = Vec::new();
        for talker in talkers {
            let said = &by_name[talker.partner.as_str()].log.sent;
            let came = talker.log.received.iter();
            messages.extend(came.map(|got| (said[got.number], got.at, talker.name.as_str())));
        }
        let (mut takeover, mut mingled) = (Vec::new(), Vec::new());
        for kill in faults.iter().filter(|fault| fault.what == What::Kill) {
            let mut first: HashMap<&str, Instant> = HashMap::new();
            for (said, came, to) in
                messages.iter().filter(|(said, _, to)| *said >= kill.at && kill.homes.contains(*to))
            {
                let _ = said;
                first.entry(to).and_modify(|at| *at = (*at).min(*came)).or_insert(*came);
            }
            let soon = |other: &&Fault| other.at > kill.at && other.at < kill.at + ALONE;
            let alone = kill.well && !faults.iter().any(|other| soon(&other));
            let times = if alone { &mut takeover } else { &mut mingled };
            times.extend(first.into_values().map(|came| came - kill.at));
        }
        let drains: Vec<&Fault> =
            faults.iter().filter(|fault| matches!(fault.what, What::Drain | What::Upgrade)).collect();
        let in_drain = |said: Instant| {
            drains.iter().any(|drain| said >= drain.at && said <= drain.until + Duration::from_secs(1))
        };
        let wait = |(said, came, _): &(Instant, Instant, &str)| came.saturating_duration_since(*said);
        let drain = messages.iter().filter(|(said, ..)| in_drain(*said)).map(wait).collect();
        let cuts: Vec<_> = talkers.iter().flat_map(|talker| &talker.log.cuts).collect();
        let mut reasons = BTreeMap::new();
        let mut troubles = BTreeMap::new();
        for cut in &cuts {
            *reasons.entry(cut.why.replace('\n', " ")).or_default() += 1;
            for trouble in &cut.troubles {
                *troubles.entry(trouble.split_whitespace().collect::<Vec<_>>().join(" ")).or_default() += 1;
            }
        }
        let resumed = cuts.iter().filter(|cut| cut.how == Return::Resumed);
        let longest = |fault: &Fault| {
            // What was said in the ten seconds from it on.
            let near = messages.iter().filter(|(said, ..)| {
                *said + Duration::from_secs(1) >= fault.at && *said < fault.at + Duration::from_secs(10)
            });
            near.map(wait).max().unwrap_or_default()
        };
        let since = |at: Instant| at.saturating_duration_since(begun).as_secs_f64();
        let mut worst: Vec<&(Instant, Instant, &str)> = by_name
            .keys()
            .filter_map(|name| messages.iter().filter(|(.., to)| to == name).max_by_key(|m| wait(m)))
            .collect();
        worst.sort_by_key(|message| std::cmp::Reverse(wait(message)));
        let slowest = worst.into_iter().take(6).map(|message| {
            let (said, came, to) = message;
            let receiver = by_name[to];
            let cuts = |talker: &Talker| -> String {
                let near = talker.log.cuts.iter().filter(|cut| cut.at <= *came && cut.back >= *said);
                near.map(|cut| format!("{:.1}-{:.1} {}", since(cut.at), since(cut.back), cut.why))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let sender = by_name[receiver.partner.as_str()];
            format!(
                "{:.2} s: {} to {to}, to be said at {:.1} s, came at {:.1} s; cuts of the sender: {}; of the recipient: {}",
                wait(message).as_secs_f64(),
                sender.name,
                since(*said),
                since(*came),
                cuts(sender),
                cuts(receiver),
            )
        });
        let slowest = slowest.collect();
        let story = faults.iter().map(|fault| {
            let at = fault.at.saturating_duration_since(begun).as_secs_f64();
            let what = match fault.what {
                What::Kill => "killed",
                What::Drain => "drained",
                What::Upgrade => "drained and upgraded",
                What::DrainStill => "drained while the store stood still",
                What::EndedByItself => "ended by itself",
            };
            let cut = cuts.iter().filter(|cut| cut.at >= fault.at && cut.at < fault.at + Duration::from_secs(1));
            let seconds = |time: Option<Duration>| {
                time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
            };
            let took = match fault.what {
                What::Drain | What::DrainStill | What::Upgrade => format!("{:.2} s", (fault.until - fault.at).as_secs_f64()),
                _ => format!("seen after {}, whole after {}", seconds(fault.detected), seconds(fault.whole)),
            };
            format!(
                "{at:6.1} s  {} {what}: {} shards, {} users at home, {} connections cut; {took}; longest wait near it {:.2} s",
                fault.node,
                fault.held,
                fault.homes.len(),
                cut.count(),
                longest(fault).as_secs_f64()
            )
        });
        Report {
            seed: plan.seed,
            clients: plan.clients,
            length: plan.length,
            cut: cuts.len(),
            resumed: resumed.clone().count(),
            anew: cuts.iter().filter(|cut| matches!(cut.how, Return::Anew(_))).count(),
            reasons,
            troubles,
            detected: Times::new(faults.iter().filter_map(|fault| fault.detected).collect()),
            whole: Times::new(faults.iter().filter_map(|fault| fault.whole).collect()),
            takeover: Times::new(takeover),
            mingled: Times::new(mingled),
            away: Times::new(resumed.map(|cut| cut.back - cut.at).collect()),
            waits: Times::new(messages.iter().map(wait).collect()),
            drain: Times::new(drain),
            story: story.collect(),
            slowest,
            verdict,
        }
    }

    /// Sessions resumed of those that were cut.
    pub fn resumed_part(&self) -> f64 {
        if self.cut == 0 { 1.0 } else { self.resumed as f64 / self.cut as f64 }
    }

    /// What was aimed at and missed; empty if nothing was.
    pub fn missed_targets(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let mut aim = |what: &str, is: Duration, most: u64| {
            if is > Duration::from_secs(most) {
                missed.push(format!("{what}: {:.2} s, and at most {most} s was aimed at", is.as_secs_f64()));
            }
        };
        aim("takeover, p50", self.takeover.at(0.5), 6);
        aim("takeover, p99", self.takeover.at(0.99), 10);
        aim("the longest wait during a drain", self.drain.longest(), 1);
        if self.resumed_part() < 0.99 {
            missed.push(format!("resumed of cut: {:.1} %", self.resumed_part() * 100.0));
        }
        missed
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = &self.verdict;
        writeln!(f, "{} clients, {} s, seed {}", self.clients, self.length.as_secs(), self.seed)?;
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        writeln!(
            f,
            "messages   {} sent, {} delivered, {} missing, {} twice, {} out of order, {} came back as errors",
            v.sent, v.delivered, v.missing, v.twice, v.disordered, v.bounced
        )?;
        if v.refused > 0 {
            let (all, kept) = (v.refused, v.refused_and_kept);
            writeln!(
                f,
                "refused    {all} while the store stood still, of which {kept} delivered or archived"
            )?;
        }
        writeln!(
            f,
            "archives   {} missing, {} twice, {} out of order",
            v.archive_missing, v.archive_twice, v.archive_disordered
        )?;
        writeln!(
            f,
            "sessions   {} cut, {} resumed ({:.2} %), {} begun anew (with {} messages twice)",
            self.cut,
            self.resumed,
            self.resumed_part() * 100.0,
            self.anew,
            v.twice_anew
        )?;
        writeln!(f, "detection  {}", self.detected)?;
        writeln!(f, "all homes  {}", self.whole)?;
        writeln!(f, "takeover   {}", self.takeover)?;
        writeln!(f, "…mingled   {}", self.mingled)?;
        writeln!(f, "away       {}", self.away)?;
        writeln!(f, "waits      {}", self.waits)?;
        writeln!(f, "in drain   {}", self.drain)?;
        for line in &self.slowest {
            writeln!(f, "slow: {line}")?;
        }
        for (name, counts) in [("cut by", &self.reasons), ("on the way back", &self.troubles)] {
            for (what, count) in counts {
                writeln!(f, "{name}: {count} × {what}")?;
            }
        }
        for problem in &v.problems {
            writeln!(f, "PROBLEM: {problem}")?;
        }
        for missed in self.missed_targets() {
            writeln!(f, "not reached: {missed}")?;
        }
        Ok(())
    }
}
