//! What must be true at the end.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::talker::{Got, PASSWORD, Return, Talker};
use crate::client::{Client, Error, Options};
use crate::server::cluster::DOMAIN;
use crate::xml::CLIENT;

const MAM: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";
/// Archives that are read at once.
const READERS: usize = 8;

/// An entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: String,
    /// The local part of the sender.
    pub from: String,
    pub number: usize,
}

/// What was counted, and what is wrong.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub sent: usize,
    pub delivered: usize,
    pub missing: usize,
    /// More than once, to clients that resumed whenever they were cut.
    pub twice: usize,
    /// More than once, to clients (or from clients) that had to begin a new session.
    pub twice_anew: usize,
    pub bounced: usize,
    /// Refused, as may be while the store stands still; not in `missing`.
    pub refused: usize,
    /// Of those, what was delivered or is in an archive nevertheless.
    pub refused_and_kept: usize,
    pub disordered: usize,
    pub archive_missing: usize,
    pub archive_twice: usize,
    pub archive_disordered: usize,
    /// Examples, for people.
    pub problems: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_good(&self) -> bool {
        let Verdict { missing, twice, bounced, disordered, refused_and_kept, .. } = self;
        missing + twice + bounced + disordered + refused_and_kept == 0
            && self.archive_missing + self.archive_twice + self.archive_disordered == 0
            && self.problems.is_empty()
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < 40 {
            self.problems.push(text);
        }
    }
}

/// Reads all archives and judges all that happened. With a store that stood `still` messages may be refused: then they are
/// nowhere.
pub async fn check(options: &Options, talkers: &[Talker], still: bool) -> Result<Verdict, Error> {
    let archives = archives(options, talkers).await?;
    let mut verdict = Verdict::default();
    for (at, receiver) in talkers.iter().enumerate() {
        let from = talkers.iter().position(|t| t.name == receiver.partner).expect("everybody has a partner");
        direction(&mut verdict, still, (&talkers[from], &archives[from]), (receiver, &archives[at]));
        for strange in &receiver.log.strange {
            verdict.problem(format!("{} got what it did not expect: {strange}", receiver.name));
        }
    }
    Ok(verdict)
}

fn always_resumed(talker: &Talker) -> bool {
    talker.log.cuts.iter().all(|cut| cut.how == Return::Resumed)
}

/// All that `sender` said to `receiver`.
fn direction(
    verdict: &mut Verdict,
    still: bool,
    (sender, of_sender): (&Talker, &[Entry]),
    (receiver, of_receiver): (&Talker, &[Entry]),
) {
    let who = format!("{} to {}", sender.name, receiver.name);
    let all = sender.log.sent.len();
    let smooth = always_resumed(sender) && always_resumed(receiver);
    verdict.sent += all;
    let mut refused = HashSet::new();
    for (number, why) in &sender.log.bounced {
        if still && why == "resource-constraint" && refused.insert(*number) {
            verdict.refused += 1;
        } else {
            verdict.bounced += 1;
            verdict.problem(format!("{who}: {number} came back: {why}"));
        }
    }

    let (mut seen, mut first, mut doubled) = (HashSet::new(), Vec::<&Got>::new(), Vec::new());
    for got in &receiver.log.received {
        match seen.insert(got.number) {
            true => first.push(got),
            false => doubled.push(got.number),
        }
    }
    verdict.delivered += first.len();
    if smooth && !doubled.is_empty() {
        verdict.twice += doubled.len();
        verdict.problem(format!("{who}: more than once, though all cuts were resumed: {}", few(&doubled)));
    } else {
        verdict.twice_anew += doubled.len();
    }
    let missing: Vec<usize> = (0..all).filter(|n| !seen.contains(n) && !refused.contains(n)).collect();
    let kept: Vec<usize> = refused.intersection(&seen).copied().collect();
    if !kept.is_empty() {
        verdict.refused_and_kept += kept.len();
        verdict.problem(format!("{who}: refused, and delivered: {}", few(&kept)));
    }
    verdict.missing += missing.len();
    if !missing.is_empty() {
        verdict.problem(format!("{who}: {} of {all} never came: {}", missing.len(), few(&missing)));
    }
    let order: Vec<usize> = first.iter().map(|got| got.number).collect();
    let late = out_of_order(&order);
    verdict.disordered += late.len();
    if !late.is_empty() {
        verdict.problem(format!("{who}: out of order: {}", few(&late)));
    }

    for (whose, archive, strict) in [(receiver, of_receiver, smooth), (sender, of_sender, smooth)] {
        let entries: Vec<&Entry> = archive.iter().filter(|e| e.from == sender.name).collect();
        let numbers: Vec<usize> = entries.iter().map(|e| e.number).collect();
        let known: HashSet<usize> = numbers.iter().copied().collect();
        let kept: Vec<usize> = refused.intersection(&known).copied().collect();
        if !kept.is_empty() {
            verdict.refused_and_kept += kept.len();
            verdict.problem(format!("{who}: refused, and in the archive of {}: {}", whose.name, few(&kept)));
        }
        let missing: Vec<usize> = (0..all).filter(|n| !known.contains(n) && !refused.contains(n)).collect();
        let whose = format!("{who}, in the archive of {}", whose.name);
        verdict.archive_missing += missing.len();
        if !missing.is_empty() {
            verdict.problem(format!("{whose}: not there: {}", few(&missing)));
        }
        let more = numbers.len() - known.len();
        if strict && more > 0 {
            verdict.archive_twice += more;
            let mut seen = HashSet::new();
            let twice: Vec<usize> = numbers.iter().copied().filter(|n| !seen.insert(*n)).collect();
            verdict.problem(format!("{whose}: more than once: {}", few(&twice)));
        }
        let late = out_of_order(&numbers);
        // What was refused while the store stood still, and could not be told so, was sent again and taken then: its sender's
        // archive has it at that time.
        let again = still && whose.ends_with(&sender.name);
        if strict && !again && !late.is_empty() {
            verdict.archive_disordered += late.len();
            verdict.problem(format!("{whose}: out of order: {}", few(&late)));
        }
    }
    // The order in which they came is the order of the archive, by its own ids.
    let archived: Vec<&str> =
        of_receiver.iter().filter(|e| e.from == sender.name).map(|e| e.id.as_str()).collect();
    let came: Vec<&str> = first.iter().map(|got| got.id.as_str()).collect();
    if smooth && archived != came && missing.is_empty() {
        verdict.archive_disordered += 1;
        let at =
            archived.iter().zip(&came).position(|(a, b)| a != b).unwrap_or(archived.len().min(came.len()));
        verdict.problem(format!("{who}: what came is not what the archive has, from {at} on"));
    }
}

/// The numbers that come after a greater one.
fn out_of_order(numbers: &[usize]) -> Vec<usize> {
    let mut greatest = None;
    let mut late = Vec::new();
    for &number in numbers {
        match greatest {
            Some(before) if number < before => late.push(number),
            _ => greatest = Some(number),
        }
    }
    late
}

fn few(numbers: &[usize]) -> String {
    let shown: Vec<String> = numbers.iter().take(12).map(ToString::to_string).collect();
    let more = if numbers.len() > 12 { format!(" and {} more", numbers.len() - 12) } else { String::new() };
    format!("{}{more}", shown.join(" "))
}

/// The archives of all, in their order.
async fn archives(options: &Options, talkers: &[Talker]) -> Result<Vec<Vec<Entry>>, Error> {
    let gate = Arc::new(Semaphore::new(READERS));
    let mut reading = JoinSet::new();
    for (at, talker) in talkers.iter().enumerate() {
        let (gate, options, name) = (gate.clone(), options.clone(), talker.name.clone());
        reading.spawn(async move {
            let _pass = gate.acquire().await;
            (at, archive(&options, &name).await)
        });
    }
    let mut all = vec![Vec::new(); talkers.len()];
    for (at, read) in reading.join_all().await {
        all[at] = read?;
    }
    Ok(all)
}

/// The whole archive of a user, oldest first.
async fn archive(options: &Options, user: &str) -> Result<Vec<Entry>, Error> {
    let mut client = Client::login(options, user, PASSWORD, "reader").await?;
    let (mut entries, mut after) = (Vec::new(), String::new());
    loop {
        let query = format!("<query xmlns='{MAM}'><set xmlns='{RSM}'><max>200</max>{after}</set></query>");
        let answer = client.iq_ok("set", &format!("{user}@{DOMAIN}"), &query).await?;
        for message in std::mem::take(&mut client.kept) {
            let Some(result) = message.child("result", MAM) else { continue };
            let Some(inner) = result.find("message", CLIENT) else { continue };
            let Some(number) = inner.get("body").and_then(|b| b.text().parse().ok()) else { continue };
            let from = inner.attr("from").and_then(|from| from.split('@').next()).unwrap_or_default();
            let id = result.attr("id").unwrap_or_default().to_owned();
            entries.push(Entry { id, from: from.to_owned(), number });
        }
        let fin =
            answer.child("fin", MAM).ok_or_else(|| Error::Unexpected("a fin".into(), answer.clone()))?;
        if fin.attr("complete") == Some("true") {
            client.close().await?;
            return Ok(entries);
        }
        let last = fin.find("last", RSM).ok_or_else(|| Error::Unexpected("a last".into(), answer.clone()))?;
        after = format!("<after>{}</after>", last.text());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_judged_by_the_greatest_so_far() {
        assert!(out_of_order(&[0, 1, 2, 5]).is_empty());
        assert_eq!(out_of_order(&[0, 3, 1, 2, 4]), [1, 2]);
    }
}
