//! Which client must get what, where clients have habits. A message that its sender's server acknowledged, and did not refuse, comes to some
//! device; to the session of its full JID, if that is there; else to every device that took messages when it came. Nothing
//! comes twice to a session, nor to a device that was not there when another got it. What is refused comes to nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::{Client, Life, Way};
use crate::world::{Sent, Target, World};

/// What came into a user's archive, and what went.
type Lists = [(Vec<usize>, Vec<usize>)];

/// A life of a device of the recipient.
struct One<'a> {
    client: &'a Client,
    /// From 1.
    number: usize,
    life: &'a Life,
}

impl One<'_> {
    fn name(&self) -> String {
        format!("{}/{} (life {})", self.client.name(), self.client.resource, self.number)
    }

    fn is_last(&self) -> bool {
        self.life.ended.is_none()
    }

    /// When it got a message that was not a copy of another device's.
    fn direct(&self, n: usize) -> Option<Duration> {
        self.life.got.iter().find(|got| got.n == n && got.way == Way::Direct).map(|got| got.at)
    }
}

pub(super) fn all(world: &World, lists: &Lists) {
    let messages = world.messages.lock();
    let clients: Vec<_> = world.clients.iter().map(|client| client.lock()).collect();
    let mut users: BTreeMap<usize, Vec<One<'_>>> = BTreeMap::new();
    for client in &clients {
        for (number, life) in (1..).zip(&client.lives) {
            users.entry(client.user).or_default().push(One { client, number, life });
        }
    }
    for (n, sent) in messages.iter().enumerate() {
        let lives = users.get(&sent.to).map(Vec::as_slice).unwrap_or_default();
        let looked = Looked { world, n, sent, lives };
        looked.refused(lists, clients.get(sent.from).map(|client| client.user));
        looked.delivered(lists);
        looked.again();
        if !sent.acked && !sent.doubtful {
            looked.wrong("unacked", format_args!("of c{} was never acknowledged", sent.from));
        }
    }
    for (user, lives) in &users {
        for one in lives {
            ordered(world, one, &messages, *user, lives);
        }
    }
    asked(world, &clients);
}

/// A message, and the lives of its recipient's devices.
struct Looked<'a> {
    world: &'a World,
    n: usize,
    sent: &'a Sent,
    lives: &'a [One<'a>],
}

impl Looked<'_> {
    fn wrong(&self, kind: &str, what: impl std::fmt::Display) {
        let Sent { from, to, target, sent_at, acked_at, .. } = self.sent;
        let to = match self.sent.device {
            Some(device) => format!("c{device} of user {to}"),
            None => format!("user {to}"),
        };
        self.world.log.wrong(format_args!(
            "[{kind}] m{} from c{from} to {to} ({}; sent {:.3}, acked {:.3}) {what}",
            self.n,
            target.name(),
            sent_at.as_secs_f64(),
            acked_at.unwrap_or_default().as_secs_f64()
        ));
    }

    /// When it was on its way.
    fn span(&self) -> (Duration, Duration) {
        (self.sent.sent_at, self.sent.acked_at.unwrap_or(Duration::MAX))
    }

    fn is_target(&self, one: &One<'_>) -> bool {
        self.sent.device == Some(one.client.n)
    }

    /// Whether there was no session of its full JID for certain, so that it was as for the bare JID.
    fn is_bare(&self) -> bool {
        matches!(self.sent.target, Target::Bare | Target::NeverWas)
    }

    /// Refused means delivered nowhere and archived nowhere, and said once.
    fn refused(&self, lists: &Lists, from: Option<usize>) {
        if self.sent.errors > 1 {
            self.wrong("refused/twice", format_args!("was refused {} times", self.sent.errors));
        }
        if self.sent.errors == 0 {
            return;
        }
        let got: Vec<String> =
            self.lives.iter().filter(|one| one.life.first(self.n).is_some()).map(One::name).collect();
        if !got.is_empty() {
            self.wrong("refused/delivered", format_args!("was refused, and came to {got:?}"));
        }
        let came = lists.get(self.sent.to).is_some_and(|(came, _)| came.contains(&self.n));
        let went = from.and_then(|from| lists.get(from)).is_some_and(|(_, went)| went.contains(&self.n));
        if came || went {
            let which = match (came, went) {
                (true, true) => "both archives",
                (true, false) => "the recipient's archive",
                _ => "the sender's archive",
            };
            self.wrong("refused/archived", format_args!("was refused, and is in {which}"));
        }
    }

    /// A message comes to its recipients.
    fn delivered(&self, lists: &Lists) {
        if !self.sent.acked || self.sent.errors > 0 {
            return;
        }
        let (from, to) = self.span();
        let got = |one: &&One<'_>| one.life.first(self.n).is_some();
        if !self.lives.iter().any(|one| got(&one)) {
            let archived = lists.get(self.sent.to).is_some_and(|(came, _)| came.contains(&self.n));
            let kind = format!("lost/{}", self.sent.target.name());
            let ended: Vec<String> =
                self.owed().filter_map(|one| Some(format!("{} {:?}", one.name(), one.life.ended?))).collect();
            let kind = if ended.is_empty() { kind } else { format!("{kind}+session-ended") };
            return self.wrong(
                &kind,
                format_args!("came to nobody; in the archive: {archived}; owed to and ended: {ended:?}"),
            );
        }
        let missed = |one: &&One<'_>| one.is_last() && !got(one);
        for one in self.lives.iter().filter(missed) {
            if self.is_target(one) && one.life.existed(from, to) {
                self.wrong("missing/full", format_args!("did not come to {}, others got it", one.name()));
            }
            if self.is_bare() && one.life.took(from, to) {
                let kind = format!("missing/{}", self.sent.target.name());
                self.wrong(&kind, format_args!("did not come to {}, others got it", one.name()));
            }
        }
    }

    /// Lives that may have been meant.
    fn owed(&self) -> impl Iterator<Item = &One<'_>> {
        let (from, to) = self.span();
        self.lives.iter().filter(move |one| {
            let began_before =
                one.life.shown.first().is_some_and(|shown| shown.said <= to) || one.life.told.is_some();
            let there = one.life.ended.is_none_or(|(at, _)| at >= from) && began_before;
            there && (self.is_target(one) || one.life.may_have_taken(from, to))
        })
    }

    /// Nothing comes twice to a session, and to no device that was not there after another got it, unless one was lost that had
    /// not.
    fn again(&self) {
        for one in self.lives {
            let ways: Vec<Way> = one
                .life
                .got
                .iter()
                .filter(|got| got.n == self.n && got.way != Way::Sent)
                .map(|got| got.way)
                .collect();
            if ways.len() > 1 {
                let kind = if ways.contains(&Way::Received) { "twice/with-copy" } else { "twice/direct" };
                self.wrong(kind, format_args!("came to {} as {ways:?}", one.name()));
            }
        }
        let (from, to) = self.span();
        let lost = self.owed().any(|one| one.life.ended.is_some());
        if lost {
            return;
        }
        for one in self.lives {
            let Some(at) = one.direct(self.n) else { continue };
            let first = self.lives.iter().find(|other| {
                other.client.n != one.client.n
                    && other.is_last()
                    && other.direct(self.n).is_some_and(|then| then < at)
            });
            let Some(first) = first else { continue };
            let full = self.lives.iter().find(|other| self.is_target(other) && other.life.existed(from, to));
            if let Some(full) = full
                && !self.is_target(one)
            {
                let kind =
                    if full.life.took(from, to) { "again/full" } else { "again/full-takes-no-messages" };
                self.wrong(kind, format_args!("came to {}, then to {} too", first.name(), one.name()));
            } else if !self.is_target(one) && !one.life.may_have_taken(from, to) {
                let negative = one.client.traits.priority < 0;
                let kind = if negative { "again/negative-priority" } else { "again/offline" };
                self.wrong(kind, format_args!("came to {}, then to {} too", first.name(), one.name()));
            }
        }
    }
}

/// Messages of one sender for one name come in order, in a session; those that were somebody else's first are not looked at.
fn ordered(world: &World, one: &One<'_>, messages: &[Sent], user: usize, lives: &[One<'_>]) {
    let mut last: BTreeMap<(usize, Option<usize>), usize> = BTreeMap::new();
    for got in one.life.got.iter().filter(|got| got.way == Way::Direct) {
        let Some(sent) = messages.get(got.n) else { continue };
        if sent.to != user {
            world.log.wrong(format_args!(
                "[astray] {} got m{}, which is for user {}",
                one.name(),
                got.n,
                sent.to
            ));
        }
        let looked = Looked { world, n: got.n, sent, lives };
        let passed_on = looked.owed().any(|other| other.life.ended.is_some() && other.number != one.number);
        let mine = sent.device.is_none_or(|device| device == one.client.n);
        if passed_on || !mine || sent.doubtful {
            continue;
        }
        // What is for the full JID of a session that is not available yet comes at once, and what is offline comes behind its first
        // presence (RFC 6121 section 8.5.3.1, XEP-0160 section 3).
        if one.life.shown.first().is_none_or(|shown| got.at <= shown.said) {
            continue;
        }
        // What is for the full JID of a session that is not available yet comes at once, and what is offline comes behind its first
        // presence (RFC 6121 section 8.5.3.1, XEP-0160 section 3).
        if one.life.shown.first().is_none_or(|shown| got.at <= shown.said) {
            continue;
        }
        let before = last.insert((sent.from, sent.device), got.n);
        if let Some(before) = before.filter(|before| *before > got.n) {
            looked.wrong("order", format_args!("came to {} after m{before}", one.name()));
        }
    }
}

/// A request is answered once.
fn asked(world: &World, clients: &[parking_lot::MutexGuard<'_, Client>]) {
    for (k, asked) in world.asked.lock().iter().enumerate() {
        let life = |n: usize, number: usize| {
            clients.get(n).and_then(|client| client.lives.get(number.checked_sub(1)?))
        };
        let goes_on = life(asked.from, asked.life).is_some_and(|life| life.ended.is_none());
        if !goes_on || !asked.acked {
            continue;
        }
        let (from, target, mut answers) = (asked.from, asked.target.name(), asked.answers.len());
        if let ([first, second], Some(client)) = (&asked.answers[..], clients.get(from)) {
            answers -= usize::from(world.may_repeat(client.user, *first, *second));
        }
        let seen = &asked.seen_by;
        if answers > 1 {
            world.log.wrong(format_args!(
                "[iq/twice] q{k} of c{from} ({target}) was answered {answers} times, seen by {seen:?}"
            ));
        }
        // The client that got it may be gone with the answer.
        let gone = seen.iter().any(|(n, number)| life(*n, *number).is_none_or(|life| life.ended.is_some()));
        if answers == 0 && !gone {
            let kind = if seen.is_empty() { "iq/request-lost" } else { "iq/answer-lost" };
            world.log.wrong(format_args!(
                "[{kind}] q{k} of c{from} ({target}) was never answered, seen by {seen:?}"
            ));
        }
    }
}
