//! The guard for free disk space: what adds is refused before the disk is full, so that removals, journals and compaction have room.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::gauge;

use super::files;
use crate::store::{Class, Error, Result};

/// The guard of one folder.
pub(super) struct Space {
    /// Bytes that must be free; 0 = no guard.
    least: u64,
    full: AtomicBool,
}

impl Space {
    pub(super) fn new(least: u64) -> Self {
        Self { least, full: AtomicBool::new(false) }
    }

    /// Looks at the disk.
    pub(super) fn look(&self, folder: &Path) {
        match files::free(folder) {
            Ok(free) => self.judge(folder, free),
            Err(error) => tracing::debug!(%error, "the free space of the store's disk is not known"),
        }
    }

    fn judge(&self, folder: &Path, free: u64) {
        #[allow(clippy::cast_precision_loss)] // a disk is below 2^52 bytes
        gauge!("rookery_store_free_bytes").set(free as f64);
        let was = self.full.load(Ordering::Relaxed);
        // The store opens a little above the mark at which it closes, so that it does not go to and fro.
        let full = free < if was { self.least.saturating_add(self.least / 16) } else { self.least };
        if self.full.swap(full, Ordering::Relaxed) == full {
            return;
        }
        let (least, place) = (self.least, folder.display());
        if full {
            tracing::error!(folder = %place, free, least, "the disk of the store is nearly full: only deletions are accepted; free disk space, or lower store.free_megabytes");
        } else {
            tracing::warn!(folder = %place, free, least, "the disk of the store has room again: all writes are accepted");
        }
    }

    /// Fails with [`Class::Full`] while there is too little room.
    pub(super) fn check(&self) -> Result<()> {
        if self.full.load(Ordering::Relaxed) {
            return Err(Error::new(Class::Full, "the disk of the store is nearly full"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_below_the_mark_and_opens_above_it() {
        let space = Space::new(1_600);
        let folder = Path::new("/");
        for (free, open) in [(1_600, true), (1_599, false), (1_650, false), (1_700, true), (1_650, true)] {
            space.judge(folder, free);
            assert_eq!(space.check().is_ok(), open, "{free}");
        }
        let off = Space::new(0);
        off.judge(folder, 0);
        assert!(off.check().is_ok());
    }
}
