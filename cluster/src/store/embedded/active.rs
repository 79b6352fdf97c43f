//! fjall's journals as files: whether there are any, and the one that is written, the one with the highest number.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{files, journal};

/// The journals in `rows`, oldest first.
fn all(rows: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(rows)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort();
    Ok(journals)
}

fn active(rows: &Path) -> io::Result<PathBuf> {
    let last = all(rows)?.pop();
    last.map(|(_, path)| path).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no journal"))
}

/// Whether there are any. fjall makes one with the first opening, and from then on there is always one.
pub(super) fn exists(rows: &Path) -> bool {
    active(rows).is_ok()
}

/// What the active journal takes on the disk: most of its length may be room made in advance.
pub(super) fn bytes(rows: &Path) -> io::Result<u64> {
    Ok(fs::metadata(active(rows)?)?.blocks().saturating_mul(512))
}

/// Puts a copy in the place of the active journal, which is on the disk when this returns.
///
/// After a failed write the writer's buffer still holds the rest of that batch, and writes it when it is dropped, maybe a moment later
/// on a thread of fjall's. That must not fall into a journal that is written again: this way it goes into a file that has no name
/// any more. A renewal also makes up for a sync that failed: what was read from memory here is written once more.
pub(super) fn renew(rows: &Path) -> io::Result<()> {
    let path = active(rows)?;
    let bytes = fs::read(&path)?;
    let copy = path.with_extension("renewed");
    let mut file = files::options().truncate(true).open(&copy)?;
    file.write_all(journal::used(&bytes))?;
    file.sync_all()?;
    fs::rename(&copy, &path)?;
    fs::File::open(rows)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_number_is_active_and_is_copied_without_the_room_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!exists(folder.path()) && renew(folder.path()).is_err());
        for (name, text) in [("9.jnl", "old"), ("10.jnl", "new\0\0"), ("11.repaired", "")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        assert!(exists(folder.path()));
        let old_writer = fs::OpenOptions::new().append(true).open(folder.path().join("10.jnl")).unwrap();
        renew(folder.path()).unwrap();
        (&old_writer).write_all(b"late").unwrap();
        assert_eq!(fs::read(folder.path().join("10.jnl")).unwrap(), b"new");
        assert_eq!(fs::read(folder.path().join("9.jnl")).unwrap(), b"old");
    }
}
