//! What is the embedded engine's own: its folder, and what becomes of it.

use std::fs;

use super::*;

#[test]
fn versions_never_come_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, first) = Tables::open(folder.path(), Durability::Buffered.into()).unwrap();
    let beyond = Version(first.0 + BLOCK);
    tables.apply(beyond, Changes::new()).unwrap();
    tables.close().unwrap();
    let (_, second) = Tables::open(folder.path(), Durability::Buffered.into()).unwrap();
    assert!(second > beyond);
}

#[test]
fn one_folder_opens_once() {
    let folder = tempfile::tempdir().unwrap();
    let first = Embedded::open(folder.path(), Durability::Sync).unwrap();
    let error = Embedded::open(folder.path(), Durability::Sync).err().unwrap();
    assert_eq!(error.class, Class::Unavailable);
    assert!(error.is_locked(), "{error}");
    drop(first);
}

#[test]
fn an_unknown_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, _) = Tables::open(folder.path(), Durability::Sync.into()).unwrap();
    tables.with(|open| open.meta.insert("format", 2u64.to_be_bytes()).map_err(broken)).unwrap();
    tables.close().unwrap();
    let error = Tables::open(folder.path(), Durability::Sync.into()).err().unwrap();
    assert_eq!(error.class, Class::Corrupt);
}

fn change(tables: &Tables, version: u64) -> Result<View> {
    let key = Bytes::from(version.to_be_bytes().to_vec());
    tables.apply(Version(version), Changes::from([(key, Some(Bytes::from_static(b"value")))]))
}

/// The journals of a store with a few commits, which is closed.
fn made(folder: &Path) -> Vec<PathBuf> {
    let (tables, first) = Tables::open(folder, Durability::Sync.into()).unwrap();
    for n in 0..3 {
        change(&tables, first.0 + n).unwrap();
    }
    tables.close().unwrap();
    drop(tables);
    let files = fs::read_dir(folder.join("rows")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ext| ext == "jnl")).collect()
}

/// A server without its accounts looks like a new one. Only the mark knows.
#[test]
fn a_store_that_lost_its_journal_does_not_start() {
    let empty = |journal: &Path| fs::write(journal, "").unwrap();
    let zeros = |journal: &Path| fs::write(journal, [0; 4096]).unwrap();
    let remove = |journal: &Path| fs::remove_file(journal).unwrap();
    let folder_too = |journal: &Path| fs::remove_dir_all(journal.parent().unwrap()).unwrap();
    let ways: [&dyn Fn(&Path); 4] = [&empty, &zeros, &remove, &folder_too];
    for (number, spoil) in ways.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let journals = made(folder.path());
        spoil(&journals[0]);
        for attempt in ["the first", "the second"] {
            let error = Tables::open(folder.path(), Durability::Sync.into()).err().unwrap();
            assert_eq!(error.class, Class::Corrupt, "{number}, {attempt} time");
            assert!(error.detail.unwrap().contains("restore"), "{number}");
        }
        // The operator wants to begin anew.
        fs::remove_file(Mark::path(folder.path())).unwrap();
        Tables::open(folder.path(), Durability::Sync.into()).unwrap();
    }
}

/// One of before there were marks has none, and gets one.
#[test]
fn a_store_without_a_mark_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    made(folder.path());
    fs::remove_file(Mark::path(folder.path())).unwrap();
    let (tables, _) = Tables::open(folder.path(), Durability::Sync.into()).unwrap();
    assert!(Mark::path(folder.path()).exists());
    tables.close().unwrap();
}

#[test]
fn a_journal_that_was_cut_short_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = made(folder.path()).remove(0);
    let whole = fs::read(&journal).unwrap();
    let length = journal::used(&whole).len();
    // One batch from the end, at its border: as sound as any other.
    let ends: Vec<usize> = (1..length).filter(|at| whole[..*at].ends_with(b"FJL\x03")).collect();
    fs::write(&journal, &whole[..ends[ends.len() - 1]]).unwrap();
    let said = Mark::read(folder.path()).unwrap();
    let (open, _) = Open::at(folder.path(), 0).unwrap();
    assert!(open.is_behind(said).unwrap());
    let mark = Mark::open(folder.path(), open.last().unwrap()).unwrap();
    drop((open, mark));
    let said = Mark::read(folder.path()).unwrap();
    assert!(!Open::at(folder.path(), 0).unwrap().0.is_behind(said).unwrap(), "it is said once");
}

#[test]
fn what_was_committed_is_there_after_mending_and_what_was_read_before_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, first) = Tables::open(folder.path(), Durability::Sync.into()).unwrap();
    let before = change(&tables, first.0).unwrap();
    let key = first.0.to_be_bytes();
    let (later, after) = tables.mend().unwrap();
    assert!(later.0 > first.0);
    assert!(tables.get(&before, &key).unwrap_err().is_too_old());
    assert!(tables.get(&after, &key).unwrap().is_some());
    let then = change(&tables, later.0).unwrap();
    assert!(tables.get(&then, &later.0.to_be_bytes()).unwrap().is_some());
    tables.close().unwrap();
    assert_eq!(tables.mend().err().unwrap().message, CLOSED.message);
}
