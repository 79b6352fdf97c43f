//! A device of a user: what it is like, and what happened to it. Its sessions are its lives: a resumption goes on with one,
//! a login begins the next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Cut;
use crate::chance::{Chance, now};
use crate::toys::Toys;
use crate::world::jid;

/// What a device is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traits {
    /// The device asks for copies (XEP-0280).
    pub(crate) carbons: bool,
    /// That of its presence.
    pub(crate) priority: i8,
    /// The device asks for so many seconds in which its session may be resumed.
    pub(crate) max: Option<u32>,
    /// How often, in a thousand, it loses its connection and stays away for a while, when it says something.
    pub(crate) sleeps: u64,
    /// … logs out, and in again later.
    pub(crate) leaves: u64,
    /// … becomes unavailable for a while.
    pub(crate) hides: u64,
    /// … binds its resource anew instead of resuming.
    pub(crate) rebinds: u64,
    /// Once logged out it stays so until the last.
    pub(crate) stays_out: bool,
    /// Nobody knew it before: it logs in when all is over, and gets what has waited.
    pub(crate) last: bool,
}

impl Traits {
    /// A device of a world with habits. The first of each user answers for it and is seldom away.
    pub(crate) fn of(chance: &mut Chance, first: bool, sleepy: bool) -> Self {
        let often = if sleepy { 6 } else { 1 };
        Self {
            carbons: chance.hits(400),
            priority: if !first && chance.hits(250) { -1 } else { 0 },
            max: chance.hits(200).then(|| 4 + u32::try_from(chance.below(5)).unwrap_or(0)),
            sleeps: if chance.hits(600) { 12 * often } else { 0 },
            leaves: if chance.hits(400) { 12 } else { 0 },
            hides: if chance.hits(400) { 15 } else { 0 },
            rebinds: if chance.hits(400) { 300 } else { 30 },
            stays_out: !first && chance.hits(500),
            last: false,
        }
    }

    /// The device that logs in when all is over.
    pub(crate) fn last() -> Self {
        Self { last: true, ..Self::default() }
    }
}

/// When something came to a client, and by which of its connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// The client had looked then, and it was not there: it was sent after that.
    pub(crate) since: Duration,
    pub(crate) at: Duration,
    pub(crate) connection: u32,
}

/// How a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Direct,
    /// A copy of what another device of the user got.
    Received,
    /// A copy of what another device of the user sent.
    Sent,
}

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got {
    pub(crate) n: usize,
    pub(crate) way: Way,
    pub(crate) at: Duration,
}

/// A presence without `to`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) said: Duration,
    pub(crate) settled: Option<Duration>,
    /// None: unavailable.
    pub(crate) priority: Option<i8>,
}

/// How a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    LoggedOut,
    /// The resource was bound anew.
    Replaced,
    /// There was nothing to resume any more.
    Refused,
}

/// A session, as its client sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    /// Something that it sent was settled: from here on the server must not forget it.
    pub(crate) told: Option<Duration>,
    pub(crate) ended: Option<(Duration, End)>,
    pub(crate) shown: Vec<Shown>,
    pub(crate) got: Vec<Got>,
    /// The session may expire while its client is away.
    pub(crate) short: bool,
}

impl Life {
    /// Whether it was there during all of this time, known to the server, and not about to end.
    pub(crate) fn existed(&self, from: Duration, to: Duration) -> bool {
        !self.short && self.told.is_some_and(|told| told <= from) && self.lasted(to)
    }

    pub(crate) fn lasted(&self, to: Duration) -> bool {
        self.ended.is_none_or(|(at, _)| at > to)
    }

    /// Whether it took messages to the bare JID during all of this time.
    pub(crate) fn took(&self, from: Duration, to: Duration) -> bool {
        let at = self.shown.iter().rposition(|shown| shown.said <= to);
        let last = at.and_then(|at| self.shown.get(at));
        last.is_some_and(|shown| {
            shown.settled.is_some_and(|settled| settled <= from) && shown.priority.is_some_and(|p| p >= 0)
        }) && self.existed(from, to)
    }

    /// Whether it may have taken messages to the bare JID at some time of this.
    pub(crate) fn may_have_taken(&self, from: Duration, to: Duration) -> bool {
        let until = |n: usize| {
            let next = self.shown.get(n + 1);
            next.map_or(Duration::MAX, |next| next.settled.unwrap_or(Duration::MAX))
        };
        let takes = |(n, shown): (usize, &Shown)| {
            shown.priority.is_some_and(|p| p >= 0) && shown.said <= to && until(n) >= from
        };
        self.shown.iter().enumerate().any(takes)
    }

    /// How a message came first.
    pub(crate) fn first(&self, n: usize) -> Option<&Got> {
        self.got.iter().find(|got| got.n == n && got.way != Way::Sent)
    }
}

/// What a stanza was that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Message(usize),
    /// The presence of that number in this life.
    Shown(usize),
    Asked(usize),
    /// To a room or the component.
    Line(usize),
    /// To one of the far server's people: a message, a request.
    Far(usize),
    FarAsked(usize),
    Other,
}

/// A client, connected or not.
pub(crate) struct Client {
    pub(crate) n: usize,
    pub(crate) user: usize,
    pub(crate) resource: &'static str,
    pub(crate) traits: Traits,
    pub(crate) chance: Chance,
    /// What it does by habit has a die of its own.
    pub(crate) habit: Chance,
    pub(crate) toys: Toys,
    /// The node it is connected to, or about to be; and which of its connections this is.
    pub(crate) at: Option<usize>,
    pub(crate) connection: u32,
    /// When the client has read last all that there was.
    pub(crate) looked: Duration,
    /// Stream management is on and resumed: it takes part.
    pub(crate) live: bool,
    /// Since when it has no connection.
    pub(crate) loose: Duration,
    pub(crate) retry: Duration,
    pub(crate) cut: Option<Cut>,
    /// The device does not look for a connection before, unless all is to be quiet.
    pub(crate) sleeps: Duration,
    /// The device is not logged in, and wants not to be.
    pub(crate) out: bool,
    /// The device has said that it goes, and logs out when that is settled.
    pub(crate) leaving: bool,
    /// The device is unavailable until then.
    pub(crate) hides: Option<Duration>,
    /// Resumption: its id, and what it has got.
    pub(super) id: String,
    pub(super) handled: u32,
    pub(super) acked: u32,
    pub(crate) unacked: VecDeque<(String, What, Duration)>,
    /// What happened to its nodes since it was last live, for the counters.
    pub(crate) home: Option<String>,
    pub(crate) was_drained: bool,
    pub(crate) lost_node: bool,
    pub(super) refused: u32,
    /// Its session was lost: what came meanwhile it may have missed.
    pub(crate) broken: bool,
    pub(crate) lives: Vec<Life>,
    /// How its last connection was closed by the server, if it was.
    pub(crate) closed: String,
    /// The presence of others, by full JID.
    pub(crate) seen: BTreeMap<String, String>,
    /// The device has said that it is there again, with this status, and has not seen that itself.
    pub(crate) comes: Option<String>,
    /// Its own.
    pub(crate) status: String,
    pub(super) statuses: u32,
    /// Its roster: what it was answered when it asked, and every push since.
    pub(crate) roster: Option<BTreeMap<String, String>>,
    /// The device has asked again when all was quiet, and was answered. Not all do: the others know what they were pushed.
    pub(crate) asked: bool,
    pub(crate) answered: bool,
    /// The device has said that it is there.
    pub(super) greeted: bool,
}

impl Client {
    pub(crate) fn new(
        n: usize,
        (user, resource): (usize, &'static str),
        traits: Traits,
        (chance, habit): (Chance, Chance),
        toys: Toys,
    ) -> Self {
        Self {
            n,
            user,
            resource,
            out: traits.last,
            traits,
            chance,
            habit,
            toys,
            at: None,
            connection: 0,
            looked: Duration::ZERO,
            live: false,
            loose: Duration::ZERO,
            retry: Duration::ZERO,
            cut: None,
            sleeps: Duration::ZERO,
            leaving: false,
            hides: None,
            id: String::new(),
            handled: 0,
            acked: 0,
            unacked: VecDeque::new(),
            home: None,
            was_drained: false,
            lost_node: false,
            refused: 0,
            broken: false,
            lives: Vec::new(),
            closed: String::new(),
            seen: BTreeMap::new(),
            comes: None,
            status: String::new(),
            statuses: 0,
            roster: None,
            asked: false,
            answered: false,
            greeted: false,
        }
    }

    pub(crate) fn full(&self) -> String {
        format!("{}/{}", jid(self.user), self.resource)
    }

    /// Whether it asks for its roster when all is quiet.
    pub(crate) fn asks(&self) -> bool {
        self.n.is_multiple_of(3) && !self.traits.last
    }

    /// Something comes now.
    pub(crate) fn came(&self) -> Came {
        Came { since: self.looked, at: now(), connection: self.connection }
    }

    pub(crate) fn name(&self) -> String {
        format!("c{}", self.n)
    }

    pub(crate) fn life(&self) -> Option<&Life> {
        self.lives.last()
    }

    pub(crate) fn life_mut(&mut self) -> Option<&mut Life> {
        self.lives.last_mut()
    }

    /// Its session is over.
    pub(crate) fn end_life(&mut self, end: End) {
        if let Some(life) = self.life_mut()
            && life.ended.is_none()
        {
            life.ended = Some((now(), end));
        }
        self.toys.leaves();
    }

    /// Whether others may see it now.
    pub(crate) fn is_shown(&self) -> bool {
        let life = self.life().filter(|life| life.ended.is_none());
        life.and_then(|life| life.shown.last()).is_some_and(|shown| shown.priority.is_some())
    }

    /// Every message that came directly, in order.
    pub(crate) fn got(&self) -> Vec<usize> {
        let direct = |got: &&Got| got.way == Way::Direct;
        self.lives.iter().flat_map(|life| life.got.iter().filter(direct).map(|got| got.n)).collect()
    }

    /// The next presence, and which of this life it is.
    pub(super) fn show(&mut self, available: bool) -> (String, What) {
        let priority = self.traits.priority;
        self.statuses += 1;
        self.status = format!("s{}", self.statuses);
        self.hides = None;
        let xml = match (available, priority) {
            (false, _) => "<presence type='unavailable'/>".to_owned(),
            (true, 0) => format!("<presence><status>{}</status></presence>", self.status),
            (true, _) => format!(
                "<presence><priority>{priority}</priority><status>{}</status></presence>",
                self.status
            ),
        };
        let life = match self.lives.last_mut() {
            Some(life) => life,
            None => return (xml, What::Other),
        };
        if !available {
            self.toys.leaves(); // the server tells the room
        }
        let first = available && life.shown.last().is_none_or(|shown| shown.priority.is_none());
        life.shown.push(Shown { said: now(), settled: None, priority: available.then_some(priority) });
        let at = life.shown.len() - 1;
        if first || !available {
            // What holds it hears anew when it is there again.
            self.seen.clear();
            self.comes = available.then(|| self.status.clone());
        }
        (xml, What::Shown(at))
    }

    /// What it sent last of this kind is settled.
    pub(super) fn is_settled(&self) -> bool {
        self.unacked.is_empty()
    }
}
