//! What can go wrong in a transaction, and what the runner does about it.

/// How the runner treats an error; the one classification for all engines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// Passing trouble: nothing was committed; begin again.
    Retry,
    /// Another transaction wrote what this one read; nothing was committed; begin again.
    Conflict,
    /// The commit may or may not have happened, and may still be on its way.
    MaybeCommitted,
    /// This node or shard was taken over; stop writing.
    Fenced,
    /// A key, value or transaction over its limit; the caller must ask for less.
    TooLarge,
    /// The store cannot be reached, is closed, or cannot be written for now.
    Unavailable,
    /// There is no room for what adds to the store; what removes is still taken. Nothing was committed.
    Full,
    /// The data on disk or a stored record is not what it must be.
    Corrupt,
    /// The caller broke a rule of the interface (a key outside the legal range, a read of a versionstamp that is not
    /// known yet): an error in the program. Nothing was committed.
    Misuse,
}

impl Class {
    /// The name in logs and as the label `class` of `rookery_store_retries_total`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Conflict => "conflict",
            Self::MaybeCommitted => "maybe_committed",
            Self::Fenced => "fenced",
            Self::TooLarge => "too_large",
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Corrupt => "corrupt",
            Self::Misuse => "misuse",
        }
    }

    /// Whether the runner begins again after an error of this class.
    pub const fn repeats(self) -> bool {
        matches!(self, Self::Retry | Self::Conflict | Self::MaybeCommitted | Self::Unavailable)
    }
}

/// An error of the store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// How to treat it.
    pub class: Class,
    /// What happened, in static words.
    pub message: &'static str,
    /// Details for the log, if there are any.
    pub detail: Option<std::sync::Arc<str>>,
}

/// The words for a read version whose time is over.
const TOO_OLD: &str = "the transaction is too old";

impl Error {
    /// The read version cannot serve any more: begin again.
    pub const fn too_old() -> Self {
        Self::new(Class::Retry, TOO_OLD)
    }

    /// Whether it is [`Error::too_old`].
    pub fn is_too_old(&self) -> bool {
        self.class == Class::Retry && self.message == TOO_OLD
    }

    /// An error of that class.
    pub const fn new(class: Class, message: &'static str) -> Self {
        Self { class, message, detail: None }
    }

    /// Another process has the store open: it may be free in a moment.
    pub const LOCKED: Self = Self::new(Class::Unavailable, "another process has the store open");

    /// Whether it is [`Error::LOCKED`].
    pub fn is_locked(&self) -> bool {
        (self.class, self.message) == (Self::LOCKED.class, Self::LOCKED.message)
    }

    /// The same with details for the log: numbers and paths, never stored values.
    pub fn with(mut self, detail: impl std::fmt::Display) -> Self {
        self.detail = Some(detail.to_string().into());
        self
    }
}
