//! What a session remembers of what its client has asked for: written in one place, this goes into the session's record
//! and capsule as it is.

use std::sync::Arc;

use rookery_cluster::tables::archive::ArchiveId;
use rookery_cluster::tables::roster::RosterVersion;
use rookery_cluster::tables::sessions::{self, flags};
use rookery_proto::xmpp::jid::{FullJid, Jid};
use rookery_proto::xmpp::ns;
use rookery_proto::xmpp::stanza::Stanza;

use super::reader::Reader;

/// A presence that makes a session available.
#[derive(Clone, Debug)]
pub struct Available {
    /// The presence as it was sent, with `from`.
    pub stanza: Arc<Stanza>,
    /// `<priority/>` (RFC 6121 section 4.7.2.3); 0 if it is not there or no number from -128 to 127.
    pub priority: i8,
}

impl Available {
    /// Of an available presence.
    pub(crate) fn new(stanza: Arc<Stanza>) -> Self {
        let priority = stanza.child("priority", ns::CLIENT).and_then(|c| c.text().trim().parse().ok());
        Self { priority: priority.unwrap_or(0), stanza }
    }
}

/// What a session remembers of what its client has asked for.
#[derive(Clone, Default, Debug)]
pub struct ClientState {
    /// The client wants carbons (XEP-0280).
    pub carbons: bool,
    /// Nobody looks at the client (XEP-0352). Only the session itself knows; its user's copy says `false`.
    pub(crate) inactive: bool,
    /// The client asked for the roster and gets pushes (RFC 6121 section 2.1.6).
    pub interested: bool,
    /// What it was sent of the roster then.
    pub(crate) roster: RosterVersion,
    /// The client asked for the block list and gets pushes (XEP-0191).
    pub blocks_push: bool,
    /// Its last available presence; `None` before the first and after unavailable.
    pub presence: Option<Available>,
    /// The entities that the client sent directed presence to (RFC 6121 section 4.6).
    pub(crate) directed: Vec<Jid>,
    /// Which messages are for it.
    pub(crate) reader: Reader,
}

impl ClientState {
    /// Of a session that is bound now; `last` is the newest entry of its user's archive.
    pub(crate) fn bound(last: Option<ArchiveId>) -> Self {
        Self { reader: Reader::bound(last), ..Self::default() }
    }

    /// Available, with a priority that takes messages to the bare JID (RFC 6121 section 8.5.2).
    pub(crate) fn takes_messages(&self) -> bool {
        self.presence.as_ref().is_some_and(|presence| presence.priority >= 0)
    }

    /// The reader takes note of what the session takes from now on; `last` is the newest entry of its user's archive.
    pub(crate) fn follow(&mut self, last: Option<ArchiveId>) {
        self.reader.follow(self.takes_messages(), self.carbons, last);
    }

    /// What the record of the session `jid` says; `acked` is what its client has confirmed of the archive.
    pub(crate) fn read(record: &sessions::Record, jid: &FullJid, acked: Option<ArchiveId>) -> Self {
        let flag = |bit| record.flags & bit != 0;
        let presence = crate::routing::stored::stanza(&record.presence);
        Self {
            carbons: flag(flags::CARBONS),
            inactive: flag(flags::INACTIVE),
            interested: flag(flags::ROSTER),
            roster: sessions::roster(record),
            blocks_push: flag(flags::BLOCKLIST),
            presence: presence.map(|stanza| Available::new(Arc::new(stanza.from(Jid::from(jid.clone()))))),
            directed: record.directed.iter().filter_map(|jid| Jid::parse(jid).ok()).collect(),
            reader: Reader::read(record, acked),
        }
    }

    /// What of it its user has a copy of.
    pub(crate) fn known_to_user(self) -> Self {
        Self { inactive: false, ..self }
    }

    /// Writes all of it into the session's record.
    pub(crate) fn write(&self, record: &mut sessions::Record) {
        for (set, bit) in [
            (self.carbons, flags::CARBONS),
            (self.inactive, flags::INACTIVE),
            (self.interested, flags::ROSTER),
            (self.blocks_push, flags::BLOCKLIST),
        ] {
            record.flags = if set { record.flags | bit } else { record.flags & !bit };
        }
        let presence = self.presence.as_ref();
        record.presence = presence.map(|presence| presence.stanza.to_bytes().into()).unwrap_or_default();
        record.priority = presence.map_or(0, |presence| presence.priority.into());
        record.directed = self.directed.iter().map(|jid| jid.as_str().to_owned()).collect();
        record.roster = self.roster.to_vec().into();
        self.reader.write(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_proto::xmpp::jid::BareJid;
    use rookery_proto::xmpp::stanza::{PresenceType, Type};

    #[test]
    fn a_record_holds_all_of_it() {
        let jid = BareJid::parse("juliet@localhost").unwrap().with_resource("balcony").unwrap();
        let stanza = Stanza::new(Type::Presence(PresenceType::Available))
            .from(Jid::from(jid.clone()))
            .payload(&b"<priority>-3</priority>"[..]);
        let mut state = ClientState::bound(Some(ArchiveId::first_at(7)));
        state.presence = Some(Available::new(Arc::new(stanza)));
        state.directed = vec![Jid::parse("romeo@localhost/orchard").unwrap()];
        for n in 0..4u8 {
            let bit = |at: u8| n == at;
            (state.carbons, state.inactive, state.interested, state.blocks_push) =
                (bit(0), bit(1), bit(2), bit(3));
            state.roster = [n; size_of::<RosterVersion>()];
            state.follow(Some(ArchiveId::first_at(u64::from(n) + 8)));
            let mut record = sessions::Record { flags: flags::RESUMABLE, ..sessions::Record::default() };
            state.write(&mut record);
            assert_eq!(record.priority, -3);
            let bits = [flags::CARBONS, flags::INACTIVE, flags::ROSTER, flags::BLOCKLIST];
            assert_eq!(record.flags, bits[usize::from(n)] | flags::RESUMABLE);
            let read = ClientState::read(&record, &jid, None);
            assert_eq!(format!("{read:?}"), format!("{state:?}"));
        }
    }
}
