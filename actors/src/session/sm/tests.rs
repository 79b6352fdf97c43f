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
