//! What becomes of an engine whose backend has failed: it refuses commits and goes on reading, and mends when that is possible.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::backend::Backend;
use super::window::Window;
use super::{Engine, Published, Snapshot};
use crate::store::{Class, Error, Result, Standing, Version};

/// The error of commits while a write that failed is not made good. The fault may pass, so another attempt is worth it.
const BROKEN: Error =
    Error::new(Class::Unavailable, "a write to disk failed, and the disk does not take writes yet");

impl<B: Backend> Engine<B> {
    /// Whether commits are taken now.
    pub(super) fn check_standing(&self) -> Result<()> {
        match &*self.standing.borrow() {
            Standing::Well | Standing::Full => Ok(()),
            Standing::Broken => Err(BROKEN),
            // For good: a caller that tried again would do so until the process ends.
            Standing::Lost(why) => Err(Error::new(Class::Corrupt, "the store is lost").with(why)),
        }
    }

    fn set_standing(&self, standing: Standing) {
        self.standing.send_if_modified(|now| {
            let changed = *now != standing;
            *now = standing;
            changed
        });
    }

    /// The backend has failed with this.
    pub(super) fn fail(&self, error: &Error) {
        let detail = error.detail.as_deref().unwrap_or_default();
        if error.class == Class::Corrupt {
            tracing::error!(engine = B::NAME, %error, detail, "the store failed and cannot be used any more");
            self.set_standing(Standing::Lost(format!("{error} {detail}").trim_end().into()));
        } else {
            tracing::error!(
                engine = B::NAME,
                %error,
                detail,
                "a write to the store failed; nothing is stored until the disk accepts writes again: check for a full disk and for \
                 too few file descriptors"
            );
            self.set_standing(Standing::Broken);
        }
    }

    /// What the thread that commits does about once a second.
    pub(super) fn tend(&self) {
        let standing = self.standing.borrow().clone();
        match standing {
            Standing::Lost(_) => {}
            Standing::Broken => self.mend(),
            Standing::Well | Standing::Full => match self.backend.tend() {
                Err(error) => self.fail(&error),
                Ok(()) => self.stand(),
            },
        }
    }

    /// The store is well, or full.
    fn stand(&self) {
        self.set_standing(if self.backend.room().is_err() { Standing::Full } else { Standing::Well });
    }

    fn mend(&self) {
        let (version, view) = match self.backend.mend() {
            Ok(mended) => mended,
            Err(error) if error.class == Class::Corrupt => return self.fail(&error),
            Err(error) => {
                tracing::debug!(%error, detail = error.detail.as_deref(), "the store cannot be written yet");
                return;
            }
        };
        let mut committer = self.committer.lock();
        // Some of the group that failed may be stored, so nobody who read before this can be judged: they begin again.
        let version = version.max(Version(committer.last.0 + 1));
        committer.last = version;
        committer.window = Window::starting_at(version);
        let published = Published { current: Arc::new(Snapshot { version, view }), past: VecDeque::new() };
        let before = self.published.write().replace(published);
        self.oldest.store(version.0, Ordering::Release);
        drop(before);
        drop(committer);
        self.watches.lock().wake();
        tracing::warn!(engine = B::NAME, "the store accepts writes again");
        self.stand();
    }
}
