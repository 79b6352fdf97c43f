//! Kinds of actors for tests and for the simulation, which show that the contract of placed actors suffices. Not part of the
//! server: the cargo feature `toys` brings them.

mod echo_component;
mod echo_room;
mod far_server;
mod stateless;

pub(crate) use echo_room::EchoRoom;
pub use far_server::{Far, Mode};

/// The actor of an echo component.
pub(crate) type EchoComponent = stateless::Stateless<echo_component::Echo>;
/// The actor of a far server.
pub(crate) type FarServer = stateless::Stateless<far_server::HandOver>;
