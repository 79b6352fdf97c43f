//! What an engine must keep on its own: versions of the data. All else (transactions, conflicts, order) is shared.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::store::{Class, Error, Result, Version};

/// The outcome of one group of commits: key by key the new value, or that it is gone.
pub(crate) type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// Takes the rows of a scan; breaks when it has enough.
pub(crate) type Visit<'a> = dyn FnMut(Bytes, Bytes) -> ControlFlow<()> + 'a;

/// Keeps the data. Only one thread at a time calls [`Backend::apply`]; reads come from any.
pub(crate) trait Backend: Send + Sync + 'static {
    /// The data as of one version. Stays readable while it exists, or until [`Backend::forget`].
    type View: Send + Sync + 'static;

    /// The engine's name.
    const NAME: &'static str;

    /// The value of `key`.
    fn get(&self, view: &Self::View, key: &[u8]) -> Result<Option<Bytes>>;

    /// Visits the rows from `begin` (included) to `end` (excluded) in order, or in reverse.
    fn scan(
        &self,
        view: &Self::View,
        begin: &[u8],
        end: &[u8],
        reverse: bool,
        visit: &mut Visit<'_>,
    ) -> Result<()>;

    /// Makes the changes of a version durable as configured, then visible; all of them or none. After an error the
    /// outcome is unknown, and the engine takes no more commits before [`Backend::mend`] has succeeded.
    fn apply(&self, version: Version, changes: Changes) -> Result<Self::View>;

    /// Fails with [`Class::Full`] while there is no room for what adds.
    fn room(&self) -> Result<()> {
        Ok(())
    }

    /// What is to be done about once a second, by the thread that applies. An error says that nothing can be written any more.
    fn tend(&self) -> Result<()> {
        Ok(())
    }

    /// After an error, makes good what has broken: then all that is stored can be read again, and [`Backend::apply`] works. Gives
    /// the data, and a version beyond all that were applied. Views from before need not be readable any more. An error of
    /// [`Class::Corrupt`] says that there is no point in another attempt.
    fn mend(&self) -> Result<(Version, Self::View)> {
        Err(Error::new(Class::Corrupt, "this engine cannot be mended"))
    }

    /// Nobody reads versions before `oldest` any more.
    fn forget(&self, oldest: Version);

    /// Puts everything on disk and lets go of files and locks.
    fn close(&self) -> Result<()>;
}
