//! The recipients of a message: decided once, when it is archived, and kept in the flags of its entry.

use rookery_cluster::tables::archive::{self, ArchiveId};
use rookery_cluster::tables::offline::Cursor;
use rookery_proto::xmpp::jid::Jid;
use rookery_proto::xmpp::stanza::Stanza;

/// Which sessions a message is owed to (RFC 6121 section 8.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owed {
    /// Written before this was kept: its `to` must do.
    Unsaid,
    /// The sessions that take messages to the bare JID when it comes.
    Takers,
    /// The session that its full JID names.
    Resource,
    /// Any device, the first that comes: nobody took it.
    AnyDevice,
    /// No device: nobody was there, and it is not worth waiting for.
    Nobody,
    /// In the offline queue: the session whose mark it has, and no other.
    Session,
    /// Any device, although a session was to get it: that has ended without.
    LeftBehind,
}

/// The bits of an entry's flags that hold it.
const OWED: u32 = 0b111;
/// The bit that says that other devices get no copy (XEP-0280 section 6.1).
const PRIVATE: u32 = 1 << 3;

impl Owed {
    fn code(self) -> u32 {
        match self {
            Self::Unsaid => 0,
            Self::Takers => 1,
            Self::Resource => 2,
            Self::AnyDevice => 3,
            Self::Nobody => 4,
            Self::Session => 5,
            Self::LeftBehind => 6,
        }
    }

    /// What an entry says.
    pub(crate) fn of(entry: &archive::Entry) -> Self {
        match entry.flags & OWED {
            1 => Self::Takers,
            2 => Self::Resource,
            3 => Self::AnyDevice,
            4 => Self::Nobody,
            5 => Self::Session,
            6 => Self::LeftBehind,
            _ => Self::Unsaid,
        }
    }

    /// Whether it is handed to a session when it comes.
    pub(crate) fn is_live(self) -> bool {
        matches!(self, Self::Takers | Self::Resource)
    }
}

/// Whether an entry of an archive with this offline cursor waits for a device, and for no session in particular.
pub(crate) fn waits_for_any(cursor: Cursor, id: ArchiveId, entry: &archive::Entry) -> bool {
    match Owed::of(entry) {
        Owed::AnyDevice | Owed::Unsaid => !cursor.is_given(id),
        Owed::LeftBehind => cursor.after < id,
        Owed::Takers | Owed::Resource | Owed::Nobody | Owed::Session => false,
    }
}

/// An entry's flags.
pub(crate) fn flags(owed: Owed, copies: bool) -> u32 {
    owed.code() | if copies { 0 } else { PRIVATE }
}

/// The same flags for a message that is owed to somebody else from now on.
pub(crate) fn owed_to(owed: Owed, flags: u32) -> u32 {
    flags & !OWED | owed.code()
}

/// From which bit on an entry of the offline queue says how many waited when it came, itself included.
const PLACE: u32 = 8;

/// The flags of the entry of the offline queue that is the `n`th.
pub(crate) fn nth(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX).min(u32::MAX >> PLACE) << PLACE
}

/// How many wait in an offline queue with this last entry: at most too many. One from before this was kept counts as one.
pub(crate) fn queued(last: &archive::Entry) -> usize {
    usize::try_from(last.flags >> PLACE).unwrap_or(usize::MAX).max(1)
}

/// What of a message decides which sessions get it.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) id: ArchiveId,
    pub(crate) owed: Owed,
    /// Its `to`.
    pub(crate) to: Option<&'a Jid>,
    /// Other devices get copies.
    pub(crate) copies: bool,
}

impl<'a> About<'a> {
    /// What an entry says of its message.
    pub(crate) fn entry(id: ArchiveId, entry: &archive::Entry, stanza: &'a Stanza) -> Self {
        Self { id, owed: Owed::of(entry), to: stanza.to.as_ref(), copies: entry.flags & PRIVATE == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(micros: u64) -> ArchiveId {
        ArchiveId::first_at(micros)
    }

    #[test]
    fn flags_hold_what_was_decided() {
        for code in 0..7 {
            let owed = Owed::of(&archive::Entry { flags: code, ..archive::Entry::default() });
            assert_eq!(owed.code(), code);
            for copies in [false, true] {
                let entry = archive::Entry { flags: flags(owed, copies), ..archive::Entry::default() };
                let stanza = Stanza::new(rookery_proto::xmpp::stanza::MessageType::Chat);
                let about = About::entry(id(1), &entry, &stanza);
                assert_eq!((about.owed, about.copies), (owed, copies));
                let last = archive::Entry { flags: entry.flags | nth(1_000), ..archive::Entry::default() };
                assert_eq!((Owed::of(&last), queued(&last), queued(&entry)), (owed, 1_000, 1));
                let any = archive::Entry { flags: owed_to(Owed::LeftBehind, entry.flags), ..entry };
                assert_eq!(About::entry(id(1), &any, &stanza).owed, Owed::LeftBehind);
                assert_eq!(About::entry(id(1), &any, &stanza).copies, copies);
            }
        }
    }
}
