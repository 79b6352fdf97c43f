//! Specifications whose code lies elsewhere, because it is about XML, streams or the user actor itself. They are declared
//! here so that disco, the table of supported XEPs and the DOAP file have them.

use rookery_proto::xmpp::ns;

use crate::features::contract::{Feature, Scope, Xep};

const fn xep(number: u16, version: &'static str, name: &'static str, note: &'static str) -> Feature {
    Feature { xep: Xep { number, version, name, note }, ..Feature::NONE }
}

/// `rookery_proto::xmpp::forms`
pub const DATA_FORMS: Feature = xep(4, "2.13.2", "Data Forms", "");
/// `rookery_proto::xmpp::rsm`; advertised by the features that page.
pub const RESULT_SETS: Feature = xep(59, "1.0", "Result Set Management", "without indexes and counts");
/// `rookery_proto::xmpp::datetime`
pub const DATE_TIME: Feature = xep(82, "1.1.1", "XMPP Date and Time Profiles", "");
/// [`crate::component`] and the connection
pub const COMPONENTS: Feature = xep(
    114,
    "1.6",
    "Jabber Component Protocol",
    "`accept`; with direct TLS, and several connections of one component",
);
/// [`crate::features::contract::Feature::form`]
pub const DISCO_EXTENSIONS: Feature = xep(128, "1.0.1", "Service Discovery Extensions", "");
/// `crate::user::offline`
pub const OFFLINE: Feature = Feature {
    disco: &[(Scope::Host, ns::OFFLINE)],
    ..xep(
        160,
        "1.0.1",
        "Best Practices for Handling Offline Messages",
        "kept in the archive, or a queue where nothing is archived",
    )
};
/// Streams between servers: certificates in both directions
pub const EXTERNAL: Feature = xep(
    178,
    "1.2",
    "Best Practices for Use of SASL EXTERNAL with Certificates",
    "between servers; a certificate for servers only will do",
);
/// [`crate::link::dialback`]
pub const DIALBACK_KEYS: Feature = xep(185, "1.0", "Dialback Key Generation and Validation", "");
/// Streams between servers
pub const DIALBACK: Feature = xep(
    220,
    "1.1.1",
    "Server Dialback",
    "only with TLS, and where the operator does not demand certificates; takes several pairs of domains on one stream, and opens one for each",
);
/// Streams between servers
pub const BIDI: Feature = xep(
    288,
    "1.0.1",
    "Bidirectional Server-to-Server Connections",
    "asked for where the other server cannot resume streams",
);
/// [`crate::session`] and the connection, [`crate::link`] and streams between servers
pub const STREAM_MANAGEMENT: Feature = xep(
    198,
    "1.6.3",
    "Stream Management",
    "with resumption, also after a restart of the server; also between servers",
);
/// The connection: direct TLS
pub const SRV_FOR_TLS: Feature = xep(368, "1.1.0", "SRV records for XMPP over TLS", "");
/// `rookery_proto::sasl`
pub const SASL_BINDINGS: Feature = xep(440, "1.0.0", "SASL Channel-Binding Type Capability", "");
/// `rookery_proto::sasl`
pub const SCRAM_DOWNGRADE: Feature = xep(474, "0.5.0", "SASL SCRAM Downgrade Protection", "");
