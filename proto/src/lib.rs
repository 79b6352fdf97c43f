//! Everything that Rookery sends over a wire, as pure code.
//!
//! - [`xml`]: the strict stream layer (framing, checks, headers, writing).
//! - [`xmpp`]: addresses, stanzas, errors, data forms, result sets, namespaces.
//! - [`sasl`]: authentication mechanisms as state machines.
//!
//! Absent on purpose: I/O, a clock, randomness, tokio, the store and actors. A caller passes in the bytes that came, the
//! nonces to use and the keys that it looked up; it gets back values and bytes. So all of this runs the same in a fuzzer, in a
//! simulation and in a server.

#[doc(hidden)]
pub mod fuzzing;
pub mod sasl;
pub mod xml;
pub mod xmpp;
