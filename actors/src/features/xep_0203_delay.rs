//! XEP-0203 Delayed Delivery, version 2.0: a stamp on what comes later than it was sent.

use rookery_proto::xml::write;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::{datetime, ns};

use crate::feature::{Feature, Xep};

/// XEP-0203. It has no discovery (revision 1.1 took that out).
pub const DELAY: Feature = Feature {
    xep: Xep {
        number: 203,
        version: "2.0",
        name: "Delayed Delivery",
        note: "on offline messages and archive results",
    },
    ..Feature::NONE
};

/// `<delay xmlns='urn:xmpp:delay' from='…' stamp='…'/>`: what was received at `micros` (microseconds since 1970) is
/// delivered late by `from`, for an offline message the user's domain (section 4).
pub fn delay(from: &Jid, micros: u64) -> Vec<u8> {
    write::bytes(|w| {
        w.start("delay", ns::DELAY).attr("from", from.as_str()).attr("stamp", &datetime::format(micros));
    })
}

/// The same without the optional `from`: within a forwarded stanza, whose wrapper says who forwards (XEP-0297 section 3).
pub fn stamp(micros: u64) -> Vec<u8> {
    write::bytes(|w| {
        w.start("delay", ns::DELAY).attr("stamp", &datetime::format(micros));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_section_2_shows() {
        let from = Jid::parse("capulet.com").unwrap();
        assert_eq!(
            String::from_utf8(delay(&from, 1_031_699_305_000_000)).unwrap(),
            "<delay xmlns='urn:xmpp:delay' from='capulet.com' stamp='2002-09-10T23:08:25Z'/>"
        );
        assert_eq!(
            String::from_utf8(stamp(1_031_699_305_250_000)).unwrap(),
            "<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:08:25.250000Z'/>"
        );
    }
}
