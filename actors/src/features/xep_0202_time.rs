//! XEP-0202 Entity Time, version 2.0: the server's clock, to the second, in UTC.

use rookery_proto::xml::write;
use rookery_proto::xmpp::error::StanzaError;
use rookery_proto::xmpp::{datetime, ns};

use crate::features::contract::{Feature, Iq, Method, Request, Run, Scope, Who, Xep};
use crate::host::Host;

/// XEP-0202 section 3.
pub const TIME: Feature = Feature {
    xep: Xep { number: 202, version: "2.0", name: "Entity Time", note: "always UTC" },
    disco: &[(Scope::Host, ns::TIME)],
    iq: &[Iq {
        scope: Scope::Host,
        method: Method::Get,
        name: "time",
        ns: ns::TIME,
        who: Who::Anyone,
        run: Run::Host(answer),
    }],
    ..Feature::NONE
};

fn answer(host: &Host, _: &Request) -> Result<Vec<u8>, StanzaError> {
    Ok(time(host.seams().clock.now_micros()))
}

fn time(now: u64) -> Vec<u8> {
    write::bytes(|w| {
        w.start("time", ns::TIME);
        w.leaf("tzo", ns::TIME, "+00:00");
        // Whole seconds: some clients read no fraction, and none needs one.
        w.leaf("utc", ns::TIME, &datetime::format(now - now % 1_000_000));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_section_3_shows() {
        assert_eq!(
            String::from_utf8(time(1_166_550_868_999_999)).unwrap(),
            "<time xmlns='urn:xmpp:time'><tzo>+00:00</tzo><utc>2006-12-19T17:54:28Z</utc></time>"
        );
    }
}
