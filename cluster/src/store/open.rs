//! From the configuration's `store.url` to a store.

use std::path::Path;
use std::sync::Arc;

use super::embedded::Embedded;
use super::memory::Memory;
use super::{Class, Database, Durability, Error, Result, Store};
use crate::seams::Seams;

/// Opens the store that `url` names: `embedded:` (in `data_dir/store`) or `memory:`. Blocks while it reads the disk: call it
/// before serving, or on a blocking thread.
///
/// # Errors
/// [`Class::Misuse`] for a URL that is neither; else those of [`Embedded::open`].
pub fn open(url: &str, data_dir: &Path, durability: Durability, seams: Seams) -> Result<Store> {
    let db: Arc<dyn Database> = match url {
        "memory:" => Arc::new(Memory::new()),
        "embedded:" => Arc::new(Embedded::open(&data_dir.join("store"), durability)?),
        other => return Err(Error::new(Class::Misuse, "an unknown store url").with(other)),
    };
    Ok(Store::new(db, seams))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_engines() {
        let folder = tempfile::tempdir().unwrap();
        let open = |url| open(url, folder.path(), Durability::Sync, Seams::system());
        assert_eq!(open("memory:").unwrap().database().engine(), "memory");
        assert_eq!(open("embedded:").unwrap().database().engine(), "embedded");
        assert_eq!(open("fdb:/etc").err().unwrap().class, Class::Misuse);
    }
}
