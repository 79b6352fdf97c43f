//! From the configuration's `store.url` to a store.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::dev::Remote;
use super::embedded::{self, Embedded};
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
    /// `fdb:CLUSTERFILE`, a FoundationDB cluster.
    Fdb(PathBuf),
}

impl Url {
    /// Whether this build can open `fdb:`.
    pub const HAS_FDB: bool = cfg!(feature = "fdb");
}

impl FromStr for Url {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::new(Class::Misuse, "an unknown store url").with(text);
        match text {
            "memory:" => return Ok(Self::Memory),
            "embedded:" => return Ok(Self::Embedded),
            _ => {}
        }
        if let Some(file) = text.strip_prefix("fdb:").filter(|file| !file.is_empty()) {
            return Ok(Self::Fdb(file.into()));
        }
        let address = text.strip_prefix("dev://").ok_or_else(unknown)?;
        Remote::endpoint(address)?;
        Ok(Self::Dev(address.to_owned()))
    }
}

/// How the client of FoundationDB behaves. All but the timeout holds for the whole process, as the first store sets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FdbSettings {
    /// How long a transaction may take, from its first call to the end of its commit.
    pub timeout: Duration,
    /// Where the client library writes its own trace files, as JSON; `None`: nowhere.
    pub trace: Option<PathBuf>,
    /// `name=value`, each.
    pub knobs: Vec<String>,
    /// PEM: our certificate and its chain.
    pub tls_certificate: Option<PathBuf>,
    /// PEM: our private key.
    pub tls_key: Option<PathBuf>,
    /// PEM: the authorities that the servers' certificates come from.
    pub tls_ca: Option<PathBuf>,
    /// What must be in the servers' certificates, in FoundationDB's own words, as in `Check.Valid=1,S.O=Example`.
    pub tls_verify_peers: Option<String>,
}

impl Default for FdbSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            trace: None,
            knobs: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            tls_ca: None,
            tls_verify_peers: None,
        }
    }
}

/// Where a store is, and how it is to behave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// What is named by the configuration's `store.url`.
    pub url: Url,
    /// Under which the embedded engine keeps its rows, in `store`.
    pub data_dir: PathBuf,
    /// The embedded engine's.
    pub embedded: embedded::Settings,
    /// FoundationDB's.
    pub fdb: FdbSettings,
}

impl Place {
    /// Opens the store. Blocks while it reads the disk: call it before serving, or on a blocking thread, within a tokio
    /// runtime. A store elsewhere is not waited for.
    ///
    /// # Errors
    /// Those of [`Embedded::open`]; [`Class::Misuse`] if this build lacks the engine, [`Class::Unavailable`] if
    /// FoundationDB's client does not start.
    pub fn open(&self, seams: Seams) -> Result<Store> {
        let db: Arc<dyn Database> = match &self.url {
            Url::Memory => Arc::new(Memory::new()),
            Url::Embedded => Arc::new(Embedded::open(&self.data_dir.join("store"), self.embedded)?),
            Url::Dev(address) => Arc::new(Remote::new(address)?),
            #[cfg(feature = "fdb")]
            Url::Fdb(file) => Arc::new(super::fdb::Fdb::open(file, &self.fdb)?),
            #[cfg(not(feature = "fdb"))]
            Url::Fdb(_) => return Err(Error::new(Class::Misuse, "this build is without FoundationDB")),
        };
        Ok(Store::new(db, seams))
    }
}

/// Opens the store that `url` names, with the defaults of its engine: see [`Place::open`].
///
/// # Errors
/// [`Class::Misuse`] for a URL that names none; else those of [`Place::open`].
pub fn open(url: &str, data_dir: &Path, durability: Durability, seams: Seams) -> Result<Store> {
    let (url, data_dir, fdb) = (url.parse()?, data_dir.to_owned(), FdbSettings::default());
    Place { url, data_dir, embedded: durability.into(), fdb }.open(seams)
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
        assert!(
            matches!("fdb:/etc/fdb.cluster".parse(), Ok(Url::Fdb(file)) if file == Path::new("/etc/fdb.cluster"))
        );
        for wrong in [
            "",
            "memory",
            "sql:/etc",
            "dev://",
            "dev://localhost",
            "dev://:7300",
            "dev://a:1/b",
            "dev:a:1",
            "fdb:",
        ] {
            assert_eq!(open(wrong).err().unwrap().class, Class::Misuse, "{wrong}");
        }
    }
}
