//! Rookery meets Prosody and ejabberd: two servers on loopback, a DNS server and an authority of the test's own.
//!
//! A [`World`] has two [`Server`]s, each of one [`Software`], configured alike for one [`Setting`]. Each server has several
//! domains, one for each [`Host`]: a good one, and those with which something is wrong. What the servers must do is
//! in [`scenarios`]. Nothing here needs root, and nothing of the machine is changed: each server is told of the DNS server in its own
//! way (libunbound's forwarder, Erlang's inetrc, `[dns] servers`).

mod authority;
pub mod bench;
mod dns;
mod ejabberd;
mod prosody;
mod rookery;
pub mod scenarios;
mod server;
mod world;

pub use self::authority::{Authority, Kind};
pub use self::dns::{Dns, Record};
pub use self::server::{Plan, Server, Software};
pub use self::world::{Host, PASSWORD, Setting, Side, World, one_of_many, user};

/// The template with `{name}` replaced by the value of that name.
fn filled(template: &str, values: &std::collections::BTreeMap<&str, String>) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{name}}}"), value);
    }
    text
}
