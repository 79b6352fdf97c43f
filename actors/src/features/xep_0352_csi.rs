//! XEP-0352 Client State Indication, version 1.0.0: while a client says that nobody looks at it, presence and chat
//! states wait, the last of each. The session holds them back: `session/inactive.rs`.

use crate::features::contract::{Feature, Xep};

/// XEP-0352. Advertised among the stream features, not in disco.
pub const CSI: Feature = Feature {
    xep: Xep {
        number: 352,
        version: "1.0.0",
        name: "Client State Indication",
        note: "presence and chat states wait, the last of each; everything else is sent at once",
    },
    ..Feature::NONE
};
