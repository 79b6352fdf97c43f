//! The parts with toys: sources are letters, what they send are numbers, and a number says its bytes.

use std::sync::Arc;

use parking_lot::Mutex;
use rookery_proto::xmpp::jid::Jid;

use super::*;

const LIMITS: Limits = Limits {
    changes: Most { items: 3, bytes: 100 },
    source: Most { items: 4, bytes: 100 },
    all_sources_bytes: 150,
    reads: 2,
    strangers: Most { items: 6, bytes: 100 },
    strangers_at_once: 2,
    strangers_of_domain: 3,
    strangers_of_account: 2,
};

/// The senders that were told to send again.
type LeftBehind = Arc<Mutex<Vec<usize>>>;

#[derive(Clone)]
struct Toy(usize, LeftBehind);

impl Queued for Toy {
    fn size(&self) -> usize {
        self.0
    }

    fn leave(self) {
        self.1.lock().push(self.0);
    }
}

type Room = Operations<char, Toy, &'static str, Toy, Toy>;

fn room() -> (Room, impl Fn(usize) -> Toy) {
    static STATIC: Limits = LIMITS;
    let left = LeftBehind::default();
    (Operations::new(&STATIC), move |size| Toy(size, left.clone()))
}

fn jid(text: &str) -> Jid {
    Jid::parse(text).unwrap()
}

#[test]
fn changes_run_one_at_a_time_and_lanes_take_turns() {
    let (mut room, toy) = room();
    for (lane, size) in
        [(Lane::Own, 1), (Lane::Own, 2), (Lane::Own, 3), (Lane::Others, 10), (Lane::Others, 11)]
    {
        assert!(room.changes.push(lane, toy(size)).is_ok());
    }
    let mut order = Vec::new();
    while let Some(change) = room.changes.next() {
        order.push(change.0);
        room.changes.run("it");
        assert!(room.busy() && room.changes.next().is_none());
        assert_eq!(room.changes.done(), Some("it"));
    }
    assert_eq!(order, [1, 10, 2, 11, 3]);
    assert!(!room.busy() && room.changes.done().is_none());
}

#[test]
fn changes_are_bounded_in_number_and_bytes() {
    let (mut room, toy) = room();
    for size in [1, 2, 3] {
        assert!(room.changes.push(Lane::Own, toy(size)).is_ok());
    }
    assert_eq!(room.changes.push(Lane::Own, toy(4)).map_err(|toy| toy.0), Err(4));
    assert!(room.changes.push(Lane::Others, toy(100)).is_ok(), "one may be as large as it is");
    assert!(!room.changes.have_room(Lane::Others));
    room.changes.push_always(Lane::Own, toy(5));
    assert_eq!(room.changes.waiting(Lane::Own).map(|toy| toy.0).collect::<Vec<_>>(), [1, 2, 3, 5]);
}

#[test]
fn what_a_source_sends_behind_its_change_waits() {
    let (mut room, toy) = room();
    assert_eq!(room.sources.turn('a'), Turn::Now);
    room.sources.hold('a');
    assert_eq!((room.sources.turn('a'), room.sources.turn('b')), (Turn::Waits, Turn::Now));
    for size in [1, 2] {
        assert!(room.sources.push('a', toy(size)).is_ok());
    }
    assert!(room.sources.push_end('a', toy(3)).is_ok());
    assert!(room.sources.push_end('b', toy(4)).is_err(), "nothing of it waits");
    assert!(room.sources.next('a').is_none());
    room.sources.change_done('a');
    assert_eq!(room.sources.turn('a'), Turn::Waits, "what it sent before comes first");
    let first = room.sources.next('a').map(|toy| toy.0);
    room.sources.hold('a'); // that is a change as well
    assert_eq!((first, room.sources.next('a').map(|toy| toy.0)), (Some(1), None));
    room.sources.change_done('a');
    let rest: Vec<usize> = std::iter::from_fn(|| room.sources.next('a')).map(|toy| toy.0).collect();
    assert_eq!(rest, [2, 3]);
    assert!(room.sources.is_empty());
}

#[test]
fn what_waits_is_bounded_for_each_source_and_for_all() {
    let (mut room, toy) = room();
    for name in ['a', 'b', 'c'] {
        room.sources.hold(name);
    }
    for size in [1, 1, 1, 1] {
        assert!(room.sources.push('a', toy(size)).is_ok());
    }
    assert_eq!(room.sources.push('a', toy(1)).map_err(|toy| toy.0), Err(1), "too many");
    assert_eq!(room.sources.push('b', toy(101)).map_err(|toy| toy.0), Err(101), "too large");
    assert!(room.sources.push('b', toy(100)).is_ok());
    assert_eq!(room.sources.push('c', toy(47)).map_err(|toy| toy.0), Err(47), "too large together");
    assert!(room.sources.push('c', toy(46)).is_ok());
}

#[test]
fn reads_of_a_source_run_one_after_the_other_and_few_wait() {
    let (mut room, toy) = room();
    let now = |reading| match reading {
        Reading::Now(Toy(size, _)) => Some(size),
        _ => None,
    };
    assert_eq!(now(room.sources.read('a', toy(1))), Some(1));
    assert_eq!(room.sources.turn('a'), Turn::Now, "what follows a read does not wait");
    for size in [2, 3, 4] {
        assert!(matches!(room.sources.read('a', toy(size)), Reading::Waits));
    }
    assert_eq!(room.sources.turn('a'), Turn::Waits, "too many reads");
    assert!(matches!(room.sources.read('a', toy(100)), Reading::Full(_)));
    assert!(room.sources.push('a', toy(5)).is_ok());
    assert_eq!(now(room.sources.read('b', toy(6))), Some(6));
    assert_eq!(room.sources.read_done('a').map(|toy| toy.0), Some(2));
    let waiting: Vec<usize> = std::iter::from_fn(|| room.sources.next('a')).map(|toy| toy.0).collect();
    assert_eq!(waiting, [4, 5], "the read that found no place comes first");
    assert_eq!(room.sources.read_done('a').map(|toy| toy.0), Some(3));
    assert!(room.busy() && room.sources.read_done('a').is_none() && room.sources.read_done('b').is_none());
    assert!(!room.busy());
}

#[test]
fn who_moves_begins_nothing_more() {
    let (mut room, toy) = room();
    let left = toy(0).1;
    room.sources.hold('a');
    assert!(matches!(room.sources.read('a', toy(1)), Reading::Now(_)));
    assert!(matches!(room.sources.read('a', toy(2)), Reading::Waits));
    assert!(room.sources.push('a', toy(3)).is_ok());
    let items = room.sources.leave('a');
    assert_eq!(items.iter().map(|toy| toy.0).collect::<Vec<_>>(), [3], "the actor sees to these");
    assert_eq!((room.sources.turn('a'), &*left.lock()), (Turn::Left, &vec![2]));
    room.sources.hold('b');
    assert!(room.sources.push('b', toy(4)).is_ok());
    drop(room);
    assert_eq!(*left.lock(), [2, 4], "what nobody is left to do is sent again");
}

#[test]
fn strangers_share_a_small_lane() {
    let (mut room, toy) = room();
    let mut ask =
        |from: &str, size| room.strangers.push(jid(from), from.contains("local"), toy(size)).is_ok();
    assert!(ask("one@far.example/a", 1) && ask("one@far.example/b", 1));
    assert!(!ask("one@far.example/c", 1), "an account has its share, whatever its resources");
    assert!(ask("two@far.example", 1) && !ask("three@far.example", 1), "so has a domain");
    assert!(ask("one@local", 1) && ask("two@local", 1));
    assert!(!ask("three@local", 97), "too many bytes");
    assert!(ask("three@local", 1) && !ask("four@local", 1), "too many");
    let next = |room: &mut Room| room.strangers.next().map(|(from, _)| from);
    let (first, second) = (next(&mut room).unwrap(), next(&mut room).unwrap());
    assert_eq!((first.as_str(), second.as_str()), ("one@far.example/a", "one@far.example/b"));
    assert!(next(&mut room).is_none() && room.busy(), "two at a time");
    room.strangers.done(&first);
    assert_eq!(next(&mut room).unwrap().as_str(), "two@far.example");
    assert_eq!(room.strangers.take_all().len(), 3);
}
