//! Two kinds of actors for tests and for the simulation, which show that the contract of placed actors suffices. Not part of the
//! server: the cargo feature `toys` brings them.

mod echo_component;
mod echo_room;
mod far_server;

pub(crate) use echo_component::EchoComponent;
pub(crate) use echo_room::EchoRoom;
pub(crate) use far_server::FarServer;
pub use far_server::{Far, Mode};
