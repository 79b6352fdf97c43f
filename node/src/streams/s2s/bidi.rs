//! Streams on which both sides send (XEP-0288 version 1.0.1).
//!
//! A stream that another server has opened with this feature is lent to the link of its pair, if that link is at home on this
//! node. That spares a connection, and reaches servers that cannot be called. On streams that this node opens, both sides send
//! only if the other server cannot resume streams: a node that takes over after a death knows what was sent and not confirmed
//! only for streams on which one side sends.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use rookery_actors::link::stream::{LinkEnd, Pair};

use super::Federation;

/// How many servers are remembered.
const REMEMBERED: usize = 10_000;

/// Remote domains whose servers cannot resume streams, as far as is known.
#[derive(Default)]
pub(super) struct Knowledge(Mutex<HashSet<String>>);

impl Knowledge {
    /// What a stream to `remote` has shown.
    pub(super) fn learn(&self, remote: &str, resumes: bool) {
        let mut known = self.0.lock();
        if resumes {
            known.remove(remote);
        } else if known.contains(remote) {
            // Known already: nothing to do.
        } else {
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(remote.to_owned());
        }
    }

    /// Whether `remote` is known to do without resumption.
    pub(super) fn has(&self, remote: &str) -> bool {
        self.0.lock().contains(remote)
    }
}

/// Lends an incoming stream to a link, if one serves the pair. The end comes back if a stream must be opened.
pub(super) fn lend(federation: &Arc<Federation>, pair: &Pair, resume: bool, end: LinkEnd) -> Option<LinkEnd> {
    if resume { Some(end) } else { federation.table.lend(pair, end) }
}
