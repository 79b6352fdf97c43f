//! What needs a whole server: a client of our own, a server to start and kill, dialogue scripts, load.
//!
//! Nothing here uses the server's own parser or SASL code: a test that shares the code it tests agrees with
//! every mistake in it. So the client has its own framer, its own small DOM and its own SCRAM.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    missing_docs,
    reason = "test code: a panic is a failed test, and the sockets and the clock are the real ones"
)]

pub mod chaos;
pub mod client;
pub mod dialogue;
pub mod harness;
pub mod load;
pub mod peers;
pub mod script;
pub mod server;
pub mod xml;
