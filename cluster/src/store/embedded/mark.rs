//! The mark in the store's folder: it says that there was a store, and how far it had come.
//!
//! A journal that is gone, emptied or cut short looks like one of a store that has less in it, and a server would start with what
//! is left, without its accounts if need be, and say nothing. The mark tells the difference. The mark is one line, written in place: that
//! needs no room and no file descriptor when both are short.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::store::Version;

/// The name of the file.
const NAME: &str = "mark";

/// The open mark.
pub(super) struct Mark {
    file: File,
    path: PathBuf,
    /// The last commit that is written in it.
    written: AtomicU64,
    /// The last commit that is known.
    last: AtomicU64,
}

/// What the mark said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// Nothing: there was no store here, or one of before there were marks.
    Nothing,
    /// There was a store with commits up to this one, or later ones.
    Store(Version),
}

impl Mark {
    /// Where the mark of the store in `folder` is.
    pub(super) fn path(folder: &Path) -> PathBuf {
        folder.join(NAME)
    }

    /// What the mark in `folder` says.
    pub(super) fn read(folder: &Path) -> io::Result<Said> {
        let mut text = Vec::new();
        match File::open(Self::path(folder)) {
            Ok(file) => file.take(1_000).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Said::Nothing),
            Err(error) => return Err(error),
        };
        // What cannot be read says at least that there was a store.
        let text = String::from_utf8_lossy(&text);
        let number = text.split_ascii_whitespace().find_map(|word| word.parse().ok());
        Ok(Said::Store(Version(number.unwrap_or_default())))
    }

    /// Opens the mark of a store that has come to `last`, and writes that.
    pub(super) fn open(folder: &Path, last: Version) -> io::Result<Self> {
        let path = Self::path(folder);
        let file = super::files::options().open(&path)?;
        let mark = Self { file, path, written: AtomicU64::new(0), last: AtomicU64::new(last.0) };
        mark.write()?;
        mark.file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(mark)
    }

    /// A commit is on the disk, as far as the store's durability goes.
    pub(super) fn note(&self, version: Version) {
        self.last.store(version.0, Ordering::Relaxed);
    }

    /// Writes what was noted. It need not reach the disk soon: what the mark says is a bound from below.
    pub(super) fn write(&self) -> io::Result<()> {
        let last = self.last.load(Ordering::Relaxed);
        if self.written.load(Ordering::Relaxed) == last && last != 0 {
            return Ok(());
        }
        let line = format!(
            "{last:020} is the last commit known in this store. A store that has lost its journal does not start beside this file.\n"
        );
        self.file.write_all_at(line.as_bytes(), 0)?;
        self.written.store(last, Ordering::Relaxed);
        Ok(())
    }

    /// The same, and waits until it is on the disk.
    pub(super) fn close(&self) {
        if let Err(error) = self.write().and_then(|()| self.file.sync_all()) {
            tracing::warn!(%error, mark = %self.path.display(), "the mark file of the store could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_how_far_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let read = || Mark::read(folder.path()).unwrap();
        assert_eq!(read(), Said::Nothing);
        let mark = Mark::open(folder.path(), Version(7)).unwrap();
        assert_eq!(read(), Said::Store(Version(7)));
        mark.note(Version(123_456));
        mark.write().unwrap();
        assert_eq!(read(), Said::Store(Version(123_456)));
        mark.note(Version(8));
        mark.close();
        assert_eq!(read(), Said::Store(Version(8)), "written over, not behind");
        std::fs::write(Mark::path(folder.path()), [0; 20]).unwrap();
        assert_eq!(read(), Said::Store(Version(0)), "torn, and there");
    }
}
