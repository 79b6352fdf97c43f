//! Invariants: what is always true, unless Rookery has a bug.
//!
//! [`invariant!`](crate::invariant!) names a condition once, where it must hold. In a build with debug assertions (tests, the
//! simulation) a violation panics. In a release build the process goes on: the violation is counted in
//! `rookery_invariant_violations_total{name}`, and the first one of each name is logged at ERROR.
//!
//! - A condition is about this process's own numbers and queues. What a client, a peer node or the store says is checked
//!   and refused, never asserted.
//! - The condition is evaluated in release builds too, so it is a comparison or two. A dear one (a sum over a queue) says
//!   `!cfg!(debug_assertions) || …`.
//! - The code behind a violated invariant must still be safe: it goes on in release builds.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::Location;

use parking_lot::Mutex;

/// The names that were logged: a line for each of a million stanzas helps nobody.
static LOGGED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Checks an invariant: `invariant!("name", condition)`, or with a text for the log as in `format!` behind the condition.
/// See [the module](crate::invariant).
#[macro_export]
macro_rules! invariant {
    ($name:literal, $condition:expr $(,)?) => {
        if !$condition {
            $crate::invariant::violated($name, ::core::format_args!("{}", ::core::stringify!($condition)));
        }
    };
    ($name:literal, $condition:expr, $($detail:tt)+) => {
        if !$condition {
            $crate::invariant::violated($name, ::core::format_args!($($detail)+));
        }
    };
}

/// An invariant is violated. Called by [`invariant!`](crate::invariant!) only.
///
/// # Panics
/// In a build with debug assertions.
#[cold]
#[inline(never)]
#[track_caller]
pub fn violated(name: &'static str, detail: fmt::Arguments<'_>) {
    report(name, detail, Location::caller());
    // A second panic, in the drop of something, would end the process and hide the first.
    if cfg!(debug_assertions) && !std::thread::panicking() {
        panic!("the invariant {name} is violated: {detail}");
    }
}

/// Counts the violation, and logs the first of this name. Returns whether it was logged.
fn report(name: &'static str, detail: fmt::Arguments<'_>, place: &Location<'_>) -> bool {
    metrics::counter!("rookery_invariant_violations_total", "name" => name).increment(1);
    let first = LOGGED.lock().insert(name);
    if first {
        tracing::error!(name, %place, %detail, "an invariant is violated; this is a bug in Rookery, please report it with this line");
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_says_nothing() {
        let left = 1;
        invariant!("test_holds", left == 1);
        invariant!("test_holds", left < 2, "{left} of 1");
    }

    #[test]
    #[should_panic(expected = "the invariant test_fatal is violated: 3 of 2 are left")]
    fn a_violation_is_fatal_in_tests() {
        let left = 3;
        invariant!("test_fatal", left <= 2, "{left} of 2 are left");
    }

    #[test]
    fn a_name_is_logged_once() {
        let again = || report("test_logged", format_args!("twice"), Location::caller());
        assert_eq!((again(), again()), (true, false));
    }
}
