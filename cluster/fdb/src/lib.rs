//! FoundationDB's client library runs a network thread of its own. This thread can be started once in a process, and must be stopped
//! before the process ends. This crate does both, because the call that starts it is unsafe and the rest of the workspace
//! forbids that; everything else about FoundationDB is in `rookery-cluster`'s `store::fdb`.
//!
//! Without the feature `client` there is nothing in here.

#[cfg(feature = "client")]
mod network;

#[cfg(feature = "client")]
pub use foundationdb;
#[cfg(feature = "client")]
pub use network::{Network, Refused};
