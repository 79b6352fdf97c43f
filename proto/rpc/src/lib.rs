//! The gRPC messages and services of Rookery, generated from `proto/*.proto` at build time by protox and prost.
//!
//! - [`admin::v1`]: the administration of one node over its Unix socket.
//! - [`mesh::v1`]: the channel between the nodes of a cluster.
//! - [`payload::v1`]: what goes through it, between the actors of two nodes.
//! - [`store::v1`]: the transactions of the development store server.
//!
//! Messages only grow: see the head of each `.proto` file. The tests here hold old bytes, which must decode for ever.
//! A message that carries a password prints nothing of it: its `Debug` is in this crate, written by hand.

mod redacted;

/// The administration of a node.
pub mod admin {
    /// The first version; it only grows, [`API_VERSION`](v1::API_VERSION) counts how often.
    // Generated code: the field docs come from the .proto file, the scaffolding of tonic has none.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::restriction)]
    pub mod v1 {
        tonic::include_proto!("rookery.admin.v1");

        /// The newest addition to this API that this build knows, answered in `StatusResponse.api_version`.
        /// 1: everything up to Rookery 0.1. 2: clusters. 3: certificates, and streams between servers. 4: connected components.
        pub const API_VERSION: u32 = 4;

        /// The most accounts that one `UserImportRequest` may carry.
        pub const MAX_IMPORT_LINES: usize = 1_000;

        /// The most bytes that one chunk of an exported or imported document may carry.
        pub const MAX_CHUNK: usize = 256 * 1024;
    }
}

/// The development store server.
pub mod store {
    /// The first version; it only grows.
    // As above.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::restriction)]
    pub mod v1 {
        tonic::include_proto!("rookery.store.v1");
    }
}

/// What actors say to those of other nodes.
pub mod payload {
    /// The first version; it only grows.
    // As above.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::restriction)]
    pub mod v1 {
        tonic::include_proto!("rookery.payload.v1");
    }
}

/// The channel between nodes.
pub mod mesh {
    /// The first version; it only grows, [`VERSION`](v1::VERSION) counts how often.
    // Generated code: the field docs come from the .proto file, the scaffolding of tonic has none.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::restriction)]
    pub mod v1 {
        tonic::include_proto!("rookery.mesh.v1");

        /// The newest version of the channel that this build speaks.
        /// 1: everything up to Rookery 0.1.
        pub const VERSION: u32 = 1;

        /// The oldest version of the channel that this build speaks: that of the release before this one.
        pub const VERSION_MIN: u32 = 1;
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use crate::mesh::v1;

    /// The bytes that version 1 of the channel writes; they must decode in every later version.
    #[test]
    fn old_bytes_of_the_channel_decode() {
        let hello =
            v1::Hello::decode(&b"\x0a\x01c\x12\x01a\x18\x03\x20\x01\x28\x02\x3a\x01b\x40\x04\x48\x05"[..])
                .unwrap();
        assert_eq!((hello.cluster.as_str(), hello.node.as_str(), hello.to.as_str()), ("c", "a", "b"));
        assert_eq!((hello.generation, hello.version_min, hello.version_max), (3, 1, 2));
        assert_eq!((hello.numbering, hello.seen), (4, 5));
        let forth =
            v1::Forth::decode(&b"\x12\x0c\x08\x01\x10\x07\x18\x03\x22\x01e\x2a\x01b\x18\x05"[..]).unwrap();
        let envelope = v1::Envelope { number: 1, shard: 7, epoch: 3, entity: "e".into(), body: "b".into() };
        assert_eq!((forth.envelopes, forth.seen), (vec![envelope], 5));
        let back =
            v1::Back::decode(&b"\x10\x02\x1a\x02\x01\x04\x22\x09\x08\x09\x1a\x05\x08\x08\x12\x01b"[..])
                .unwrap();
        assert_eq!((back.number, back.taken), (2, vec![1, 4]));
        let not_owner = v1::NotOwner { epoch: 8, hint: "b".into() };
        let what = Some(v1::outcome::What::NotOwner(not_owner));
        assert_eq!(back.outcomes, [v1::Outcome { number: 9, what }]);
        // A field from the future (number 500) is ignored.
        let forth = v1::Forth::decode(&b"\x18\x05\xa2\x1f\x01x"[..]).unwrap();
        assert_eq!(forth.seen, 5);
    }
}
