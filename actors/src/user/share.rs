//! Who gets a message. To whom it is owed is decided once, when it is archived, and stands in its entry; what each session
//! is to have of it follows from that and from what the session took when it came. One function says so: for live
//! delivery, for what is read from the store (offline messages, replay, hand-over), and for what an ended session leaves.

use rookery_cluster::tables::archive::{self, ArchiveId};
use rookery_cluster::tables::offline::Cursor;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::jid::{FullJid, Jid};
use rookery_proto::xmpp::stanza::Stanza;

use super::steps::Step;
use super::worth::worth_keeping;
use super::{User, UserSession};

/// To whom a message is owed (RFC 6121 section 8.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
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

    pub(super) fn of(entry: &archive::Entry) -> Self {
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
    pub(super) fn is_live(self) -> bool {
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
pub(super) fn flags(owed: Owed, copies: bool) -> u32 {
    owed.code() | if copies { 0 } else { PRIVATE }
}

/// The same flags for a message that is owed to somebody else from now on.
pub(super) fn owed_to(owed: Owed, flags: u32) -> u32 {
    flags & !OWED | owed.code()
}

/// From which bit on an entry of the offline queue says how many waited when it came, itself included.
const PLACE: u32 = 8;

/// The flags of the entry of the offline queue that is the `n`th.
pub(super) fn nth(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX).min(u32::MAX >> PLACE) << PLACE
}

/// How many wait in an offline queue with this last entry: at most too many. One from before this was kept counts as one.
pub(super) fn queued(last: &archive::Entry) -> usize {
    usize::try_from(last.flags >> PLACE).unwrap_or(usize::MAX).max(1)
}

/// What of a message decides who gets it.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) id: ArchiveId,
    pub(super) owed: Owed,
    /// Its `to`.
    pub(super) to: Option<&'a Jid>,
    /// Other devices get copies.
    pub(super) copies: bool,
}

impl<'a> About<'a> {
    /// What an entry says of its message.
    pub(super) fn entry(id: ArchiveId, entry: &archive::Entry, stanza: &'a Stanza) -> Self {
        Self { id, owed: Owed::of(entry), to: stanza.to.as_ref(), copies: entry.flags & PRIVATE == 0 }
    }
}

/// What a session gets of a message to its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Share {
    /// The message.
    Message,
    /// A copy of it (XEP-0280 section 7).
    Copy,
}

/// Stretches of an archive: each behind an entry, and up to another if it is over.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Spans(Vec<(ArchiveId, Option<ArchiveId>)>);

/// How many stretches are told apart. Of more the oldest become one: by then their messages are confirmed.
const SPANS: usize = 8;

impl Spans {
    fn contains(&self, id: ArchiveId) -> bool {
        self.0
            .iter()
            .any(|(since, until)| id.comes_after(*since) && until.is_none_or(|until| !id.comes_after(until)))
    }

    /// From now on entries belong to it, or do not.
    fn follow(&mut self, on: bool, now: ArchiveId) {
        match self.0.last_mut() {
            Some((_, until @ None)) if !on => *until = Some(now),
            Some((_, None)) => {}
            _ if !on => {}
            _ => {
                self.0.reserve_exact(1); // most have one
                self.0.push((now, None));
            }
        }
        if self.0.len() > SPANS {
            let (since, _) = self.0.remove(0);
            if let Some(second) = self.0.first_mut() {
                second.0 = since;
            }
        }
    }

    fn write(&self) -> Vec<bytes::Bytes> {
        let bytes = |(since, until): &(ArchiveId, Option<ArchiveId>)| {
            let until = until.map(ArchiveId::to_bytes).unwrap_or_default();
            [since.to_bytes(), until].concat().into()
        };
        self.0.iter().map(bytes).collect()
    }

    fn read(rows: &[bytes::Bytes]) -> Self {
        let span = |row: &bytes::Bytes| {
            let (since, until) = row.split_at_checked(16)?;
            let until: [u8; 16] = until.try_into().ok()?;
            let until = (until != [0; 16]).then(|| ArchiveId::from_bytes(until));
            Some((ArchiveId::from_bytes(since.try_into().ok()?), until))
        };
        Self(rows.iter().filter_map(span).collect())
    }
}

/// What decides which messages a session gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reader {
    /// The newest entry when it was bound.
    bound: ArchiveId,
    /// Where it took messages to the bare JID.
    takes: Spans,
    /// Where it had carbons enabled.
    copies: Spans,
}

impl Default for Reader {
    fn default() -> Self {
        Self::bound(None)
    }
}

impl Reader {
    /// A session's that is bound now; `last` is the newest entry.
    pub(crate) fn bound(last: Option<ArchiveId>) -> Self {
        Self { bound: place(last), takes: Spans::default(), copies: Spans::default() }
    }

    /// The newest entry of the archive when the session was bound.
    pub(super) fn bound_at(&self) -> ArchiveId {
        self.bound
    }

    /// Takes note of what the session takes from now on.
    pub(crate) fn follow(&mut self, takes: bool, carbons: bool, last: Option<ArchiveId>) {
        self.takes.follow(takes, place(last));
        self.copies.follow(carbons, place(last));
    }

    /// What a session that is called `own` gets of a message. The one place that decides.
    pub(super) fn share(&self, own: &FullJid, message: About<'_>) -> Option<Share> {
        let About { id, owed, to, copies } = message;
        let full = to.filter(|to| to.resource().is_some());
        let named = || full.is_some_and(|to| to.as_str() == own.as_str()) && id.comes_after(self.bound);
        let mine = match owed {
            Owed::AnyDevice | Owed::LeftBehind | Owed::Nobody | Owed::Session => return None,
            Owed::Resource => named(),
            Owed::Takers => self.takes.contains(id),
            Owed::Unsaid if full.is_some() => named(),
            Owed::Unsaid => self.takes.contains(id),
        };
        if mine {
            return Some(Share::Message);
        }
        (copies && self.copies.contains(id)).then_some(Share::Copy)
    }

    /// Whether it gets a copy of what another session of its user has sent (XEP-0280 section 8).
    pub(super) fn copy_sent(&self, id: ArchiveId) -> bool {
        self.copies.contains(id)
    }

    /// For its record.
    pub(crate) fn write(&self, record: &mut sessions::Record) {
        record.bound = bytes::Bytes::copy_from_slice(&self.bound.to_bytes());
        (record.takes, record.copies) = (self.takes.write(), self.copies.write());
    }

    /// From its record; `acked` is what its client has confirmed, for a record that was written before this was kept.
    pub(crate) fn read(record: &sessions::Record, acked: Option<ArchiveId>) -> Self {
        let flag = |bit| record.flags & bit != 0;
        let Ok(bound) = record.bound[..].try_into() else {
            let mut reader = Self::bound(acked);
            let takes = !record.presence.is_empty() && record.priority >= 0;
            reader.follow(takes, flag(sessions::flags::CARBONS), acked);
            return reader;
        };
        let (takes, copies) = (Spans::read(&record.takes), Spans::read(&record.copies));
        Self { bound: ArchiveId::from_bytes(bound), takes, copies }
    }
}

fn place(last: Option<ArchiveId>) -> ArchiveId {
    last.unwrap_or(ArchiveId::first_at(0))
}

impl UserSession {
    /// What the session gets of an archived message.
    pub(super) fn share(&self, message: About<'_>) -> Option<Share> {
        self.reader.share(&self.jid, message)
    }

    /// Whether a message that is archived nowhere is for this session, and not only a copy of it. `full` is the session that
    /// it names, if that is here.
    pub(super) fn is_meant(&self, full: Option<&Jid>) -> bool {
        match full {
            Some(to) => self.jid.as_str() == to.as_str(),
            None => self.takes_messages(),
        }
    }
}

impl User {
    /// The full JID that a message is for, if that session is here. If not, it goes where the bare JID's would go: chats
    /// by RFC 6121 section 8.5.3.2.1, and whatever was on its way when the session ended.
    pub(super) fn recipient<'s>(&self, stanza: &'s Stanza) -> Option<&'s Jid> {
        let full = stanza.to.as_ref().filter(|to| to.resource().is_some())?;
        self.sessions.iter().any(|session| session.jid.as_str() == full.as_str()).then_some(full)
    }

    /// To whom a message is owed that comes now; `worth` says whether it may wait.
    pub(super) fn owed(&self, stanza: &Stanza, worth: impl Fn() -> bool) -> Owed {
        if self.recipient(stanza).is_some() {
            Owed::Resource
        } else if self.takes_messages() {
            Owed::Takers
        } else if worth() {
            Owed::AnyDevice
        } else {
            Owed::Nobody
        }
    }

    /// The sessions that a step's stanza is handed to now.
    pub(super) fn targets<'a>(&'a self, step: &'a Step) -> impl Iterator<Item = &'a UserSession> {
        let reached = match step {
            Step::In { stanza, id: None, .. } => {
                self.sessions.iter().any(|session| session.is_meant(self.recipient(stanza)))
            }
            _ => true,
        };
        self.sessions.iter().filter(move |session| match step {
            Step::In { stanza, id, owed, copies, .. } => match self.about(stanza, *id, *owed, *copies) {
                Some(message) => !session.draining && session.share(message).is_some(),
                None if session.is_meant(self.recipient(stanza)) => {
                    !self.is_late(session) || *owed == Owed::LeftBehind || !worth_keeping(stanza)
                }
                None => reached && *copies && session.carbons,
            },
            Step::Sent { id, copies, sid, .. } => {
                let copied = id.map_or(session.carbons, |id| session.reader.copy_sent(id));
                *copies && copied && session.sid != *sid && !(session.draining && id.is_some())
            }
            Step::Page(page) => page.sid == session.sid,
            Step::Kept { .. } | Step::Again { .. } | Step::Held { .. } => false,
        })
    }

    /// What decides who gets an archived message.
    fn about<'s>(
        &self,
        stanza: &'s Stanza,
        id: Option<ArchiveId>,
        owed: Owed,
        copies: bool,
    ) -> Option<About<'s>> {
        Some(About { id: id?, owed, to: stanza.to.as_ref(), copies })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(micros: u64) -> ArchiveId {
        ArchiveId::first_at(micros)
    }

    fn jid(jid: &str) -> Jid {
        Jid::parse(jid).unwrap()
    }

    #[test]
    fn a_session_gets_what_came_while_it_took_messages() {
        let own = rookery_proto::xmpp::jid::BareJid::parse("j@a").unwrap().with_resource("x").unwrap();
        let mut reader = Reader::bound(Some(id(10)));
        let (bare, here, gone) = (jid("j@a"), jid("j@a/x"), jid("j@a/gone"));
        let share = |reader: &Reader, owed, to, at| {
            reader.share(&own, About { id: id(at), owed, to: Some(to), copies: true })
        };
        reader.follow(true, false, Some(id(20)));
        reader.follow(false, false, Some(id(30)));
        reader.follow(true, true, Some(id(40)));
        for (at, gets) in [(20, false), (21, true), (30, true), (31, false), (40, false), (41, true)] {
            for to in [&bare, &gone] {
                assert_eq!(share(&reader, Owed::Takers, to, at) == Some(Share::Message), gets, "{at}");
            }
        }
        assert_eq!(share(&reader, Owed::Resource, &here, 35), Some(Share::Message));
        assert_eq!(share(&reader, Owed::Resource, &here, 10), None, "an older session of that name");
        assert_eq!(share(&reader, Owed::Resource, &gone, 35), None);
        assert_eq!(share(&reader, Owed::Resource, &gone, 45), Some(Share::Copy));
        assert_eq!(share(&reader, Owed::AnyDevice, &bare, 45), None);
        assert_eq!(share(&reader, Owed::Unsaid, &bare, 45), Some(Share::Message));
        let mut record = sessions::Record::default();
        reader.write(&mut record);
        assert_eq!(Reader::read(&record, None), reader);
    }

    /// A home noted places by ids that it could not store, and its clock was ahead of the next home's.
    #[test]
    fn what_the_next_home_archives_comes_after_what_the_last_one_had_noted() {
        let own = rookery_proto::xmpp::jid::BareJid::parse("j@a").unwrap().with_resource("x").unwrap();
        let at = |micros, epoch| ArchiveId { micros, epoch, counter: 0 };
        let mut reader = Reader::bound(Some(at(50, 1)));
        reader.follow(true, true, Some(at(60, 1)));
        let share = |reader: &Reader, owed, to: &Jid, id| {
            reader.share(&own, About { id, owed, to: Some(to), copies: true })
        };
        assert_eq!(share(&reader, Owed::Takers, &jid("j@a"), at(40, 1)), None);
        assert_eq!(share(&reader, Owed::Takers, &jid("j@a"), at(40, 2)), Some(Share::Message));
        assert_eq!(share(&reader, Owed::Resource, &jid("j@a/x"), at(40, 2)), Some(Share::Message));
        assert_eq!(share(&reader, Owed::Resource, &jid("j@a/y"), at(40, 2)), Some(Share::Copy));
        reader.follow(false, false, Some(at(70, 1)));
        assert_eq!(share(&reader, Owed::Takers, &jid("j@a"), at(40, 2)), None);
    }

    #[test]
    fn a_record_from_before_reads_as_one_that_took_messages_since_it_confirmed_any() {
        let flags = sessions::flags::CARBONS;
        let presence = bytes::Bytes::from_static(b"<presence/>");
        let record = sessions::Record { flags, presence, ..sessions::Record::default() };
        let reader = Reader::read(&record, Some(id(5)));
        assert!(
            !reader.takes.contains(id(5)) && reader.takes.contains(id(6)) && reader.copies.contains(id(6))
        );
    }

    #[test]
    fn few_stretches_are_told_apart() {
        let mut spans = Spans::default();
        for n in 0..20 {
            spans.follow(n % 2 == 0, id(n));
            spans.follow(n % 2 == 0, id(n));
        }
        assert_eq!(spans.0.len(), SPANS);
        assert_eq!(Spans::read(&spans.write()), spans);
        assert!(spans.contains(id(19)) && !spans.contains(id(18)) && spans.contains(id(1)));
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
