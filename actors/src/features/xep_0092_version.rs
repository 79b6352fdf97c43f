//! XEP-0092 Software Version, version 1.1: the name and version of this program, for requests to the server.

use rookery_proto::xml::write;
use rookery_proto::xmpp::error::StanzaError;
use rookery_proto::xmpp::ns;

use crate::features::contract::{Feature, Iq, Method, Request, Run, Scope, Who, Xep};
use crate::host::Host;

/// The name of the program.
pub const NAME: &str = "Rookery";

/// XEP-0092 section 2.
pub const VERSION: Feature = Feature {
    xep: Xep {
        number: 92,
        version: "1.1",
        name: "Software Version",
        note: "the operating system is left out",
    },
    disco: &[(Scope::Host, ns::VERSION)],
    iq: &[Iq {
        scope: Scope::Host,
        method: Method::Get,
        name: "query",
        ns: ns::VERSION,
        who: Who::Anyone,
        run: Run::Host(answer),
    }],
    ..Feature::NONE
};

fn answer(_: &Host, _: &Request) -> Result<Vec<u8>, StanzaError> {
    Ok(write::bytes(|w| {
        w.start("query", ns::VERSION);
        w.leaf("name", ns::VERSION, NAME).leaf("version", ns::VERSION, env!("CARGO_PKG_VERSION"));
    }))
}
