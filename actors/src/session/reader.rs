//! What each session is to have of a message follows from the sessions that the message is owed to, and from what the session took when the
//! message came. [`Reader::share`] says so: for live delivery, for what is read from the store (offline messages, replay,
//! hand-over), and for what an ended session leaves.

use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::sessions;
use rookery_proto::xmpp::jid::FullJid;

use super::owed::{About, Owed};

/// What a session gets of a message to its user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Share {
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
    pub(crate) fn bound_at(&self) -> ArchiveId {
        self.bound
    }

    /// Takes note of what the session takes from now on.
    pub(crate) fn follow(&mut self, takes: bool, carbons: bool, last: Option<ArchiveId>) {
        self.takes.follow(takes, place(last));
        self.copies.follow(carbons, place(last));
    }

    /// What a session that is called `own` gets of a message. The one place that decides.
    pub(crate) fn share(&self, own: &FullJid, message: About<'_>) -> Option<Share> {
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
    pub(crate) fn copy_sent(&self, id: ArchiveId) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_proto::xmpp::jid::Jid;

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
}
