//! One process per folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::store::{Error, Result};

/// The lock of a folder, until it is dropped or the process ends.
pub(super) struct Lock(#[allow(dead_code)] File); // held, not used

impl Lock {
    /// Takes the lock at `folder/lock`.
    pub(super) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let file = super::files::options().open(&path);
        let file = file.map_err(|e| super::opened::disk_at(&path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(Error::LOCKED.with(folder.display())),
            Err(TryLockError::Error(error)) => Err(super::disk(error)),
        }
    }
}
