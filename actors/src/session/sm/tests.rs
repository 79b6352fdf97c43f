use rookery_proto::xmpp::stanza::{MessageType, Stanza, Type};

use std::sync::Arc;

use super::*;

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
    let ledger = crate::connection::ledger::Ledger::new(0);
    let stanza = Arc::new(Stanza::new(Type::Message(MessageType::Chat)));
    let mut sm = Sm::new(Duration::from_secs(60), Some(&[0; 16]), 0, 1);
    let keep = |sm: &mut Sm, receipt: Receipt| {
        let pressing = receipt.is_pressing();
        let item = Unacked::new(Outgoing::new(stanza.clone()), Kept::default(), receipt);
        assert!(sm.keep(item, &Limits::default(), false));
        sm.want_tick(pressing);
        (sm.wants_ack(), sm.tick_wanted())
    };
    assert_eq!(keep(&mut sm, ledger.enter()), (false, Some(TICK)));
    assert_eq!(keep(&mut sm, ledger.enter()), (false, None));
    let elsewhere: Vec<Receipt> = (0..64).map(|_| ledger.enter()).collect();
    assert_eq!(keep(&mut sm, ledger.enter()), (true, Some(HURRY)));
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
    assert_eq!(keep(&mut sm, ledger.enter()), (false, None));
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
