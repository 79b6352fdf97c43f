//! From the configuration's `store.url` to a store.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::dev::Remote;
use super::embedded::Embedded;
use super::memory::Memory;
use super::{Class, Database, Durability, Error, Result, Store};
use crate::seams::Seams;

/// What a `store.url` names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Url {
    /// `embedded:`, in the data folder.
    Embedded,
    /// `memory:`
    Memory,
    /// `dev://HOST:PORT`, a server started by `rookery store`.
    Dev(String),
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::new(Class::Misuse, "an unknown store url").with(text);
        match text {
            "memory:" => Ok(Self::Memory),
            "embedded:" => Ok(Self::Embedded),
            _ => {
                let address = text.strip_prefix("dev://").ok_or_else(unknown)?;
                Remote::endpoint(address)?;
                Ok(Self::Dev(address.to_owned()))
            }
        }
    }
}

/// Opens the store that `url` names: see [`Url`]. Blocks while it reads the disk: call it before serving, or on a blocking
/// thread, within a tokio runtime.
///
/// # Errors
/// [`Class::Misuse`] for a URL that names none; else those of [`Embedded::open`].
pub fn open(url: &str, data_dir: &Path, durability: Durability, seams: Seams) -> Result<Store> {
    let db: Arc<dyn Database> = match url.parse()? {
        Url::Memory => Arc::new(Memory::new()),
        Url::Embedded => Arc::new(Embedded::open(&data_dir.join("store"), durability)?),
        Url::Dev(address) => Arc::new(Remote::new(&address)?),
    };
    Ok(Store::new(db, seams))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_name_engines() {
        let folder = tempfile::tempdir().unwrap();
        let open = |url| open(url, folder.path(), Durability::Sync, Seams::system());
        for (url, engine) in [("memory:", "memory"), ("embedded:", "embedded"), ("dev://[::1]:7300", "dev")] {
            assert_eq!(open(url).unwrap().database().engine(), engine);
        }
        for wrong in
            ["", "memory", "sql:/etc", "dev://", "dev://localhost", "dev://:7300", "dev://a:1/b", "dev:a:1"]
        {
            assert_eq!(open(wrong).err().unwrap().class, Class::Misuse, "{wrong}");
        }
    }
}
