//! Which version of the roster a session's client has: the one after the pushes that it has confirmed (XEP-0198). Should its
//! home die, the next one pushes what came after that.

use rookery_cluster::tables::roster::RosterVersion;

use super::sm::Sm;
use super::{ClientState, Session};

/// What a client that manages its stream has.
#[derive(Clone, Copy, Default)]
pub(super) struct Has {
    confirmed: RosterVersion,
    /// What it was sent, and up to which number.
    sent: Option<(u32, RosterVersion)>,
}

impl Has {
    /// All of it was confirmed.
    pub(super) fn all(confirmed: RosterVersion) -> Self {
        Self { confirmed, sent: None }
    }
}

impl Session {
    /// What its client has asked for, as its user knows it.
    pub(super) fn remember(&mut self, state: Box<ClientState>) {
        if let Some(sm) = &mut self.sm {
            sm.sent_roster(state.roster);
        }
        let inactive = self.client.inactive; // of which the user knows nothing
        self.client = state;
        self.client.inactive = inactive;
        self.write_record();
    }
}

impl Sm {
    pub(super) fn roster(&self) -> RosterVersion {
        self.has.confirmed
    }

    /// Everything up to that version was sent.
    fn sent_roster(&mut self, version: RosterVersion) {
        if version == self.has.sent.map_or(self.has.confirmed, |(_, version)| version) {
            return;
        }
        self.has.sent = Some((self.sent(), version));
        self.confirm_roster();
    }

    /// Whether the client has a newer version than it had.
    pub(super) fn confirm_roster(&mut self) -> bool {
        let confirmed = self.has.sent.filter(|(number, _)| self.has_confirmed(*number));
        if let Some((_, version)) = confirmed {
            self.has = Has::all(version);
        }
        confirmed.is_some()
    }

    /// Stanzas are counted anew: what was sent is confirmed when all of it is.
    pub(super) fn recount_roster(&mut self) {
        let sent = self.sent();
        self.has.sent = self.has.sent.map(|(_, version)| (sent, version));
    }
}
