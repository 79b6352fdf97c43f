//! Values that options of several sections have.

use std::time::Duration;

use super::read::{Found, Reader, Section};
use super::{Network, Traffic};

/// The rates and bursts of a section.
pub(super) fn traffic(r: &mut Reader<'_>, section: &Section<'_, '_>) -> Traffic {
    Traffic {
        bytes_per_second: r.number(section, "bytes_per_second").value,
        bytes_burst: r.number(section, "bytes_burst").value,
        stanzas_per_second: r.number(section, "stanzas_per_second").value,
        stanzas_burst: r.number(section, "stanzas_burst").value,
    }
}

/// A number of bytes or of things.
pub(super) fn size(r: &mut Reader<'_>, section: &Section<'_, '_>, name: &str) -> usize {
    usize::try_from(r.number(section, name).value).unwrap_or(usize::MAX)
}

/// A number that is small by its range.
pub(super) fn count(r: &mut Reader<'_>, section: &Section<'_, '_>, name: &str) -> u32 {
    u32::try_from(r.number(section, name).value).unwrap_or(u32::MAX)
}

/// A time in seconds.
pub(super) fn secs(r: &mut Reader<'_>, section: &Section<'_, '_>, name: &str) -> Duration {
    Duration::from_secs(r.number(section, name).value)
}

/// A list of networks.
pub(super) fn networks(r: &mut Reader<'_>, section: &Section<'_, '_>, name: &str) -> Vec<Network> {
    let mut networks = Vec::new();
    for Found { value, line } in r.list(section, name) {
        match Network::parse(&value) {
            Some(network) => networks.push(network),
            None => {
                let remedy =
                    "write a network, as in \"10.0.0.0/8\" (no bits set behind the prefix), or an address";
                r.problem(line, section.path(name), format!("is {value:?}"), remedy);
            }
        }
    }
    networks
}
