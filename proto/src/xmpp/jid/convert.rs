//! What the three address types have in common: they behave like their text.

use super::{BareJid, Error, FullJid, Jid};
use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

macro_rules! like_text {
    ($($type:ty),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }
        impl Eq for $type {}
        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }
        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                self.as_str().cmp(other.as_str())
            }
        }
        impl Hash for $type {
            // The hash of the text, as `Borrow<str>` promises.
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::parse(text)
            }
        }
    )*};
}

like_text!(Jid, BareJid, FullJid);

impl From<BareJid> for Jid {
    fn from(jid: BareJid) -> Self {
        jid.0
    }
}

impl From<&BareJid> for Jid {
    fn from(jid: &BareJid) -> Self {
        jid.0.clone()
    }
}

impl From<FullJid> for Jid {
    fn from(jid: FullJid) -> Self {
        jid.0
    }
}

impl From<&FullJid> for Jid {
    fn from(jid: &FullJid) -> Self {
        jid.0.clone()
    }
}

impl From<FullJid> for BareJid {
    fn from(jid: FullJid) -> Self {
        jid.to_bare()
    }
}

impl TryFrom<Jid> for BareJid {
    type Error = Error;
    /// # Errors
    /// [`Error::NotBare`] if there is a resource; use [`Jid::to_bare`] to drop it.
    fn try_from(jid: Jid) -> Result<Self, Error> {
        if jid.is_bare() { Ok(Self(jid)) } else { Err(Error::NotBare) }
    }
}

impl TryFrom<Jid> for FullJid {
    type Error = Error;
    /// # Errors
    /// [`Error::NotFull`] if there is no resource.
    fn try_from(jid: Jid) -> Result<Self, Error> {
        if jid.is_bare() { Err(Error::NotFull) } else { Ok(Self(jid)) }
    }
}

impl PartialEq<Jid> for BareJid {
    fn eq(&self, other: &Jid) -> bool {
        self.0 == *other
    }
}

impl PartialEq<Jid> for FullJid {
    fn eq(&self, other: &Jid) -> bool {
        self.0 == *other
    }
}
