//! XEP-0199 XMPP Ping, version 2.0.1: a client asks whether its server, or a contact whether an account's, is there.

use rookery_proto::xmpp::ns;

use crate::features::contract::{Feature, Iq, Method, Run, Scope, Who, Xep};

/// XEP-0199 section 4. An entity that may not see an account's presence learns nothing from a ping (RFC 6120 section 13.10.2).
pub const PING: Feature = Feature {
    xep: Xep { number: 199, version: "2.0.1", name: "XMPP Ping", note: "" },
    disco: &[(Scope::Host, ns::PING), (Scope::Account, ns::PING)],
    iq: &[
        iq(Scope::Host, Who::Anyone, Run::Host(|_, _| Ok(Vec::new()))),
        iq(Scope::Account, Who::Subscriber, Run::Now(|_, _| Ok(Vec::new()))),
    ],
    ..Feature::NONE
};

const fn iq(scope: Scope, who: Who, run: Run) -> Iq {
    Iq { scope, method: Method::Get, name: "ping", ns: ns::PING, who, run }
}
