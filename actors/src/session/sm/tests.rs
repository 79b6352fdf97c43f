use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use std::sync::Arc;

use super::*;
use crate::connection::ledger::Ledger;
use crate::session::timers::Timer;

#[test]
fn what_is_confirmed_is_counted_no_more() {
    let mut sm = Sm::new(Duration::ZERO, None, 0, 1);
    let stanza = Arc::new(Stanza::new(Type::Message(MessageType::Chat)));
    // So many that the session would be too large to move if anything of each stayed counted.
    for n in 1..=u32::try_from(MOVED / OVERHEAD + 1).unwrap() {
        let item = Unacked::new(Outgoing::new(stanza.clone()), Kept::default(), Receipt::none());
        assert!(sm.keep(item, &Limits::default(), true), "{n}");
        sm.confirm(n);
    }
    assert_eq!((sm.bytes, sm.has_unacked()), (0, false));
}

/// One client that is slow to confirm must not hold up a stream that serves many: the first pressing stanza asks, and so does what follows
/// while the answer is on its way.
#[test]
fn a_client_is_asked_at_once_for_what_a_stream_cannot_wait_for() {
    let ledger = Ledger::new(0);
    let stanza = Arc::new(Stanza::new(Type::Message(MessageType::Chat)));
    let mut sm = Sm::new(Duration::from_secs(60), Some(&[0; 16]), 0, 1);
    let keep = |sm: &mut Sm, receipt: Receipt| {
        let pressing = receipt.is_pressing();
        let item = Unacked::new(Outgoing::new(stanza.clone()), Kept::default(), receipt);
        assert!(sm.keep(item, &Limits::default(), false));
        sm.want_tick(pressing);
        (sm.wants_ack(), sm.timers.order())
    };
    assert_eq!(keep(&mut sm, ledger.enter()), (false, Some(Timer::Tick)));
    assert_eq!(keep(&mut sm, ledger.enter()), (false, None));
    let elsewhere: Vec<Receipt> = (0..64).map(|_| ledger.enter()).collect();
    assert_eq!(keep(&mut sm, ledger.enter()), (true, Some(Timer::Hurry)));
    sm.ask();
    assert_eq!(keep(&mut sm, ledger.enter()), (false, None));
    // The answer to that question does not cover what was sent since: there is one more.
    sm.asked = None;
    sm.confirm(3);
    assert!(sm.wants_ack());
    sm.ask();
    sm.asked = None;
    sm.confirm(4);
    assert!(!sm.wants_ack());
    elsewhere.into_iter().for_each(Receipt::done);
    assert_eq!((ledger.open(), ledger.settled()), (0, 68));
    assert_eq!(keep(&mut sm, Ledger::new(0).enter()), (false, None));
}

/// A stream that presses for long must not make a session look more and more often: its timers are on their way once each. What was sent just
/// before one of them comes has not waited yet.
#[test]
fn each_timer_is_on_its_way_once() {
    let mut sm = Sm::new(Duration::from_secs(60), Some(&[0; 16]), 0, 1);
    let stanza = Arc::new(Stanza::new(Type::Message(MessageType::Chat)));
    let send = |sm: &mut Sm, pressing| {
        let receipt = Receipt::none().pressed(pressing);
        let item = Unacked::new(Outgoing::new(stanza.clone()), Kept::default(), receipt);
        assert!(sm.keep(item, &Limits::default(), false));
        sm.want_tick(pressing);
        std::iter::from_fn(|| sm.timers.order()).collect::<Vec<_>>()
    };
    assert_eq!(send(&mut sm, false), [Timer::Tick]);
    assert_eq!(send(&mut sm, true), [Timer::Hurry]);
    for sent in (2..20).step_by(2) {
        assert_eq!((send(&mut sm, true), send(&mut sm, false)), (vec![], vec![]));
        assert_eq!(sm.timers.hurried(), Some(sent), "what was sent when it was ordered");
        sm.hurry_on();
        assert_eq!(sm.timers.order(), Some(Timer::Hurry));
        // The tick is on its way still.
        sm.want_tick(false);
        assert_eq!(sm.timers.order(), None);
    }
    sm.timers.ticked();
    sm.want_tick(false);
    assert_eq!(sm.timers.order(), Some(Timer::Tick));
    // In another numbering everything that is there was sent before.
    sm.count_from(100, 2);
    assert_eq!(sm.timers.hurried(), Some(120));
    // Nothing pressing waits any more.
    sm.confirm(120);
    sm.hurry_on();
    assert_eq!((sm.timers.order(), sm.timers.hurried()), (None, None));
}

/// What an ended session has left is older than what the client had live before it. Both are confirmed at once: the session is not to be served
/// again what lies between.
#[test]
fn what_is_confirmed_goes_as_far_as_the_newest_message() {
    let mut sm = Sm::new(Duration::ZERO, None, 0, 1);
    let stanza = Arc::new(Stanza::new(Type::Message(MessageType::Chat)));
    for micros in [20, 30, 10] {
        let kept = Kept::archive(Some(ArchiveId::first_at(micros)), micros == 10);
        let item = Unacked::new(Outgoing::new(stanza.clone()), kept, Receipt::none());
        assert!(sm.keep(item, &Limits::default(), true));
    }
    assert_eq!(sm.confirm(3).0, Some(ArchiveId::first_at(30)));
}
