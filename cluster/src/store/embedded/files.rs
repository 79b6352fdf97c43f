//! The folder of the store as the operating system sees it: which users may read it, what room there is, whether it can be written.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Nobody but the owner, for folders and for files.
const FOLDER: u32 = 0o700;
const FILE: u32 = 0o600;
/// What a file must be able to take before the disk counts as one that takes writes.
const PROBE: usize = 1_000_000;
/// How many files must be there to open before the store is opened again.
const DESCRIPTORS: usize = 16;

/// Makes `folder`, for its owner alone, if it is not there.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(folder)
}

/// The same, and takes from others what they may do with what is in it. For the process that has the lock: nothing in it may go meanwhile.
pub(super) fn own(folder: &Path) -> io::Result<()> {
    make(folder)?;
    let closed = close_to_others(folder)?;
    if closed > 0 {
        tracing::warn!(folder = %folder.display(), closed, "files of the store were readable by other users of this machine; their permissions are corrected");
    }
    Ok(())
}

/// Files and folders, this one included, whose mode was changed.
fn close_to_others(path: &Path) -> io::Result<usize> {
    let there = fs::symlink_metadata(path)?;
    if there.is_symlink() {
        return Ok(0); // an operator's: what it leads to is not ours to change
    }
    let mut closed = 0;
    if there.permissions().mode() & 0o077 != 0 {
        let mode = if there.is_dir() { FOLDER } else { FILE };
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        closed += 1;
    }
    if there.is_dir() {
        for entry in fs::read_dir(path)? {
            closed += close_to_others(&entry?.path())?;
        }
    }
    Ok(closed)
}

/// How a file of ours is opened that may not be there yet.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(FILE);
    options
}

/// Bytes that are free for us on the disk of `folder`.
pub(super) fn free(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether the disk of `folder` takes writes again, `bytes` and a little more, and files can be opened.
pub(super) fn probe(folder: &Path, bytes: u64) -> io::Result<()> {
    if free(folder)? < bytes.saturating_add(PROBE as u64) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let path = folder.join("probe");
    let written = write_probe(&path);
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn write_probe(path: &Path) -> io::Result<()> {
    let mut file = options().open(path)?;
    file.write_all(&vec![0; PROBE])?;
    file.sync_all()?;
    (0..DESCRIPTORS).map(|_| File::open(path)).collect::<io::Result<Vec<_>>>().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_open_to_others_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("rows/keyspaces");
        fs::create_dir_all(&inside).unwrap();
        fs::write(inside.join("1"), "").unwrap();
        let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        open(&inside.join("1"), 0o644);
        open(&inside, 0o755);
        open(folder.path(), 0o755);
        own(folder.path()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(folder.path()), mode(&inside), mode(&inside.join("1"))], [0o700, 0o700, 0o600]);
        assert_eq!(close_to_others(folder.path()).unwrap(), 0);
        let new = folder.path().join("a/b");
        own(&new).unwrap();
        assert_eq!(mode(&new), 0o700);
    }

    #[test]
    fn the_probe_writes_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        probe(folder.path(), 0).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let full = probe(folder.path(), u64::MAX).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }
}
