//! Sender's and receiver's half against each other, without sockets: every order of events that a seed makes.

use std::collections::VecDeque;
use std::task::Waker;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rookery_rpc::mesh::v1 as wire;

use super::super::inbox::Inbox;
use super::super::outbox::{Next, Outbox};
use super::*;

/// Keeps what it is given.
#[derive(Default)]
struct Keeping(Mutex<Vec<(u64, Done)>>);

impl Receiver for Keeping {
    fn take(&self, _: &NodeId, envelope: Envelope, done: Done) {
        self.0.lock().push((number(&envelope), done));
    }
}

/// Two halves and what is on the wire between them.
struct World {
    random: StdRng,
    outbox: Outbox,
    inbox: Arc<Inbox>,
    keeping: Keeping,
    forth: VecDeque<wire::Forth>,
    back: VecDeque<wire::Back>,
    streams: Option<(u64, u64)>,
    told: Arc<Mutex<Vec<(u64, Outcome)>>>,
    sent: u64,
    taken: Vec<u64>,
    answered: Vec<u64>,
}

const WINDOW: Limit = Limit { envelopes: 12, bytes: 2_000 };

impl World {
    fn new(seed: u64) -> Self {
        let options = Options {
            queue: Limit { envelopes: 40, bytes: 10_000 },
            batch: Limit { envelopes: 5, bytes: 500 },
            ..Options::default()
        };
        Self {
            random: StdRng::seed_from_u64(seed),
            outbox: Outbox::new(&options),
            inbox: Arc::new(Inbox::new(id("a"), 1, 1, WINDOW)),
            keeping: Keeping::default(),
            forth: VecDeque::new(),
            back: VecDeque::new(),
            streams: None,
            told: Arc::default(),
            sent: 0,
            taken: Vec::new(),
            answered: Vec::new(),
        }
    }

    fn tell(&self, settled: super::super::outbox::Settled) {
        for (on_outcome, outcome) in settled {
            on_outcome(outcome);
        }
    }

    fn connect(&mut self) {
        let near = self.outbox.attach();
        let (far, taken_to) = self.inbox.attach(self.outbox.seen());
        let (settled, _) = self.outbox.greet(1, true, taken_to, WINDOW).unwrap();
        self.tell(settled);
        self.streams = Some((near, far));
    }

    fn cut(&mut self) {
        self.outbox.detach();
        self.streams = None;
        self.forth.clear();
        self.back.clear();
    }

    fn send(&mut self) {
        let (n, told) = (self.sent, Arc::clone(&self.told));
        let large = self.random.random_range(0..20) == 0;
        let mut body = n.to_be_bytes().to_vec();
        body.resize(if large { 3_000 } else { 8 }, 0);
        match self.outbox.push(envelope(body), move |outcome| told.lock().push((n, outcome))) {
            Ok(_) => self.sent += 1,
            Err(refused) => assert_eq!(refused.why, Why::Full),
        }
    }

    fn step(&mut self, quiet: bool) {
        let Some((near, far)) = self.streams else { return self.connect() };
        match self.random.random_range(0..if quiet { 5 } else { 8 }) {
            0 => {
                if let Next::Message((forth, load)) = self.outbox.next(near, Waker::noop()) {
                    assert!(load.envelopes <= 5);
                    self.forth.push_back(forth);
                }
            }
            1 => {
                if let Some(forth) = self.forth.pop_front() {
                    self.inbox.take(far, forth, &self.keeping).expect("the sender breaks the rules");
                }
            }
            2 => {
                let at = self.keeping.0.lock().len();
                if at > 0 {
                    let at = self.random.random_range(0..at);
                    let (n, done) = self.keeping.0.lock().remove(at);
                    match n % 3 {
                        0 => done.reply(Bytes::from(n.to_be_bytes().to_vec())).unwrap(),
                        1 => done.not_owner(n, None),
                        _ => done.taken(),
                    }
                    self.answered.push(n);
                }
            }
            3 => {
                let now = self.random.random_range(0..3) == 0;
                if let Next::Message(back) = self.inbox.next(far, Waker::noop(), now) {
                    self.back.push_back(back);
                }
            }
            4 => {
                if let Some(back) = self.back.pop_front() {
                    let (settled, _) = self.outbox.settle(back).expect("the receiver breaks the rules");
                    self.tell(settled);
                }
            }
            5 | 6 => self.send(),
            _ if self.random.random_range(0..8) == 0 => self.cut(),
            _ => {}
        }
        // The new ones: numbers are handed on in order.
        let last = self.taken.last().copied();
        let new = self
            .keeping
            .0
            .lock()
            .iter()
            .map(|(n, _)| *n)
            .filter(|n| last.is_none_or(|last| *n > last))
            .collect::<Vec<_>>();
        self.taken.extend(new);
        let level = self.outbox.level();
        assert!(level.waiting + level.sent <= 40);
        assert!(self.keeping.0.lock().len() <= WINDOW.envelopes);
    }
}

#[test]
fn whatever_happens_each_is_taken_once_in_order_and_its_outcome_told_once() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..3_000 {
            world.step(false);
        }
        assert!(world.sent > 50, "seed {seed}: {} sent", world.sent);
        for _ in 0..100_000 {
            if world.told.lock().len() as u64 == world.sent {
                break;
            }
            world.step(true);
        }
        let expected: Vec<u64> = (0..world.sent).collect();
        assert_eq!(world.taken, expected, "seed {seed}: taken");
        let mut told = world.told.lock().clone();
        told.sort_by_key(|(n, _)| *n);
        assert_eq!(told.iter().map(|(n, _)| *n).collect::<Vec<_>>(), expected, "seed {seed}: told");
        for (n, outcome) in told {
            match n % 3 {
                0 => assert_eq!(outcome, Outcome::Taken(Bytes::from(n.to_be_bytes().to_vec()))),
                1 => assert_eq!(outcome, Outcome::NotOwner { epoch: n, hint: None }),
                _ => assert_eq!(outcome, Outcome::Taken(Bytes::new())),
            }
        }
        let level = world.outbox.level();
        assert_eq!((level.waiting_bytes, level.sent_bytes, level.sent), (0, 0, 0), "seed {seed}");
    }
}

#[test]
fn who_breaks_the_rules_is_found() {
    let inbox = Arc::new(Inbox::new(id("a"), 1, 1, Limit { envelopes: 2, bytes: 1_000 }));
    let keeping = Keeping::default();
    let forth = |numbers: &[u64]| wire::Forth {
        envelopes: numbers.iter().map(|n| Envelope { number: *n, ..numbered(*n) }.to_wire()).collect(),
        ..wire::Forth::default()
    };
    let (stream, _) = inbox.attach(0);
    assert_eq!(inbox.take(stream, forth(&[1, 1, 2]), &keeping).unwrap().again, 1);
    assert_eq!(inbox.take(stream, forth(&[3]), &keeping), Err("more than the window allows"));
    let (newer, taken_to) = inbox.attach(0);
    assert_eq!(taken_to, 2);
    assert!(inbox.take(stream, forth(&[]), &keeping).is_err(), "a stream that was replaced");
    let mut bad = forth(&[4]);
    bad.envelopes[0].shard = 1024;
    assert_eq!(inbox.take(newer, bad, &keeping), Err("no such shard"));
    inbox.close();
    assert!(inbox.take(newer, forth(&[]), &keeping).is_err(), "a stream that was closed");
    assert!(matches!(inbox.next(newer, Waker::noop(), true), Next::Over));

    let mut outbox = Outbox::new(&Options::default());
    outbox.attach();
    assert!(outbox.greet(1, true, 1, WINDOW).is_err(), "nothing was sent");
    outbox.greet(1, true, 0, WINDOW).unwrap();
    let back = |number, taken: &[u64]| wire::Back { number, taken: taken.to_vec(), ..wire::Back::default() };
    assert!(outbox.settle(back(2, &[])).is_err(), "a gap");
    assert!(outbox.settle(back(1, &[1])).is_err(), "no pair");
    // Numbers that are not here, however many.
    assert!(outbox.settle(back(2, &[0, u64::MAX, 5, u64::MAX])).unwrap().0.is_empty());
}
