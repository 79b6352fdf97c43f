//! File descriptors that connections do not get: the store and the operator need some when everything else is used up.
//!
//! The kernel gives the lowest descriptor that is free. So a connection with a number above the bound says that all below are taken,
//! and one that is kept only below the bound leaves the rest to others.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::process::{Resource, getrlimit};

/// EMFILE.
const EXHAUSTED: i32 = 24;
/// A quarter of what the process may open, and no more than the store, its compaction and the operator can use.
const SHARE: u64 = 4;
const MOST: u64 = 2_048;

/// Refuses a connection whose descriptor is of the reserve, as the kernel would if there were no more.
pub(super) fn check(connection: &impl AsFd) -> io::Result<()> {
    let number = u64::try_from(connection.as_fd().as_raw_fd()).unwrap_or_default();
    match getrlimit(Resource::Nofile).current {
        Some(limit) if number >= bound(limit) => Err(io::Error::from_raw_os_error(EXHAUSTED)),
        _ => Ok(()),
    }
}

/// The first number of the reserve.
fn bound(limit: u64) -> u64 {
    limit - (limit / SHARE).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_kept_back() {
        assert_eq!([0, 4, 1_024, 1_000_000].map(bound), [0, 3, 768, 997_952]);
    }
}
