//! What is shown: the nodes as they are, and what happened. Only text; nothing here knows a process or a terminal.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::watch::{Look, Member};

/// Events that are shown.
const EVENTS: usize = 8;
/// How many shards there are.
const SHARDS: u64 = rookery_cluster::entity::SHARDS as u64;
/// The width of the bar.
const BAR: u64 = 30;

/// What we did with a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The node was started and has not said that it is ready.
    Starting,
    /// The node is ready.
    Running,
    /// kill -9.
    Killed,
    /// SIGTERM; it moves its shards to others.
    Draining,
    /// The node has ended.
    Ended,
}

struct Row {
    name: String,
    fate: Fate,
    since: Instant,
    /// The shards that it held when it was seen last.
    held: u64,
    /// The others know that it is dead.
    found_dead: bool,
    /// All its shards have a home elsewhere, or it is back.
    settled: bool,
}

/// The nodes and what happened to them.
pub struct Story {
    begun: Instant,
    rows: Vec<Row>,
    look: Look,
    events: VecDeque<String>,
    told: u64,
    /// Shards are on their way, or have no home.
    moving: bool,
}

impl Story {
    /// Of nodes that have just been started.
    pub fn new(names: impl IntoIterator<Item = String>, now: Instant) -> Self {
        let row =
            |name| Row { name, fate: Fate::Starting, since: now, held: 0, found_dead: false, settled: true };
        let rows = names.into_iter().map(row).collect();
        Self { begun: now, rows, look: Look::default(), events: VecDeque::new(), told: 0, moving: true }
    }

    /// What was done with the node of that number.
    pub fn fate(&self, node: usize) -> Option<&Fate> {
        self.rows.get(node).map(|row| &row.fate)
    }

    /// Something was done with a node, or it ended.
    pub fn set(&mut self, node: usize, fate: Fate, now: Instant, how: &str) {
        let Some(row) = self.rows.get_mut(node) else { return };
        let (name, took) = (row.name.clone(), seconds(now - row.since));
        let before = std::mem::replace(&mut row.fate, fate.clone());
        row.since = now;
        let what = match fate {
            Fate::Starting => format!("{name} is started"),
            Fate::Running => return,
            Fate::Killed => {
                (row.found_dead, row.settled) = (false, false);
                format!("{name} is killed (kill -9), with {} shards", row.held)
            }
            Fate::Draining => {
                format!("{name} drains: its {} shards go to the others, then it ends", row.held)
            }
            Fate::Ended if before == Fate::Draining => {
                format!("{name} has drained and ended after {took} ({how})")
            }
            Fate::Ended => format!("{name} ended by itself ({how}): see its log"),
        };
        self.tell(now, &what);
    }

    fn tell(&mut self, now: Instant, what: &str) {
        self.events.push_back(format!("{:>7}  {what}", seconds(now - self.begun)));
        self.told += 1;
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// Takes a new look at the nodes; what changed becomes events.
    pub fn looked(&mut self, look: Look, now: Instant) {
        let mut news = Vec::new();
        for (number, row) in self.rows.iter_mut().enumerate() {
            let member = member(&look, &row.name);
            let own = look.nodes.get(number).and_then(Option::as_ref);
            if let (Fate::Running | Fate::Starting, Some(member)) = (&row.fate, member) {
                row.held = member.held;
            }
            if row.fate == Fate::Starting && own.is_some_and(|own| own.ready) {
                (row.fate, row.settled) = (Fate::Running, true);
                news.push(format!("{} is ready, {} after its start", row.name, seconds(now - row.since)));
            }
            if row.fate != Fate::Killed {
                continue;
            }
            let took = seconds(now - row.since);
            if !row.found_dead && member.is_some_and(|member| member.state == "dead") {
                row.found_dead = true;
                news.push(format!("{} is found dead, after {took}", row.name));
            }
            let picture = look.picture.as_ref();
            let homes = picture.is_some_and(|picture| {
                picture.free == 0 && picture.members.iter().map(|m| m.held).sum::<u64>() == SHARDS
            });
            if row.found_dead && !row.settled && homes && member.is_none_or(|member| member.held == 0) {
                row.settled = true;
                news.push(format!(
                    "all that was at home on {} has a new home, {took} after the kill",
                    row.name
                ));
            }
        }
        let moving = look.picture.as_ref().is_none_or(|p| p.moving > 0 || p.free > 0);
        if std::mem::replace(&mut self.moving, moving) && !moving {
            news.push("every shard is where it belongs".to_owned());
        }
        self.look = look;
        for line in news {
            self.tell(now, &line);
        }
    }

    /// The events that were told after the first `already`, and how many there were in all.
    pub fn events(&self, already: u64) -> (Vec<&str>, u64) {
        let new = usize::try_from(self.told - already).unwrap_or(usize::MAX);
        let skip = self.events.len().saturating_sub(new);
        (self.events.iter().skip(skip).map(String::as_str).collect(), self.told)
    }

    /// The state of a node in a word.
    fn word(&self, number: usize, row: &Row) -> String {
        let state = member(&self.look, &row.name).map(|member| member.state.as_str());
        let own = self.look.nodes.get(number).and_then(Option::as_ref);
        match row.fate {
            Fate::Killed if row.found_dead => "dead",
            Fate::Killed => "killed",
            Fate::Ended => "ended",
            Fate::Draining => "draining",
            Fate::Starting if own.is_none() => "starting",
            Fate::Starting => "joining",
            Fate::Running => state.unwrap_or("running"),
        }
        .to_owned()
    }

    /// Whether shards are on their way.
    pub fn moves(&self) -> bool {
        self.moving
    }

    /// The nodes in one line: for where nothing can be drawn.
    pub fn summary(&self) -> String {
        let all: Vec<String> = self
            .rows
            .iter()
            .enumerate()
            .map(|(number, row)| {
                let held = member(&self.look, &row.name).map_or(0, |member| member.held);
                format!("{} {} {held}", row.name, self.word(number, row))
            })
            .collect();
        let rest = self.look.picture.as_ref().map_or_else(String::new, |picture| {
            format!("; {} without a home, {} on their way", picture.free, picture.moving)
        });
        format!("shards: {}{rest}", all.join(", "))
    }

    /// The screen: no line is longer than `width`.
    pub fn screen(&self, now: Instant, width: usize, drain: bool) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            format!("   NODE  STATE     SHARDS OF {SHARDS:<22} SESSIONS  CONNECTIONS  SINCE"),
        ];
        for (number, row) in self.rows.iter().enumerate() {
            let held = member(&self.look, &row.name).map_or(0, |member| member.held);
            let own = self.look.nodes.get(number).and_then(Option::as_ref);
            let count = |of: fn(&super::watch::Own) -> u64| {
                own.map_or_else(|| "-".to_owned(), |own| of(own).to_string())
            };
            lines.push(format!(
                "{}  {:<4}  {:<8}  {} {held:>4}  {:>8}  {:>11}  {}",
                number + 1,
                row.name,
                self.word(number, row),
                bar(held),
                count(|own| own.sessions),
                count(|own| own.connections),
                seconds(now - row.since),
            ));
        }
        lines.push(match &self.look.picture {
            Some(picture) => {
                format!("{} shards without a home, {} on their way to another", picture.free, picture.moving)
            }
            None => "no node knows the cluster yet".to_owned(),
        });
        lines.push(String::new());
        lines.extend(self.events.iter().cloned());
        lines.push(String::new());
        let last = self.rows.len();
        lines.push(match drain {
            true => format!("drain which node? 1-{last}"),
            false => format!(
                "1-{last}: kill -9 that node, and again: start it   d, then 1-{last}: drain it   q: end"
            ),
        });
        for line in &mut lines {
            if let Some((end, _)) = line.char_indices().nth(width) {
                line.truncate(end);
            }
        }
        lines
    }
}

fn member<'a>(look: &'a Look, name: &str) -> Option<&'a Member> {
    look.picture.as_ref()?.members.iter().find(|member| member.name == name)
}

fn bar(held: u64) -> String {
    let full = (held * BAR).div_ceil(SHARDS).min(BAR);
    let part = |times: u64, what: &str| what.repeat(usize::try_from(times).unwrap_or_default());
    format!("{}{}", part(full, "█"), part(BAR - full, "·"))
}

fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        all => format!("{}:{:02}", all / 60, all % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::{Own, Picture};
    use super::*;

    fn look(states: [(&str, u64); 3], free: u64) -> Look {
        let member = |number: usize, (state, held): (&str, u64)| Member {
            name: format!("n{}", number + 1),
            state: state.to_owned(),
            held,
        };
        let members = states.iter().enumerate().map(|(n, state)| member(n, *state)).collect();
        let own = |(state, _): &(&str, u64)| {
            (*state == "active").then_some(Own { ready: true, connections: 2, sessions: 1 })
        };
        Look { picture: Some(Picture { members, free, moving: 0 }), nodes: states.iter().map(own).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_death_is_told_from_the_kill_to_the_new_homes() {
        let names = ["n1", "n2", "n3"].map(str::to_owned);
        let begin = Instant::now();
        let at = |tenths: u64| begin + Duration::from_millis(tenths * 100);
        let mut story = Story::new(names, begin);
        story.looked(look([("active", 342), ("active", 341), ("active", 341)], 0), at(10));
        assert_eq!(story.fate(1), Some(&Fate::Running));
        story.set(1, Fate::Killed, at(20), "");
        // The others do not know it yet.
        story.looked(look([("active", 342), ("active", 341), ("active", 341)], 0), at(30));
        story.looked(look([("active", 342), ("dead", 341), ("active", 341)], 341), at(71));
        story.looked(look([("active", 512), ("dead", 0), ("active", 512)], 0), at(80));
        let (events, told) = story.events(0);
        let events = events.join("\n");
        for part in [
            "1.0 s  n1 is ready, 1.0 s after its start",
            "2.0 s  n2 is killed (kill -9), with 341 shards",
            "7.1 s  n2 is found dead, after 5.1 s",
            "8.0 s  all that was at home on n2 has a new home, 6.0 s after the kill",
        ] {
            assert!(events.contains(part), "{part} in\n{events}");
        }
        assert!(story.events(told).0.is_empty());
        let screen = story.screen(at(81), 200, false);
        let n2 = screen.iter().find(|line| line.starts_with("2  n2")).unwrap();
        assert!(n2.contains("dead") && n2.contains("······") && n2.ends_with("6.1 s"), "{n2}");
        assert!(story.screen(at(81), 40, true).iter().all(|line| line.chars().count() <= 40));
        assert_eq!(
            story.summary(),
            "shards: n1 active 512, n2 dead 0, n3 active 512; 0 without a home, 0 on their way"
        );
        story.set(1, Fate::Starting, at(90), "");
        story.looked(look([("active", 342), ("active", 341), ("active", 341)], 0), at(100));
        assert_eq!(story.fate(1), Some(&Fate::Running));
    }
}
