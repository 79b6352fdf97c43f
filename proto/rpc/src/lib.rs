//! The gRPC messages and services of Rookery, generated from `proto/*.proto` at build time by protox and prost.
//!
//! - [`admin::v1`]: the administration of one node over its Unix socket.
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
        /// 1: everything up to Rookery 0.1.
        pub const API_VERSION: u32 = 1;

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
